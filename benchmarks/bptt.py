"""The search against backpropagation through time: the paper's Fig. 4 and Fig. 5.

python -m benchmarks.bptt --part accuracy     # Fig. 4 on the embedded network, about 4 minutes on two cores
python -m benchmarks.bptt --part memory       # Fig. 5, about 3 minutes on two cores
"""

from rich.console import Console

from benchmarks import command
from benchmarks.bptt_accuracy import accuracy_rows
from benchmarks.bptt_config import Config, check
from benchmarks.bptt_memory import memory_rows
from benchmarks.bptt_report import accuracy_figure, accuracy_tables, memory_figure, memory_table
from jaxsnn.runtime.files import read_json, write_json


def main(config: Config) -> None:
    """Run the parts asked for, print their tables and write bptt.json and the figures."""
    check(config)
    console = Console()
    parts = ("accuracy", "memory") if config.part == "both" else (config.part,)
    config.out.mkdir(parents=True, exist_ok=True)
    path = config.out / "bptt.json"
    report = read_json(path) if path.exists() else {}
    if "accuracy" in parts:
        report["accuracy"] = accuracy_rows(config)
        write_json(path, report)
        console.print(*accuracy_tables(report["accuracy"]), sep="\n")
        accuracy_figure(report["accuracy"], config.out / "accuracy.png")
    if "memory" in parts:
        report["memory"] = memory_rows(config, console)
        console.print(memory_table(report["memory"]))
        memory_figure(report["memory"], config.out / "memory.png")
        write_json(path, report)
    console.print(f"-> {config.out}", highlight=False)


if __name__ == "__main__":
    command.run(Config, main, "bptt", Config.__doc__)
