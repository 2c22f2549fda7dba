"""Optimisers at equal evaluations, and what a generation of each engine costs.

    python -m benchmarks.optimizers                       # functions and overhead, 3 minutes
    python -m benchmarks.optimizers --parts thresholds racing
    python -m benchmarks.optimizers --json results.json   # and write all figures to a file

functions: sphere, Rosenbrock, Rastrigin and Ackley in 14 dimensions, 350 and 650 evaluations (P = 25), median and
quartiles of the lowest cost over 20 seeds, F in [0.5, 1.5], C = 0.7. All start from a Latin hypercube, peers from
the one that the engine "scipy" draws; evosax's strategies without a population start in the middle. The boxes
are not centred on the minima, because some optimisers favour the middle. Peers: SciPy, evosax without our engine
around it, and pymoo, left out with a line where they are not installed.

thresholds: the same for the threshold search of the embedded network (`benchmarks.threshold_objective`), from
populations drawn around the 99.7 percentile; and the cost that the winners have on other training images.

racing: that search with SciPy's algorithm, plain, raced exactly and raced at 95 % confidence: simulated images and
final cost, and how many end at the very same thresholds (of the exact ones, all).

Runs of the last two are kept in a file (--cache), so that they can be interrupted and resumed. Twenty seeds are
150,000 evaluations of the thresholds and 21,000 of the races. More images and steps make the costs less coarse.
"""

import functools
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

import evo
from benchmarks import command
from benchmarks.optimizers_report import show_costs, show_overhead, show_races
from benchmarks.optimizers_runners import (
    CROSSOVER,
    DIMENSION,
    MUTATION,
    OBJECTIVES,
    POPULATION,
    Cost,
    Counted,
    Objective,
    Run,
    runners,
    sphere,
)
from benchmarks.threshold_objective import ThresholdSearch, threshold_search
from jaxsnn.cli.options import DebugOptions
from jaxsnn.errors import UserError
from jaxsnn.runtime.checks import at_least
from jaxsnn.runtime.files import plain, read_json, write_json
from jaxsnn.search.evolve import Racing, evolve, subsets
from jaxsnn.search.objective import Objective as SimulatedObjective

BUDGETS = (350, 650)


RACES = {"no race": None, "exact race": Racing(confidence=1.0), "race at 95 %": Racing(confidence=0.95)}


@dataclass(frozen=True)
class OptimizersConfig(DebugOptions):
    """Compare optimisers at equal evaluations."""

    parts: tuple[Literal["functions", "overhead", "thresholds", "racing"], ...] = ("functions", "overhead")
    json: Path | None = None
    """Write the figures to this file as well."""
    cache: Path = Path("runs/optimizers.json")
    """Runs of the thresholds and of the races."""
    seeds: int = 20
    images: int = 30
    """Training images that a candidate is simulated on."""
    timesteps: int = 30
    """Timesteps of the simulation, ten of layer delay included."""
    limit_images: int = 0
    """Training images of the preset's limit term; 0: without."""
    check_images: int = 400
    """Fresh training images of the final cost."""
    race_evaluations: int = BUDGETS[0]
    """Evaluations of a raced search."""


def thresholds_objective(search: ThresholdSearch) -> Objective:
    """The cost of the threshold search over its box, populations drawn around the baseline."""
    box = {name: search.codec.spread(name) for name in ("low", "high", "mean", "std")}
    return Objective("thresholds", search.cost(), **box)


class Cache:
    """Results by key, kept in a file so that a long benchmark can be interrupted and resumed.

    Without a path they are kept in memory alone.
    """

    def __init__(self, path: Path | None, settings: dict):
        self.path, self.settings = path, plain(settings)
        self.results: dict[str, dict] = {}
        if path is not None and path.exists():
            held = read_json(path)
            if held.get("settings") != self.settings or not isinstance(held.get("results"), dict):
                raise UserError(
                    f"{path} holds runs with other settings ({held.get('settings')}): choose another --cache"
                )
            self.results = held["results"]

    def get(self, key: str, compute: Callable[[], dict]) -> dict:
        """The result of this key, computed where it is not there yet."""
        if key not in self.results:
            self.results[key] = compute()
            if self.path is not None:
                write_json(self.path, {"settings": self.settings, "results": self.results})
        return self.results[key]


class Clock:
    """A line after each of ``total`` runs: what it was and how long the rest will take."""

    def __init__(self, console: Console, total: int):
        self.console, self.total, self.done, self.computed, self.seconds = console, total, 0, 0, 0.0

    def run(self, name: str, cache: Cache, key: str, compute: Callable[[], dict]) -> dict:
        """The result of this key; a line where it had to be computed."""
        began, known = time.perf_counter(), key in cache.results
        result = cache.get(key, compute)
        self.done += 1
        if not known:
            self.computed += 1
            self.seconds += time.perf_counter() - began
            left = (self.total - self.done) * self.seconds / self.computed / 60
            line = f"{self.done}/{self.total} {name}: {time.perf_counter() - began:.1f} s, {left:.0f} min left"
            self.console.print(line, highlight=False)
        return result


