"""Coverage-guided fuzzing of everything that reads a file which somebody hands over: python -m benchmarks.fuzz

Needs Atheris (pip install atheris; Linux). Each reader gets, in a process of its own, files that libFuzzer makes
out of real ones, steered by which lines of this program they reach. A reader may refuse a file with the errors
that the commands show in one sentence; any other exception, more than --memory megabytes or more than ten seconds
is a finding, for which libFuzzer prints the file and this command ends with 1. tests/records/test_hostile.py does
the same with hypothesis, further in: there the files are mostly right, here they are mostly not.

Nothing of this program may be imported before Atheris can instrument it, so that imports stand in functions.
"""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console
from rich.table import Table

Reader = Callable[[bytes], object]


FINDING = re.compile(r"(Uncaught Python exception|ERROR: libFuzzer|out-of-memory|timeout)")


@dataclass(frozen=True)
class FuzzConfig:
    """Fuzz the readers of files."""

    command_line: ClassVar[bool] = True

    runs: int = 100_000
    """Files for each reader."""
    seconds: int = 120
    """At most so long for each."""
    memory: int = 2048
    """Megabytes that a reader's process may hold, the program itself included."""
    target: str | None = None
    """One reader alone, in this process; default: all, each in its own."""
    debug: bool = False
    """Show where an error came from."""


def instrumented() -> AbstractContextManager:
    """What is imported in this context tells Atheris, if there is one, which of its lines are reached."""
    if importlib.util.find_spec("atheris") is None:
        return nullcontext()
    atheris: Any = importlib.import_module("atheris")
    return atheris.instrument_imports(include=["jaxsnn", "data"])


def refused(read: Callable, *arguments) -> object:
    """What ``read`` makes of its arguments; None where it refuses them as the commands do."""
    from data import safe_pickle
    from data.errors import DataError
    from jaxsnn.errors import UserError

    try:
        return read(*arguments)
    except (UserError, DataError, OSError, safe_pickle.RefusedPickle) as error:
        # a size that was only declared must not be asked of the system, even where that ends well
        assert str(error) and "MemoryError" not in str(error)
        return None


def of_path(read: Callable[[Path], object], path: Path) -> Reader:
    """A reader that wants a path: its files are written to this one."""

    def reader(content: bytes) -> None:
        path.write_bytes(content)
        refused(read, path)

    return reader


def of_text(read: Callable[[str], object]) -> Reader:
    """A reader that wants text."""
    return lambda content: refused(read, content.decode("utf-8", "replace"))


def checkpoint_bytes() -> bytes:
    """A small checkpoint."""
    import numpy as np

    from jaxsnn.search import checkpoint
    from jaxsnn.search.evolve import Candidate, Generation

    leader = Candidate(np.ones(2), 1.0, {"a": 1.0}, np.ones(3))
    row = {"generation": 0, "parts": {"a": 1.0}, "best_cost": 1.0, "accuracy": 0.5, "image_evaluations": 5}
    row |= {"mean_cost": 1.0, "std_cost": 1.0, "latency": None}
    generation = Generation(0, (leader,), 1.0, 1.0, 4, 0, 5, 0.1, False, False)
    state = checkpoint.Checkpoint({}, generation, {".members": np.ones((4, 2))}, {}, [row], 1.0)
    return checkpoint.to_bytes(state)


def read_checkpoint(content: bytes) -> None:
    """Read a checkpoint, which is refused with ``ValueError``."""
    from jaxsnn.search import checkpoint

    try:
        checkpoint.from_bytes(content)
    except ValueError as error:
        assert str(error)


