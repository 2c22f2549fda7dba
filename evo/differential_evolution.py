"""`scipy.optimize.differential_evolution`, reproduced bit for bit without SciPy.

What differs:

* `polish` is off by default. SciPy's default, L-BFGS-B from the best member, follows a gradient, which a noisy
  cost, such as an accuracy counted on a few images, does not have. True raises NotImplementedError.
* `constraints` raise NotImplementedError.
* NaN counts as +inf. In SciPy a NaN among the first energies is never replaced.
* The result is `evo.OptimizeResult`; it has SciPy's fields.

Two of SciPy's habits are kept because the trajectory depends on them: while every energy is infinite the
population is evaluated again each generation, and `integrality` rounds points drawn between the bounds as given,
so that a bound that is not whole can be rounded to a number outside.
"""

import contextlib
import functools
import inspect
import multiprocessing
import numbers
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from evo import convergence, low_discrepancy, population, strategies
from evo.bounds import from_unit, to_unit
from evo.costs import nan_to_inf
from evo.engines.scipy_like import best_first, draw_trial, draw_trials, draw_weight, redraw_outside
from evo.result import OptimizeResult
from evo.rng import Generator

SUCCESS = "Optimization terminated successfully."
OUT_OF_ITERATIONS = "Maximum number of iterations has been exceeded."
STOPPED = "callback function requested stop early"
RNG_POSITION = 9


