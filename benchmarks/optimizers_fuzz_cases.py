"""The configurations of `benchmarks.optimizers_fuzz`, one for each number."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import evo

Function = Callable[[np.ndarray], Any]


def sphere(x: np.ndarray) -> Any:
    """Of x (D,) or (D, P), as all of these."""
    return np.sum(x**2, axis=0)


def rosenbrock(x: np.ndarray) -> Any:
    """A curved valley; 0 everywhere in one dimension."""
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2, axis=0)


def rastrigin(x: np.ndarray) -> Any:
    """Many minima."""
    return np.sum(x**2 - 10 * np.cos(2 * np.pi * x) + 10, axis=0)


def ackley_with_a_hole(x: np.ndarray) -> Any:
    """Infinite on a slice."""
    size = x.shape[0]
    radius = np.sqrt(np.sum(x**2, axis=0) / size)
    waves = np.sum(np.cos(2 * np.pi * x), axis=0) / size
    return np.where(x[0] > 1.5, np.inf, 20 + np.e - 20 * np.exp(-0.2 * radius) - np.exp(waves))


def steps(x: np.ndarray) -> Any:
    """Many equal values: ties decide the order of the population."""
    return np.sum(np.floor(np.abs(x)), axis=0)


def infinite(x: np.ndarray) -> Any:
    """Infinite everywhere: the population is evaluated again in every generation."""
    return np.full(x.shape[1:], np.inf)


OBJECTIVES = (sphere, rosenbrock, rosenbrock, rastrigin, ackley_with_a_hole, steps, infinite)


def custom(candidate: int, population: np.ndarray, rng: Any = None) -> np.ndarray:
    """A strategy of the user's own."""
    a, b = rng.uniform(size=2) * len(population)
    return population[candidate] + 0.7 * (population[int(a)] - population[int(b)])


def nelder_mead(func: Function, x0: np.ndarray, bounds: Any, constraints: Any) -> Any:
    """A polish of the user's own, which knows no constraints."""
    from scipy.optimize import minimize

    return minimize(func, x0, method="Nelder-Mead", bounds=bounds, options={"maxiter": 40})


def slsqp(func: Function, x0: np.ndarray, **given: Any) -> Any:
    """A polish of the user's own, with constraints."""
    from scipy.optimize import minimize

    return minimize(func, x0, method="SLSQP", **given, options={"maxiter": 20})


@dataclass(frozen=True)
class Limit:
    """A constraint by the name of its class, and the class's arguments."""

    kind: str
    arguments: tuple

    def build(self, ours: bool) -> Any:
        """An object of evo's class, or of SciPy's."""
        if ours:
            return getattr(evo, self.kind)(*self.arguments)
        from scipy import optimize

        return getattr(optimize, self.kind)(*self.arguments)


@dataclass(frozen=True)
class Case:
    """A configuration: what is minimised, the limits beside the box, the seed, and all other arguments."""

    objective: Function
    limits: tuple[Limit, ...]
    single: bool
    """A lone constraint is given as it is, not in a sequence."""
    evos_classes: bool
    legacy: bool
    seed: int
    others: dict[str, Any]

    def arguments(self, ours: bool) -> tuple[dict[str, Any], Any]:
        """The keyword arguments of either function, and the generator that is among them.

        evo's function is given its own classes or SciPy's, SciPy's function only SciPy's.
        """
        constraints: Any = [limit.build(ours and self.evos_classes) for limit in self.limits]
        if self.single and len(constraints) == 1:
            constraints = constraints[0]
        make = np.random.RandomState if self.legacy else np.random.default_rng
        generator = make(self.seed)
        seeded = {"seed" if self.legacy else "rng": generator}
        return {"func": self.objective, "constraints": constraints, **seeded, **self.others}, generator

    def traits(self) -> Iterator[str]:
        """What a summary counts of it."""
        polish = self.others["polish"]
        if self.limits:
            yield "with constraints"
        if polish:
            method = "trust-constr" if self.limits else "L-BFGS-B"
            yield f"polished by {'a callable' if callable(polish) else method}"
        if self.others["integrality"] is not None:
            yield "with whole numbers"
        yield self.others["updating"]
        if self.others["vectorized"]:
            yield "vectorized"


