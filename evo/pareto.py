"""Several costs at once: who dominates whom, which members stay, and how much a front covers.

Costs (N, M): N points with M objectives each, smaller is better; +inf is a cost like any other. Violations (N, K):
how far each of K constraints is exceeded, 0 where it holds. A point dominates another if it is nowhere worse and
somewhere better. With constraints a feasible point dominates every infeasible one, and of two infeasible ones
their violations decide, not their costs (S. Kukkonen and J. Lampinen, "GDE3: The third evolution step of
generalized differential evolution", CEC 2005).

Everything depends on the set of points alone, not on their order, and on no objective's unit.
"""

import numpy as np

from evo.constraints import is_feasible


def dominates(costs: np.ndarray) -> np.ndarray:
    """(N, N) bool of costs (N, M): point i dominates point j."""
    count, objectives = costs.shape
    no_worse, better = np.ones((count, count), bool), np.zeros((count, count), bool)
    for column in range(objectives):  # the block (N, N, M) would be M times as large
        mine, others = costs[:, column, None], costs[:, column]
        no_worse &= mine <= others
        better |= mine < others
    return no_worse & better


def dominates_constrained(costs: np.ndarray, violations: np.ndarray) -> np.ndarray:
    """(N, N) bool of costs (N, M) and violations (N, K): point i dominates point j, feasibility first."""
    feasible = is_feasible(violations)
    if feasible.all():
        return dominates(costs)
    both, neither = feasible[:, None] & feasible, ~feasible[:, None] & ~feasible
    decided_by = np.where(both, dominates(costs), neither & dominates(violations))
    return decided_by | (feasible[:, None] & ~feasible)


def ranks(costs: np.ndarray, violations: np.ndarray) -> np.ndarray:
    """(N,) int: 0 on the front, 1 on the front of what is left without it, and so on."""
    above = dominates_constrained(costs, violations)
    better = above.sum(axis=0)  # how many dominate each point that no front holds yet
    rank, current = np.full(len(costs), -1), 0
    while (rank < 0).any():
        front = (better == 0) & (rank < 0)
        rank[front] = current
        better -= above[front].sum(axis=0)
        current += 1
    return rank


def survivors(costs: np.ndarray, violations: np.ndarray, size: int) -> np.ndarray:
    """Rows, ascending, of the `size` points that stay: whole fronts, and of the last one the least crowded."""
    if len(costs) <= size:
        return np.arange(len(costs))
    rank = ranks(costs, violations)
    last = np.sort(rank)[size - 1]
    whole, crowded = np.flatnonzero(rank < last), np.flatnonzero(rank == last)
    return np.sort(np.concatenate([whole, crowded[least_crowded(costs[crowded], size - len(whole))]]))


def least_crowded(costs: np.ndarray, size: int) -> np.ndarray:
    """`size` rows of costs (N, M), after the most crowded one has been taken away again and again.

    A point's room is the product of its distances to the M nearest others, objectives scaled to [0, 1]
    (S. Kukkonen and K. Deb, "A fast and effective method for pruning of non-dominated solutions in many-objective
    problems", PPSN 2006). The lowest and the highest point of each objective go last.
    """
    if len(costs) == size:
        return np.arange(size)
    order = np.lexsort(costs.T[::-1])  # an order of the points' own, so that ties do not depend on the caller's
    scaled = _scaled(costs[order])
    nearest = min(costs.shape[1], len(costs) - 1)
    squares = ((scaled[:, None] - scaled) ** 2).sum(axis=-1)
    farther = 4.0 * costs.shape[1]  # than any other point; not infinite, because 0 times that is no number
    np.fill_diagonal(squares, farther)
    edge = np.zeros(len(costs), bool)
    edge[[*scaled.argmin(axis=0), *scaled.argmax(axis=0)]] = True
    neighbours = np.argpartition(squares, nearest - 1, axis=1)[:, :nearest]
    room = np.take_along_axis(squares, neighbours, axis=1).prod(axis=1)
    left = np.ones(len(costs), bool)
    for _ in range(len(costs) - size):
        inner = left & ~edge
        candidates = np.flatnonzero(inner if inner.any() else left)
        gone = candidates[np.argmin(room[candidates])]
        left[gone], squares[:, gone] = False, farther
        again = np.flatnonzero(left & (neighbours == gone).any(axis=1))
        neighbours[again] = np.argpartition(squares[again], nearest - 1, axis=1)[:, :nearest]
        room[again] = np.take_along_axis(squares[again], neighbours[again], axis=1).prod(axis=1)
    return order[left]


def _scaled(costs: np.ndarray) -> np.ndarray:
    """Costs (N, M) with each objective's finite values in [0, 1]; infinite ones stand at its end."""
    finite = np.isfinite(costs)
    low = np.where(finite, costs, np.inf).min(axis=0)
    high = np.where(finite, costs, -np.inf).max(axis=0)
    low, high = np.where(finite.any(axis=0), low, 0.0), np.where(finite.any(axis=0), high, 0.0)
    width = np.where(high > low, high - low, 1.0)
    return (np.clip(costs, low, high) - low) / width


def front_rows(costs: np.ndarray, violations: np.ndarray) -> np.ndarray:
    """Rows, ascending, of the feasible points that no other dominates; none where nothing is feasible."""
    feasible = np.flatnonzero(is_feasible(violations))
    return feasible[~dominates(costs[feasible]).any(axis=0)]


def hypervolume(costs: np.ndarray, reference: np.ndarray) -> float:
    """The volume that points (N, M) dominate up to `reference` (M,), exactly, by slices along the last objective.

    Points that do not lie below the reference everywhere count nothing. For two or three objectives; the time
    grows with N to the power of M - 1.
    """
    costs, reference = np.asarray(costs, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    costs = costs[(costs < reference).all(axis=1)]
    if not len(costs):
        return 0.0
    if costs.shape[1] == 1:
        return float(reference[0] - costs.min())
    costs = costs[np.lexsort(costs.T)]  # the last objective is the first key
    if costs.shape[1] == 2:
        lowest = np.minimum.accumulate(np.concatenate([reference[:1], costs[:, 0]]))
        return float(((lowest[:-1] - lowest[1:]) * (reference[1] - costs[:, 1])).sum())
    depths = np.diff(np.append(costs[:, -1], reference[-1]))
    slices = (hypervolume(costs[: row + 1, :-1], reference[:-1]) for row in np.flatnonzero(depths))
    return float(sum(depth * area for depth, area in zip(depths[depths > 0], slices)))
