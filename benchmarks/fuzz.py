"""Coverage-guided fuzzing of everything that reads a file which somebody hands over: python -m benchmarks.fuzz

Needs Atheris (pip install atheris; Linux). Each reader gets, in a process of its own, files that libFuzzer makes
out of real ones, steered by which lines of this program they reach. A reader may refuse a file with the errors
that the commands show in one sentence; any other exception, more than --memory megabytes or more than ten seconds
is a finding, for which libFuzzer prints the file and this command ends with 1. tests/test_hostile.py does the same
with hypothesis, further in: there the files are mostly right, here they are mostly not.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

Reader = Callable[[bytes], object]


FINDING = re.compile(r"(Uncaught Python exception|ERROR: libFuzzer|out-of-memory|timeout)")


@dataclass(frozen=True)
class FuzzConfig:
    """Fuzz the readers of files."""

    runs: int = 100_000
    """Files for each reader."""
    seconds: int = 120
    """At most so long for each."""
    memory: int = 2048
    """Megabytes that a reader's process may hold, the program itself included."""
    target: str | None = None
    """One reader alone, in this process; default: all, each in its own."""


def readers(folder: Path) -> dict[str, tuple[Reader, list[bytes]]]:
    """Readers by name, each with some files that it takes; ``folder`` is for readers that want a path."""
    import pickle

    import numpy as np
    from safetensors.numpy import save

    from data import safe_pickle
    from data.errors import DataError
    from jaxsnn.conversion.loading import load_network
    from jaxsnn.conversion.state_dicts import read_foreign
    from jaxsnn.errors import UserError
    from jaxsnn.networks import description as network
    from jaxsnn.networks.architectures import architecture
    from jaxsnn.records import run_folder as runfolder
    from jaxsnn.search import checkpoint
    from jaxsnn.search.evolve import Candidate, Generation
    from jaxsnn.search.settings import from_record

    refusals = (UserError, DataError, OSError, safe_pickle.RefusedPickle)

    def of_path(read: Callable[[Path], object], name: str) -> Reader:
        def reader(content: bytes) -> None:
            (folder / name).write_bytes(content)
            refused(read, folder / name)

        return reader

    def refused(read: Callable, *arguments) -> object:
        try:
            return read(*arguments)
        except refusals as error:
            # a size that was only declared must not be asked of the system, even where that ends well
            assert str(error) and "MemoryError" not in str(error)

    def of_text(read: Callable[[str], object]) -> Reader:
        return lambda content: refused(read, content.decode("utf-8", "replace"))

    def checkpoint_of(content: bytes) -> None:
        try:
            checkpoint.from_bytes(content)
        except ValueError as error:
            assert str(error)

    def configuration(path: Path) -> object:
        return from_record(runfolder.read_json(path), path)

    leader = Candidate(np.ones(2), 1.0, {"a": 1.0}, np.ones(3))
    row = {"generation": 0, "parts": {"a": 1.0}, "best_cost": 1.0, "accuracy": 0.5, "image_evaluations": 5}
    row |= {"mean_cost": 1.0, "std_cost": 1.0, "latency": None}
    generation = Generation(0, (leader,), 1.0, 1.0, 4, 0, 5, 0.1, False, False)
    state = checkpoint.Checkpoint({}, generation, {".members": np.ones((4, 2))}, {}, [row], 1.0)
    described = network.to_json(architecture("vgg4", width=0.02)).encode()
    arrays = save({"features.0.weight": np.zeros((4, 3, 3, 3), np.float32), "features.0.bias": np.zeros(4)})
    return {
        "checkpoint": (checkpoint_of, [checkpoint.to_bytes(state)]),
        "network description": (of_text(network.from_json), [described]),
        "weights": (of_path(load_network, "file.safetensors"), [arrays]),
        "PyTorch's safetensors": (of_path(read_foreign, "plain.safetensors"), [arrays]),
        "thresholds": (
            of_path(runfolder.read_thresholds, "thresholds.json"),
            [b'{"thresholds": [1.0, 2e3], "v0": [0.5, 0], "delay": "layer", "weights": null}'],
        ),
        "configuration": (
            of_path(configuration, "config.json"),
            [b'{"preset": "cifar10", "population": 5, "search": ["v0"], "mutation": [0.5, 1.0], "race": 0.9}'],
        ),
        "history": (of_path(runfolder.read_history, "history.jsonl"), [b'{"generation": 0}\n{"generation": 1}\n']),
        "CIFAR's pickle": (
            lambda content: refused(safe_pickle.loads, content),
            [pickle.dumps({b"data": [1, 2], b"labels": (3, "x", None, 1.5, True)}, protocol=p) for p in (0, 2, 4)],
        ),
    }


def fuzz_here(config: FuzzConfig, folder: Path) -> None:
    """Fuzz one reader; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["jaxsnn", "data"]):
        found = readers(folder)
    if config.target not in found:
        raise SystemExit(f"no reader {config.target!r}: the readers are {', '.join(found)}")
    reader, examples = found[config.target]
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, example in enumerate(examples):
        (corpus / str(number)).write_bytes(example)
    options = [f"-runs={config.runs}", f"-max_total_time={config.seconds}", f"-rss_limit_mb={config.memory}"]
    options += ["-timeout=10", "-max_len=65536", f"-artifact_prefix={folder}/", str(corpus)]
    atheris.Setup([sys.argv[0], *options], reader)
    atheris.Fuzz()


def main(config: FuzzConfig) -> None:
    """Fuzz every reader, print what came out; exit code 1 where one has a finding."""
    with tempfile.TemporaryDirectory() as scratch:
        if config.target is not None:
            fuzz_here(config, Path(scratch))
            return
        names = list(readers(Path(scratch)))
    console, table = Console(), Table("reader", "files", "lines and branches reached", "findings")
    failed = False
    for name in names:
        command = [sys.executable, "-m", "benchmarks.fuzz", "--target", name]
        command += ["--runs", str(config.runs), "--seconds", str(config.seconds), "--memory", str(config.memory)]
        with console.status(name):
            child = subprocess.run(command, capture_output=True, text=True, env=os.environ)
        said = child.stdout + child.stderr
        done = re.findall(r"Done (\d+) runs", said)
        reached = re.findall(r"cov: (\d+)", said)
        bad = not done or child.returncode != 0 or bool(FINDING.search(said))
        failed |= bad
        table.add_row(name, done[-1] if done else "?", reached[-1] if reached else "?", "YES" if bad else "none")
        if bad:
            console.print(said[-4000:], highlight=False, markup=False)
    console.print(table)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main(tyro.cli(FuzzConfig, prog="python -m benchmarks.fuzz", description=__doc__))
