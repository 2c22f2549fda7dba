"""Fronts of several costs: dominance, ranks, crowding and hypervolume, by hand and by their symmetries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evo import pareto


def free(costs):
    return np.zeros((len(costs), 0))


BY_HAND = np.array([[1.0, 4.0], [2.0, 2.0], [4.0, 1.0], [2.0, 4.0], [3.0, 3.0], [5.0, 5.0], [2.0, 2.0]])


def test_ranks_by_hand():
    np.testing.assert_array_equal(pareto.ranks(BY_HAND, free(BY_HAND)), [0, 0, 0, 1, 1, 2, 0])
    np.testing.assert_array_equal(pareto.front_rows(BY_HAND, free(BY_HAND)), [0, 1, 2, 6])


def test_feasibility_comes_before_costs_and_violations_among_the_infeasible():
    costs = np.array([[9.0, 9.0], [1.0, 1.0], [2.0, 2.0], [0.0, 0.0]])
    violations = np.array([[0.0, 0.0], [0.0, 3.0], [0.0, 2.0], [2.0, 0.0]])
    np.testing.assert_array_equal(pareto.ranks(costs, violations), [0, 2, 1, 1])
    np.testing.assert_array_equal(pareto.front_rows(costs, violations), [0])
    np.testing.assert_array_equal(pareto.front_rows(costs[1:], violations[1:]), [])


def test_infinite_costs_are_costs():
    costs = np.array([[np.inf, 0.0], [1.0, 1.0], [np.inf, np.inf], [np.inf, 1.0], [-np.inf, 2.0]])
    np.testing.assert_array_equal(pareto.ranks(costs, free(costs)), [0, 0, 2, 1, 0])
    assert len(pareto.survivors(costs, free(costs), 2)) == 2
    everywhere = np.full((6, 2), np.inf)
    np.testing.assert_array_equal(pareto.ranks(everywhere, free(everywhere)), np.zeros(6))
    assert len(pareto.survivors(everywhere, free(everywhere), 4)) == 4


def literal_ranks(costs, violations):
    """Front by front and pair by pair, from the definitions."""

    def beats(i, j):
        feasible = (violations[i].sum() == 0, violations[j].sum() == 0)
        if feasible == (True, False) or feasible == (False, True):
            return feasible[0]
        a, b = (costs[i], costs[j]) if all(feasible) else (violations[i], violations[j])
        return all(a <= b) and any(a < b)

    rank, left, current = {}, set(range(len(costs))), 0
    while left:
        front = {j for j in left if not any(beats(i, j) for i in left)}
        rank.update(dict.fromkeys(front, current))
        left, current = left - front, current + 1
    return [rank[i] for i in range(len(costs))]


@st.composite
def points(draw, most=24):
    """Costs with many ties and violations, or none."""
    count, objectives, constraints = draw(st.integers(1, most)), draw(st.integers(1, 4)), draw(st.integers(0, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    costs = rng.integers(0, draw(st.sampled_from((3, 1000))), (count, objectives)).astype(float)
    costs[rng.uniform(size=costs.shape) < draw(st.sampled_from((0.0, 0.2)))] = np.inf
    violations = rng.integers(0, 3, (count, constraints)) * (rng.uniform(size=(count, 1)) < 0.5)
    return costs, violations.astype(float), rng


@settings(max_examples=120, deadline=None, derandomize=True)
@given(points())
def test_ranks_are_those_of_the_definition(given_points):
    costs, violations, _ = given_points
    np.testing.assert_array_equal(pareto.ranks(costs, violations), literal_ranks(costs, violations))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(points())
def test_who_survives_depends_neither_on_order_nor_on_units(given_points):
    costs, violations, rng = given_points
    size = int(rng.integers(1, len(costs) + 1))

    def kept(costs, violations, unit=1.0):
        rows = pareto.survivors(costs, violations, size)
        assert len(rows) == size == len(set(rows.tolist()))
        return sorted(map(tuple, np.column_stack([costs[rows] / unit, violations[rows]])))

    order = rng.permutation(len(costs))
    units = 2.0 ** rng.integers(-8, 8, costs.shape[1])
    assert kept(costs, violations) == kept(costs * units, violations, units)
    if not violations.size or not violations.any():  # the violations' values do not order equal costs
        assert kept(costs, violations) == kept(costs[order], violations[order])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(points())
def test_survivors_fill_up_front_by_front(given_points):
    costs, violations, rng = given_points
    size = int(rng.integers(1, len(costs) + 1))
    rank = pareto.ranks(costs, violations)
    rows = pareto.survivors(costs, violations, size)
    assert sorted(rank[rows]) == sorted(rank)[:size]


def test_the_most_crowded_go_and_the_ends_stay():
    along = np.array([0.0, 0.1, 0.5, 0.52, 0.9, 1.0])
    costs = np.stack([along, 1 - along], axis=1)
    np.testing.assert_array_equal(np.sort(pareto.least_crowded(costs, 5)), [0, 1, 2, 4, 5])
    np.testing.assert_array_equal(np.sort(pareto.least_crowded(costs, 3)), [0, 2, 5])
    np.testing.assert_array_equal(np.sort(pareto.least_crowded(costs[[0, 5]], 2)), [0, 1])


def test_duplicates_go_first():
    costs = np.array([[0.0, 3.0], [1.0, 1.0], [1.0, 1.0], [1.1, 0.9], [3.0, 0.0]])
    kept = costs[pareto.least_crowded(costs, 4)]
    assert sorted(map(tuple, kept)) == [(0.0, 3.0), (1.0, 1.0), (1.1, 0.9), (3.0, 0.0)]


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_one_point_is_a_front(objectives):
    costs = np.ones((1, objectives))
    np.testing.assert_array_equal(pareto.survivors(costs, free(costs), 1), [0])
    np.testing.assert_array_equal(pareto.front_rows(costs, free(costs)), [0])
    assert pareto.hypervolume(costs, np.full(objectives, 3.0)) == 2.0**objectives


VOLUMES = [
    ([[1, 1]], [2, 2], 1.0),
    ([[0, 1], [1, 0]], [2, 2], 3.0),
    ([[0, 1], [1, 0], [1, 1], [0, 1]], [2, 2], 3.0),
    ([[2, 0], [0, 2]], [2, 2], 0.0),
    ([[np.inf, 0], [1, 1]], [3, 3], 4.0),
    ([[0, 0, 1], [0, 1, 0], [1, 0, 0]], [2, 2, 2], 7.0),
    ([[-np.inf, 0]], [1, 1], np.inf),
]


@pytest.mark.parametrize("costs, reference, volume", VOLUMES)
def test_hypervolume_by_hand(costs, reference, volume):
    assert pareto.hypervolume(np.array(costs, dtype=float), np.array(reference)) == volume


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_hypervolume_is_the_share_of_a_fine_grid(objectives):
    rng = np.random.default_rng(objectives)
    costs = rng.integers(0, 6, (12, objectives)).astype(float)
    cells = np.stack(np.meshgrid(*[np.arange(5)] * objectives), axis=-1).reshape(-1, objectives)
    covered = (costs[:, None] <= cells).all(axis=-1).any(axis=0).sum()
    assert pareto.hypervolume(costs, np.full(objectives, 5.0)) == covered
