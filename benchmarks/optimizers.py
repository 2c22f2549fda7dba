"""Optimisers at equal evaluations, and what a generation of each engine costs.

    python -m benchmarks.optimizers                       # functions and overhead, 3 minutes
    python -m benchmarks.optimizers --parts thresholds racing
    python -m benchmarks.optimizers --json results.json   # and the figures behind them

functions: sphere, Rosenbrock, Rastrigin and Ackley in 14 dimensions, 350 and 650 evaluations (P = 25), median and
quartiles of the lowest cost over 20 seeds, F in [0.5, 1.5], C = 0.7. All start from a Latin hypercube, peers from
the one that the engine "scipy" draws; evosax's strategies without a population start in the middle. The boxes
are not centred on the minima, because some optimisers favour the middle. Peers: SciPy, evosax without our engine
around it, and pymoo, left out with a line where they are not installed.

thresholds: the same for the threshold search of the embedded network (`benchmarks.threshold_objective`), from
populations drawn around the 99.7 percentile; and the cost that the winners have on other training images.

racing: that search with SciPy's algorithm, plain, raced exactly and raced at 95 % confidence: simulated images and
final cost, and how many end at the very same thresholds (of the exact ones, all).

Runs of the last two are kept in a file (--cache), so that they can be interrupted and go on. Twenty seeds are
150,000 evaluations of the thresholds and 21,000 of the races. More images and steps make them less coarse.
"""

import argparse
import functools
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

import evo
from benchmarks.threshold_objective import ThresholdSearch, threshold_search
from jaxsnn.runtime.files import write_json
from jaxsnn.search.evolve import Racing, evolve, subsets
from jaxsnn.search.objective import Objective as SimulatedObjective

DIMENSION, POPULATION = 14, 25


MUTATION, CROSSOVER = (0.5, 1.5), 0.7


BUDGETS = (350, 650)


PARTS = ("functions", "overhead", "thresholds", "racing")


RACES = {"no race": None, "exact race": Racing(confidence=1.0), "race at 95 %": Racing(confidence=0.95)}


class Objective(NamedTuple):
    """A cost of candidates (P, D) -> (P,) over the box [low, high], (D,) each.

    With ``mean`` and ``std``, (D,) each, populations start normal around it, else from a Latin hypercube.
    """

    name: str
    cost: Callable
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray | None = None
    std: np.ndarray | None = None

    def engine(self, name, **settings):
        return evo.make_engine(
            name, self.low, self.high, POPULATION, mean=self.mean, std=self.std, tol=0, **settings
        )

    def start(self, seed):
        """An initial population (P, D), for a peer that is given one."""
        engine = self.engine("scipy")
        return engine.parents(engine.init(seed))


def sphere(points):
    return np.sum(points**2, axis=-1)


def rosenbrock(points):
    return np.sum(100.0 * (points[..., 1:] - points[..., :-1] ** 2) ** 2 + (1 - points[..., :-1]) ** 2, axis=-1)


def rastrigin(points):
    return np.sum(points**2 - 10 * np.cos(2 * np.pi * points) + 10, axis=-1)


def ackley(points):
    radius = np.sqrt(np.mean(points**2, axis=-1))
    waves = np.mean(np.cos(2 * np.pi * points), axis=-1)
    return 20 + np.e - 20 * np.exp(-0.2 * radius) - np.exp(waves)


def in_box(name, cost, low, high):
    return Objective(name, cost, np.full(DIMENSION, low), np.full(DIMENSION, high))


OBJECTIVES = [
    in_box("sphere", sphere, -3.0, 7.0),
    in_box("Rosenbrock", rosenbrock, -2.0, 3.0),
    in_box("Rastrigin", rastrigin, -3.0, 7.0),
    in_box("Ackley", ackley, -10.0, 20.0),
]


def thresholds_objective(search: ThresholdSearch):
    box = {name: search.codec.spread(name) for name in ("low", "high", "mean", "std")}
    return Objective("thresholds", search.cost(), **box)


