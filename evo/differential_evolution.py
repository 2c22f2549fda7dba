"""`scipy.optimize.differential_evolution`, reproduced bit for bit; SciPy itself is needed for its polish alone.

What differs:

* NaN counts as +inf, as a cost and as a constraint's value. In SciPy a NaN among the first energies is never
  replaced, and a constraint that is NaN is satisfied.
* `polish=True`, the default as in SciPy, is a ModuleNotFoundError where SciPy is not installed, so that no result
  depends on what is. A noisy cost, such as an accuracy counted on a few images, has no gradient to follow: there
  say polish=False.
* `Bounds` among the constraints are polished with; SciPy's function ends in a TypeError there.
* The result is `evo.OptimizeResult`; it has SciPy's fields.

Four of SciPy's habits are kept because its results depend on them: while every energy is infinite the
population is evaluated again each generation; `integrality` rounds points drawn between the bounds as given,
so that a bound that is not whole can be rounded to a number outside; a polished result has the polished
energy in `population_energies[0]` but the old point in `population[0]`; and a result that only polishing made
feasible is not a success.
"""

import inspect
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from evo import convergence, low_discrepancy, population, strategies
from evo.bounds import from_unit, to_unit
from evo.constraints import Constraints, best_row, is_accepted, is_feasible
from evo.engines.scipy_like import draw_trial, draw_trials, draw_weight, redraw_outside
from evo.objective import Objective, mapper
from evo.polish import check_installed, polished
from evo.result import OptimizeResult
from evo.rng import Generator
from evo.seeding import with_rng

SUCCESS = "Optimization terminated successfully."
OUT_OF_ITERATIONS = "Maximum number of iterations has been exceeded."
STOPPED = "callback function requested stop early"


@with_rng
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
    polish: bool | Callable[..., Any] = True,
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
    the same result and the same populations, energies, nit and nfev of every generation, to the last bit
    (checked against SciPy 1.15 to 1.17, `python -m benchmarks.optimizers_fuzz`). The module says what differs.

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
        polish: a local search from the best member at the end, L-BFGS-B, or trust-constr where there are
            constraints; or a function with the signature of `scipy.optimize.minimize`. False: none.
        workers: a number of processes, -1 for all, or a map-like callable.
        constraints: one or a sequence of `evo.LinearConstraint`, `evo.NonlinearConstraint` and `evo.Bounds`, or of
            SciPy's classes of these names, besides `bounds`. The result then has `constr`, `constr_violation` and
            `maxcv`, the largest violation, and is no success where that is above 0.

    Raises:
        ValueError: bounds, strategy, mutation, init, x0, constraints or integrality that SciPy refuses.
        RuntimeError: `func`, `strategy`, `workers` or a constraint return something of the wrong shape.
        ModuleNotFoundError: `polish` without SciPy, or init="sobol" in more than 64 dimensions.

    Example:
        >>> import evo
        >>> enough = evo.LinearConstraint([1, 1, 1], 1, np.inf)
        >>> result = differential_evolution(lambda x: float(x @ x), [(-1, 2)] * 3, rng=0, constraints=enough)
        >>> round(result.fun, 3), bool(result.maxcv < 1e-9), result.success
        (0.333, True, True)
    """
    check_installed(polish)
    updating, vectorized = _updating(updating, workers, vectorized)
    notify = _callback_of_result(callback)
    space, weight = _Space(bounds, integrality), _checked_mutation(mutation)
    members = _start(space, strategy, init, popsize, rng, x0)
    limits = Constraints(constraints, space.from_unit(members[0]))
    with mapper(workers, vectorized) as map_rows:
        objective = Objective(func, args, map_rows, vectorized)
        run = _Run(objective, limits, space, members, rng, strategy, weight, recombination)
        result = _minimise(run, updating, 1000 if maxiter is None else maxiter, tol, atol, notify, disp)
        if polish and not space.whole.all():
            result = polished(result, polish, objective, space.around(result.x), limits, disp)
    return _judged(result, limits)


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
    if maxiter > 0 and not callable(run.strategy):
        strategies.check_strategy(run.strategy, len(run.population.members))
    evolve = run.evolve_at_once if updating == "immediate" else run.evolve_together
    run.start()
    nit, stop, message = 0, False, SUCCESS
    for nit in range(1, maxiter + 1):
        evolve()
        if disp:
            print(f"differential_evolution step {nit}: f(x)= {run.population.energies[0]}")
        if notify:
            result = run.result(nit, "in progress", True)
            result.convergence = tol / (convergence.spread(run.population.energies) + convergence.EPS)
            try:
                stop = bool(notify(result))
            except StopIteration:
                stop = True
            if stop:
                message = STOPPED
        if stop or convergence.converged(run.population.energies, tol, atol):
            break
    else:
        stop, message = True, OUT_OF_ITERATIONS
    return run.result(nit, message, not stop)


def _judged(result: OptimizeResult, constraints: Constraints) -> OptimizeResult:
    """`result` with what its x violates; no success where that is anything."""
    fields = constraints.fields(result.x)
    if fields and fields["maxcv"] > 0:
        fields["success"] = False
        fields["message"] = f"The solution does not satisfy the constraints, MAXCV = {fields['maxcv']}"
    return OptimizeResult(result, **fields)


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
            bounds = np.array(np.broadcast_arrays(*np.atleast_1d(bounds.lb, bounds.ub)), dtype=float).T
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

    def around(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The bounds of a local search from `point` (D,), (D,) each: whole numbers stay what they are."""
        return np.where(self.whole, point, self.low), np.where(self.whole, point, self.high)


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


