"""Kill runs of jaxsnn.optimize at random moments, go on with them, compare: python -m benchmarks.kills

Each run is killed with SIGKILL, again and again, at moments drawn uniformly over the length of a whole run: while
it starts, searches, writes, selects, tests or draws. In between it goes on with --resume (with the first command,
where it was killed before it had written its configuration). In the end its folder must hold what an uninterrupted
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
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console

from jaxsnn.optimize import optimize
from jaxsnn.runtime.files import read_json
from jaxsnn.search import checkpoint
from jaxsnn.search.evolve import Candidate, Generation
from jaxsnn.search.settings import OptimizeConfig

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
class KillsConfig:
    """Kill runs at random moments and compare their results with an uninterrupted run's."""

    kills: int = 200
    seed: int = 0
    """Of the moments."""
    mercy: float = 0.1
    """Share of the processes that are left to live, so that runs end."""
    checkpoints: bool = False
    """Time checkpoints instead."""


@dataclass(frozen=True)
class Survival:
    """What became of the runs.

    Attributes:
        kills: processes killed.
        runs, identical: runs that ended, and those of them that ended with the uninterrupted run's outcome.
        refused: times that a process would not go on.
        lost: for each kill during the search, the generations that were complete, but not in a checkpoint.
        behind: seconds from the last checkpoint (or the process's start) to each kill during the search.
        generation, whole: seconds of a generation (median) and of the last run that was left alone.
        places: kills by what the run had reached.
    """

    kills: int
    runs: int
    identical: int
    refused: int
    lost: list[int]
    behind: list[float]
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
    """What a process does: a run, or the rest of one, in silence."""
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
        return "behind the results"
    if not (folder / "config.json").exists():
        return "before the configuration"
    saved, _ = _state(folder)
    if saved < 0:
        return "before the first checkpoint"
    return "during the search" if saved < generations else "during selection, test and figures"