def _with_rng(function: Callable[..., OptimizeResult]) -> Callable[..., OptimizeResult]:
    """Give `function` a generator as its `rng`, from whichever way the caller chose to say it."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> OptimizeResult:
        by_position = len(args) > RNG_POSITION
        if by_position + ("rng" in kwargs) + ("seed" in kwargs) > 1:
            raise TypeError(
                f"{function.__name__}() got multiple values for argument now known as `rng`. "
                "Specify one of `rng` or `seed`."
            )
        if "rng" in kwargs:
            kwargs["rng"] = np.random.default_rng(kwargs["rng"])
        elif by_position:
            args = (*args[:RNG_POSITION], _legacy_generator(args[RNG_POSITION]), *args[RNG_POSITION + 1 :])
        else:
            kwargs["rng"] = _legacy_generator(kwargs.pop("seed", None))
        return function(*args, **kwargs)

    return wrapper


def _legacy_generator(seed: Any) -> Generator:
    if seed is None or seed is np.random:
        return np.random.mtrand._rand
    if isinstance(seed, numbers.Integral):
        return np.random.RandomState(int(seed))
    if isinstance(seed, np.random.RandomState | np.random.Generator):
        return seed
    raise ValueError(f"{seed!r} cannot be used to seed a numpy.random.RandomState instance")


@_with_rng
def differential_evolution(
    func: Callable[..., Any],
    bounds: Any,
    args: tuple = (),
    strategy: str | Callable[..., ArrayLike] = "best1bin",
    maxiter: int | None = 1000,
    popsize: int = 15,
    tol: float = 0.01,
    mutation: float | tuple[float, float] = (0.5, 1),
    recombination: float = 0.7,
    rng: Any = None,
    callback: Callable[..., Any] | None = None,
    disp: bool = False,
    polish: bool = False,
    init: str | ArrayLike = "latinhypercube",
    atol: float = 0,
    updating: str = "immediate",
    workers: int | Callable[..., Any] = 1,
    constraints: Any = (),
    x0: ArrayLike | None = None,
    *,
    integrality: ArrayLike | None = None,
    vectorized: bool = False,
) -> OptimizeResult:
    """Minimise `func` over a box by differential evolution (Storn and Price, 1997; eq. 7-9).

    The parameters mean what they mean in SciPy, whose documentation holds for them, and the same `rng` gives
    the same populations, energies, nit and nfev, every generation, to the last bit (checked against SciPy
    1.15 and 1.17). The module says what differs: `polish`, `constraints`, and NaN as a cost.

    Args:
        func: f(x (D,), *args) -> number; with `vectorized`, f(x (D, P), *args) -> (P,).
        bounds: D pairs (low, high), or an object with arrays `lb` and `ub` (SciPy's Bounds). Equal bounds fix
            a dimension.
        strategy: one of `evo.STRATEGIES` or f(candidate, population (P, D), rng=None) -> trial (D,).
        popsize: P = popsize times the number of dimensions that are not fixed, at least 5; a power of two for
            init="sobol". An `init` array sets P itself.
        rng, seed: `rng=` goes through `numpy.random.default_rng`; `seed=`, or `rng` by position, makes a
            legacy RandomState of an integer; neither means NumPy's global state.
        callback: f(intermediate_result) or f(x, convergence); true or StopIteration ends the run.
        workers: a number of processes, -1 for all, or a map-like callable.

    Raises:
        ValueError: bounds, strategy, mutation, init, x0, or integrality that SciPy refuses.
        RuntimeError: `func`, `strategy` or `workers` return something of the wrong shape.
        NotImplementedError: `polish` or `constraints`; use SciPy's function for these.

    Example:
        >>> result = differential_evolution(lambda x: float(x @ x), [(-1, 2)] * 3, rng=0, tol=1e-6)
        >>> bool(result.fun < 1e-3), result.success
        (True, True)
    """
    _refuse(polish, constraints)
    updating, vectorized = _updating(updating, workers, vectorized)
    notify = _callback_of_result(callback)
    space, weight = _Space(bounds, integrality), _checked_mutation(mutation)
    members = _start(space, strategy, init, popsize, rng, x0)
    with _mapper(workers, vectorized) as mapper:
        objective = _Objective(func, args, mapper, vectorized)
        run = _Run(objective, space, members, rng, strategy, weight, recombination)
        return _minimise(run, updating, 1000 if maxiter is None else maxiter, tol, atol, notify, disp)


def _refuse(polish: bool, constraints: Any) -> None:
    """NotImplementedError for what only SciPy's function does."""
    if polish:
        raise NotImplementedError("polish is not implemented; use scipy.optimize.differential_evolution")
    if not hasattr(constraints, "__len__") or len(constraints):
        raise NotImplementedError("constraints are not implemented; use scipy.optimize.differential_evolution")


def _updating(updating: str, workers: Any, vectorized: bool) -> tuple[str, bool]:
    """`updating` and `vectorized` as they are possible together with `workers`, with SciPy's warnings."""
    if updating not in ("immediate", "deferred"):
        raise ValueError(f"updating must be 'immediate' or 'deferred', got {updating!r}")
    if workers != 1 and updating == "immediate":
        _warn("the 'workers' keyword has overridden updating='immediate' to updating='deferred'")
        updating = "deferred"
    if vectorized and workers != 1:
        _warn("the 'workers' keyword overrides the 'vectorized' keyword")
        vectorized = False
    if vectorized and updating == "immediate":
        _warn("the 'vectorized' keyword has overridden updating='immediate' to updating='deferred'")
        updating = "deferred"
    return updating, vectorized


def _start(
    space: "_Space", strategy: Any, init: Any, popsize: int, rng: Generator, x0: ArrayLike | None
) -> np.ndarray:
    """The initial population (P, D) in the unit cube, `x0` its first member where one is given."""
    if not callable(strategy) and strategy not in strategies.STRATEGIES:
        raise ValueError("Please select a valid mutation strategy")
    members = _initial_members(space, init, popsize, rng)
    if not callable(strategy):
        strategies.check_strategy(strategy, len(members))
    if x0 is not None:
        start = space.to_unit(np.asarray(x0))
        if ((start > 1) | (start < 0)).any():
            raise ValueError("Some entries in x0 lay outside the specified bounds")
        members[0] = start
    return members


def _minimise(
    run: "_Run", updating: str, maxiter: int, tol: float, atol: float, notify: Any, disp: bool
) -> OptimizeResult:
    """Evolve `run` until it has converged, `notify` asks for the end, or `maxiter` generations are over."""
    evolve = run.evolve_at_once if updating == "immediate" else run.evolve_together
    run.start()
    nit, stop, message = 0, False, SUCCESS
    for nit in range(1, maxiter + 1):
        evolve()
        if disp:
            print(f"differential_evolution step {nit}: f(x)= {run.energies[0]}")
        if notify:
            result = run.result(nit, "in progress", True)
            result.convergence = tol / (convergence.spread(run.energies) + convergence.EPS)
            try:
                stop = bool(notify(result))
            except StopIteration:
                stop = True
            if stop:
                message = STOPPED
        if stop or convergence.converged(run.energies, tol, atol):
            break
    else:
        stop, message = True, OUT_OF_ITERATIONS
    return run.result(nit, message, not stop)


def _warn(text: str) -> None:
    warnings.warn(f"differential_evolution: {text}", UserWarning, stacklevel=5)


def _checked_mutation(mutation: Any) -> float | tuple[float, ...]:
    """One number, or the pair to draw from. SciPy ignores what follows a pair's second number."""
    values = np.atleast_1d(np.asarray(mutation, dtype=float))
    if not ((values >= 0) & (values < 2)).all():
        raise ValueError(
            "The mutation constant must be a float in U[0, 2), or specified as a tuple(min, max)"
            " where min < max and min, max are in U[0, 2)."
        )
    return tuple(values[:2].tolist()) if len(values) > 1 else float(values[0])


def _callback_of_result(callback: Any) -> Callable[[OptimizeResult], Any] | None:
    """`callback` as a function of the intermediate result, whichever of SciPy's two signatures it has."""
    if callback is None:
        return None
    if set(inspect.signature(callback).parameters) == {"intermediate_result"}:
        return lambda result: callback(intermediate_result=result)
    return lambda result: callback(np.copy(result.x), result.convergence)


class _Space:
    """The box, its fixed and its whole-number dimensions, and the way there from the unit cube."""

    def __init__(self, bounds: Any, integrality: Any) -> None:
        if hasattr(bounds, "lb"):
            bounds = np.array(np.broadcast_arrays(bounds.lb, bounds.ub), dtype=float).T
        limits = np.array(bounds, dtype=float).T
        if limits.ndim != 2 or len(limits) != 2 or not np.isfinite(limits).all():
            raise ValueError(
                "bounds should be a sequence containing finite real valued (min, max) pairs for each value in x"
            )
        self.low, self.high = limits
        self.dimension = len(self.low)
        self.whole = np.zeros(self.dimension, dtype=bool)
        if np.any(integrality):
            self.whole = np.asarray(np.broadcast_to(integrality, self.dimension), dtype=bool)
        if (np.ceil(self.low) > np.floor(self.high))[self.whole].any():
            raise ValueError(
                "One of the integrality constraints does not have any possible integer values between"
                " the lower/upper bounds."
            )
        # A whole-number dimension stays free even where its bounds are equal.
        self.free = int(np.count_nonzero((self.low != self.high) | self.whole))

    def to_unit(self, points: np.ndarray) -> np.ndarray:
        return to_unit(self.low, self.high, points)

    def from_unit(self, unit: np.ndarray) -> np.ndarray:
        points = from_unit(self.low, self.high, unit)
        return np.where(self.whole, np.round(points), points)


def _initial_members(space: _Space, init: Any, popsize: int, rng: Generator) -> np.ndarray:
    """The initial population (P, D) in the unit cube."""
    if not isinstance(init, str):
        points = np.asarray(init, dtype=np.float64)
        if points.ndim != 2 or len(points) < 5 or points.shape[1] != space.dimension:
            raise ValueError("The population supplied needs to have shape (S, len(x)), where S > 4.")
        return np.clip(space.to_unit(points), 0, 1)
    if init not in population.SAMPLERS:
        raise ValueError(
            "The population initialization method must be one of 'latinhypercube' or 'random', or an array"
            " of shape (S, N) where N is the number of parameters and S>5"
        )
    size = max(5, popsize * max(1, space.free))
    if init == "sobol":
        return low_discrepancy.sobol(rng, int(2 ** np.ceil(np.log2(size))), space.dimension)
    return population.SAMPLERS[init](rng, size, space.dimension)


@contextlib.contextmanager
def _mapper(workers: Any, vectorized: bool) -> Iterator[Callable[..., Any]]:
    """A function like `map` that evaluates rows of points."""
    if vectorized:
        yield lambda function, points: np.atleast_1d(function(points.T))
    elif callable(workers):
        yield workers
    elif int(workers) == 1:
        yield map
    elif int(workers) == -1 or int(workers) > 1:
        method = multiprocessing.get_start_method(allow_none=True)
        if method is None and os.name == "posix" and sys.version_info < (3, 14):
            # A fork of a process with threads, such as JAX's, can hang.
            method = "forkserver"
        processes = None if int(workers) == -1 else int(workers)
        with multiprocessing.get_context(method).Pool(processes) as pool:
            yield pool.map
    else:
        raise RuntimeError("Number of workers specified must be -1, an int >= 1, or an object with a 'map' method")


class _BoundFunction:
    """`func` with its further arguments; a class, so that it can be sent to other processes."""

    def __init__(self, func: Callable[..., Any], args: tuple | None) -> None:
        self.func, self.args = func, () if args is None else args

    def __call__(self, x: np.ndarray) -> Any:
        return self.func(x, *self.args)


class _Objective:
    """Energies of points, counted."""

    def __init__(self, func: Any, args: Any, mapper: Callable[..., Any], vectorized: bool) -> None:
        self.function = _BoundFunction(func, args)
        self.mapper, self.vectorized, self.count = mapper, vectorized, 0

    def of_one(self, point: np.ndarray) -> Any:
        energy = self.function(point)
        self.count += 1
        return np.inf if np.isnan(energy) else np.squeeze(energy)

    def of_all(self, points: np.ndarray) -> np.ndarray:
        try:
            values = np.squeeze(list(self.mapper(self.function, points)))
        except (TypeError, ValueError) as error:
            raise RuntimeError(
                "The map-like callable must be of the form f(func, iterable), "
                "returning a sequence of numbers the same length as 'iterable'"
            ) from error
        if values.size != len(points):
            if self.vectorized:
                raise RuntimeError(
                    "The vectorized function must return an array of shape (S,) when given an array"
                    " of shape (len(x), S)"
                )
            raise RuntimeError("func(x, *args) must return a scalar value")
        self.count += 1 if self.vectorized else len(points)
        energies = np.empty(len(points))
        energies[:] = values
        return nan_to_inf(energies)


class _Run:
    """A population on its way: `start` evaluates it, `evolve_...` moves it by one generation."""

    def __init__(
        self,
        objective: _Objective,
        space: _Space,
        members: np.ndarray,
        rng: Generator,
        strategy: Any,
        mutation: Any,
        crossover: float,
    ) -> None:
        self.objective, self.space, self.rng = objective, space, rng
        self.strategy, self.mutation, self.crossover = strategy, mutation, crossover
        self.members, self.energies = members, np.full(len(members), np.inf)
        self.index = np.arange(len(members))

    def start(self) -> None:
        if np.isinf(self.energies).all():
            energies = self.objective.of_all(self.space.from_unit(self.members))
            self.members, self.energies = best_first(self.members, energies)

    def evolve_together(self) -> None:
        """Deferred updating: all trials come from the old population."""
        self.start()
        weight = draw_weight(self.rng, self.mutation)
        if callable(self.strategy):
            trials = np.array([self._custom_trial(member) for member in range(len(self.members))], dtype=float)
        else:
            trials = draw_trials(self.rng, self.members, self.index, weight, self.crossover, self.strategy)
        trials = redraw_outside(self.rng, trials)
        costs = self.objective.of_all(self.space.from_unit(trials))
        better = costs <= self.energies
        members = np.where(better[:, None], trials, self.members)
        self.members, self.energies = best_first(members, np.where(better, costs, self.energies))

    def evolve_at_once(self) -> None:
        """Immediate updating: an accepted trial is a partner, and perhaps the best, for the next member's."""
        self.start()
        weight = draw_weight(self.rng, self.mutation)
        for member in range(len(self.members)):
            if callable(self.strategy):
                trial = self._custom_trial(member)
            else:
                trial = draw_trial(
                    self.rng, self.members, member, self.index, weight, self.crossover, self.strategy
                )
            trial = redraw_outside(self.rng, trial)
            cost = self.objective.of_one(self.space.from_unit(trial))
            if cost <= self.energies[member]:
                self.members[member], self.energies[member] = trial, cost
                self.members, self.energies = best_first(self.members, self.energies)

    def _custom_trial(self, member: int) -> np.ndarray:
        points = self.space.from_unit(self.members)
        trial = np.asarray(self.strategy(member, points, rng=self.rng))
        if trial.shape != (self.space.dimension,):
            raise RuntimeError(
                "strategy must have signature f(candidate: int, population: np.ndarray, rng=None)"
                " returning an array of shape (N,)"
            )
        return self.space.to_unit(trial)

    def result(self, nit: int, message: str, success: bool) -> OptimizeResult:
        points = self.space.from_unit(self.members)
        return OptimizeResult(
            x=points[0].copy(),
            fun=self.energies[0],
            nfev=self.objective.count,
            nit=nit,
            message=message,
            success=success,
            population=points,
            population_energies=self.energies.copy(),
        )