def case(number: int) -> Case:
    """Configuration `number`."""
    rng = np.random.default_rng(number)
    many = rng.uniform() < 0.01
    dimension = int(rng.integers(60, 80) if many else rng.integers(1, 6))
    low = rng.uniform(-9, 9, dimension) if rng.uniform() < 0.3 else rng.uniform(-3, 0.5, dimension)
    width = np.where(rng.uniform(size=dimension) < 0.12, 0.0, rng.uniform(1e-3, 8, dimension))
    whole = rng.uniform(size=dimension) < 0.5 if rng.uniform() < 0.25 else None
    if whole is not None:
        low, width = np.where(whole, np.round(low), low), np.where(whole, np.floor(width), width)
    high = low + width
    start = low + rng.uniform(0.01, 0.99, dimension) * width if rng.uniform() < 0.25 else None
    updating = str(rng.choice(["deferred", "immediate"]))
    pair = rng.uniform() < 0.5
    others = {
        "bounds": list(zip(low.tolist(), high.tolist())),
        "integrality": whole,
        "strategy": custom if rng.uniform() < 0.08 else str(rng.choice(evo.STRATEGIES)),
        "popsize": int(rng.integers(1, 6)) if not many else 1,
        "init": initial(rng, dimension),
        "x0": start,
        "mutation": tuple(rng.uniform(0, 1.99, 2).tolist()) if pair else float(rng.uniform(0, 1.99)),
        "recombination": float(rng.uniform()),
        "maxiter": int(rng.integers(0, 9)),
        "tol": float(rng.choice([0.0, 0.01, 0.5])),
        "atol": float(rng.choice([0.0, 1e-3])),
        "updating": updating,
        "vectorized": bool(updating == "deferred" and rng.uniform() < 0.4),
    }
    limits = tuple(limit(rng, low, high) for _ in range(int(rng.choice(3, p=[0.5, 0.35, 0.15]))))
    polish = rng.choice(np.array([False, True, nelder_mead, slsqp], dtype=object), p=[0.25, 0.6, 0.05, 0.1])
    # SciPy's function cannot polish where Bounds are among the constraints
    others["polish"] = polish if all(each.kind != "Bounds" for each in limits) else False
    return Case(
        objective=OBJECTIVES[int(rng.integers(len(OBJECTIVES)))],
        limits=limits,
        single=bool(rng.uniform() < 0.3),
        evos_classes=bool(rng.uniform() < 0.5),
        legacy=bool(rng.uniform() < 0.2),
        seed=int(rng.integers(2**32)),
        others=others,
    )


def initial(rng: np.random.Generator, dimension: int) -> str | np.ndarray:
    """A start by name, or an array that reaches beyond the box."""
    name = str(rng.choice(["latinhypercube", "random", "halton", "sobol", "array"]))
    return rng.uniform(-12, 12, (int(rng.integers(5, 13)), dimension)) if name == "array" else name


def limit(rng: np.random.Generator, low: np.ndarray, high: np.ndarray) -> Limit:
    """A constraint that parts of the box satisfy, or none of it, or all."""
    inside = low + rng.uniform(size=len(low)) * (high - low)
    slack = float(rng.choice([0.0, 0.1, 1.0, 4.0], p=[0.1, 0.2, 0.4, 0.3]))
    kind = str(rng.choice(["Bounds", "LinearConstraint", "NonlinearConstraint"], p=[0.2, 0.35, 0.45]))
    if kind == "Bounds":
        return Limit(kind, (inside - slack, inside + slack))
    if kind == "LinearConstraint":
        rows = int(rng.integers(1, 4))
        matrix = rng.normal(size=(rows, len(low)))
        middle = matrix @ inside
        upper = middle + slack if rng.uniform() < 0.7 else np.inf
        if rng.uniform() < 0.3:
            from scipy.sparse import csr_array

            return Limit(kind, (csr_array(matrix), middle - slack, upper))
        if rows == 1 and rng.uniform() < 0.5:
            return Limit(kind, (matrix[0], float(middle[0]) - slack, float(np.max(upper))))
        return Limit(kind, (matrix, middle - slack, upper))
    function = FUNCTIONS[int(rng.integers(len(FUNCTIONS)))]
    middle = function(inside)
    impossible = 1e6 if rng.uniform() < 0.08 else 0.0
    if rng.uniform() < 0.5:
        return Limit(kind, (function, -np.inf, float(middle[0]) + slack - impossible))
    return Limit(kind, (function, middle - slack + impossible, middle + slack + impossible))


def power_sum(x: np.ndarray, power: int) -> np.ndarray:
    """(1,) of (D,), (1, P) of (D, P)."""
    return np.array([np.sum(x**power, axis=0)])


def ball_and_edge(x: np.ndarray) -> np.ndarray:
    """(2,) of (D,), (2, P) of (D, P)."""
    return np.array([np.sum(x**2, axis=0), x[0] - np.sin(x[-1])])


FUNCTIONS = (partial(power_sum, power=1), partial(power_sum, power=2), ball_and_edge)
