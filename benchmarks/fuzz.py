"""Give a million damaged files to everything that reads files of other people: python -m benchmarks.fuzz

Each reader (benchmarks/fuzz_readers.py) gets files made out of real ones, mostly by someone who knows their format
(benchmarks/fuzz_formats.py). It may read a file rightly, or refuse it with an error that the commands show in one
sentence. Anything else is a finding: another exception, an answer that is not what the file says, a process that
dies, more than --memory megabytes beyond what the program itself takes, more than --slowest seconds of processor
time. TFDS has its own readers, which are not among them.

The file number n of a reader is always the same. --json keeps what was done: the same command goes on from
there, so that many files can be read in parts; files that are findings are kept beside it.
benchmarks.fuzz_coverage looks for files by the lines of the program that they reach.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import command
from benchmarks.fuzz_formats import mutated
from benchmarks.fuzz_target import Finding, Target, limit_memory
from jaxsnn.cli.options import DebugOptions
from jaxsnn.errors import UserError
from jaxsnn.runtime.checks import at_least, in_range
from jaxsnn.runtime.files import read_json, write_json
from jaxsnn.runtime.provenance import code_version

BATCH = 250
"""Files that a process reads at a time."""
STUCK = 30.0
"""Seconds after which a process that reads one file is ended."""
MOST_FINDINGS = 20
"""Of a reader, of which the files are kept."""


@dataclass(frozen=True)
class FuzzConfig(DebugOptions):
    """Give damaged files to the readers of files."""

    inputs: int = 1_000_000
    """Files, of all readers together."""
    seed: int = 0
    """Seed of the files."""
    memory: int = 2000
    """Megabytes that a reader may take."""
    slowest: float = 1.0
    """Seconds of processor time that a reader may take for a file."""
    readers: tuple[str, ...] = ()
    """Some readers alone."""
    workers: int = 1
    """Processes at the same time."""
    minutes: float = 1e9
    """Nothing is begun after so long."""
    json: Path | None = None
    """File of what was done so far, with which the command goes on."""


@dataclass(frozen=True)
class Job:
    """Some files of a reader."""

    reader: str
    first: int
    count: int


@dataclass
class Tally:
    """What became of the files of a reader.

    Attributes:
        parts: numbers of the batches that were read.
        slowest: most seconds of processor time for a file.
    """

    parts: list[int] = field(default_factory=list)
    files: int = 0
    read: int = 0
    slowest: float = 0.0
    seconds: float = 0.0
    findings: list[dict] = field(default_factory=list)


def content_of(target: Target, reader: str, number: int, seed: int) -> bytes:
    """The file of this number."""
    return mutated(
        target.kind, target.examples, np.random.default_rng([seed, zlib.crc32(reader.encode()), number])
    )


def tried(target: Target, content: bytes, slowest: float) -> tuple[bool, float, str]:
    """Whether the file was read, seconds of processor time, and what is wrong with that, if anything."""
    began, read, wrong = time.process_time(), False, ""
    try:
        read = target.read(content)
    except Finding as error:
        wrong = str(error)
    except BaseException as error:  # MemoryError and RecursionError, too
        place = traceback.extract_tb(error.__traceback__)[-1]
        wrong = f"{type(error).__name__}: {str(error)[:300]} ({Path(place.filename).name}, line {place.lineno})"
    seconds = time.process_time() - began
    return read, seconds, wrong or (f"it took {seconds:.1f} s" if seconds > slowest else "")


def work(config: FuzzConfig, link: Connection, at: Any) -> None:
    """What a process does: the jobs that come through ``link``, until there is none.

    Args:
        at: gets the number of the file that is being read.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")  # of libraries, about what is odd in a file
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)  # libtiff writes its own
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=fast) as scratch:
        from benchmarks.fuzz_readers import readers

        targets = readers(Path(scratch))
        for target in targets.values():  # what is imported or compiled once is not the files' doing
            for example in target.examples:
                target.read(example)
        limit_memory(config.memory)
        link.send({name: target.share for name, target in targets.items()})
        while (job := link.recv()) is not None:
            link.send(_done(config, targets[job.reader], job, at))


