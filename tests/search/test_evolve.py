"""Algorithm 1: genes and vectors, subsets, selection, common random numbers. The simulator is a formula here."""

from dataclasses import replace

import numpy as np
import pytest

import evo
from helpers.search import LAYERS, make_engine, uniform_calibration
from jaxsnn.errors import UserError
from jaxsnn.search.cost import Area
from jaxsnn.search.evolve import evolve, subsets
from jaxsnn.search.presets import PRESETS, preset
from jaxsnn.search.space import Codec
from jaxsnn.simulation.observables import Observables

ENGINES = ["scipy", "evosax", "jax", "lshade"]


def bowl(best, log=None):
    """An evaluation whose accuracy falls with the distance from ``best`` (thresholds relative to the base)."""
    scale = uniform_calibration().threshold(99.7)

    def evaluate(genes, indices):
        if log is not None:
            log.append((np.array(genes.threshold), np.array(indices)))
        distance = np.square(genes.threshold / scale - best).sum(1)
        correct = np.round(1e6 * np.exp(-distance))[:, None].repeat(3, 1).astype(int)
        spikes = np.zeros((len(distance), LAYERS), int)
        return Observables(correct, 10**6, spikes, spikes)

    return evaluate


def test_codec_normalised_and_percentile_agree():
    calibration = uniform_calibration()
    normalised, percentile = Codec(calibration), Codec(calibration, space="percentile")
    np.testing.assert_allclose(normalised.decode(np.ones((1, LAYERS))).threshold, normalised.baseline().threshold)
    np.testing.assert_allclose(
        percentile.decode(np.full((1, LAYERS), 99.7)).threshold, percentile.baseline().threshold
    )
    np.testing.assert_allclose(
        percentile.decode(np.full((1, LAYERS), 95.0)).threshold[0], 0.95 * calibration.maxima
    )
    np.testing.assert_allclose(
        normalised.decode(np.full((1, LAYERS), 0.5)).threshold[0], 0.4985 * calibration.maxima
    )


def test_codec_carries_every_searched_gene_in_its_own_block():
    codec = Codec(uniform_calibration(), search=("leak", "threshold", "v0"))
    vector = np.concatenate([np.full(LAYERS, 0.5), np.full(LAYERS, 0.25), np.full(LAYERS, 0.9)])
    genes = codec.decode(vector[None])
    assert codec.spread("low").shape == (3 * LAYERS,)
    np.testing.assert_allclose(genes.v0, 0.25)
    np.testing.assert_allclose(genes.leak, 0.9)
    only = Codec(uniform_calibration(), search=("v0",), leak=0.5).decode(np.full((2, LAYERS), 0.3))
    np.testing.assert_allclose(only.threshold, np.tile(uniform_calibration().threshold(99.7), (2, 1)))
    np.testing.assert_allclose(only.leak, 0.5)


@pytest.mark.parametrize("space, vector", [("normalised", 2.0), ("percentile", 100.0)])
def test_no_threshold_is_above_its_layers_cap(space, vector):
    """Above it the ANN's clip would be lost; layers without a cap go as far as the search does."""
    plain = uniform_calibration()
    caps = np.where(np.arange(LAYERS) == 1, 0.75 * plain.maxima, np.inf)
    capped = Codec(replace(plain, caps=caps), space=space)
    theta = Codec(plain, space=space).decode(np.full((2, capped.layers), vector)).threshold
    found = capped.decode(np.full((2, capped.layers), vector)).threshold
    np.testing.assert_array_equal(found, np.minimum(theta, caps))
    assert (found[:, 1] == caps[1]).all() and (theta[:, 1] > caps[1]).all()


@pytest.mark.parametrize("options", [{"space": "log"}, {"search": ()}, {"search": ("weight",)}, {"base": 0.0}])
def test_codec_refuses_what_it_cannot_search(options):
    with pytest.raises(UserError):
        Codec(uniform_calibration(), **options)


