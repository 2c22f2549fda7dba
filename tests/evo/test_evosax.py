"""evosax under the protocol: which differential evolution it is, repair, and its other strategies."""

import itertools

import numpy as np
import pytest

import evo
from helpers.objectives import generations, sphere

# as in test_evo_protocol and test_search, for evosax compiles anew for each shape
SIZE, DIMENSION = 8, 4


def make(name="evosax", low=-1.0, high=2.0, size=SIZE, **settings):
    return evo.make_engine(name, np.full(DIMENSION, low), np.full(DIMENSION, high), size, **settings)


def weights(trial, base, difference):
    """The F for which trial = base + F difference in every coordinate, or None."""
    values = (trial - base) / difference
    return values.mean() if np.ptp(values) < 1e-3 else None


@pytest.mark.parametrize(("strategy", "best_only"), [("rand1bin", False), ("best1bin", True)])
@pytest.mark.parametrize("mutation", [0.25, (0.1, 0.4)])
def test_trials_are_eq_7(strategy, best_only, mutation):
    # The start is far inside the box, so that no trial needs repair; C = 1 takes every coordinate from the
    # mutant.
    start = np.random.default_rng(0).uniform(0.4, 0.6, (SIZE, DIMENSION))
    engine = make(init=start, strategy=strategy, mutation=mutation, crossover=1.0)
    candidates, state = engine.ask(engine.init(0))
    state = engine.tell(state, candidates, sphere(candidates))
    parents, best = engine.parents(state), int(np.argmin(engine.costs(state)))
    low, high = np.broadcast_to(mutation, 2)
    by_seed = []
    for seed in range(4):
        trials, _ = engine.ask(state._replace(key=np.array([0, seed], dtype=np.uint32)))
        found = []
        for i, trial in enumerate(trials):
            others = [j for j in range(SIZE) if j != i]
            triples = [t for t in itertools.permutations(others, 3) if not best_only or t[0] == best]
            if best_only:
                triples = [(best, *pair) for pair in itertools.permutations(others, 2) if best not in pair]
            fits = [weights(trial, parents[a], parents[b] - parents[c]) for a, b, c in triples]
            fits = [f for f in fits if f is not None and low - 1e-3 <= f <= high + 1e-3]
            assert fits, (i, trial)
            found.append(fits[0])
        assert np.ptp(found) < 1e-2, "one weight a generation"
        by_seed.append(np.mean(found))
    assert (np.ptp(by_seed) > 1e-2) == (low < high), "dithering is on exactly for a pair"


def test_crossover_keeps_at_least_one_mutant_coordinate():
    start = np.random.default_rng(0).uniform(0.0, 1.0, (SIZE, DIMENSION))
    engine = make(init=start, crossover=0.0, mutation=0.3)
    state = generations(engine, engine.init(0), sphere, 1)[-1]
    trials, _ = engine.ask(state)
    assert np.all(np.sum(trials != engine.parents(state), axis=1) == 1)


@pytest.mark.parametrize("repair", ["reflect", "redraw", "clip"])
def test_repaired_trials_are_what_is_evaluated_and_kept(repair):
    seen = set()

    def cost(points):
        assert points.min() >= -1 and points.max() <= 2
        seen.update(map(tuple, points.tolist()))
        return -sphere(points)

    engine = make(repair=repair, mutation=1.9)
    state = generations(engine, engine.init(0), cost, 15)[-1]
    assert set(map(tuple, engine.parents(state).tolist())) <= seen
    np.testing.assert_allclose(engine.costs(state), -sphere(engine.parents(state)), rtol=1e-6)
    on_bound = np.isin(engine.parents(state), (-1.0, 2.0)).any()
    assert on_bound == (repair == "clip")


def test_unknown_repair_and_strategy():
    with pytest.raises(ValueError, match="'bounce'"):
        make(repair="bounce")
    with pytest.raises(ValueError, match="best1bin, rand1bin"):
        make(strategy="rand2bin")


@pytest.mark.parametrize("name", ["PSO", "SimpleGA", "SNES"])
def test_other_strategies_improve(name):
    """Of both families that evosax has; CMA_ES is in test_evo_protocol."""
    engine = make(f"evosax:{name}", mean=1.0, std=0.4)
    states = generations(engine, engine.init(0), sphere, 25)
    assert np.mean(engine.costs(states[-1])) < np.mean(engine.costs(states[0])) / 2


def test_infinite_costs_leave_strategies_that_average_them_finite():
    def half_infinite(points):
        return np.where(points[:, 0] > 1.0, np.nan, sphere(points))

    engine = make("evosax:PersistentES", mean=1.0, std=0.4)
    candidates, _ = engine.ask(generations(engine, engine.init(0), half_infinite, 8)[-1])
    assert np.isfinite(candidates).all()


@pytest.mark.parametrize("name", ["SV_CMA_ES", "RandomSearch"])
def test_strategies_that_want_more_arguments_say_so(name):
    with pytest.raises(ValueError, match=f"{name} cannot be built for 12 candidates"):
        make(f"evosax:{name}", size=12)


def test_odd_populations_are_refused_where_evosax_would_fail():
    with pytest.raises(ValueError, match="for 7 candidates: Population size must be even"):
        make("evosax:PersistentES", size=7)