class Counted:
    """A cost that refuses to be asked for more than `budget` candidates, and knows the best of the first few."""

    def __init__(self, cost, budget):
        self.cost, self.left, self.budget = cost, budget, budget
        self.costs, self.points = [], []

    def __call__(self, points):
        if len(points) > self.left:
            raise RuntimeError(f"{len(points)} candidates asked for, {self.left} evaluations left")
        self.left -= len(points)
        costs = self.cost(points)
        self.costs.extend(costs)
        self.points.extend(np.array(points))
        return costs

    def best(self, budget):
        """The lowest cost among the first `budget` evaluations, its candidate, and how many there were."""
        costs = self.costs[:budget]
        row = int(np.argmin(costs))
        return {"lowest": float(costs[row]), "best": self.points[row].tolist(), "evaluations": len(costs)}


class Cache:
    """Results by key, kept in a file so that a long benchmark can be interrupted and goes on.

    Without a path they are kept in memory alone.
    """

    def __init__(self, path: Path | None, settings: dict):
        self.path, self.settings, self.results = path, json.loads(json.dumps(settings)), {}
        if path is not None and path.exists():
            held = json.loads(path.read_text())
            if held["settings"] != self.settings:
                raise SystemExit(
                    f"{path} holds runs with other settings ({held['settings']}): choose another --cache"
                )
            self.results = held["results"]

    def get(self, key: str, compute: Callable[[], dict]) -> dict:
        if key not in self.results:
            self.results[key] = compute()
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_json(self.path, {"settings": self.settings, "results": self.results})
        return self.results[key]


class Clock:
    """A line behind each of `total` runs: what it was and how long the rest will take."""

    def __init__(self, console, total):
        self.console, self.total, self.done, self.computed, self.seconds = console, total, 0, 0, 0.0

    def run(self, name, cache, key, compute):
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


def with_engine(name, **settings):
    """A run of one of our engines: (objective, counted cost, seed) -> None."""

    def run(objective, counted, seed):
        options = {"evaluations": counted.budget} if name == "lshade" else {}
        engine = objective.engine(name, **settings, **options)
        state = engine.init(seed)
        while True:
            candidates, state = engine.ask(state)
            if len(candidates) > counted.left:
                return
            state = engine.tell(state, candidates, counted(np.asarray(candidates, dtype=np.float64)))

    return run


def with_scipy(strategy, updating):
    from scipy.optimize import differential_evolution

    def run(objective, counted, seed):
        batched = updating == "deferred"
        differential_evolution(
            (lambda x: counted(x.T)) if batched else lambda x: counted(x[None])[0],
            list(zip(objective.low, objective.high, strict=True)),
            strategy=strategy,
            init=objective.start(seed),
            maxiter=counted.budget // POPULATION - 1,
            tol=0,
            mutation=MUTATION,
            recombination=CROSSOVER,
            updating=updating,
            vectorized=batched,
            polish=False,
            rng=np.random.default_rng(seed),
        )

    return run


@functools.cache
def evosax_de(dimension):
    """evosax's algorithm for POPULATION candidates; it compiles per object."""
    from evosax.algorithms import DifferentialEvolution

    return DifferentialEvolution(population_size=POPULATION, solution=np.zeros(dimension, np.float32))


def with_evosax():
    """evosax's own best/1/bin, dithered like the others. It has no bounds: trials are clipped."""
    import evosax  # noqa: F401
    import jax

    def run(objective, counted, seed):
        algorithm = evosax_de(len(objective.low))
        params = algorithm.default_params.replace(
            elitism=True,
            crossover_rate=CROSSOVER,
            differential_weight_min=MUTATION[0],
            differential_weight_max=MUTATION[1],
        )
        low, high = objective.low.astype(np.float32), objective.high.astype(np.float32)

        def cost(trials):
            return np.asarray(counted(trials.astype(np.float64)), np.float32)

        key = jax.random.PRNGKey(seed)
        start = objective.start(seed).astype(np.float32)
        state = algorithm.init(key, start, cost(start), params)
        while counted.left >= POPULATION:
            key, ask_key, tell_key = jax.random.split(key, 3)
            trials, state = algorithm.ask(ask_key, state, params)
            trials = np.clip(trials, low, high)
            state, _ = algorithm.tell(tell_key, trials, cost(trials), state, params)

    return run


def with_pymoo(**settings):
    from pymoo.algorithms.soo.nonconvex.de import DE
    from pymoo.core.problem import Problem
    from pymoo.optimize import minimize

    def run(objective, counted, seed):
        class Wrapped(Problem):
            def _evaluate(self, x, out, *args, **kwargs):
                out["F"] = np.asarray(counted(x))[:, None]

        problem = Wrapped(n_var=len(objective.low), n_obj=1, xl=objective.low, xu=objective.high)
        algorithm = DE(pop_size=POPULATION, sampling=objective.start(seed), variant="DE/best/1/bin", **settings)
        minimize(problem, algorithm, ("n_eval", counted.budget), seed=seed)

    return run


