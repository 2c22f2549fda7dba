"""Racing saves evaluations and, at confidence 1, changes nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data
from helpers.search import LAYERS, make_engine, uniform_calibration
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import shapes_of
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.spiking import SNN, Genes
from jaxsnn.optimize import OptimizeConfig
from jaxsnn.search.cost import (
    AccuracyLatency,
    Area,
    Energy,
    Limit,
    PeakActivity,
    Spikes,
    SynapticOperations,
    parts,
    total,
)
from jaxsnn.search.evolve import Racing, evolve, score, subsets
from jaxsnn.search.job import make_job
from jaxsnn.search.racing import bounds, race
from jaxsnn.search.space import Codec
from jaxsnn.simulation.observables import Observables

IMAGES, STEPS = 40, 6


CONFIG = OptimizeConfig(
    population=6, generations=6, images=40, timesteps=9, limit_images=50, finalists=2, rows=48
).checked()


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
@given(st.integers(0, 10**6), st.integers(0, IMAGES - 1))
def test_the_bound_at_confidence_1_is_never_above_the_final_cost(seed, seen):
    right, spikes = per_image(seed, 5)
    partial, whole = observed(right, spikes, np.arange(seen)), observed(right, spikes, np.arange(IMAGES))
    for term in TERMS:
        bound = term.lower(partial, bounds(partial, IMAGES, 1.0), IMAGES)
        assert (bound <= total(parts([term], whole)) + 1e-9).all()


def test_a_confidence_below_1_is_kept_about_as_often_as_it_says():
    """The upper limit of the final count, from half of the images, holds in about 95 % of draws."""
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(2000):
        answers = rng.random(200) < 0.7
        partial = Observables(answers[:100].sum(keepdims=True)[None], 100, np.zeros((1, 1)), np.zeros((1, 1)))
        kept.append(answers.sum() <= bounds(partial, 200, 0.95).high[0, 0])
    assert 0.93 < np.mean(kept) < 0.975


@pytest.mark.parametrize("confidence", [1.0, 0.9])
def test_race_drops_losers_only_and_counts_what_it_used(confidence):
    right, spikes = per_image(3, 6)

    def evaluate(genes, indices):
        rows = genes.threshold[:, 0].astype(int)
        return observed(right[rows], spikes[rows], indices)

    genes = Genes(np.arange(6.0)[:, None] * np.ones((1, 2)))
    final = total(parts(TERMS, observed(right, spikes, np.arange(IMAGES))))
    rivals = np.full(6, np.median(final))
    seen, finished, used = race(evaluate, genes, np.arange(IMAGES), rivals, TERMS, 8, confidence)
    assert finished[final <= rivals].all() and not finished[final > rivals].all()
    np.testing.assert_array_equal(seen.correct[finished], right[finished].sum(1))
    assert used < 6 * IMAGES


def test_what_the_limit_alone_puts_out_is_not_simulated():
    """The limit has images of its own and is known first; the later blocks keep it."""
    right, spikes = per_image(5, 4)
    limit = np.array([90, 50, 80, 85])
    calls = []

    def evaluate(genes, indices):
        rows = genes.threshold[:, 0].astype(int)
        calls.append((rows.tolist(), len(indices)))
        known = observed(right[rows], spikes[rows], indices)
        return replace(known, limit_correct=limit[rows], limit_images=100)

    terms = [AccuracyLatency(1, 10, 100), Limit(1000)]
    genes = Genes(np.arange(4.0)[:, None] * np.ones((1, 2)))
    whole = replace(observed(right, spikes, np.arange(IMAGES)), limit_correct=limit, limit_images=100)
    final = total(parts(terms, whole))
    seen, finished, used = race(evaluate, genes, np.arange(IMAGES), np.full(4, 400.0), terms, 4, 1.0)
    assert calls == [([0, 1, 2, 3], 0), *[([0, 2, 3], IMAGES // 4)] * 4]
    np.testing.assert_array_equal(finished, [True, False, True, True])
    np.testing.assert_allclose(total(parts(terms, seen))[finished], final[finished])
    assert used == 3 * IMAGES
    none, finished, used = race(evaluate, genes, np.arange(IMAGES), np.zeros(4), terms, 4, 1.0)
    assert used == 0 and not finished.any()
    np.testing.assert_array_equal([c.cost for c in score(np.zeros((4, 2)), genes, none, terms, finished)], np.inf)


@pytest.mark.parametrize("limit", [0, 300], ids=["plain", "limit"])
@pytest.mark.parametrize("engine", ["scipy", "evosax", "jax", "lshade"])
def test_an_exact_race_takes_the_same_course_with_fewer_evaluations(engine, limit):
    """Population, costs and best are equal at every generation; only the work differs."""
    codec = Codec(uniform_calibration())
    scale = uniform_calibration().threshold(99.7)
    chance = np.random.default_rng(0).random((1, 60, STEPS))

    def evaluate(genes, indices):
        distance = np.square(genes.threshold / scale - 0.8).sum(1)[:, None, None]
        right = chance[:, indices] < np.exp(-3 * distance)
        spikes = np.zeros((len(distance), LAYERS), int)
        known = Observables(right.sum(1), len(indices), spikes, spikes)
        clipped = np.round(1000 * np.exp(-distance[:, 0, 0])).astype(int)
        return replace(known, limit_correct=clipped, limit_images=1000) if limit else known

    def course(racing):
        search = make_engine(engine, codec, 8)
        subset = subsets(np.zeros(60), 60, "fixed", 0)
        terms = [AccuracyLatency(1, 10, 500), *([Limit(limit)] if limit else [])]
        steps = evolve(search, search.init(3), codec, terms, evaluate, subset, 8 * 13, racing=racing, keep=3)
        return list(steps), search

    (plain, search), (raced, _) = course(None), course(Racing(blocks=6))
    for (one, one_state), (two, two_state) in zip(plain, raced, strict=True):
        assert [leader.cost for leader in one.leaders] == [leader.cost for leader in two.leaders]
        np.testing.assert_array_equal(one.best.vector, two.best.vector)
        np.testing.assert_array_equal(search.parents(one_state), search.parents(two_state))
        np.testing.assert_array_equal(search.costs(one_state), search.costs(two_state))
    assert raced[-1][0].image_evaluations < plain[-1][0].image_evaluations


def test_an_exact_race_of_a_real_objective_ends_at_the_same_vector():
    """Limit and area on the simulator itself: equal leaders, fewer images, and each limit is counted once."""
    colours = {"input_shape": (8, 8, 3), "mean": (0.5,) * 3, "std": (0.2,) * 3}
    network = vgg([[4], [6]], [5], name="colours", classes=3, **colours)
    rng = np.random.default_rng(0)
    snn = SNN(network, {key: rng.normal(size=shape).astype("f") for key, shape in shapes_of(network).items()})
    images = rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    labels = np.asarray(ann_forward(network, snn.params, images)[-1].argmax(-1), np.int32)
    train = data.Dataset(images, labels, ("a", "b", "c"), "noise", "train", "a test")
    calibration = calibrate(network, snn.params, train.images)
    ends = []
    for config in (CONFIG, replace(CONFIG, race=1.0)):
        job = make_job(config, snn, train, calibration, plan=config.plan())
        ends.append((job.last(), job.objective.limit_passes))
    (plain, plain_passes), (raced, raced_passes) = ends
    np.testing.assert_array_equal(plain.best.vector, raced.best.vector)
    assert [leader.cost for leader in plain.leaders] == [leader.cost for leader in raced.leaders]
    assert plain.evaluations == raced.evaluations == 6 * 7
    assert raced.image_evaluations < plain.image_evaluations == 6 * 7 * 40
    assert plain_passes == raced_passes == 6 * 7 * 50