def _done(config: FuzzConfig, target: Target, job: Job, at: Any) -> Tally:
    tally = Tally()
    for number in range(job.first, job.first + job.count):
        at.value = number
        content = content_of(target, job.reader, number, config.seed)
        began = time.perf_counter()
        read, seconds, wrong = tried(target, content, config.slowest)
        tally.seconds += time.perf_counter() - began
        tally.files += 1
        tally.read += read
        tally.slowest = max(tally.slowest, seconds)
        if wrong:
            tally.findings.append({"number": number, "what": wrong})
    return tally


class Worker:
    """A process that reads files, made again where one of them has ended it."""

    def __init__(self, config: FuzzConfig):
        self.config = config
        self.job: Job | None = None
        self._begin()

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.at = context.Value("q", -1, lock=False)
        self.link, other = context.Pipe()
        self.process = context.Process(target=work, args=(self.config, other, self.at), daemon=True)
        self.process.start()
        other.close()
        self.seen, self.since = -1, time.perf_counter()

    def shares(self) -> dict[str, float]:
        """The readers, once the process has them; raises ``UserError`` where it ends before."""
        try:
            return self.link.recv()
        except EOFError as error:
            raise UserError(
                "a process that should read files ended before the first: run one reader alone"
            ) from error

    def give(self, job: Job | None) -> None:
        self.job = job
        self.seen, self.since = -1, time.perf_counter()
        self.link.send(job)

    def answer(self) -> Tally | None:
        """What became of the job, once it is known; a process that died or hangs is replaced."""
        if self.job is None:
            raise ValueError("it has nothing to do")
        if self.link.poll():
            try:
                return self.link.recv()
            except (EOFError, OSError):
                return self._replaced(f"the process ended with exit code {self._ended()}")
        now, number = time.perf_counter(), self.at.value
        if number != self.seen:
            self.seen, self.since = number, now
        if now - self.since > STUCK:
            self.process.kill()
            return self._replaced(f"it took more than {STUCK:.0f} s")
        return None

    def _ended(self) -> int | None:
        self.process.join()
        return self.process.exitcode

    def _replaced(self, what: str) -> Tally:
        """A finding instead of the whole job, whose other files are given up."""
        self._ended()
        number = self.at.value
        self._begin()
        self.shares()
        return Tally(files=0, findings=[{"number": number, "what": what}])