def runners(console, batched):
    """Optimisers by name; a peer that is not installed is left out with a line.

    With ``batched``, without those that evaluate one candidate at a time.
    """
    de = {"mutation": MUTATION, "crossover": CROSSOVER}
    table = {
        "evo scipy best1bin": with_engine("scipy", **de),
        "evo scipy rand1bin": with_engine("scipy", strategy="rand1bin", **de),
        "evo jax best1bin": with_engine("jax", **de),
        "evo lshade": with_engine("lshade"),
        "evo evosax best1bin": with_engine("evosax", **de),
        "evo evosax rand1bin": with_engine("evosax", strategy="rand1bin", **de),
        "evo evosax:CMA_ES": with_engine("evosax:CMA_ES"),
    }
    peers = {
        "SciPy best1bin deferred": lambda: with_scipy("best1bin", "deferred"),
        "SciPy best1bin immediate": lambda: with_scipy("best1bin", "immediate"),
        "evosax best1bin, clipped": with_evosax,
        # pymoo's DE does not dither; it mutates further on its own. Once like the others, once as it comes.
        "pymoo DE best1bin F=1": lambda: with_pymoo(F=sum(MUTATION) / 2, CR=CROSSOVER),
        "pymoo DE as it comes": lambda: with_pymoo(),
    }
    for name, build in peers.items():
        if batched and name.endswith("immediate"):
            continue
        try:
            table[name] = build()
        except ImportError as error:
            console.print(f"left out: {name} ({error})")
    return table


def runs_of(name):
    """The budgets that each run answers for: L-SHADE searches otherwise when it has less, the others do not."""
    return [(budget,) for budget in BUDGETS] if name == "evo lshade" else [BUDGETS]


def one_run(run, objective, budgets, seed, fresh_cost):
    """The best of the first evaluations, by budget; JSON's keys are strings."""
    counted = Counted(objective.cost, budgets[-1])
    run(objective, counted, seed)
    best = {str(budget): counted.best(budget) for budget in budgets}
    for result in best.values() if fresh_cost else ():
        result["fresh"] = float(fresh_cost(np.array([result["best"]]))[0])
    return best


def compare(objectives, seeds, console, cache, batched=False, fresh_cost=None):
    """One row per optimiser, objective and budget: median and quartiles of the lowest cost over the seeds.

    With ``fresh_cost``, also those of the cost that the best candidates have there.
    """
    optimisers = runners(console, batched)
    total = sum(len(runs_of(name)) for name in optimisers) * len(objectives) * seeds
    clock = Clock(console if cache.path else Console(quiet=True), total)
    rows = []
    for name, run in optimisers.items():
        for objective in objectives:
            found = {budget: [] for budget in BUDGETS}
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


def quartiles(values):
    first, median, third = np.quantile(values, (0.25, 0.5, 0.75))
    return {"median": float(median), "quartiles": [float(first), float(third)]}


def races(search: ThresholdSearch, seeds, evaluations, console, cache):
    """One row per race, with and without the limit's term: simulated images and the final cost over the seeds."""
    rows = []
    clock = Clock(console, len({0.0, search.config.limit}) * len(RACES) * seeds)
    for limit in sorted({0.0, search.config.limit}):
        results = {name: [] for name in RACES}
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


def one_race(search: ThresholdSearch, limit, racing, seed, evaluations):
    """One search with the engine "scipy"; the seed draws its populations, the subset stays."""
    began = time.perf_counter()
    config = replace(search.config, limit=limit)
    simulated = SimulatedObjective(config, search.snn, search.searched)
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


def overhead(repeats=200):
    """Milliseconds of ask and tell per generation, no objective: median of `repeats` warm generations."""
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


def overhead_on_device(low, high, generations=100, repeats=9):
    """The jitted loop, sphere included, per generation: one run alone and one of twenty side by side."""
    import jax
    import jax.numpy as jnp

    def cost(points):
        return jnp.sum(points**2, axis=-1)

    rows = []
    engine = evo.make_engine("jax", low, high, POPULATION)
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


