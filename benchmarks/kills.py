"""Kill runs of jaxsnn.optimize at random moments, resume them, compare: python -m benchmarks.kills

Each run is killed with SIGKILL, again and again, at moments drawn uniformly over the length of a whole run: while
it starts, searches, writes, selects, tests or draws. In between it is resumed (started anew, where it was killed
before it had written its configuration). In the end its folder must hold what an uninterrupted
run's does. The settings are small (the embedded network, int8, event-driven with Numba), so that a run takes
seconds, and processes are forked from one that has imported everything but computed nothing.

With --checkpoints: the time of one checkpoint for the population of the paper's Table I, beside Orbax's.
"""

import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks import command
from jaxsnn.cli.options import DebugOptions
from jaxsnn.errors import UserError
from jaxsnn.optimize import OptimizeConfig, optimize
from jaxsnn.runtime.checks import at_least, in_range
from jaxsnn.runtime.files import read_json
from jaxsnn.search import checkpoint
from jaxsnn.search.evolve import Candidate, Generation

SEARCH = OptimizeConfig(
    population=4,
    generations=12,
    images=16,
    timesteps=30,
    test_timesteps=30,
    test_images=10,
    calibration_images=20,
    finalists=2,
    final_images=16,
    limit=0,
    tol=0,
    precision="int8",
    threads=1,
)


TIMINGS = ("seconds", "search_seconds", "peak_bytes", "versions", "device")
"""What differs from one run to the next."""


@dataclass(frozen=True)
class KillsConfig(DebugOptions):
    """Kill runs at random moments and compare their results with an uninterrupted run's."""

    kills: int = 200
    seed: int = 0
    """Seed of the moments."""
    mercy: float = 0.1
    """Share of the processes that are not killed, so that runs end."""
    checkpoints: bool = False
    """Time checkpoints instead (needs orbax-checkpoint)."""


@dataclass(frozen=True)
class Survival:
    """What became of the runs.

    Attributes:
        kills: processes killed.
        runs, identical: runs that ended, and those of them that ended with the uninterrupted run's outcome.
        refused: times that a process ended with an error.
        lost: for each kill during the search, the generations that were complete, but not in a checkpoint.
        waits: seconds from the last checkpoint (or the process's start) to each kill during the search.
        generation, whole: seconds of a generation (median) and of the last run that was left alone.
        places: kills by what the run had reached.
    """

    kills: int
    runs: int
    identical: int
    refused: int
    lost: list[int]
    waits: list[float]
    generation: float
    whole: float
    places: dict[str, int]


def outcome(folder: Path) -> dict:
    """All that a finished run's folder holds but figures and timings."""
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    results = read_json(folder / "results.json")
    return {
        "thresholds.json": (folder / "thresholds.json").read_bytes(),
        "curves.npz": (folder / "curves.npz").read_bytes(),
        "history.jsonl": [json.dumps({k: v for k, v in row.items() if k != "seconds"}) for row in rows],
        "results.json": {k: v for k, v in results.items() if k not in TIMINGS},
    }


def _run(config: OptimizeConfig) -> None:
    """What a process does: a whole run, or the rest of one, in silence."""
    sink = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(sink, stream)
    optimize(config)


def _state(folder: Path) -> tuple[int, float]:
    """Generation of the newest checkpoint, -1 without one, and when it was written."""
    found = checkpoint.files(folder)
    return (int(found[0].stem), found[0].stat().st_mtime) if found else (-1, 0.0)


def _place(folder: Path, generations: int) -> str:
    """How far a run got."""
    if (folder / "results.json").exists():
        return "after the results"
    if not (folder / "config.json").exists():
        return "before the configuration"
    saved, _ = _state(folder)
    if saved < 0:
        return "before the first checkpoint"
    return "during the search" if saved < generations else "during selection, test and figures"


