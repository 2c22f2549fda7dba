"""GDE3: who wins, that it finds fronts, and that it keeps the promises of `evo.protocol.FrontEngine`."""

from itertools import pairwise

import numpy as np
import pytest

import evo
from evo import pareto
from evo.engines.gde3 import STRATEGIES, challenge

LOW, HIGH = np.array([-2.0, -1.0, 3.0]), np.array([4.0, 1.0, 3.0])


def schaffer(x):
    """Two costs whose best points have x1 in [0, 2] and x2 = 0."""
    return np.stack([x[:, 0] ** 2, (x[:, 0] - 2) ** 2], axis=1) + x[:, 1:2] ** 2


def make(**settings):
    return evo.make_front_engine(LOW, HIGH, **{"population": 16, "objectives": 2, **settings})


def run(engine, generations, costs=schaffer, violations=None, state=None):
    state = engine.init(0) if state is None else state
    for _ in range(generations):
        x, state = engine.ask(state)
        state = engine.tell(state, x, costs(x), None if violations is None else violations(x))
    return state


@pytest.mark.parametrize(
    "parent, trial, expected",
    [
        (([1, 1], [0]), ([1, 1], [0]), (True, False)),
        (([1, 1], [0]), ([0, 1], [0]), (True, False)),
        (([1, 1], [0]), ([2, 1], [0]), (False, False)),
        (([1, 1], [0]), ([2, 0], [0]), (False, True)),
        (([1, 1], [0]), ([0, 0], [0.1]), (False, False)),
        (([1, 1], [0.1]), ([9, 9], [0]), (True, False)),
        (([1, 1], [2]), ([9, 9], [1]), (True, False)),
        (([1, 1], [1]), ([0, 0], [2]), (False, False)),
        (([np.inf, 1], [0]), ([np.inf, 0], [0]), (True, False)),
    ],
)
def test_who_wins_by_gde3s_rules(parent, trial, expected):
    replaces, joins = challenge(*(np.array([value], dtype=float) for value in (*parent, *trial)))
    assert (bool(replaces[0]), bool(joins[0])) == expected


@pytest.mark.parametrize(
    "settings",
    [*({"strategy": name} for name in STRATEGIES), {"repair": "reflect"}],
    ids=lambda s: str(s.values()),
)
def test_it_finds_the_front_and_stays_inside(settings):
    engine = make(**settings)
    state = run(engine, 60)
    points, costs = engine.front(state)
    assert len(points) == 16 and np.abs(points[:, 1]).max() < 0.05
    assert points[:, 0].min() < 0.1 and points[:, 0].max() > 1.9
    assert np.all((points >= LOW) & (points <= HIGH)) and np.all(points[:, 2] == 3)
    np.testing.assert_array_equal(costs, schaffer(points))
    assert evo.hypervolume(costs, [5.0, 5.0]) > 0.97 * 22.33  # 25 - the integral of (2 - sqrt(f))^2


def test_constraints_come_first():
    engine = make(constraints=2)
    state = run(engine, 60, violations=lambda x: np.stack([1 - x[:, 0], np.full(len(x), -1.0)], axis=1))
    points, _ = engine.front(state)
    assert len(points) == 16 and points[:, 0].min() >= 1 and points[:, 0].min() < 1.05
    assert np.all(engine.violations(state) == 0)


def test_where_nothing_is_feasible_violations_fall_and_the_front_is_empty():
    engine = make(constraints=1)
    state = run(engine, 40, violations=lambda x: 1 + x[:, :1] ** 2)
    points, costs = engine.front(state)
    assert points.shape == (0, 3) and costs.shape == (0, 2)
    assert engine.violations(state).max() < 1.01


def test_nan_is_infinite_and_loses():
    engine = make()
    state = run(engine, 30, costs=lambda x: np.where(x[:, :1] > 1, np.nan, schaffer(x)))
    assert np.isfinite(engine.costs(state)).all() and engine.parents(state)[:, 0].max() <= 1


def test_the_front_never_shrinks_in_hypervolume_while_it_fits():
    engine = make(population=40)
    volumes, state = [], engine.init(1)
    for _ in range(12):
        state = run(engine, 1, state=state)
        front = pareto.front_rows(engine.costs(state), engine.violations(state))
        volumes.append((evo.hypervolume(engine.costs(state), [9.0, 9.0]), len(front)))
    for (before, _), (after, count) in pairwise(volumes):
        assert after >= before or count == 40


def test_saved_and_resumed_it_continues_bit_for_bit():
    engine = make(constraints=1)
    limits = {"violations": lambda x: 1 - x[:, :1]}
    _, state = engine.ask(run(engine, 5, **limits))
    again = evo.state_from(engine, evo.state_arrays(state))
    left, right = run(engine, 5, state=state, **limits), run(engine, 5, state=again, **limits)
    for a, b in zip(left, right):
        np.testing.assert_array_equal(a, b)


def test_asking_changes_nothing_and_rescoring_replaces_costs():
    engine = make()
    state = run(engine, 3)
    first, _ = engine.ask(state)
    second, _ = engine.ask(state)
    np.testing.assert_array_equal(first, second)
    scored = engine.rescore(state, np.zeros((16, 2)))
    assert np.all(engine.costs(scored) == 0) and np.all(engine.parents(scored) == engine.parents(state))


def test_an_initial_population_is_asked_first():
    given = np.random.default_rng(3).uniform(LOW, HIGH, (16, 3))
    engine = make(init=given)
    np.testing.assert_allclose(engine.ask(engine.init(0))[0], given, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"objectives": 0}, "objectives must be a whole number of at least 1, got 0"),
        ({"constraints": -1}, "constraints must be a whole number of at least 0"),
        ({"strategy": "best1bin"}, "unknown strategy 'best1bin'"),
        ({"mutation": 2.5}, "mutation must lie in"),
        ({"crossover": -0.1}, "crossover must lie in"),
        ({"population": 3}, "at least 4, got 3"),
        ({"strategy": "rand2bin", "population": 5}, "at least 6, got 5"),
        ({"elite": 3}, "engine 'gde3' has no option 'elite'; it takes strategy, mutation, crossover, repair"),
        ({"repair": "redraw"}, "repair must be clip or reflect, got 'redraw'"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


@pytest.mark.parametrize(
    "costs, violations, message",
    [
        (np.zeros(16), None, r"costs must have shape \(16, 2\)"),
        (np.zeros((16, 2), dtype=complex), None, "costs must be real numbers"),
        (np.zeros((16, 2)), np.zeros((16, 1)), r"violations must have shape \(16, 0\)"),
    ],
)
def test_what_is_told_is_checked(costs, violations, message):
    engine = make()
    x, state = engine.ask(engine.init(0))
    with pytest.raises(ValueError, match=message):
        engine.tell(state, x, costs, violations)


def test_violations_are_not_forgotten():
    engine = make(constraints=1)
    x, state = engine.ask(engine.init(0))
    with pytest.raises(ValueError, match=r"violations must have shape \(16, 1\), .* got \(16, 0\)"):
        engine.tell(state, x, schaffer(x))


@pytest.mark.parametrize("name, value", [("costs", np.nan), ("violations", -1.0), ("members", 1.5)])
def test_a_damaged_state_is_refused(name, value):
    engine = make(constraints=1)
    state = run(engine, 2, violations=lambda x: 1 - x[:, :1])
    with pytest.raises(ValueError, match=name):
        engine.check(state._replace(**{name: np.full_like(getattr(state, name), value)}))