def readers(folder: Path) -> dict[str, tuple[Reader, list[bytes]]]:
    """Readers by name, each with some files that it takes; ``folder`` is for readers that want a path."""
    import pickle

    import numpy as np
    from safetensors.numpy import save

    from data import safe_pickle
    from jaxsnn.conversion.loading import load_network
    from jaxsnn.conversion.state_dicts import read_foreign
    from jaxsnn.networks import json_format
    from jaxsnn.networks.architectures import architecture
    from jaxsnn.records.run_config import from_record
    from jaxsnn.records.run_folder import read_history
    from jaxsnn.records.thresholds_file import read_thresholds
    from jaxsnn.runtime.files import read_json

    described = json_format.to_json(architecture("vgg4", width=0.02)).encode()
    arrays = save({"features.0.weight": np.zeros((4, 3, 3, 3), np.float32), "features.0.bias": np.zeros(4)})
    return {
        "checkpoint": (read_checkpoint, [checkpoint_bytes()]),
        "network description": (of_text(json_format.from_json), [described]),
        "weights": (of_path(load_network, folder / "file.safetensors"), [arrays]),
        "PyTorch's safetensors": (of_path(read_foreign, folder / "plain.safetensors"), [arrays]),
        "thresholds": (
            of_path(read_thresholds, folder / "thresholds.json"),
            [b'{"thresholds": [1.0, 2e3], "v0": [0.5, 0], "delay": "layer", "weights": null}'],
        ),
        "configuration": (
            of_path(lambda path: from_record(read_json(path), path), folder / "config.json"),
            [b'{"preset": "cifar10", "population": 5, "search": ["v0"], "mutation": [0.5, 1.0], "race": 0.9}'],
        ),
        "history": (
            of_path(read_history, folder / "history.jsonl"),
            [b'{"generation": 0}\n{"generation": 1}\n'],
        ),
        "CIFAR's pickle": (
            lambda content: refused(safe_pickle.loads, content),
            [pickle.dumps({b"data": [1, 2], b"labels": (3, "x", None, 1.5, True)}, protocol=p) for p in (0, 2, 4)],
        ),
    }


def fuzz_here(config: FuzzConfig, reader: Reader, examples: list[bytes], folder: Path) -> None:
    """Fuzz one reader; libFuzzer ends the process."""
    atheris: Any = importlib.import_module("atheris")
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, example in enumerate(examples):
        (corpus / str(number)).write_bytes(example)
    options = [f"-runs={config.runs}", f"-max_total_time={config.seconds}", f"-rss_limit_mb={config.memory}"]
    options += ["-timeout=10", "-max_len=65536", f"-artifact_prefix={folder}/", str(corpus)]
    atheris.Setup([sys.argv[0], *options], reader)
    atheris.Fuzz()


def fuzz_apart(config: FuzzConfig, name: str) -> tuple[list[str], str, bool]:
    """Fuzz one reader in a process of its own: its row of the table, what it said, whether it has a finding."""
    called = [sys.executable, "-m", "benchmarks.fuzz", "--target", name]
    called += ["--runs", str(config.runs), "--seconds", str(config.seconds), "--memory", str(config.memory)]
    child = subprocess.run(called, capture_output=True, text=True, env=os.environ)
    said = child.stdout + child.stderr
    done = re.findall(r"Done (\d+) runs", said)
    reached = re.findall(r"cov: (\d+)", said)
    bad = not done or child.returncode != 0 or bool(FINDING.search(said))
    counts = [found[-1] if found else "?" for found in (done, reached)]
    return [name, *counts, "YES" if bad else "none"], said, bad


def main(config: FuzzConfig) -> None:
    """Fuzz every reader, print what came out; exit code 1 where one has a finding."""
    from jaxsnn.errors import UserError
    from jaxsnn.runtime.checks import at_least

    at_least(config, runs=1, seconds=1, memory=1)
    with tempfile.TemporaryDirectory() as scratch:
        with instrumented():
            found = readers(Path(scratch))
        if config.target is not None and config.target not in found:
            raise UserError(f"no reader {config.target!r}: the readers are {', '.join(found)}")
        if importlib.util.find_spec("atheris") is None:
            raise UserError("fuzzing needs Atheris, which runs on Linux: pip install atheris")
        if config.target is not None:
            fuzz_here(config, *found[config.target], Path(scratch))
            return
    console, table = Console(), Table("reader", "files", "lines and branches reached", "findings")
    failed = False
    for name in found:
        with console.status(name):
            row, said, bad = fuzz_apart(config, name)
        failed |= bad
        table.add_row(*row)
        if bad:
            console.print(said[-4000:], highlight=False, markup=False)
    console.print(table)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    with instrumented():
        from benchmarks import command
    command.run(FuzzConfig, main, "fuzz", __doc__)
