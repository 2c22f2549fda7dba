"""End runs of jaxsnn.optimize at random moments, resume them, compare: python -m benchmarks.kills

Each run is ended again and again, mostly with SIGKILL, sometimes with SIGTERM or two Ctrl-C, at moments drawn in
every phase: while it starts, calibrates, searches, chooses, tests, writes, draws. In between it is resumed (or
started anew, where it had not yet written its configuration), and ended again. At last its folder must hold what
an uninterrupted run's does, figures included, and nothing else. Runs alternate between the --cases: "thresholds"
searches from percentiles (int8, event-driven with Numba), "few" calibrates, reconstructs weights and distils
first. The network is tiny, so that a run takes seconds, and processes are forked from one that has imported
everything but computed nothing.

--json keeps what was found: the same command goes on from there, so that many kills can be made in parts.
With --checkpoints: the time of one checkpoint for the population of the paper's Table I, beside Orbax's.
"""

import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks import command
from benchmarks.kills_checkpoints import show_checkpoints
from benchmarks.kills_moments import PATIENCE, PHASES, Moment, Watch, end_at, lengths_of, saved_generation, start
from jaxsnn.cli.options import DebugOptions
from jaxsnn.errors import UserError
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import shapes_of
from jaxsnn.networks.weights import save_weights
from jaxsnn.optimize import OptimizeConfig
from jaxsnn.runtime.checks import at_least, in_range
from jaxsnn.runtime.files import read_json, write_json
from jaxsnn.runtime.provenance import code_version
from jaxsnn.search import checkpoint

_SMALL = OptimizeConfig(
    population=4,
    generations=6,
    images=16,
    timesteps=12,
    test_timesteps=16,
    test_images=20,
    calibration_images=20,
    finalists=2,
    final_images=16,
    limit=0,
    tol=0,
    precision="int8",
    threads=1,
)
CASES: dict[str, OptimizeConfig] = {
    "thresholds": _SMALL,
    "few": replace(
        OptimizeConfig.of("few"),
        population=4,
        generations=4,
        images=16,
        timesteps=3,
        test_timesteps=8,
        test_images=20,
        calibration_images=24,
        finalists=2,
        final_images=16,
        distillation=4,
        distillation_batch=4,
        distilled="weights",
        threads=1,
    ),
}
"""What is run; the weights are those of ``save_network``."""
TIMINGS = ("seconds", "search_seconds", "peak_bytes", "versions", "device")
"""What differs from one run to the next."""


@dataclass(frozen=True)
class KillsConfig(DebugOptions):
    """End runs at random moments and compare their results with an uninterrupted run's."""

    kills: int = 1000
    seed: int = 0
    """Seed of the moments."""
    mercy: float = 0.05
    """Share of the processes that are left alone, so that runs end."""
    cases: tuple[str, ...] = tuple(CASES)
    """What is run, in turn."""
    workers: int = 1
    """Runs at the same time."""
    minutes: float = 1e9
    """No run is begun after so long."""
    json: Path | None = None
    """File of what was found so far, with which the command goes on. The folders of runs that ended otherwise than
    the uninterrupted one are kept beside it."""
    checkpoints: bool = False
    """Time checkpoints instead (needs orbax-checkpoint)."""


@dataclass(frozen=True)
class Reference:
    """A case's uninterrupted run.

    Attributes:
        lengths: seconds of its phases, by their index in ``PHASES``.
        generation, whole: seconds of a generation (median) and of the run.
    """

    settings: OptimizeConfig
    folder: Path
    lengths: dict[int, float]
    generation: float
    whole: float

    @property
    def generations(self) -> int:
        return len((self.folder / "history.jsonl").read_text().splitlines()) - 1

    def watch(self, folder: Path, process: int | None, began: int) -> Watch:
        return Watch(folder, process or -1, began, self.generations, self.settings.start == "calibrated")


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


