"""What benchmarks.optimizers compares: optimisers that spend a number of evaluations on a cost over a box."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from rich.console import Console

import evo

DIMENSION, POPULATION = 14, 25


MUTATION, CROSSOVER = (0.5, 1.5), 0.7


Cost: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Costs (P,) of candidates (P, D)."""


class Objective(NamedTuple):
    """A cost over the box [low, high], (D,) each.

    With ``mean`` and ``std``, (D,) each, populations start normal around it, else from a Latin hypercube.
    """

    name: str
    cost: Cost
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray | None = None
    std: np.ndarray | None = None

    def engine(self, name: str, **settings: Any) -> evo.Engine:
        """One of our engines on this box, which never converges."""
        return evo.make_engine(
            name, self.low, self.high, POPULATION, mean=self.mean, std=self.std, tol=0, **settings
        )

    def start(self, seed: int) -> np.ndarray:
        """An initial population (P, D), for a peer that is given one."""
        engine = self.engine("scipy")
        return np.asarray(engine.parents(engine.init(seed)))


def sphere(points: np.ndarray) -> np.ndarray:
    """The sum of squares."""
    return np.sum(points**2, axis=-1)


def rosenbrock(points: np.ndarray) -> np.ndarray:
    """A long curved valley."""
    return np.sum(100.0 * (points[..., 1:] - points[..., :-1] ** 2) ** 2 + (1 - points[..., :-1]) ** 2, axis=-1)


def rastrigin(points: np.ndarray) -> np.ndarray:
    """A bowl with a minimum at every integer."""
    return np.sum(points**2 - 10 * np.cos(2 * np.pi * points) + 10, axis=-1)


def ackley(points: np.ndarray) -> np.ndarray:
    """A plain of small waves with one hole."""
    radius = np.sqrt(np.mean(points**2, axis=-1))
    waves = np.mean(np.cos(2 * np.pi * points), axis=-1)
    return 20 + np.e - 20 * np.exp(-0.2 * radius) - np.exp(waves)


def in_box(name: str, cost: Cost, low: float, high: float) -> Objective:
    """A test function over a cube."""
    return Objective(name, cost, np.full(DIMENSION, low), np.full(DIMENSION, high))


OBJECTIVES = [
    in_box("sphere", sphere, -3.0, 7.0),
    in_box("Rosenbrock", rosenbrock, -2.0, 3.0),
    in_box("Rastrigin", rastrigin, -3.0, 7.0),
    in_box("Ackley", ackley, -10.0, 20.0),
]


class Counted:
    """A cost that refuses to be asked for more than ``budget`` candidates, and remembers all of them."""

    def __init__(self, cost: Cost, budget: int):
        self.cost, self.left, self.budget = cost, budget, budget
        self.costs: list[float] = []
        self.points: list[np.ndarray] = []

    def __call__(self, points: np.ndarray) -> np.ndarray:
        if len(points) > self.left:
            raise RuntimeError(f"{len(points)} candidates asked for, {self.left} evaluations left")
        self.left -= len(points)
        costs = self.cost(points)
        self.costs.extend(costs)
        self.points.extend(np.array(points))
        return costs

    def best(self, budget: int) -> dict:
        """The lowest cost among the first ``budget`` evaluations, its candidate, and how many there were."""
        costs = self.costs[:budget]
        row = int(np.argmin(costs))
        return {"lowest": float(costs[row]), "best": self.points[row].tolist(), "evaluations": len(costs)}


Run: TypeAlias = Callable[[Objective, Counted, int], None]
"""Minimises an objective's counted cost from a seed until its evaluations are spent."""


def with_engine(name: str, **settings: Any) -> Run:
    """A run of one of our engines."""

    def run(objective: Objective, counted: Counted, seed: int) -> None:
        options = {"evaluations": counted.budget} if name == "lshade" else {}
        engine = objective.engine(name, **settings, **options)
        state = engine.init(seed)
        while True:
            candidates, state = engine.ask(state)
            if len(candidates) > counted.left:
                return
            state = engine.tell(state, candidates, counted(np.asarray(candidates, dtype=np.float64)))

    return run


def with_scipy(strategy: str, updating: str) -> Run:
    """SciPy's differential evolution; ``updating`` is "deferred" (a generation at a time) or "immediate"."""
    from scipy.optimize import differential_evolution

    def run(objective: Objective, counted: Counted, seed: int) -> None:
        batched = updating == "deferred"
        start: Any = objective.start(seed)
        differential_evolution(
            (lambda x: counted(x.T)) if batched else lambda x: counted(x[None])[0],
            list(zip(objective.low, objective.high, strict=True)),
            strategy=strategy,
            init=start,
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
def evosax_de(dimension: int) -> Any:
    """evosax's algorithm for POPULATION candidates; each object compiles anew."""
    from evosax.algorithms import DifferentialEvolution

    return DifferentialEvolution(population_size=POPULATION, solution=np.zeros(dimension, np.float32))


def with_evosax() -> Run:
    """evosax's own best/1/bin, dithered like the others. It has no bounds: trials are clipped."""
    import evosax  # noqa: F401
    import jax

    def run(objective: Objective, counted: Counted, seed: int) -> None:
        algorithm = evosax_de(len(objective.low))
        params = algorithm.default_params.replace(
            elitism=True,
            crossover_rate=CROSSOVER,
            differential_weight_min=MUTATION[0],
            differential_weight_max=MUTATION[1],
        )
        low, high = objective.low.astype(np.float32), objective.high.astype(np.float32)

        def cost(trials: np.ndarray) -> np.ndarray:
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


def with_pymoo(**settings: float) -> Run:
    """pymoo's differential evolution."""
    from pymoo.algorithms.soo.nonconvex.de import DE
    from pymoo.core.problem import Problem
    from pymoo.optimize import minimize

    def run(objective: Objective, counted: Counted, seed: int) -> None:
        class Wrapped(Problem):
            def _evaluate(self, x, out, *args, **kwargs):
                out["F"] = np.asarray(counted(x))[:, None]

        problem = Wrapped(n_var=len(objective.low), n_obj=1, xl=objective.low, xu=objective.high)
        algorithm = DE(pop_size=POPULATION, sampling=objective.start(seed), variant="DE/best/1/bin", **settings)
        minimize(problem, algorithm, ("n_eval", counted.budget), seed=seed)

    return run


def runners(console: Console, batched: bool) -> dict[str, Run]:
    """Optimisers by name; a peer that is not installed is left out with a line.

    With ``batched``, without those that evaluate one candidate at a time.
    """
    de: dict[str, Any] = {"mutation": MUTATION, "crossover": CROSSOVER}
    table: dict[str, Run] = {
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