def test_subsets_are_balanced_reproducible_and_fixed_or_fresh():
    labels = np.arange(100) % 10
    fixed = subsets(labels, 20, "fixed", 3)
    first = next(fixed)
    np.testing.assert_array_equal(first, next(fixed))
    np.testing.assert_array_equal(first, next(subsets(labels, 20, "fixed", 3)))
    assert len(set(first)) == 20 and (np.bincount(labels[first]) == 2).all()
    fresh = subsets(labels, 20, "resample", 3)
    assert set(next(fresh)) != set(next(fresh))
    # a run's seed is also that of its images, fixed or fresh
    for mode in ("fixed", "resample"):
        assert len({tuple(sorted(next(subsets(labels, 20, mode, seed)))) for seed in range(4)}) == 4
    with pytest.raises(UserError, match="--images is 101, but there are only 100"):
        next(subsets(labels, 101, "fixed", 0))


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_finds_the_bowl_and_never_returns_worse_than_the_baseline(name):
    codec = Codec(uniform_calibration())
    best = np.array([0.7, 1.1, 0.9, 0.8])
    budget = 16 * 61
    engine = make_engine(name, codec, 16, budget)
    subset = subsets(np.zeros(9), 3, "fixed", 0)
    steps = list(evolve(engine, engine.init(0), codec, [Area(1)], bowl(best), subset, budget))
    costs = [generation.best.cost for generation, _ in steps]
    baseline = 3 * (1 - np.exp(-np.square(1 - best).sum()))
    assert costs[0] <= baseline + 1e-5
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < baseline / 10
    last = steps[-1][0]
    assert last.best.parts["area"] == pytest.approx(last.best.cost)
    assert last.image_evaluations == 3 * last.evaluations
    assert [generation.last for generation, _ in steps] == [False] * (len(steps) - 1) + [True]
    # L-SHADE finds the bottom before the end
    assert last.evaluations == budget or (name == "lshade" and last.converged)


def test_a_shrinking_population_gets_more_generations_not_fewer_evaluations():
    codec, log = Codec(uniform_calibration()), []
    engine = make_engine("lshade", codec, 12, evaluations=12 * 11)
    subset = subsets(np.zeros(9), 3, "fixed", 0)
    evaluate = bowl(np.ones(LAYERS), log)
    steps = list(evolve(engine, engine.init(0), codec, [Area(1)], evaluate, subset, 12 * 11))
    sizes = [len(genes) for genes, _ in log]
    assert 12 * 11 - 4 < sum(sizes) <= 12 * 11 and sum(sizes) == steps[-1][0].evaluations
    assert len(sizes) > 11 and sizes == sorted(sizes, reverse=True) and sizes[-1] == 4


@pytest.mark.parametrize("name", ENGINES)
def test_parents_and_trials_meet_on_the_same_images_when_resampled(name):
    """Without the second evaluation an old lucky score would survive for ever."""
    codec = Codec(uniform_calibration())
    log = []
    engine = make_engine(name, codec)
    fresh = subsets(np.zeros(50), 5, "resample", 1)
    steps = list(
        evolve(engine, engine.init(1), codec, [Area(1)], bowl(np.ones(LAYERS), log), fresh, 31, resample=True)
    )
    assert [len(genes) for genes, _ in log][:2] == [8, 8]
    # one evaluation, then parents and trials of each generation side by side
    for parents, trials in zip(log[1::2], log[2::2], strict=True):
        np.testing.assert_array_equal(parents[1], trials[1])
    assert len({tuple(indices) for _, indices in log}) == len(steps) >= 3
    trials = [len(genes) for genes, _ in [log[0], *log[2::2]]]
    assert 24 <= sum(trials) <= 31, "parents that are scored again do not eat up the trials"
    assert steps[-1][0].evaluations == sum(len(genes) for genes, _ in log)


def test_the_search_stops_when_the_engine_has_converged():
    codec = Codec(uniform_calibration())
    engine = evo.make_engine(
        "scipy",
        codec.spread("low"),
        codec.spread("high"),
        6,
        mean=codec.spread("mean"),
        std=codec.spread("std"),
        tol=1e9,
    )
    subset = subsets(np.zeros(9), 3, "fixed", 0)
    steps = list(evolve(engine, engine.init(0), codec, [Area(1)], bowl(np.ones(LAYERS)), subset, 300))
    assert len(steps) == 1 and steps[0][0].converged and steps[0][0].last


def test_presets_are_table_i():
    assert set(PRESETS) >= {"demo", "cifar10", "cifar100-vgg15", "cifar100-vgg11", "imagenet"}
    row = preset("cifar100-vgg11")
    assert (row.alpha, row.beta, row.gamma, row.percentile, row.std, row.population) == (
        0.7,
        60,
        200,
        99.7,
        0.13,
        35,
    )
    with pytest.raises(UserError, match="did you mean cifar10"):
        preset("cifar-10")
