"""Racing saves evaluations and, at confidence 1, changes nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn.codec import Codec
from jaxsnn.cost import AccuracyLatency, Area, Energy, PeakActivity, Spikes, SynapticOperations, parts, total
from jaxsnn.racing import limits, race
from jaxsnn.search import Racing, evolve, subsets
from jaxsnn.simulate import Observables
from test_search import LAYERS, make_engine, uniform_calibration

IMAGES, STEPS = 40, 6
TERMS = [
    AccuracyLatency(1, 10, 100),
    Area(2),
    Spikes(1),
    SynapticOperations(1),
    Energy(1),
    PeakActivity(3, (10, 20)),
]


def per_image(seed, candidates):
    """Right or wrong of every candidate, image and step, and spikes of every candidate and image."""
    rng = np.random.default_rng(seed)
    skill = rng.random((candidates, 1, 1))
    return rng.random((candidates, IMAGES, STEPS)) < skill, rng.integers(0, 9, (candidates, IMAGES, 2))


def observed(right, spikes, images):
    return Observables(
        right[:, images].sum(1), len(images), spikes[:, images].sum(1), 50 * spikes[:, images].sum(1)
    )


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, IMAGES - 1))
def test_the_bound_at_confidence_1_is_never_above_the_final_cost(seed, seen):
    right, spikes = per_image(seed, 5)
    partial, whole = observed(right, spikes, np.arange(seen)), observed(right, spikes, np.arange(IMAGES))
    for term in TERMS:
        bound = term.lower(partial, limits(partial, IMAGES, 1.0), IMAGES)
        assert (bound <= total(parts([term], whole)) + 1e-9).all()


def test_a_confidence_below_1_is_kept_about_as_often_as_it_says():
    """The upper limit of the final count, from half of the images, holds in about 95 % of draws."""
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(2000):
        answers = rng.random(200) < 0.7
        partial = Observables(answers[:100].sum(keepdims=True)[None], 100, np.zeros((1, 1)), np.zeros((1, 1)))
        kept.append(answers.sum() <= limits(partial, 200, 0.95).high[0, 0])
    assert 0.93 < np.mean(kept) < 0.975


@pytest.mark.parametrize("confidence", [1.0, 0.9])
def test_race_drops_losers_only_and_counts_what_it_used(confidence):
    right, spikes = per_image(3, 6)

    def evaluate(genes, indices):
        rows = genes.threshold[:, 0].astype(int)
        return observed(right[rows], spikes[rows], indices)

    from jaxsnn.snn import Genes

    genes = Genes(np.arange(6.0)[:, None] * np.ones((1, 2)))
    final = total(parts(TERMS, observed(right, spikes, np.arange(IMAGES))))
    rivals = np.full(6, np.median(final))
    seen, finished, used = race(evaluate, genes, np.arange(IMAGES), rivals, TERMS, 8, confidence)
    assert finished[final <= rivals].all() and not finished[final > rivals].all()
    np.testing.assert_array_equal(seen.correct[finished], right[finished].sum(1))
    assert used < 6 * IMAGES


@pytest.mark.parametrize("engine", ["scipy", "evosax", "jax", "lshade"])
def test_an_exact_race_takes_the_same_course_with_fewer_evaluations(engine):
    """Population, costs and best are equal at every generation; only the work differs."""
    codec = Codec(uniform_calibration())
    scale = uniform_calibration().threshold(99.7)
    chance = np.random.default_rng(0).random((1, 60, STEPS))

    def evaluate(genes, indices):
        distance = np.square(genes.threshold / scale - 0.8).sum(1)[:, None, None]
        right = chance[:, indices] < np.exp(-3 * distance)
        spikes = np.zeros((len(distance), LAYERS), int)
        return Observables(right.sum(1), len(indices), spikes, spikes)

    def course(racing):
        search = make_engine(engine, codec, 8)
        subset = subsets(np.zeros(60), 60, "fixed", 0)
        terms = [AccuracyLatency(1, 10, 500)]
        return list(
            evolve(search, search.init(3), codec, terms, evaluate, subset, 12, racing=racing, keep=3)
        ), search

    (plain, search), (raced, _) = course(None), course(Racing(blocks=6))
    for (one, one_state), (two, two_state) in zip(plain, raced, strict=True):
        assert [leader.cost for leader in one.leaders] == [leader.cost for leader in two.leaders]
        np.testing.assert_array_equal(one.best.vector, two.best.vector)
        np.testing.assert_array_equal(search.parents(one_state), search.parents(two_state))
        np.testing.assert_array_equal(search.costs(one_state), search.costs(two_state))
    assert raced[-1][0].image_evaluations < plain[-1][0].image_evaluations