def jobs(shares: dict[str, float], inputs: int, done: dict[str, Tally]) -> list[Job]:
    """What is left to do, the readers in turn."""
    whole = sum(shares.values())
    left: list[tuple[float, Job]] = []
    for reader, share in shares.items():
        parts = max(1, -(-round(inputs * share / whole) // BATCH))
        for part in set(range(parts)) - set(done[reader].parts):
            left.append(((part + 1) / parts, Job(reader, part * BATCH, BATCH)))
    return [job for _, job in sorted(left, key=lambda one: (one[0], one[1].reader))]


def answers(workers: list[Worker], left: Iterator[Job], until: float) -> Iterator[tuple[Job, Tally]]:
    """Give the jobs that are left to the workers; what became of each."""
    idle, busy = list(workers), []
    while True:
        while idle and time.perf_counter() < until and (job := next(left, None)) is not None:
            busy.append(idle.pop())
            busy[-1].give(job)
        if not busy:
            return
        wait([worker.link for worker in busy], timeout=1.0)
        for worker in list(busy):
            job = worker.job
            if job is not None and (tally := worker.answer()) is not None:
                busy.remove(worker)
                idle.append(worker)
                yield job, tally


def fuzz(config: FuzzConfig, say: Callable[[str], object]) -> dict[str, Tally]:
    """Read the files; what became of those of each reader, earlier ones of --json counted in."""
    done, until = held(config), time.perf_counter() + 60 * config.minutes
    workers = [Worker(config) for _ in range(config.workers)]
    shares, *_ = [worker.shares() for worker in workers]  # all must have begun
    for name in config.readers:
        if name not in shares:
            raise UserError(f"no reader {name!r}: the readers are {', '.join(shares)}")
    shares = {name: share for name, share in shares.items() if not config.readers or name in config.readers}
    done = {name: done.get(name, Tally()) for name in shares}
    saved = time.perf_counter()
    for job, tally in answers(workers, iter(jobs(shares, config.inputs, done)), until):
        mine = done[job.reader]
        mine.parts.append(job.first // BATCH)
        for name in ("files", "read", "seconds"):
            setattr(mine, name, getattr(mine, name) + getattr(tally, name))
        mine.slowest = max(mine.slowest, tally.slowest)
        for finding in tally.findings:
            mine.findings.append(finding)
            say(f"{job.reader}, file {finding['number']}: {finding['what']}")
        if time.perf_counter() - saved > 20:
            keep(config, done)
            saved = time.perf_counter()
    for worker in workers:
        worker.link.send(None)
    keep(config, done)
    return done


def keep(config: FuzzConfig, done: dict[str, Tally]) -> None:
    """Write --json, and the first files that are findings beside it."""
    if config.json is None:
        return
    tallies = {name: asdict(tally) for name, tally in done.items()}
    write_json(config.json, {"settings": _settings(config), "readers": tallies})
    bad = {name: tally.findings[:MOST_FINDINGS] for name, tally in done.items() if tally.findings}
    if not bad:
        return
    with tempfile.TemporaryDirectory() as scratch:
        from benchmarks.fuzz_readers import readers

        targets, place = readers(Path(scratch)), config.json.with_suffix("")
        place.mkdir(exist_ok=True)
        for name, findings in bad.items():
            for finding in findings:
                number = finding["number"]
                file = place / f"{name.replace(' ', '-').replace('/', '-')}-{number}"
                file.write_bytes(content_of(targets[name], name, number, config.seed))


def held(config: FuzzConfig) -> dict[str, Tally]:
    """What the file of --json holds; raises ``UserError`` where it is of other settings."""
    if config.json is None or not config.json.exists():
        return {}
    found = read_json(config.json)
    if found.get("settings") != _settings(config):
        raise UserError(f"{config.json} holds files of other settings or another version: choose another --json")
    return {name: Tally(**tally) for name, tally in found["readers"].items()}


def _settings(config: FuzzConfig) -> dict[str, Any]:
    """What the files, and what becomes of them, depend on."""
    named = {name: getattr(config, name) for name in ("seed", "memory", "slowest")}
    return named | {"code": code_version()}


def show(console: Console, done: dict[str, Tally]) -> None:
    """Print what became of the files."""
    table = Table("reader", "files", "read", "ms a file", "slowest, s", "findings")
    for name, tally in done.items():
        rate = f"{1e3 * tally.seconds / tally.files:.2f}" if tally.files else "-"
        found = str(len(tally.findings)) if tally.findings else "none"
        table.add_row(name, f"{tally.files:,}", f"{tally.read:,}", rate, f"{tally.slowest:.2f}", found)
    files, findings = (sum(counts) for counts in zip(*((t.files, len(t.findings)) for t in done.values())))
    console.print(table)
    console.print(f"{files:,} files, {findings} findings", highlight=False)


def main(config: FuzzConfig) -> None:
    """Read the files, and print what became of them; exit code 1 where there is a finding."""
    at_least(config, inputs=1, seed=0, memory=1, workers=1)
    in_range(config, "(0, inf)", "slowest", "minutes")
    console = Console()
    done = fuzz(config, lambda line: console.print(line, highlight=False, markup=False, style="dim"))
    show(console, done)
    if any(tally.findings for tally in done.values()):
        sys.exit(1)


if __name__ == "__main__":
    command.run(FuzzConfig, main, "fuzz", __doc__)
