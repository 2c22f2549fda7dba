"""Coverage-guided fuzzing of everything that reads files of other people: python -m benchmarks.fuzz_coverage

Needs Atheris (pip install atheris; Linux). Each reader of benchmarks.fuzz gets, in a process of its own, files
that libFuzzer makes out of real ones, steered by which lines of this program they reach. The findings are those
of benchmarks.fuzz; libFuzzer prints the file, and this command ends with 1. tests/records/test_hostile.py does
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
import time
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
class CoverageConfig:
    """Fuzz the readers of files."""

    command_line: ClassVar[bool] = True

    runs: int = 100_000
    """Files for each reader."""
    seconds: int = 120
    """At most so long for each."""
    memory: int = 2000
    """Megabytes that a reader may take."""
    slowest: float = 1.0
    """Seconds of processor time that a reader may take for a file of at most 64 kB."""
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


def bounded(reader: Reader, slowest: float) -> Reader:
    """The reader, which fails where it takes longer; processor time, so that a busy machine makes no findings."""

    def timed(content: bytes) -> None:
        began = time.process_time()
        reader(content)
        seconds = time.process_time() - began
        if seconds > slowest:
            raise TimeoutError(f"it took {seconds:.1f} s")

    return timed


def fuzz_here(config: CoverageConfig, reader: Reader, examples: list[bytes], folder: Path) -> None:
    """Fuzz one reader; libFuzzer ends the process."""
    atheris: Any = importlib.import_module("atheris")
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, example in enumerate(examples):
        (corpus / str(number)).write_bytes(example)
    options = [f"-runs={config.runs}", f"-max_total_time={config.seconds}", "-rss_limit_mb=0"]
    options += ["-timeout=60", "-max_len=65536", f"-artifact_prefix={folder}/", str(corpus)]
    from benchmarks.fuzz_target import limit_memory

    limit_memory(config.memory)
    atheris.Setup([sys.argv[0], *options], bounded(reader, config.slowest))
    atheris.Fuzz()


def fuzz_apart(config: CoverageConfig, name: str) -> tuple[list[str], str, bool]:
    """Fuzz one reader in a process of its own: its row of the table, what it said, whether it has a finding."""
    called = [sys.executable, "-m", "benchmarks.fuzz_coverage", "--target", name]
    for option in ("runs", "seconds", "memory", "slowest"):
        called += [f"--{option}", str(getattr(config, option))]
    child = subprocess.run(called, capture_output=True, text=True, env=os.environ)
    said = child.stdout + child.stderr
    done = re.findall(r"Done (\d+) runs", said)
    reached = re.findall(r"cov: (\d+)", said)
    bad = not done or child.returncode != 0 or bool(FINDING.search(said))
    counts = [found[-1] if found else "?" for found in (done, reached)]
    return [name, *counts, "YES" if bad else "none"], said, bad


def main(config: CoverageConfig) -> None:
    """Fuzz every reader, print what came out; exit code 1 where one has a finding."""
    from jaxsnn.errors import UserError
    from jaxsnn.runtime.checks import at_least, in_range

    at_least(config, runs=1, seconds=1, memory=1)
    in_range(config, "(0, inf)", "slowest")
    with tempfile.TemporaryDirectory() as scratch:
        with instrumented():
            from benchmarks.fuzz_readers import readers

            found = readers(Path(scratch))
        if config.target is not None and config.target not in found:
            raise UserError(f"no reader {config.target!r}: the readers are {', '.join(found)}")
        if importlib.util.find_spec("atheris") is None:
            raise UserError("fuzzing needs Atheris, which runs on Linux: pip install atheris")
        if config.target is not None:
            target = found[config.target]
            fuzz_here(config, target.read, target.examples, Path(scratch))
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
    command.run(CoverageConfig, main, "fuzz_coverage", __doc__)
