"""Processes that run jaxsnn.optimize, and the moments at which benchmarks.kills ends them.

What a process is doing is told by the files in its run's folder. A moment is drawn in one of the phases that are
still to come, so that short phases are hit as often as long ones; every third moment is that of a write, when
something in the folder has just changed.
"""

import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from jaxsnn.cli import command
from jaxsnn.optimize import OptimizeConfig, optimize
from jaxsnn.records.calibrated_network import NAME
from jaxsnn.records.run_folder import FOLDERS, LOCK
from jaxsnn.search import checkpoint

PHASES = ("starting", "calibrating", "first generation", "searching", "choosing", "testing", "drawing", "leaving")
"""What a process does, in this order."""
OFTEN = {"drawing": 0.7, "leaving": 0.15}
"""How often a phase is chosen, where that is not once: a run that got so far is soon at its end."""
POLL = 0.002
"""Seconds between two looks at the folder."""
PATIENCE = 600.0
"""Seconds after which a process that should end counts as hanging."""
SHARES = {"SIGKILL": 0.8, "SIGTERM": 0.1, "Ctrl-C twice": 0.1}
"""How the processes are ended."""


@dataclass(frozen=True)
class Watch:
    """Tells the phase of one process.

    Attributes:
        began: ``time.time_ns()`` at its start.
        generations: number of the last generation.
        calibrates: whether the run starts by calibrating its network.
    """

    folder: Path
    process: int
    began: int
    generations: int
    calibrates: bool

    def phase(self) -> int:
        """Index into ``PHASES``."""
        return PHASES.index(self._phase())

    def _phase(self) -> str:
        folder = self.folder
        if (folder / "results.json").exists():
            return "leaving" if (folder / "report.html").exists() else "drawing"
        if not _text(folder / LOCK).startswith(f"process {self.process} "):
            return "starting"
        if _changed(folder / "thresholds.json") >= self.began:
            return "testing"
        saved = saved_generation(folder)
        if saved == self.generations:
            return "choosing"
        if self.calibrates and not (folder / NAME).exists():
            return "calibrating"
        return "searching" if saved >= 0 else "first generation"

    def stamp(self) -> tuple[int, ...]:
        """Changes with every file that appears, disappears or is renamed in the run's folder."""
        return tuple(_changed(place) for place in (self.folder, *(self.folder / name for name in FOLDERS)))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return -1


def saved_generation(folder: Path) -> int:
    """Generation of the newest checkpoint, -1 without one."""
    try:
        found = checkpoint.files(folder)
    except OSError:  # the run removes the folder while it is looked into
        return -1
    return int(found[0].stem) if found else -1


@dataclass(frozen=True)
class Moment:
    """When and how a process is ended.

    Attributes:
        phase: index of the phase in which it is.
        wait: seconds after that phase has begun; where ``writing``, after the first write in it.
        writing: the moment is that of a write.
        how: one of ``SHARES``.
    """

    phase: int
    wait: float
    writing: bool
    how: str

    @classmethod
    def draw(cls, rng: np.random.Generator, to_come: list[int], lengths: dict[int, float]) -> "Moment":
        """A moment in one of the phases ``to_come``; ``lengths`` in seconds of those that the run has."""
        known = [one for one in to_come if one in lengths]
        weights = np.array([OFTEN.get(PHASES[one], 1.0) for one in known])
        phase = int(rng.choice(known, p=weights / weights.sum()))
        writing = bool(rng.random() < 1 / 3)
        wait = rng.uniform(0, 0.004 if writing else lengths[phase])
        return cls(phase, float(wait), writing, str(rng.choice(list(SHARES), p=list(SHARES.values()))))


def start(settings: OptimizeConfig, said: Path) -> BaseProcess:
    """A process that runs this, forked from one that has imported everything but computed nothing.

    Args:
        said: gets what the process prints.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jaxsnn.optimize", "jaxsnn.reports.html_report", "matplotlib.pyplot"])
    process = context.Process(target=_run, args=(settings, said))
    process.start()
    return process


def _run(settings: OptimizeConfig, said: Path) -> None:
    """What a process does: the whole command, as from the command line."""
    sink = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(sink, stream)
    sys.argv = ["jaxsnn.optimize"]
    command.main(OptimizeConfig, optimize, "jaxsnn.optimize", lambda: settings)


def lengths_of(process: BaseProcess, watch: Watch) -> dict[int, float]:
    """Seconds of each phase of a process that is left alone until it has ended."""
    found: dict[int, float] = {}
    last = time.perf_counter()
    while process.exitcode is None:
        time.sleep(POLL)
        now, phase = time.perf_counter(), watch.phase()
        found[phase] = found.get(phase, 0.0) + now - last
        last = now
    return found


def end_at(process: BaseProcess, watch: Watch, moment: Moment) -> bool:
    """End the process at the moment, or let it end by itself if it comes first; returns whether it was ended.

    Raises:
        TimeoutError: it does not end.
    """
    entered, first, limit = None, (), time.perf_counter() + PATIENCE
    while process.exitcode is None:
        now = time.perf_counter()
        if now > limit:
            process.kill()
            raise TimeoutError(f"it did not end within {PATIENCE:.0f} s")
        if watch.phase() >= moment.phase:
            if entered is None:
                entered, first = now, watch.stamp()
            if moment.writing and watch.stamp() == first and watch.phase() == moment.phase:
                continue
            if moment.writing or now - entered >= moment.wait:
                time.sleep(moment.wait if moment.writing else 0)
                return _end(process, moment.how, limit)
        time.sleep(POLL)
    return False


def _end(process: BaseProcess, how: str, limit: float) -> bool:
    """End a process; returns whether it had still been running."""
    if process.exitcode is not None or process.pid is None:
        return False
    try:
        while process.exitcode is None:
            if how == "SIGKILL":
                process.kill()
            else:
                os.kill(process.pid, signal.SIGTERM if how == "SIGTERM" else signal.SIGINT)
            # one Ctrl-C stops the search after its generation; the next ones end the program at once
            process.join(0.05 if how == "Ctrl-C twice" else limit - time.perf_counter())
            if process.exitcode is None and time.perf_counter() > limit:
                process.kill()
                raise TimeoutError(f"it did not end within {PATIENCE:.0f} s of {how}")
    except ProcessLookupError:
        process.join()
    return True
