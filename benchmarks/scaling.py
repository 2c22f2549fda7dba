"""One search on one device, on several, and in several processes: same result, and how fast.

    python -m benchmarks.scaling

Every way runs `python -m jaxsnn.optimize` with the same seed in processes of its own, with XLA in int8 on the
embedded network; a CPU pretends to be eight devices (XLA_FLAGS), and the processes talk over localhost by gloo
collectives. The last row goes on, on one device, with a run that eight devices had begun and SIGTERM ended. On the
cores of one machine several devices are not faster: the figures say what dividing the work costs there. The rate
is that of the generations behind the first, so that compiling is left out.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.kills import outcome

SEARCH = {
    "backend": "xla",
    "precision": "int8",
    "population": "8",
    "generations": "6",
    "images": "96",
    "timesteps": "30",
    "test-timesteps": "30",
    "test-images": "64",
    "calibration-images": "100",
    "finalists": "2",
    "final-images": "96",
    "limit": "0",
    "tol": "0",
}


OPTIONS = [part for name, value in SEARCH.items() for part in (f"--{name}", value)]


TIMESTEPS = 20
"""Those of ``SEARCH`` that are simulated: without the ten silent ones."""


DEVICES = {"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type= --xla_force_host_platform_device_count=8"}


ALONE = {"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type="}


@dataclass(frozen=True)
class Config:
    """Compare one search on one device, on eight pretended ones, and in two processes."""

    processes: int = 2


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def start(arguments: list[str], environment: dict[str, str], processes: int = 1) -> list[subprocess.Popen]:
    """The processes of one run of jaxsnn.optimize."""
    command = [sys.executable, "-m", "jaxsnn.optimize", *arguments]
    joined = ["--coordinator", f"localhost:{free_port()}", "--processes", str(processes), "--process-id"]
    return [
        subprocess.Popen(
            command if processes == 1 else [*command, *joined, str(number)],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(processes)
    ]


def finish(children: list[subprocess.Popen]) -> str:
    """Wait for the processes; what the first one printed."""
    printed = [child.communicate()[0] for child in children]
    for child, text in zip(children, printed):
        if child.returncode:
            raise SystemExit(f"{' '.join(child.args)} ended with exit code {child.returncode}:\n{text}")
    return printed[0]


def rate(folder: Path) -> float:
    """Executed image x timestep x candidate a second, of the generations behind the first."""
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    seconds = sum(row["seconds"] for row in rows[1:])
    return (rows[-1]["image_evaluations"] - rows[0]["image_evaluations"]) * TIMESTEPS / seconds


def interrupted(folder: Path) -> None:
    """A run on eight devices that SIGTERM ended behind a generation."""
    (child,) = start([*OPTIONS, "--mesh", "pop=4,data=2", "--out", str(folder)], DEVICES)
    while not any((folder / "checkpoints").glob("000002.checkpoint")) and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    if not re.search("stopped by SIGTERM", finish([child])):
        raise SystemExit("the run on eight devices ended before it could be stopped")


def main(config: Config) -> None:
    """Run all ways, print the table; exit code 1 where results differ."""
    table = Table("way", "same result", "itc/s", "against one device")
    console = Console()
    with tempfile.TemporaryDirectory() as scratch, console.status("") as status:
        work = Path(scratch)
        ways = (
            ("one device", OPTIONS, ALONE, 1),
            ("eight devices, pop=4,data=2", [*OPTIONS, "--mesh", "pop=4,data=2"], DEVICES, 1),
            (f"{config.processes} processes, gloo", OPTIONS, ALONE, config.processes),
            ("begun on eight devices, ended on one", None, ALONE, 1),
        )
        expected, first = None, 0.0
        for number, (name, arguments, environment, processes) in enumerate(ways):
            status.update(name)
            folder = work / str(number)
            if arguments is None:
                interrupted(folder)
                finish(start(["--resume", str(folder), "--mesh", "pop=1,data=1"], environment))
            else:
                finish(start([*arguments, "--out", str(folder)], environment, processes))
            found = outcome(folder)
            expected = expected or found
            first = first or rate(folder)
            same = "yes" if found == expected else "NO"
            rates = ("", "") if arguments is None else (f"{rate(folder):,.0f}", f"{rate(folder) / first:.2f}")
            table.add_row(name, same, *rates)
            if found != expected:
                console.print(table)
                sys.exit(1)
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m benchmarks.scaling", description=__doc__))
