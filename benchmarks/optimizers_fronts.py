"""Fronts of several costs at equal evaluations: evo's GDE3, pymoo's NSGA-II, and pymoode's GDE3.

    python -m benchmarks.optimizers_fronts                 # 20 seeds, 10,000 evaluations
    python -m benchmarks.optimizers_fronts --json fronts.json --minutes 9   # stop after a while; again, to go on

ZDT1 to ZDT3 (30 dimensions, 2 costs) and DTLZ2 (12 dimensions, 3 costs), P = 100: the hypervolume that the last
population's front covers up to 1.1 in every cost, exactly, median and quartiles over the seeds. NSGA-II has
pymoo's defaults; pymoode's GDE3 is run with evo's F and C, which were chosen on these problems (seeds 0 to 2; the
runs here start at 100), and with those of its own documentation. All start from uniform points of their own. Needs
pymoo, and pymoode for its GDE3; one that is not installed is left out with a line.
"""

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

import evo
from benchmarks import command
from evo.engines.gde3 import Gde3
from jaxsnn.cli.options import DebugOptions
from jaxsnn.errors import UserError
from jaxsnn.runtime.checks import at_least, in_range
from jaxsnn.runtime.files import plain, read_json, write_json

POPULATION = 100


EDGE = 1.1
"""The reference point of the hypervolume, in every cost."""


FIRST_SEED = 100


DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(Gde3) if field.init}


@dataclass(frozen=True)
class FrontsConfig(DebugOptions):
    """Compare optimisers of several costs by hypervolume, at equal evaluations."""

    seeds: int = 20
    evaluations: int = 10_000
    """Of each run, in whole generations of 100."""
    mutation: tuple[float, float] = DEFAULTS["mutation"]
    """F of both GDE3s, drawn for each trial."""
    crossover: float = DEFAULTS["crossover"]
    """C of both."""
    json: Path | None = None
    """Keep every run's hypervolume and seconds in this file, and go on where it ends."""
    minutes: float | None = None
    """Begin no run after so many minutes; the table is printed once all runs are there."""


class Problem(NamedTuple):
    """Costs (P, M) of points (P, D) of the unit cube."""

    dimension: int
    objectives: int
    costs: Callable[[np.ndarray], np.ndarray]


Run = Callable[[Problem, int, int], np.ndarray]
"""The last population's costs, (N, M), of a problem, a budget and a seed."""
Runs = dict[str, dict[str, dict[str, list[float]]]]
"""By optimiser, problem and seed: hypervolume and seconds."""