def runs_of(name: str) -> list[tuple[int, ...]]:
    """The budgets that each run answers for; L-SHADE needs a run for each, because its search depends on them."""
    return [(budget,) for budget in BUDGETS] if name == "evo lshade" else [BUDGETS]


def one_run(run: Run, objective: Objective, budgets: tuple[int, ...], seed: int, fresh_cost: Cost | None) -> dict:
    """The best of the first evaluations, by budget; JSON's keys are strings."""
    counted = Counted(objective.cost, budgets[-1])
    run(objective, counted, seed)
    best = {str(budget): counted.best(budget) for budget in budgets}
    if fresh_cost is not None:
        for result in best.values():
            result["fresh"] = float(fresh_cost(np.array([result["best"]]))[0])
    return best


def compare(
    objectives: Sequence[Objective],
    seeds: int,
    console: Console,
    cache: Cache,
    batched: bool = False,
    fresh_cost: Cost | None = None,
) -> list[dict]:
    """One row per optimiser, objective and budget: median and quartiles of the lowest cost over the seeds.

    With ``fresh_cost``, also those of the cost that the best candidates have there.
    """
    optimisers = runners(console, batched)
    total = sum(len(runs_of(name)) for name in optimisers) * len(objectives) * seeds
    clock = Clock(console if cache.path else Console(quiet=True), total)
    rows = []
    for name, run in optimisers.items():
        for objective in objectives:
            found: dict[int, list[dict]] = {budget: [] for budget in BUDGETS}
            for seed in range(seeds):
                for reached in runs_of(name):
                    key = f"{name}|{objective.name}|{reached[-1]}|{seed}"
                    work = functools.partial(one_run, run, objective, reached, seed, fresh_cost)
                    for budget, result in clock.run(f"{name}, seed {seed}", cache, key, work).items():
                        found[int(budget)].append(result)
            for budget, results in found.items():
                row = {"optimizer": name, "objective": objective.name, "budget": budget, "seeds": seeds}
                row["evaluations"] = max(result["evaluations"] for result in results)
                row |= quartiles([result["lowest"] for result in results])
                if fresh_cost:
                    row["fresh"] = quartiles([result["fresh"] for result in results])
                rows.append(row)
    return rows


def quartiles(values: Sequence[float]) -> dict:
    """Median and quartiles."""
    first, median, third = np.quantile(values, (0.25, 0.5, 0.75))
    return {"median": float(median), "quartiles": [float(first), float(third)]}


def races(search: ThresholdSearch, seeds: int, evaluations: int, console: Console, cache: Cache) -> list[dict]:
    """One row per race, with and without the limit's term: simulated images and the final cost over the seeds."""
    rows = []
    clock = Clock(console, len({0.0, search.config.limit}) * len(RACES) * seeds)
    for limit in sorted({0.0, search.config.limit}):
        results: dict[str, list[dict]] = {name: [] for name in RACES}
        for seed in range(seeds):
            for name, racing in RACES.items():
                key = f"{name}|limit {limit:g}|{evaluations}|{seed}"
                label = f"{name}, {'with' if limit else 'without'} limit, seed {seed}"
                work = functools.partial(one_race, search, limit, racing, seed, evaluations)
                results[name].append(clock.run(label, cache, key, work))
        for name, runs in results.items():
            pairs = list(zip(runs, results["no race"], strict=True))
            rows.append(
                {
                    "race": name,
                    "limit": limit,
                    "evaluations": evaluations,
                    "seeds": seeds,
                    "images": quartiles([one["images"] for one in runs]),
                    "share": quartiles([one["images"] / plain["images"] for one, plain in pairs]),
                    "same_end": sum(one["best"] == plain["best"] for one, plain in pairs),
                    "cost": quartiles([one["cost"] for one in runs]),
                    "limit_passes": quartiles([one["limit_passes"] for one in runs]),
                    "seconds": quartiles([one["seconds"] for one in runs]),
                }
            )
    return rows


def one_race(search: ThresholdSearch, limit: float, racing: Racing | None, seed: int, evaluations: int) -> dict:
    """One search with the engine "scipy"; the seed draws its populations, the subset stays."""
    began = time.perf_counter()
    config = replace(search.config, limit=limit)
    simulated = SimulatedObjective(config, search.snn, search.searched, plan=config.plan())
    subset = subsets(search.searched.labels, config.images, "fixed", config.seed)
    engine = thresholds_objective(search).engine("scipy", mutation=MUTATION, crossover=CROSSOVER)
    steps = evolve(
        engine, engine.init(seed), search.codec, simulated.terms, simulated, subset, evaluations, racing=racing
    )
    *_, (last, _) = steps
    return {
        "images": last.image_evaluations,
        "cost": last.best.cost,
        "best": last.best.vector.tolist(),
        "limit_passes": simulated.limit_passes,
        "seconds": time.perf_counter() - began,
    }