def survive(config: KillsConfig, search: OptimizeConfig, work: Path, say=print) -> Survival:
    """Kill ``config.kills`` processes of runs in folders under ``work``; ``say`` gets a line now and then."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(work / "compiled"))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jaxsnn.optimize"])

    def start(settings: OptimizeConfig):
        process = context.Process(target=_run, args=(settings,))
        process.start()
        return process

    warm, reference = work / "warm", work / "reference"
    for folder in (warm, reference):  # the first pays for the server and for Numba's cache
        began = time.perf_counter()
        process = start(replace(search, out=folder))
        process.join()
        whole = time.perf_counter() - began
        if process.exitcode:
            raise SystemExit(f"the uninterrupted run ended with exit code {process.exitcode}")
    expected = outcome(reference)
    rows = [json.loads(line) for line in expected["history.jsonl"]]
    seconds = [json.loads(line)["seconds"] for line in (reference / "history.jsonl").read_text().splitlines()]
    rng = np.random.default_rng(config.seed)
    killed = runs = identical = refused = 0
    lost, behind, places = [], [], {}
    while killed < config.kills:
        folder = work / f"run{runs}"
        while True:
            begun = (folder / "config.json").exists()
            process = start(OptimizeConfig(resume=folder) if begun else replace(search, out=folder))
            began = time.time()
            spared = killed >= config.kills or rng.random() < config.mercy
            process.join(None if spared else rng.uniform(0, whole))
            if process.exitcode is None:
                process.kill()
                process.join()
                moment = time.time()
                killed += 1
                place = _place(folder, rows[-1]["generation"])
                places[place] = places.get(place, 0) + 1
                if place in ("before the first checkpoint", "during the search"):
                    saved, when = _state(folder)
                    history = folder / "history.jsonl"
                    done = len(history.read_text().splitlines()) - 1 if history.exists() else -1
                    lost.append(done - saved)
                    behind.append(moment - max(when, began))
            elif process.exitcode:
                refused += 1
                break
            elif not begun:  # the machine may have become faster or slower
                whole = time.time() - began
            if (folder / "results.json").exists():
                break
        runs += 1
        identical += (folder / "results.json").exists() and outcome(folder) == expected
        say(f"{killed} kills, {runs} runs, {identical} as the uninterrupted one, {refused} refused")
    return Survival(killed, runs, identical, refused, lost, behind, statistics.median(seconds[1:]), whole, places)


def time_checkpoints(population: int = 25, dimension: int = 15, timesteps: int = 100, repeats: int = 30) -> dict:
    """Median milliseconds and bytes of a checkpoint, ours and Orbax's."""
    import orbax.checkpoint as ocp

    rng = np.random.default_rng(0)
    leaders = tuple(
        Candidate(rng.random(dimension), rng.random(), {"a": 0.1, "b": 0.2}, rng.random(timesteps))
        for _ in range(8)
    )
    row = {"generation": 0, "best_cost": 1.5, "parts": leaders[0].parts, "mean_cost": 1.0, "std_cost": 1.0}
    row |= {
        "accuracy": 0.5,
        "latency": None,
        "nfe": 5,
        "image_evaluations": 10,
        "best": rng.random(dimension).tolist(),
    }
    arrays = {".members": rng.random((population, dimension)), ".energies": rng.random(population)}
    arrays |= {".trials": rng.random((population, dimension)), ".index": np.arange(population)}
    rows = [row | {"generation": number} for number in range(27)]
    generation = Generation(26, leaders, 1.0, 1.0, 675, 0, 2025000, 9.5, False, False)
    state = checkpoint.Checkpoint({"seed": 0}, generation, arrays, {"limit_right": np.arange(675)}, rows, 250.0)
    ours, theirs, reading = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(repeats):
            began = time.perf_counter()
            path = checkpoint.save(folder, state)
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            checkpoint.read(path)
            reading.append(time.perf_counter() - began)
        size = path.stat().st_size
        tree = {"engine": arrays, "leaders": np.stack([leader.vector for leader in leaders])}
        tree |= {"accuracy": np.stack([leader.accuracy for leader in leaders]), "rows": json.dumps(rows)}
        with ocp.CheckpointManager(
            folder / "orbax",
            options=ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False),
        ) as manager:
            for step in range(repeats):
                began = time.perf_counter()
                manager.save(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardSave({k: v for k, v in tree.items() if k != "rows"}),
                        rows=ocp.args.JsonSave({"rows": rows}),
                    ),
                )
                manager.wait_until_finished()
                theirs.append(time.perf_counter() - began)
        files = [path for path in (folder / "orbax" / str(repeats - 1)).rglob("*") if path.is_file()]
        theirs_bytes = sum(path.stat().st_size for path in files)
    return {
        "ours_ms": 1e3 * statistics.median(ours),
        "read_ms": 1e3 * statistics.median(reading),
        "bytes": size,
        "orbax_ms": 1e3 * statistics.median(theirs),
        "orbax_files": len(files),
        "orbax_bytes": theirs_bytes,
    }


def main() -> None:
    config = tyro.cli(KillsConfig, prog="python -m benchmarks.kills")
    console = Console(highlight=False, soft_wrap=True)
    if config.checkpoints:
        t = time_checkpoints()
        console.print(
            f"one checkpoint of 25 x 15 behind 26 generations: {t['ours_ms']:.1f} ms in one file of {t['bytes']} "
            f"bytes, read and checked in {t['read_ms']:.1f} ms; Orbax {t['orbax_ms']:.1f} ms in "
            f"{t['orbax_files']} files of {t['orbax_bytes']} bytes together"
        )
        return
    with tempfile.TemporaryDirectory() as name:
        s = survive(config, SEARCH, Path(name), lambda line: console.print(line, style="dim"))
    console.print(
        f"kills: {s.kills}, of them " + ", ".join(f"{count} {place}" for place, count in s.places.items())
    )
    console.print(f"runs: {s.runs}, identical to the uninterrupted one: {s.identical}, refused: {s.refused}")
    if s.lost:
        console.print(
            f"lost: at most {max(s.lost)} complete generations; from the last checkpoint to the kill "
            f"{statistics.median(s.behind):.2f} s (median), {max(s.behind):.2f} s at most, starting included, "
            f"where a generation takes {s.generation:.2f} s and a whole run {s.whole:.2f} s"
        )
    if s.identical < s.runs:
        sys.exit(1)


if __name__ == "__main__":
    main()