def zdt(shape: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Zitzler, Deb and Thiele (2000): f1 = x1, f2 = g h(f1, g), g the mean of the others."""

    def costs(x: np.ndarray) -> np.ndarray:
        first, g = x[:, 0], 1 + 9 * x[:, 1:].mean(axis=1)
        return np.stack([first, g * shape(first, g)], axis=1)

    return costs


def dtlz2(x: np.ndarray) -> np.ndarray:
    """Deb, Thiele, Laumanns and Zitzler (2002), three costs: an eighth of a sphere."""
    radius = 1 + ((x[:, 2:] - 0.5) ** 2).sum(axis=1)
    a, b = x[:, 0] * np.pi / 2, x[:, 1] * np.pi / 2
    axes = [np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)]
    return radius[:, None] * np.stack(axes, axis=1)


PROBLEMS = {
    "ZDT1": Problem(30, 2, zdt(lambda f, g: 1 - np.sqrt(f / g))),
    "ZDT2": Problem(30, 2, zdt(lambda f, g: 1 - (f / g) ** 2)),
    "ZDT3": Problem(30, 2, zdt(lambda f, g: 1 - np.sqrt(f / g) - f / g * np.sin(10 * np.pi * f))),
    "DTLZ2": Problem(12, 3, dtlz2),
}


def with_evo(mutation: tuple[float, float], crossover: float) -> Run:
    """evo's GDE3."""

    def run(problem: Problem, evaluations: int, seed: int) -> np.ndarray:
        low, high = np.zeros(problem.dimension), np.ones(problem.dimension)
        settings = {"init": "random", "mutation": mutation, "crossover": crossover}
        engine = evo.make_front_engine(low, high, POPULATION, problem.objectives, **settings)
        state = engine.init(seed)
        for _ in range(evaluations // POPULATION):
            candidates, state = engine.ask(state)
            state = engine.tell(state, candidates, problem.costs(candidates))
        return engine.costs(state)

    return run


def with_pymoo(make: Callable[[Problem], Any]) -> Run:
    """An algorithm of pymoo's, made for the problem."""
    from pymoo.core.problem import Problem as PymooProblem
    from pymoo.optimize import minimize

    def run(problem: Problem, evaluations: int, seed: int) -> np.ndarray:
        class Wrapped(PymooProblem):
            def _evaluate(self, x, out, *args, **kwargs):
                out["F"] = problem.costs(x)

        wrapped = Wrapped(n_var=problem.dimension, n_obj=problem.objectives, xl=0.0, xu=1.0)
        result = minimize(wrapped, make(problem), ("n_eval", evaluations), seed=seed)
        return result.algorithm.pop.get("F")

    return run


def nsga2() -> Run:
    """pymoo's NSGA-II with its defaults."""
    from pymoo.algorithms.moo.nsga2 import NSGA2

    return with_pymoo(lambda problem: NSGA2(pop_size=POPULATION))


def pymoodes_gde3(**settings: Any) -> Run:
    """pymoode's GDE3 with its pruned crowding: by distance for two costs, by M nearest neighbours for three."""
    from pymoode.algorithms import GDE3
    from pymoode.survival import RankAndCrowding

    def make(problem: Problem) -> Any:
        survival = RankAndCrowding(crowding_func="pcd" if problem.objectives == 2 else "mnn")
        return GDE3(pop_size=POPULATION, survival=survival, **settings)

    return with_pymoo(make)


def runners(console: Console, config: FrontsConfig) -> dict[str, Run]:
    """Optimisers by name; a peer that is not installed is left out with a line."""
    table: dict[str, Run] = {"evo GDE3": with_evo(config.mutation, config.crossover)}
    peers: dict[str, Callable[[], Run]] = {
        "pymoo NSGA-II": nsga2,
        "pymoode GDE3": lambda: pymoodes_gde3(CR=config.crossover, F=config.mutation),
        "pymoode GDE3, its settings": lambda: pymoodes_gde3(CR=0.5, F=(0.0, 0.9)),
    }
    for name, build in peers.items():
        try:
            table[name] = build()
        except ImportError as error:
            console.print(f"left out: {name} ({error})", markup=False)
    return table


def main(config: FrontsConfig) -> None:
    """Run all on all, or what is still missing, and print hypervolumes and seconds."""
    at_least(config, seeds=1, evaluations=POPULATION)
    in_range(config, "(0, inf)", "minutes")
    if config.minutes is not None and config.json is None:
        raise UserError("--minutes needs a file from which the next call goes on: give --json, too")
    console = Console()
    settings = {name: plain(getattr(config, name)) for name in ("evaluations", "mutation", "crossover")}
    done = _read(config.json, settings)
    table, began = runners(console, config), time.monotonic()
    seeds = range(FIRST_SEED, FIRST_SEED + config.seeds)
    for (name, run), kind, seed in itertools.product(table.items(), PROBLEMS, seeds):
        if config.minutes is not None and time.monotonic() - began > 60 * config.minutes:
            console.print(f"stopped after {config.minutes:g} minutes: the same command goes on", highlight=False)
            return
        runs = done.setdefault(name, {}).setdefault(kind, {})
        if str(seed) in runs:
            continue
        problem, started = PROBLEMS[kind], time.process_time()
        front = run(problem, config.evaluations, seed)
        seconds = time.process_time() - started
        runs[str(seed)] = [evo.hypervolume(front, np.full(problem.objectives, EDGE)), seconds]
        if config.json is not None:
            write_json(config.json, {"settings": settings, "runs": done})
    console.print(_table(table, done, seeds))


def _read(path: Path | None, settings: dict) -> Runs:
    """The runs that a file holds; raises ``UserError`` where they were made with other settings."""
    if path is None or not path.exists():
        return {}
    held = read_json(path)
    if held.get("settings") != settings:
        raise UserError(f"{path} holds runs with other settings: give another --json")
    return held["runs"]


def _table(names: Iterable[str], done: Runs, seeds: range) -> Table:
    table = Table("hypervolume, median (quartiles)", *PROBLEMS, "s a run")
    for name in names:
        runs = {kind: np.array([done[name][kind][str(seed)] for seed in seeds]) for kind in PROBLEMS}
        quartiles = (np.quantile(values[:, 0], [0.25, 0.5, 0.75]) for values in runs.values())
        cells = (f"{middle:.4f} ({low:.4f} to {high:.4f})" for low, middle, high in quartiles)
        table.add_row(name, *cells, f"{np.mean([values[:, 1].mean() for values in runs.values()]):.2f}")
    return table


if __name__ == "__main__":
    command.run(FrontsConfig, main, "optimizers_fronts", __doc__)