def _start(settings: OptimizeConfig) -> BaseProcess:
    """A process that runs this, forked from one that has imported everything but computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jaxsnn.optimize"])
    process = context.Process(target=_run, args=(settings,))
    process.start()
    return process


def _uninterrupted(search: OptimizeConfig, folder: Path) -> float:
    """Seconds of a run that nobody kills."""
    began = time.perf_counter()
    process = _start(replace(search, out=folder))
    process.join()
    if process.exitcode:
        raise UserError(f"the uninterrupted run ended with exit code {process.exitcode}")
    return time.perf_counter() - began


class _Tally:
    """What has become of the runs so far.

    Attributes:
        rng: of the moments.
        whole: seconds of the last run that was left alone.
    """

    def __init__(self, config: KillsConfig, search: OptimizeConfig, whole: float):
        self.config, self.search, self.whole = config, search, whole
        self.rng = np.random.default_rng(config.seed)
        self.kills = self.runs = self.identical = self.refused = 0
        self.lost: list[int] = []
        self.waits: list[float] = []
        self.places: dict[str, int] = {}

    def run_to_the_end(self, folder: Path, generations: int) -> None:
        """Start a run in ``folder``, kill and resume it until it has ended or is refused."""
        while not (folder / "results.json").exists():
            begun = (folder / "config.json").exists()
            process = _start(OptimizeConfig(resume=folder) if begun else replace(self.search, out=folder))
            began = time.time()
            spared = self.kills >= self.config.kills or self.rng.random() < self.config.mercy
            process.join(None if spared else self.rng.uniform(0, self.whole))
            if process.exitcode is None:
                process.kill()
                process.join()
                self._killed(folder, generations, began)
            elif process.exitcode:
                self.refused += 1
                return
            elif not begun:  # the machine may have become faster or slower
                self.whole = time.time() - began

    def _killed(self, folder: Path, generations: int, began: float) -> None:
        """Count a kill, of a process that ``began`` at this time."""
        moment = time.time()
        self.kills += 1
        place = _place(folder, generations)
        self.places[place] = self.places.get(place, 0) + 1
        if place in ("before the first checkpoint", "during the search"):
            saved, when = _state(folder)
            history = folder / "history.jsonl"
            done = len(history.read_text().splitlines()) - 1 if history.exists() else -1
            self.lost.append(done - saved)
            self.waits.append(moment - max(when, began))


def survive(
    config: KillsConfig, search: OptimizeConfig, work: Path, say: Callable[[str], object] = print
) -> Survival:
    """Kill ``config.kills`` processes of runs in folders under ``work``; ``say`` gets a line after each run."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(work / "compiled"))
    _uninterrupted(search, work / "warm")  # pays for the server and for Numba's cache
    reference = work / "reference"
    tally = _Tally(config, search, _uninterrupted(search, reference))
    expected = outcome(reference)
    rows = [json.loads(line) for line in (reference / "history.jsonl").read_text().splitlines()]
    while tally.kills < config.kills:
        folder = work / f"run{tally.runs}"
        tally.run_to_the_end(folder, rows[-1]["generation"])
        tally.runs += 1
        tally.identical += (folder / "results.json").exists() and outcome(folder) == expected
        same = f"{tally.identical} with the uninterrupted one's outcome"
        say(f"{tally.kills} kills, {tally.runs} runs, {same}, {tally.refused} refused")
    generation = statistics.median(row["seconds"] for row in rows[1:])
    return Survival(
        kills=tally.kills,
        runs=tally.runs,
        identical=tally.identical,
        refused=tally.refused,
        lost=tally.lost,
        waits=tally.waits,
        generation=generation,
        whole=tally.whole,
        places=tally.places,
    )


CHECKPOINT_REPEATS = 30


def example_checkpoint(population: int = 25, dimension: int = 15, timesteps: int = 100) -> checkpoint.Checkpoint:
    """A checkpoint as the paper's Table I gives it, after 26 generations."""
    rng = np.random.default_rng(0)
    leaders = tuple(
        Candidate(rng.random(dimension), rng.random(), {"a": 0.1, "b": 0.2}, rng.random(timesteps))
        for _ in range(8)
    )
    row = {"generation": 0, "best_cost": 1.5, "parts": leaders[0].parts, "mean_cost": 1.0, "std_cost": 1.0}
    row |= {"accuracy": 0.5, "latency": None, "nfe": 5, "image_evaluations": 10}
    row |= {"best": rng.random(dimension).tolist()}
    arrays = {".members": rng.random((population, dimension)), ".energies": rng.random(population)}
    arrays |= {".trials": rng.random((population, dimension)), ".index": np.arange(population)}
    rows = [row | {"generation": number} for number in range(27)]
    generation = Generation(26, leaders, 1.0, 1.0, 675, 0, 2025000, 9.5, False, False)
    return checkpoint.Checkpoint({"seed": 0}, generation, arrays, {"limit_right": np.arange(675)}, rows, 250.0)


