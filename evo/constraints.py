"""Constraints beside the box: how far a point violates them, and which of two points wins.

`Bounds`, `LinearConstraint` and `NonlinearConstraint` say what SciPy's classes of these names say, and either kind
is understood. A feasible point beats an infeasible one; of two feasible ones the lower cost wins; of two
infeasible ones the trial wins if it violates no constraint more than its parent (J. Lampinen, "A constraint
handling approach for the differential evolution algorithm", CEC 2002). Infeasible points are never evaluated:
their cost is +inf.

A constraint that is NaN at a point counts as violated without limit. In SciPy it counts as satisfied.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

WRONG_SHAPE = (
    "An array returned from a Constraint has the wrong shape. If `vectorized is False` the Constraint should"
    " return an array of shape (M,). If `vectorized is True` then the Constraint must return an array of shape"
    " (M, S), where S is the number of solution vectors and M is the number of constraint components in a given"
    " Constraint object."
)


@dataclass(frozen=True, eq=False)
class Bounds:
    """lb <= x <= ub, (D,) each or one number."""

    lb: ArrayLike = -np.inf
    ub: ArrayLike = np.inf


@dataclass(frozen=True, eq=False)
class LinearConstraint:
    """lb <= A x <= ub: A (M, D) or (D,), bounds (M,) or one number; equal bounds demand equality."""

    A: ArrayLike
    lb: ArrayLike = -np.inf
    ub: ArrayLike = np.inf


@dataclass(frozen=True, eq=False)
class NonlinearConstraint:
    """lb <= fun(x) <= ub: fun gives (M,), or (M, S) of (D, S) where the objective is vectorized."""

    fun: Callable[[np.ndarray], ArrayLike]
    lb: ArrayLike
    ub: ArrayLike


class _Prepared(NamedTuple):
    """A constraint's function and its M pairs of bounds."""

    values: Callable[[np.ndarray], np.ndarray]
    low: np.ndarray
    high: np.ndarray
    count: int

    def violation(self, x: np.ndarray) -> np.ndarray:
        """How far the bounds are exceeded, (M,) of `x` (D,), or (M, S) of (D, S).

        Raises:
            RuntimeError: the constraint's function gives another shape than it did first.
        """
        values = self.values(x).T
        try:
            with np.errstate(invalid="ignore"):  # the difference of two infinities, which is not taken
                below = np.where(values < self.low, self.low - values, 0.0)
                above = np.where(values > self.high, values - self.high, 0.0)
        except ValueError as error:
            raise RuntimeError(WRONG_SHAPE) from error
        return np.where(np.isnan(values), np.inf, below + above).T


class Constraints:
    """All constraints of a problem; M is the number of their components, 0 where there are none.

    Args:
        given: one constraint or a sequence of them.
        point: (D,), at which each function is called once to learn how many components it has.

    Raises:
        ValueError: something that is no constraint.
    """

    def __init__(self, given: Any, point: np.ndarray) -> None:
        self.given = given if hasattr(given, "__len__") else [given]
        self.prepared = [_prepare(constraint, point) for constraint in self.given]

    def __bool__(self) -> bool:
        return bool(self.prepared)

    def violation(self, points: np.ndarray, vectorized: bool = False) -> np.ndarray:
        """(P, M) of `points` (P, D), each >= 0: how far each component is violated."""
        if vectorized:
            return self._columns(points.T, len(points))
        return np.concatenate([self._columns(point, 1) for point in points])

    def fields(self, point: np.ndarray) -> dict[str, Any]:
        """What a result says of its x (D,): the violation of each constraint, (M,) each, and the largest."""
        if not self.prepared:
            return {}
        violations = [constraint.violation(point) for constraint in self.prepared]
        largest = np.max(np.concatenate(violations))
        return {"constr": violations, "constr_violation": largest, "maxcv": largest}

    def _columns(self, x: np.ndarray, count: int) -> np.ndarray:
        """(count, M) of `x` (D,) or (D, count)."""
        # An array of its own, because the order of a sum in memory decides its last bit.
        columns = np.zeros((count, sum(constraint.count for constraint in self.prepared)))
        start = 0
        for constraint in self.prepared:
            stop = start + constraint.count
            violation = constraint.violation(x).T
            if violation.shape[-1] != constraint.count or (count > 1 and violation.shape[0] != count):
                raise RuntimeError(WRONG_SHAPE)
            columns[:, start:stop] = np.reshape(violation, (count, constraint.count))
            start = stop
        return columns


def _prepare(constraint: Any, point: np.ndarray) -> _Prepared:
    values = _function(constraint)
    count = values(point).size
    low, high = (np.asarray(bound, dtype=float) for bound in (constraint.lb, constraint.ub))
    low, high = (np.resize(bound, count) if bound.ndim == 0 else bound for bound in (low, high))
    return _Prepared(values, low, high, count)


def _function(constraint: Any) -> Callable[[np.ndarray], np.ndarray]:
    """What a constraint bounds, as a function of x (D,) or (D, S)."""
    if not (hasattr(constraint, "lb") and hasattr(constraint, "ub")):
        raise ValueError("`constraint` of an unknown type is passed.")
    if hasattr(constraint, "fun"):
        return lambda x: np.atleast_1d(constraint.fun(x))
    if not hasattr(constraint, "A"):
        return np.asarray
    # A sparse matrix stays one; NumPy's matrix class would give (1, M) of (D,).
    matrix: Any = constraint.A if hasattr(constraint.A, "tocsr") else np.asarray(np.atleast_2d(constraint.A))
    return matrix.dot


def is_feasible(violation: np.ndarray) -> np.ndarray:
    """(...,) bool: no component of `violation` (..., M) is above 0."""
    return ~(np.sum(violation, axis=-1) > 0)


def is_accepted(better: Any, violation: np.ndarray, parents_violation: np.ndarray) -> np.ndarray:
    """(...,) bool: the trial takes its parent's place. `better` (...,): it costs no more; violations (..., M)."""
    wins = ~is_feasible(parents_violation) | better
    return np.where(is_feasible(violation), wins, (violation <= parents_violation).all(axis=-1))


def best_row(energies: np.ndarray, violation: np.ndarray) -> int:
    """The feasible row of lowest energy, or the one of least violation (P, M) in all where none is feasible."""
    rows = np.flatnonzero(is_feasible(violation))
    if rows.size:
        return int(rows[np.argmin(energies[rows])])
    return int(np.argmin(np.sum(violation, axis=1)))
