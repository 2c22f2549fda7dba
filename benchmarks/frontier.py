"""A frontier in one search, beside sweeps of single searches, at equal image evaluations.

    python -m benchmarks.frontier --json frontier.json               # three seeds, the network in the package
    python -m benchmarks.frontier --json frontier.json --minutes 9   # stop after a while; again, to go on

Three ways to trade accuracy, timesteps and energy:

    frontier     jaxsnn.optimize --objectives accuracy latency energy
    calibrated   a search by the divergence around the network calibrated for T, for every T by itself
    paper        thresholds searched with eq. 11 alone, for several gamma, and read after every T

A sweep's budget is divided among its searches. Networks are chosen on training images, and all are simulated once
on the same test images. The hypervolume of (wrong answers, timesteps, INT8 energy) is a share of the box up to
chance, one step more than the longest T, and the most energy that any network took. The paper's networks, which
know no T, count at all of them, with membranes empty and half full: that flatters them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import data
from benchmarks import command
from jaxsnn.cli.options import DataOptions, DebugOptions, WeightsOptions
from jaxsnn.conversion.loading import load_snn
from jaxsnn.conversion.start import Start
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.records.calibrated_network import load_start, save_start
from jaxsnn.runtime.checks import at_least, in_range
from jaxsnn.runtime.files import plain, read_json, write_json
from jaxsnn.search.front import make_front, volume
from jaxsnn.search.job import calibrated_on, calibrated_start, make_job
from jaxsnn.search.measures import measures
from jaxsnn.search.presets import FEW
from jaxsnn.search.settings import SearchSettings
from jaxsnn.simulation.observe import observe
from jaxsnn.simulation.plan import Plan

PLAN = Plan(precision="int8")
OBJECTIVES = ("accuracy", "latency", "energy")
EXACT = Dynamics(delay="none")


@dataclass(frozen=True)
class FrontierConfig(DataOptions, WeightsOptions, DebugOptions):
    """Compare one search of a frontier with sweeps of single searches."""

    json: Path = Path("frontier.json")
    """Keep what is finished in this file, and go on where it ends."""
    minutes: float | None = None
    """Begin nothing new after so many minutes; the table is printed once all is there."""
    seeds: int = 3
    population: int = 16
    generations: int = 8
    images: int = 128
    """Training images of an evaluation, in every way."""
    calibration_images: int = 512
    timesteps: tuple[int, ...] = (2, 4, 8, 16)
    gammas: tuple[float, ...] = (20.0, 100.0, 500.0, 2500.0)
    """Weights of the final accuracy in eq. 11, for the paper's way."""
    test_images: int = 2000


