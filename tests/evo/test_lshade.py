"""L-SHADE against an independent, literal implementation, and its published constants."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evo
from evo import rng
from evo.engines import lshade
from helpers.lshade_reference import Reference
from helpers.objectives import generations, rastrigin, rosenbrock, sphere


def unit_objective(function):
    return lambda unit: float(function(4.0 * np.asarray(unit) - 1.5))


@pytest.mark.parametrize("function", [sphere, rosenbrock, rastrigin])
@pytest.mark.parametrize("seed", range(3))
def test_every_generation_equals_the_reference(function, seed):
    objective = unit_objective(function)
    engine = evo.make_engine("lshade", np.zeros(5), np.ones(5), 20, evaluations=400)
    state = generations(engine, engine.init(seed), lambda points: np.array([objective(p) for p in points]), 1)[-1]
    # Eq. 10 already says 19 here, but its author's program first shrinks after the first generation of trials.
    assert len(state.members) == 20 > lshade.reduced_size(20, 20, 400)
    reference = Reference(state.trials, objective, 400)
    sizes = []
    for _ in range(60):
        generator = rng.unpack(state.generator)
        candidates, state = engine.ask(state)
        state = engine.tell(state, candidates, np.array([objective(p) for p in candidates]))
        reference.generation(generator, generator)
        np.testing.assert_allclose(state.members, reference.members, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(state.energies, reference.costs, rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(state.archive, np.reshape(reference.archive, (-1, 5)), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(state.memory.weight, reference.m_f, rtol=1e-6)
        closed = [np.nan if m is None else m for m in reference.m_cr]
        np.testing.assert_allclose(state.memory.crossover, closed, rtol=1e-6)
        sizes.append(len(state.members))
    assert sizes[0] == 18 and sizes[-1] == 4 and sizes == sorted(sizes, reverse=True)


def test_the_published_constants():
    engine = evo.make_engine("lshade", [0.0], [1.0], 18, evaluations=1000)
    assert (engine.memory, engine.archive, engine.elite, lshade.SPREAD) == (6, 2.6, 0.11, 0.1)
    state = engine.init(0)
    assert state.memory.weight.tolist() == state.memory.crossover.tolist() == [0.5] * 6
    assert [lshade.reduced_size(100, used, 1000) for used in (0, 250, 500, 1000, 1500)] == [100, 76, 52, 4, 4]


def test_memory_by_hand():
    memory = lshade.Memory(np.full(2, 0.5), np.array([0.5, np.nan]), np.array(0))
    weight, crossover, gain = np.array([0.2, 0.8]), np.array([0.0, 0.4]), np.array([1.0, 3.0])
    once = lshade.remember(memory, weight, crossover, gain)
    assert once.weight.tolist() == pytest.approx([(0.04 + 3 * 0.64) / (0.2 + 3 * 0.8), 0.5])
    assert once.crossover[0] == pytest.approx(0.4) and np.isnan(once.crossover[1]) and once.cell == 1
    twice = lshade.remember(once, weight, crossover, gain)
    assert np.isnan(twice.crossover[1]) and twice.cell == 0, "a closed cell stays closed"
    thrice = lshade.remember(twice, weight, np.zeros(2), gain)
    assert np.isnan(thrice.crossover[0]), "a cell closes when every success had CR = 0"
    assert lshade.remember(thrice, weight[:0], crossover[:0], gain[:0]) is thrice
    infinite = lshade.remember(memory, weight, crossover, np.array([1.0, np.inf]))
    assert infinite.weight[0] == pytest.approx(0.8) and infinite.crossover[0] == pytest.approx(0.4)


def test_parameters_follow_their_distributions():
    generator = np.random.default_rng(0)
    memory = lshade.Memory(np.full(3, 0.5), np.array([0.7, 0.7, np.nan]), np.array(0))
    weight, crossover = lshade.draw_parameters(generator, memory, 60_000)
    assert weight.min() > 0 and weight.max() == 1.0
    assert crossover.min() == 0.0 and crossover.max() <= 1.0
    assert np.mean(crossover == 0) == pytest.approx(1 / 3, abs=0.01)
    drawn = crossover[crossover > 0]
    assert drawn.mean() == pytest.approx(0.7, abs=0.005) and drawn.std() == pytest.approx(0.1, abs=0.005)
    # A Cauchy law of scale 0.1 around 0.5 has half its mass in [0.4, 0.6]; what lies below 0 was drawn again.
    below = 0.5 - np.arctan(5) / np.pi
    assert np.mean((weight > 0.4) & (weight < 0.6)) == pytest.approx(0.5 / (1 - below), abs=0.01)
    assert np.mean(weight == 1) == pytest.approx(below / (1 - below), abs=0.01)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(count=st.integers(3, 12), extra=st.integers(0, 20), seed=st.integers(0, 999))
def test_others_are_other(count, extra, seed):
    generator = np.random.default_rng(seed)
    rows = np.arange(count)
    first = rng.draw_others(generator, count, rows)
    second = rng.draw_others(generator, count + extra, rows, first)
    assert (first != rows).all() and (second != rows).all() and (second != first).all()
    assert min(first.min(), second.min()) >= 0 and first.max() < count and second.max() < count + extra


def test_others_are_uniform():
    generator = np.random.default_rng(1)
    drawn = rng.draw_others(generator, 6, np.full(40_000, 4), np.full(40_000, 1))
    shares = np.bincount(drawn, minlength=6) / 40_000
    np.testing.assert_allclose(shares, [0.25, 0, 0.25, 0.25, 0, 0.25], atol=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "got None"),
        ({"evaluations": 11}, "got 11"),
        ({"evaluations": 99, "memory": 0}, "got 0"),
        ({"evaluations": 99, "archive": -1.0}, r"-1\.0"),
        ({"evaluations": 99, "elite": 0.0}, r"0\.0"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        evo.make_engine("lshade", [0.0] * 3, [1.0] * 3, 12, **change)


def test_mutation_is_not_a_setting():
    with pytest.raises(ValueError, match="'lshade' has no option 'mutation'; it takes evaluations, memory"):
        evo.make_engine("lshade", [0.0] * 3, [1.0] * 3, 12, evaluations=99, mutation=0.5)