def overhead(repeats: int = 200) -> list[dict]:
    """Milliseconds of ask and tell per generation, no objective: median of ``repeats`` warm generations."""
    import jax

    rows = []
    low, high = np.zeros(DIMENSION), np.ones(DIMENSION)
    costs = [sphere(np.random.default_rng(i).uniform(size=(POPULATION, DIMENSION))) for i in range(repeats)]
    for name in ("scipy", "lshade", "jax", "evosax"):
        options = {"evaluations": 10**9} if name == "lshade" else {}
        engine = evo.make_engine(name, low, high, POPULATION, **options)
        state = engine.init(0)
        times = []
        for cost in (*costs[:5], *costs):
            began = time.perf_counter()
            candidates, state = engine.ask(state)
            state = engine.tell(state, candidates, cost)
            jax.block_until_ready(state)
            times.append(time.perf_counter() - began)
        rows.append({"engine": name, "form": "ask and tell", "milliseconds": 1e3 * statistics.median(times[5:])})
    return [*rows, *overhead_on_device(low, high)]


def overhead_on_device(low: np.ndarray, high: np.ndarray, generations: int = 100, repeats: int = 9) -> list[dict]:
    """The jitted loop, sphere included, per generation: one run alone and one of twenty side by side."""
    import jax
    import jax.numpy as jnp

    def cost(points):
        return jnp.sum(points**2, axis=-1)

    rows = []
    engine: Any = evo.make_engine("jax", low, high, POPULATION)
    for runs in (1, 20):
        keys = jax.random.split(jax.random.PRNGKey(0), runs)
        times = []
        for _ in range(repeats + 1):
            began = time.perf_counter()
            jax.block_until_ready(evo.minimize_on_device(cost, engine, keys, generations))
            times.append(time.perf_counter() - began)
        form = f"one scan, {runs} run{'s' if runs > 1 else ''}"
        per_generation = 1e3 * statistics.median(times[1:]) / (generations + 1)
        rows.append({"engine": "jax", "form": form, "milliseconds": per_generation, "first_call_s": times[0]})
    return rows


def show_functions(config: OptimizersConfig, console: Console) -> dict:
    """The part "functions"; returns its entries in the file of figures."""
    comparison = compare(OBJECTIVES, config.seeds, console, Cache(None, {}))
    show_costs(console, comparison)
    return {"comparison": comparison}


def show_thresholds(config: OptimizersConfig, console: Console) -> dict:
    """The parts "thresholds" and "racing"; returns their entries in the file of figures."""
    size = {name: getattr(config, name) for name in ("images", "timesteps", "limit_images", "check_images")}
    cache, search = Cache(config.cache, size), threshold_search(**size)
    record: dict[str, Any] = {}
    if "thresholds" in config.parts:
        fresh_cost, baseline = search.fresh_cost(), search.codec.baseline_vector()[None]
        objective = thresholds_objective(search)
        ours = {"cost": float(objective.cost(baseline)[0]), "fresh": float(fresh_cost(baseline)[0])}
        rows = compare([objective], config.seeds, console, cache, True, fresh_cost)
        show_costs(console, rows)
        console.print("99.7 percentile: cost {cost:.4g}, on fresh images {fresh:.4g}".format(**ours))
        record |= {"baseline": ours, "thresholds": rows}
    if "racing" in config.parts:
        record["racing"] = races(search, config.seeds, config.race_evaluations, console, cache)
        show_races(console, record["racing"])
    return record | {"thresholds_size": size}


def main(config: OptimizersConfig) -> None:
    """Run the parts asked for, print their tables and write their figures."""
    at_least(config, seeds=1, images=1, timesteps=2, limit_images=0, check_images=1, race_evaluations=POPULATION)
    console = Console()
    if not console.is_terminal:  # no table is cut in a file
        console = Console(width=120)
    began = time.perf_counter()
    record: dict[str, Any] = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}"
    }
    if "functions" in config.parts:
        record |= show_functions(config, console)
    if "overhead" in config.parts:
        record["overhead"] = overhead()
        show_overhead(console, record["overhead"])
    if {"thresholds", "racing"} & set(config.parts):
        record |= show_thresholds(config, console)
    record["seconds"] = time.perf_counter() - began
    console.print(f"{config.seeds} seeds, {record['seconds']:.0f} s, {record['machine']}", highlight=False)
    if config.json:
        write_json(config.json, record)


if __name__ == "__main__":
    command.run(OptimizersConfig, main, "optimizers", __doc__)