def time_ours(state: checkpoint.Checkpoint, folder: Path) -> dict[str, float]:
    """Median milliseconds to write and to read a checkpoint, and its bytes."""
    writing, reading, size = [], [], 0
    for _ in range(CHECKPOINT_REPEATS):
        began = time.perf_counter()
        path = checkpoint.save(folder, state)
        writing.append(time.perf_counter() - began)
        began = time.perf_counter()
        checkpoint.read(path)
        reading.append(time.perf_counter() - began)
        size = path.stat().st_size
    return {"ms": 1e3 * statistics.median(writing), "read_ms": 1e3 * statistics.median(reading), "bytes": size}


def time_orbax(state: checkpoint.Checkpoint, folder: Path) -> dict[str, float]:
    """Median milliseconds to write the same with Orbax, the files of a checkpoint and their bytes."""
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise UserError(f"--checkpoints needs Orbax (pip install orbax-checkpoint): {error}") from error
    leaders, rows = state.generation.leaders, json.dumps(state.rows)
    tree = {"engine": state.engine, "leaders": np.stack([leader.vector for leader in leaders])}
    tree |= {"accuracy": np.stack([leader.accuracy for leader in leaders])}
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    seconds = []
    with ocp.CheckpointManager(folder, options=options) as manager:
        for step in range(CHECKPOINT_REPEATS):
            began = time.perf_counter()
            parts = {"state": ocp.args.StandardSave(tree), "rows": ocp.args.JsonSave({"rows": rows})}
            manager.save(step, args=ocp.args.Composite(**parts))
            manager.wait_until_finished()
            seconds.append(time.perf_counter() - began)
    files = [path for path in (folder / str(CHECKPOINT_REPEATS - 1)).rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    return {"ms": 1e3 * statistics.median(seconds), "files": len(files), "bytes": size}


def show_checkpoints(console: Console) -> None:
    """Print the time of a checkpoint, ours and Orbax's."""
    with tempfile.TemporaryDirectory() as name:
        state = example_checkpoint()
        theirs = time_orbax(state, Path(name) / "orbax")
        ours = time_ours(state, Path(name))
    console.print(
        f"one checkpoint of 25 x 15 after 26 generations: {ours['ms']:.1f} ms in one file of {ours['bytes']} "
        f"bytes, read and checked in {ours['read_ms']:.1f} ms; Orbax {theirs['ms']:.1f} ms in "
        f"{theirs['files']} files of {theirs['bytes']} bytes together"
    )


def show_survival(console: Console, s: Survival) -> None:
    """Print what became of the runs."""
    places = ", ".join(f"{count} {place}" for place, count in s.places.items())
    console.print(f"kills: {s.kills}, of them {places}")
    console.print(f"runs: {s.runs}, identical to the uninterrupted one: {s.identical}, refused: {s.refused}")
    if s.lost:
        console.print(
            f"lost: at most {max(s.lost)} complete generations; from the last checkpoint to the kill "
            f"{statistics.median(s.waits):.2f} s (median), {max(s.waits):.2f} s at most, starting included, "
            f"where a generation takes {s.generation:.2f} s and a whole run {s.whole:.2f} s"
        )


def main(config: KillsConfig) -> None:
    """Kill runs, or time checkpoints; exit code 1 where a run ends otherwise than the uninterrupted one."""
    at_least(config, kills=1, seed=0)
    in_range(config, "[0, 1)", "mercy")
    console = Console(highlight=False, soft_wrap=True)
    if config.checkpoints:
        show_checkpoints(console)
        return
    with tempfile.TemporaryDirectory() as name:
        survival = survive(config, SEARCH, Path(name), lambda line: console.print(line, style="dim"))
    show_survival(console, survival)
    if survival.identical < survival.runs:
        sys.exit(1)


if __name__ == "__main__":
    command.run(KillsConfig, main, "kills", __doc__)
