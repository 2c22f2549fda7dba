"""Optimisers at equal evaluations, and what a generation of each engine costs.

    python -m benchmarks.optimizers                      # tables
    python -m benchmarks.optimizers --json results.json  # and the figures behind them

Sphere, Rosenbrock, Rastrigin and Ackley in 14 dimensions, 350 and 650 evaluations (P = 25), median and
quartiles of the lowest cost over 20 seeds, every optimiser from a Latin hypercube of its own, F in [0.5,
1.5], C = 0.7. Peers: SciPy and pymoo, left out with a line where they are not installed. The boxes are not
centred on the minima, because some optimisers favour the middle. evosax's strategies without a population
start in the middle.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

import evo

DIMENSION, POPULATION = 14, 25
MUTATION, CROSSOVER = (0.5, 1.5), 0.7
BUDGETS = (350, 650)


class Objective(NamedTuple):
    """A cost of candidates (P, D) -> (P,) over the box [low, high], (D,) each.

    Anything of this shape can be added to `OBJECTIVES`: the threshold search of a network is one.
    """

    name: str
    cost: Callable
    low: np.ndarray
    high: np.ndarray


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


class Counted:
    """A cost that refuses to be asked for more than `budget` candidates."""

    def __init__(self, cost, budget):
        self.cost, self.left, self.lowest = cost, budget, np.inf

    def __call__(self, points):
        if len(points) > self.left:
            raise RuntimeError(f"{len(points)} candidates asked for, {self.left} evaluations left")
        self.left -= len(points)
        costs = self.cost(points)
        self.lowest = min(self.lowest, float(np.min(costs)))
        return costs


def with_engine(name, **settings):
    """A run of one of our engines: (objective, counted cost, budget, seed) -> None."""

    def run(objective, counted, budget, seed):
        options = {"evaluations": budget} if name == "lshade" else {}
        engine = evo.make_engine(name, objective.low, objective.high, POPULATION, **settings, **options)
        state = engine.init(seed)
        while True:
            candidates, state = engine.ask(state)
            if len(candidates) > counted.left:
                return
            state = engine.tell(state, candidates, counted(np.asarray(candidates, dtype=np.float64)))

    return run


def with_scipy(strategy, updating):
    from scipy.optimize import differential_evolution

    def run(objective, counted, budget, seed):
        initial = np.random.default_rng(seed)
        start = evo.make_engine("scipy", objective.low, objective.high, POPULATION)
        differential_evolution(
            lambda x: counted(x[None])[0],
            list(zip(objective.low, objective.high, strict=True)),
            strategy=strategy,
            init=start.parents(start.init(seed)),
            maxiter=budget // POPULATION - 1,
            tol=0,
            mutation=MUTATION,
            recombination=CROSSOVER,
            updating=updating,
            polish=False,
            rng=initial,
        )

    return run


def with_pymoo(**settings):
    from pymoo.algorithms.soo.nonconvex.de import DE
    from pymoo.core.problem import Problem
    from pymoo.operators.sampling.lhs import LHS
    from pymoo.optimize import minimize

    def run(objective, counted, budget, seed):
        class Wrapped(Problem):
            def _evaluate(self, x, out, *args, **kwargs):
                out["F"] = counted(x)[:, None]

        problem = Wrapped(n_var=DIMENSION, n_obj=1, xl=objective.low, xu=objective.high)
        algorithm = DE(pop_size=POPULATION, sampling=LHS(), variant="DE/best/1/bin", **settings)
        minimize(problem, algorithm, ("n_eval", budget), seed=seed)

    return run


def runners(console):
    """Optimisers by name; a peer that is not installed is left out with a line."""
    de = {"mutation": MUTATION, "crossover": CROSSOVER}
    table = {
        "evo scipy best1bin": with_engine("scipy", **de),
        "evo scipy rand1bin": with_engine("scipy", strategy="rand1bin", **de),
        "evo jax best1bin": with_engine("jax", **de),
        "evo lshade": with_engine("lshade"),
        "evosax DE best1bin": with_engine("evosax", **de),
        "evosax DE rand1bin": with_engine("evosax", strategy="rand1bin", **de),
        "evosax CMA_ES": with_engine("evosax:CMA_ES"),
    }
    peers = {
        "SciPy best1bin deferred": lambda: with_scipy("best1bin", "deferred"),
        "SciPy best1bin immediate": lambda: with_scipy("best1bin", "immediate"),
        # pymoo's DE does not dither; it mutates further on its own. Once like the others, once as it comes.
        "pymoo DE best1bin F=1": lambda: with_pymoo(F=sum(MUTATION) / 2, CR=CROSSOVER),
        "pymoo DE as it comes": lambda: with_pymoo(),
    }
    for name, build in peers.items():
        try:
            table[name] = build()
        except ImportError as error:
            console.print(f"left out: {name} ({error})")
    return table


def compare(objectives, seeds, console):
    """One row per optimiser, objective and budget: median and quartiles of the lowest cost over the seeds."""
    rows = []
    for name, run in runners(console).items():
        for objective in objectives:
            for budget in BUDGETS:
                lowest, used = [], []
                for seed in range(seeds):
                    counted = Counted(objective.cost, budget)
                    run(objective, counted, budget, seed)
                    lowest.append(counted.lowest)
                    used.append(budget - counted.left)
                first, median, third = np.quantile(lowest, (0.25, 0.5, 0.75))
                rows.append(
                    {
                        "optimizer": name,
                        "objective": objective.name,
                        "budget": budget,
                        "evaluations": max(used),
                        "median": median,
                        "quartiles": [first, third],
                        "seeds": seeds,
                    }
                )
    return rows


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


def show(console, comparison, overheads):
    for budget in BUDGETS:
        table = Table(title=f"best cost after {budget} evaluations: median [quartiles]")
        names = list(dict.fromkeys(row["objective"] for row in comparison))
        for column in ("optimiser", *names):
            table.add_column(column, justify="left" if column == "optimiser" else "right")
        for optimizer in dict.fromkeys(row["optimizer"] for row in comparison):
            cells = [
                f"{row['median']:.3g} [{row['quartiles'][0]:.3g}, {row['quartiles'][1]:.3g}]"
                for row in comparison
                if row["optimizer"] == optimizer and row["budget"] == budget
            ]
            table.add_row(optimizer, *cells)
        console.print(table)
    table = Table(title=f"overhead per generation, P = {POPULATION}, D = {DIMENSION}, warm")
    for column in ("engine", "form", "ms"):
        table.add_column(column)
    for row in overheads:
        table.add_row(row["engine"], row["form"], f"{row['milliseconds']:.3f}")
    console.print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--seeds", type=int, default=20)
    arguments = parser.parse_args()
    console = Console()
    began = time.perf_counter()
    comparison, overheads = compare(OBJECTIVES, arguments.seeds, console), overhead()
    show(console, comparison, overheads)
    seconds = time.perf_counter() - began
    machine = f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}"
    console.print(f"{arguments.seeds} seeds, {seconds:.0f} s, {machine}")
    if arguments.json:
        record = {"comparison": comparison, "overhead": overheads, "machine": machine, "seconds": seconds}
        arguments.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