def everything(folder: Path) -> dict:
    """The outcome, the names of all files, and the contents of those that hold no timings."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    same = {name: path.read_bytes() for name, path in files.items() if path.suffix in (".png", ".safetensors")}
    return outcome(folder) | same | {"files": sorted(files)}


def save_network(path: Path) -> Path:
    """Weights of a tiny untrained network for the embedded images."""
    network, rng = vgg([[4], [6]], name="tiny"), np.random.default_rng(0)
    params = {
        name: rng.normal(0.1 / np.prod(shape[:-1]), np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32)
        for name, shape in shapes_of(network).items()
    }
    save_weights(path, network, params)
    return path


def make_reference(settings: OptimizeConfig, folder: Path) -> Reference:
    """Run a case, and see how long it takes."""
    began, clock, said = time.time_ns(), time.perf_counter(), folder.with_suffix(".txt")
    process = start(replace(settings, out=folder), said)
    calibrated = settings.start == "calibrated"
    lengths = lengths_of(process, Watch(folder, process.pid or -1, began, settings.generations, calibrated))
    whole = time.perf_counter() - clock
    if process.exitcode:
        raise UserError(
            f"the uninterrupted run ended with exit code {process.exitcode}: {said.read_text()[-500:]}"
        )
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return Reference(settings, folder, lengths, statistics.median(row["seconds"] for row in rows[1:]), whole)


def survive_once(number: int, config: KillsConfig, references: dict[str, Reference], work: Path) -> dict:
    """End and resume one run until it has ended by itself; returns its record, as in the file of --json."""
    case = config.cases[number % len(config.cases)]
    reference, rng = references[case], np.random.default_rng([config.seed, number])
    folder, said = work / f"run{number}", work / f"run{number}.txt"
    record: dict[str, Any] = {"number": number, "case": case, "kills": [], "wrong": []}
    ended = False
    while not ended and not record["wrong"]:
        begun = (folder / "config.json").exists()
        settings = OptimizeConfig(resume=folder) if begun else replace(reference.settings, out=folder)
        clock, began = time.perf_counter(), time.time_ns()
        process = start(settings, said)
        watch = reference.watch(folder, process.pid, began)
        to_come = [0, *range(_reached(watch), len(PHASES))]
        try:
            killed = False
            if rng.random() < config.mercy or watch.phase() == len(PHASES) - 1:
                process.join(PATIENCE)
            else:
                moment = Moment.draw(rng, sorted({*to_come}), reference.lengths)
                killed = end_at(process, watch, moment)
                if killed:
                    record["kills"].append(_kill(watch, moment, begun, clock))
        except TimeoutError as error:
            record["wrong"].append(str(error))
        good = (0, 130, -2, -9, -15) if killed else (0,)
        if process.exitcode not in good:
            record["wrong"].append(f"exit code {process.exitcode}: {said.read_text()[-300:]}")
        ended = not killed
    if not record["wrong"]:
        record["wrong"] = _differences(everything(folder), everything(reference.folder))
    return record


def _reached(watch: Watch) -> int:
    """Index of the first phase that has not been gone through by the files that a process finds."""
    folder = watch.folder
    if (folder / "results.json").exists():
        return PHASES.index("drawing")
    saved = saved_generation(folder)
    if saved < 0:
        calibrated = not watch.calibrates or (folder / "calibrated.safetensors").exists()
        return PHASES.index("first generation" if calibrated else "calibrating")
    return PHASES.index("searching" if saved < watch.generations else "choosing")


def _kill(watch: Watch, moment: Moment, resumed: bool, clock: float) -> dict:
    """The record of a kill that has just been made."""
    place = PHASES[watch.phase()]
    found = {"place": place, "how": moment.how, "writing": moment.writing, "resumed": resumed}
    if place in ("first generation", "searching"):
        history, saved = watch.folder / "history.jsonl", checkpoint.files(watch.folder)
        done = len(history.read_text().splitlines()) - 1 if history.exists() else -1
        found["lost"] = done - saved_generation(watch.folder)
        since = max(saved[0].stat().st_mtime if saved else 0.0, watch.began / 1e9)
        found["wait"] = time.time() - since
    return found | {"after": time.perf_counter() - clock}


def _differences(found: dict, expected: dict) -> list[str]:
    """Names of what differs, and of files that are too many or too few."""
    extra = set(found.pop("files")) ^ set(expected.pop("files"))
    return sorted(
        {f"{name} is there in one of them alone" for name in extra}
        | {f"{name} differs" for name in found.keys() & expected.keys() if found[name] != expected[name]}
    )


def survive(
    config: KillsConfig,
    cases: dict[str, OptimizeConfig],
    work: Path,
    say: Callable[[str], object] = print,
    runs: list[dict] | None = None,
    keep: Callable[[list[dict]], object] = lambda runs: None,
) -> tuple[list[dict], dict[str, Reference]]:
    """End ``config.kills`` processes, of runs under ``work``; the records of all runs, and the references.

    Args:
        say: gets a line after each run.
        runs: records of runs that were made before.
        keep: gets all records after each run.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(work / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    references = {}
    for name in config.cases:
        make_reference(cases[name], work / f"warm-{name}")  # pays for the server and what is compiled
        references[name] = make_reference(cases[name], work / f"reference-{name}")
    runs = [*(runs or [])]
    one = partial(survive_once, config=config, references=references, work=work)
    for record in _records(one, config, runs):
        folder = work / f"run{record['number']}"
        if record["wrong"] and config.json is not None:
            shutil.copytree(folder, config.json.with_suffix("") / folder.name, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        runs.append(record)
        keep(runs)
        wrong = f": {'; '.join(record['wrong'])}" if record["wrong"] else ""
        say(f"{kills_of(runs)} kills, {len(runs)} runs, {sum(map(identical, runs))} identical{wrong}")
    return runs, references


def kills_of(runs: list[dict]) -> int:
    return sum(len(run["kills"]) for run in runs)


def identical(run: dict) -> bool:
    return not run["wrong"]


def _records(one: Callable[[int], dict], config: KillsConfig, runs: list[dict]) -> Iterator[dict]:
    """Records of further runs, until there are enough kills or the time is over; ``runs`` grows meanwhile."""
    until = time.perf_counter() + 60 * config.minutes
    taken = {run["number"] for run in runs}
    numbers = (number for number in range(1 << 40) if number not in taken)

    def more() -> bool:
        return kills_of(runs) < config.kills and time.perf_counter() < until

    if config.workers == 1:
        while more():
            yield one(next(numbers))
        return
    with ProcessPoolExecutor(config.workers, multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(one, next(numbers)) for _ in range(config.workers)}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
                if more():
                    waiting.add(pool.submit(one, next(numbers)))


def show(console: Console, runs: list[dict], references: dict[str, Reference]) -> None:
    """Print what became of the runs."""
    kills = [kill for run in runs for kill in run["kills"]]

    def counts(key: str) -> str:
        found = Counter(kill[key] for kill in kills)
        return ", ".join(f"{count} {name}" for name, count in found.most_common())

    console.print(f"kills: {len(kills)}: {counts('place')}; by {counts('how')}")
    resumed, writing = (sum(kill[key] for kill in kills) for key in ("resumed", "writing"))
    twice = sum(len(run["kills"]) > 1 for run in runs)
    console.print(f"of resumed runs: {resumed}; at a write: {writing}; runs ended twice or more: {twice}")
    good = sum(map(identical, runs))
    console.print(f"runs: {len(runs)}, identical to the uninterrupted one: {good}, otherwise: {len(runs) - good}")
    lost = [kill["lost"] for kill in kills if "lost" in kill]
    if lost:
        waits = [kill["wait"] for kill in kills if "wait" in kill]
        console.print(
            f"lost: at most {max(lost)} complete generations; from the last checkpoint to the kill "
            f"{statistics.median(waits):.2f} s (median), {max(waits):.2f} s at most, starting included"
        )
    for name, one in references.items():
        console.print(f"{name}: a generation takes {one.generation:.2f} s, a whole run {one.whole:.2f} s")
    for run in runs:
        if run["wrong"]:
            console.print(f"run {run['number']} ({run['case']}): {'; '.join(run['wrong'])}")


def held(config: KillsConfig) -> list[dict]:
    """The records in the file of --json; raises ``UserError`` where they are of other settings."""
    if config.json is None or not config.json.exists():
        return []
    found = read_json(config.json)
    if found.get("settings") != _settings(config):
        raise UserError(f"{config.json} holds runs of other settings or another version: choose another --json")
    return found["runs"]


def _settings(config: KillsConfig) -> dict:
    """What the records depend on."""
    return {
        "seed": config.seed,
        "mercy": config.mercy,
        "cases": list(config.cases),
        "code": code_version(),
    }


def main(config: KillsConfig) -> None:
    """End runs, or time checkpoints; exit code 1 where a run ends otherwise than the uninterrupted one."""
    at_least(config, kills=1, seed=0, workers=1)
    in_range(config, "[0, 1)", "mercy")
    in_range(config, "(0, inf)", "minutes")
    for name in config.cases:
        if name not in CASES:
            raise UserError(f"--cases {name} is unknown: the cases are {', '.join(CASES)}")
    console = Console(highlight=False, soft_wrap=True)
    if config.checkpoints:
        show_checkpoints(console)
        return
    runs = held(config)

    def keep(found: list[dict]) -> None:
        if config.json is not None:
            write_json(config.json, {"settings": _settings(config), "runs": found})

    with tempfile.TemporaryDirectory() as name:
        weights = save_network(Path(name) / "tiny.safetensors")
        cases = {case: replace(settings, weights=weights) for case, settings in CASES.items()}
        found = survive(config, cases, Path(name), lambda line: console.print(line, style="dim"), runs, keep)
    show(console, *found)
    if not all(map(identical, found[0])):
        sys.exit(1)


if __name__ == "__main__":
    command.run(KillsConfig, main, "kills", __doc__)