def show_costs(console, comparison):
    """One table per budget, a column per objective, and one for the cost on fresh images where it is known."""
    for budget in BUDGETS:
        rows = [row for row in comparison if row["budget"] == budget]
        names = list(dict.fromkeys(row["objective"] for row in rows))
        table = Table(
            title=f"best cost after {budget} evaluations: median and quartiles, {rows[0]['seeds']} seeds"
        )
        table.add_column("optimiser")
        for column in (*names, *(["on fresh images"] if "fresh" in rows[0] else [])):
            table.add_column(column, justify="right")
        for optimizer in dict.fromkeys(row["optimizer"] for row in rows):
            own = [row for row in rows if row["optimizer"] == optimizer]
            cells = [*own, *(row["fresh"] for row in own if "fresh" in row)]
            table.add_row(optimizer, *(show(cell) for cell in cells))
        console.print(table)


def show(cell, digits=3):
    low, high = cell["quartiles"]
    return f"{cell['median']:.{digits}g} [{low:.{digits}g}, {high:.{digits}g}]"


def show_overhead(console, overheads):
    table = Table(title=f"overhead per generation, P = {POPULATION}, D = {DIMENSION}, warm")
    for column in ("engine", "form", "ms"):
        table.add_column(column)
    for row in overheads:
        table.add_row(row["engine"], row["form"], f"{row['milliseconds']:.3f}")
    console.print(table)


def show_races(console, rows):
    title = f"racing, {rows[0]['evaluations']} evaluations, {rows[0]['seeds']} seeds: median and quartiles"
    table = Table(title=title)
    columns = (
        "",
        "limit's weight",
        "images simulated",
        "share",
        "final cost",
        "same end",
        "limit passes",
        "seconds",
    )
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        images, share, cost, passes, seconds = (
            show(row[name], 4) for name in ("images", "share", "cost", "limit_passes", "seconds")
        )
        same = f"{row['same_end']}/{row['seeds']}"
        table.add_row(row["race"], f"{row['limit']:g}", images, share, cost, same, passes, seconds)
    console.print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:2])
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--cache", type=Path, default=Path("runs/optimizers.json"), help="runs of the thresholds")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--images", type=int, default=30, help="training images that a candidate is simulated on")
    parser.add_argument(
        "--timesteps", type=int, default=30, help="timesteps of the simulation, ten of delay included"
    )
    parser.add_argument(
        "--limit-images", type=int, default=0, help="training images of the preset's limit term; 0: without"
    )
    parser.add_argument("--check-images", type=int, default=400, help="fresh training images of the final cost")
    parser.add_argument("--race-evaluations", type=int, default=BUDGETS[0], help="evaluations of a raced search")
    arguments = parser.parse_args()
    console = Console()
    began = time.perf_counter()
    record = {"machine": f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}"}
    seeds = arguments.seeds
    if "functions" in arguments.parts:
        record["comparison"] = compare(OBJECTIVES, seeds, console, Cache(None, {}))
        show_costs(console, record["comparison"])
    if "overhead" in arguments.parts:
        record["overhead"] = overhead()
        show_overhead(console, record["overhead"])
    if {"thresholds", "racing"} & set(arguments.parts):
        size = {name: getattr(arguments, name) for name in ("images", "timesteps", "limit_images", "check_images")}
        cache, search = Cache(arguments.cache, size), threshold_search(**size)
        if "thresholds" in arguments.parts:
            fresh_cost, baseline = search.fresh_cost(), search.codec.baseline_vector()[None]
            objective = thresholds_objective(search)
            record["baseline"] = {
                "cost": float(objective.cost(baseline)[0]),
                "fresh": float(fresh_cost(baseline)[0]),
            }
            record["thresholds"] = compare([objective], seeds, console, cache, True, fresh_cost)
            show_costs(console, record["thresholds"])
            console.print(
                "99.7 percentile: cost {cost:.4g}, on fresh images {fresh:.4g}".format(**record["baseline"])
            )
        if "racing" in arguments.parts:
            record["racing"] = races(search, seeds, arguments.race_evaluations, console, cache)
            show_races(console, record["racing"])
        record["thresholds_size"] = size
    record["seconds"] = time.perf_counter() - began
    console.print(f"{seeds} seeds, {record['seconds']:.0f} s, {record['machine']}", highlight=False)
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