class _Population(NamedTuple):
    """Unit-cube members (P, D), their energies (P,), and their violations of the constraints (P, M)."""

    members: np.ndarray
    energies: np.ndarray
    violation: np.ndarray

    def best_first(self) -> Self:
        """With row 0 and the best row exchanged."""
        best = best_row(self.energies, self.violation)
        if best == 0:
            return self
        order = np.arange(len(self.energies))
        order[[0, best]] = best, 0
        return self._replace(**{name: array[order] for name, array in self._asdict().items()})


class _Run:
    """A population on its way: `start` evaluates it, `evolve_...` moves it by one generation."""

    def __init__(
        self,
        objective: Objective,
        constraints: Constraints,
        space: _Space,
        members: np.ndarray,
        rng: Generator,
        strategy: Any,
        mutation: Any,
        crossover: float,
    ) -> None:
        self.objective, self.constraints, self.space, self.rng = objective, constraints, space, rng
        self.strategy, self.mutation, self.crossover = strategy, mutation, crossover
        count = len(members)
        self.population = _Population(members, np.full(count, np.inf), np.zeros((count, 0)))
        self.index = np.arange(count)

    def start(self) -> None:
        if np.isinf(self.population.energies).all():
            self.population = self._evaluated(self.population.members).best_first()

    def evolve_together(self) -> None:
        """Deferred updating: all trials come from the old population."""
        self.start()
        members, weight = self.population.members, draw_weight(self.rng, self.mutation)
        if callable(self.strategy):
            trials = np.array([self._custom_trial(member) for member in range(len(members))], dtype=float)
        else:
            trials = draw_trials(self.rng, members, self.index, weight, self.crossover, self.strategy)
        trials = self._evaluated(redraw_outside(self.rng, trials))
        better = trials.energies <= self.population.energies
        accepted = is_accepted(better, trials.violation, self.population.violation)
        pairs = zip(trials, self.population)
        chosen = (np.where(accepted[:, None] if new.ndim == 2 else accepted, new, old) for new, old in pairs)
        self.population = _Population(*chosen).best_first()

    def evolve_at_once(self) -> None:
        """Immediate updating: an accepted trial is a partner, and perhaps the best, for the next member's."""
        self.start()
        weight = draw_weight(self.rng, self.mutation)
        for member in range(len(self.population.members)):
            members, energies, violations = self.population
            if callable(self.strategy):
                trial = self._custom_trial(member)
            else:
                trial = draw_trial(self.rng, members, member, self.index, weight, self.crossover, self.strategy)
            trial = redraw_outside(self.rng, trial)
            point = self.space.from_unit(trial)
            violation = self.constraints.violation(point[None])[0]
            feasible = not self.constraints or is_feasible(violation)
            cost = self.objective.of_one(point) if feasible else np.inf
            if self._beats(cost, violation, member):
                members[member], energies[member], violations[member] = trial, cost, violation
                # SciPy's condition: a trial of less violation in all is not promoted for that alone.
                if self._beats(cost, violation, 0):
                    self.population = self.population.best_first()

    def _beats(self, cost: Any, violation: np.ndarray, row: int) -> Any:
        """Whether a trial takes the place of the member in `row`."""
        _, energies, violations = self.population
        better = cost <= energies[row]
        return is_accepted(better, violation, violations[row]) if self.constraints else better

    def _evaluated(self, members: np.ndarray) -> _Population:
        """Members (P, D) with violations, and energies where they are feasible."""
        points = self.space.from_unit(members)
        violation = self.constraints.violation(points, self.objective.vectorized)
        feasible, energies = is_feasible(violation), np.full(len(members), np.inf)
        energies[feasible] = self.objective.of_all(points[feasible])
        return _Population(members, energies, violation)

    def _custom_trial(self, member: int) -> np.ndarray:
        points = self.space.from_unit(self.population.members)
        trial = np.asarray(self.strategy(member, points, rng=self.rng))
        if trial.shape != (self.space.dimension,):
            raise RuntimeError(
                "strategy must have signature f(candidate: int, population: np.ndarray, rng=None)"
                " returning an array of shape (N,)"
            )
        return self.space.to_unit(trial)

    def result(self, nit: int, message: str, success: bool) -> OptimizeResult:
        points = self.space.from_unit(self.population.members)
        violated = self.constraints.fields(points[0])
        return OptimizeResult(
            x=points[0].copy(),
            fun=self.population.energies[0],
            nfev=self.objective.count,
            nit=nit,
            message=message,
            success=success and not (violated and violated["maxcv"] > 0),
            population=points,
            population_energies=self.population.energies.copy(),
            **violated,
        )
