"""Fronts of several costs at equal evaluations: evo's GDE3, pymoo's NSGA-II, and pymoode's GDE3.

    python -m benchmarks.optimizers_fronts                 # 20 seeds, 10,000 evaluations
    python -m benchmarks.optimizers_fronts --json fronts.json

ZDT1 to ZDT3 (30 dimensions, 2 costs) and DTLZ2 (12 dimensions, 3 costs), P = 100: the hypervolume that the last
population's front covers up to 1.1 in every cost, exactly, median and quartiles over the seeds. NSGA-II has
pymoo's defaults; pymoode's GDE3 is run with evo's F and C, which were chosen on these problems (seeds 0 to 2; the
runs here start at 100), and with those of its own documentation. All start from uniform points of their own. Needs
pymoo, and pymoode for its GDE3; one that is not installed is left out with a line.
"""

import time
from collections.abc import Callable
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
from jaxsnn.runtime.checks import at_least
from jaxsnn.runtime.files import write_json

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
    """Write every run's hypervolume to this file as well."""


class Problem(NamedTuple):
    """Costs (P, M) of points (P, D) of the unit cube."""

    dimension: int
    objectives: int
    costs: Callable[[np.ndarray], np.ndarray]


Run = Callable[[Problem, int, int], np.ndarray]
"""The last population's costs, (N, M), of a problem, a budget and a seed."""


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
    """Run all on all and print hypervolumes and seconds."""
    at_least(config, seeds=1, evaluations=POPULATION)
    console = Console()
    table = Table("hypervolume, median (quartiles)", *PROBLEMS, "s a run")
    written: dict[str, dict[str, list[float]]] = {}
    for name, run in runners(console, config).items():
        row, began = [], time.process_time()
        for kind, problem in PROBLEMS.items():
            reference = np.full(problem.objectives, EDGE)
            seeds = range(FIRST_SEED, FIRST_SEED + config.seeds)
            fronts = (run(problem, config.evaluations, seed) for seed in seeds)
            volumes = [evo.hypervolume(front, reference) for front in fronts]
            written.setdefault(name, {})[kind] = volumes
            low, middle, high = np.quantile(volumes, [0.25, 0.5, 0.75])
            row.append(f"{middle:.4f} ({low:.4f} to {high:.4f})")
        seconds = (time.process_time() - began) / (config.seeds * len(PROBLEMS))
        console.print(f"{name}: done", highlight=False)
        table.add_row(name, *row, f"{seconds:.2f}")
    console.print(table)
    if config.json is not None:
        write_json(config.json, written)


if __name__ == "__main__":
    command.run(FrontsConfig, main, "optimizers_fronts", __doc__)