@dataclass(frozen=True)
class Task:
    """What all ways start from."""

    config: FrontierConfig
    snn: SNN
    train: data.Dataset
    test: data.Dataset

    def start(self, seed: int, timesteps: int) -> Start:
        """The network calibrated for so many steps, the same for all ways, kept beside the results."""
        folder, name = self.config.json.with_suffix(".calibrated"), f"{seed}-{timesteps}.safetensors"
        found = load_start(folder, self.snn, name)
        if found is None:
            found = calibrated_start(replace(self.settings(seed), timesteps=timesteps), self.snn, self.train)
            folder.mkdir(exist_ok=True)
            save_start(folder, found, name)
        return found

    def settings(self, seed: int) -> SearchSettings:
        config = self.config
        return replace(
            FEW,
            seed=seed,
            population=config.population,
            generations=config.generations,
            images=config.images,
            final_images=max(256, config.images),
            calibration_images=config.calibration_images,
            front_timesteps=config.timesteps,
        )

    def divided(self, seed: int, searches: int) -> SearchSettings:
        """The settings of one of so many searches that share the budget of the frontier's."""
        config = self.config
        each = config.population * (config.generations + 1) // searches
        population = max(4, min(config.population, each // 3))
        return replace(self.settings(seed), population=population, generations=max(1, each // population - 1))

    def points(self, snn: SNN, genes: Genes, timesteps: int) -> np.ndarray:
        """Objectives (P, 3) on the test images."""
        seen = observe(
            snn,
            genes,
            self.test.images[:],
            self.test.labels,
            timesteps=timesteps,
            dynamics=EXACT,
            plan=PLAN,
        )
        found = measures(snn.network, seen, 0, "INT8")
        return np.stack([found[name] for name in OBJECTIVES], 1)


def frontier(task: Task, seed: int) -> tuple[np.ndarray, int]:
    """One search; points, and evaluations x images it took."""
    settings = replace(task.settings(seed), objectives=OBJECTIVES)
    starts = {steps: task.start(seed, steps) for steps in task.config.timesteps}
    front = make_front(settings, starts, task.train, PLAN)
    *_, (generation, _, _) = front.generations(front.engine.init(seed))
    vectors, _, judged = front.final(generation)
    own, found = front.steps_of(vectors), []
    for steps, start in starts.items():
        if (own == steps).any():
            found.append(task.points(start.snn, front.genes_of(vectors[own == steps], steps), steps))
    return np.concatenate(found), generation.image_evaluations + judged


def calibrated(task: Task, seed: int) -> tuple[np.ndarray, int]:
    """A search around the calibrated network of every T; the network before the search is a point, too."""
    found, spent = [], 0
    for steps in task.config.timesteps:
        settings = replace(task.divided(seed, len(task.config.timesteps)), timesteps=steps)
        start = task.start(seed, steps)
        job = make_job(settings, task.snn, task.train, None, start=start, plan=PLAN)
        last = job.last()
        leaders, judged = job.final(last)
        spent += last.image_evaluations + judged
        genes = Genes.stack(start.genes, leaders[0].genes or start.genes)
        found.append(task.points(start.snn, genes, steps))
    return np.concatenate(found), spent


def paper(task: Task, seed: int) -> tuple[np.ndarray, int]:
    """Thresholds searched with eq. 11, for every gamma."""
    found, spent = [], 0
    for gamma in task.config.gammas:
        divided = task.divided(seed, len(task.config.gammas))
        settings = replace(
            SearchSettings(area=0.0, limit=0.0, gamma=gamma, delay="none", timesteps=max(task.config.timesteps)),
            seed=seed,
            population=divided.population,
            generations=divided.generations,
            images=divided.images,
            final_images=divided.final_images,
            calibration_images=divided.calibration_images,
        )
        job = make_job(settings, task.snn, task.train, calibrated_on(settings, task.snn, task.train), plan=PLAN)
        last = job.last()
        leaders, judged = job.final(last)
        spent += last.image_evaluations + judged
        empty = leaders[0].genes or job.codec.baseline()
        both = Genes.stack(empty, empty._replace(v0=np.full_like(empty.threshold, 0.5)))
        found += [task.points(task.snn, both, steps) for steps in task.config.timesteps]
    return np.concatenate(found), spent


WAYS: dict[str, Callable[[Task, int], tuple[np.ndarray, int]]] = {
    "frontier": frontier,
    "calibrated": calibrated,
    "paper": paper,
}


def main(config: FrontierConfig) -> None:
    """Run what is missing; with all there, print hypervolumes."""
    at_least(
        config, seeds=1, population=4, generations=1, images=1, calibration_images=1, timesteps=1, test_images=1
    )
    in_range(config, "(0, inf)", "minutes", "gammas")
    console, began = Console(), time.monotonic()
    settings = {
        name: value for name, value in vars(config).items() if name not in ("json", "minutes", "seeds", "debug")
    }
    settings = plain({name: str(v) if isinstance(v, Path) else v for name, v in settings.items()})
    done: dict[str, dict] = {}
    if config.json.exists():
        held = read_json(config.json)
        if held.get("settings") != settings:
            raise UserError(f"{config.json} holds runs with other settings: give another --json")
        done = held["runs"]
    train, test = config.load("train"), config.load("test", config.test_images)
    snn, _ = load_snn(config.weights, config.network, train.images.shape[1:], console.print)
    task = Task(config, snn, train, test)
    for seed in range(config.seeds):
        for name, way in WAYS.items():
            if f"{name} {seed}" in done:
                continue
            if config.minutes is not None and time.monotonic() - began > 60 * config.minutes:
                console.print(f"stopped after {config.minutes:g} minutes: the same command goes on")
                return
            started = time.monotonic()
            points, spent = way(task, seed)
            seconds = time.monotonic() - started
            done[f"{name} {seed}"] = {"points": points.tolist(), "image_evaluations": spent, "seconds": seconds}
            write_json(config.json, {"settings": settings, "runs": done})
            console.print(f"{name}, seed {seed}: {len(points)} points, {seconds:.0f} s")
    console.print(table(done, config, snn.network.classes))


def table(done: dict[str, dict], config: FrontierConfig, classes: int) -> Table:
    """Hypervolume of every way and seed, in percent of the box that all share."""
    most = max(point[2] for run in done.values() for point in run["points"])
    reference = np.array([1 - 1 / classes, max(config.timesteps) + 1, most])
    found = Table(
        "hypervolume [%]", *(f"seed {seed}" for seed in range(config.seeds)), "mean", "image evaluations"
    )
    for name in WAYS:
        runs = [done[f"{name} {seed}"] for seed in range(config.seeds)]
        values = [100 * volume(np.array(run["points"]), reference) for run in runs]
        cells = (f"{value:.2f}" for value in (*values, float(np.mean(values))))
        found.add_row(name, *cells, f"{np.mean([run['image_evaluations'] for run in runs]):,.0f}")
    return found


if __name__ == "__main__":
    command.run(FrontierConfig, main, "frontier", __doc__)
