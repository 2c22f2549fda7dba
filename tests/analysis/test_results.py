"""Results keep their JSON: what is written is what is read, and files of earlier versions are read, too."""

import copy
import json

import numpy as np
import pytest

from helpers.networks import dyadic_images, dyadic_snn, dyadic_thresholds
from helpers.results import network, result
from jaxsnn.analysis.comparison import compare, compare_networks
from jaxsnn.analysis.intervals import wilson
from jaxsnn.analysis.latency import gain_intervals
from jaxsnn.analysis.results import TestResult
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.simulation.observe import observe


def test_json_comes_back_as_it_was_written():
    found = result(attack={"method": "fgsm", "epsilon_grey_levels": 8.0})
    again = TestResult.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found and again.to_json() == found.to_json()


def test_results_of_earlier_versions_are_read():
    record = result().to_json()
    del record["accuracy_gain_ci95"]
    for name in ("baseline", "optimized"):
        for key in ("spikes_per_image_by_layer", "synops_per_image_by_layer"):
            del record[name][key]
    found = TestResult.from_json(record)
    assert found.baseline.spikes_per_image_by_layer is None and found.accuracy_gain_ci95 is None
    assert found.to_json() == record


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda r: r.pop("timesteps"), "run.json has no timesteps"),
        (lambda r: r.update(timesteps="40"), "timesteps is '40', expected a whole number of at least 1"),
        (lambda r: r.update(ann_accuracy=1.5), r"ann_accuracy is 1.5, expected a number in \[0, 1\]"),
        (lambda r: r.update(delay="some"), "delay is 'some', expected layer or none"),
        (lambda r: r.update(baseline=[]), r"baseline is \[\], expected a JSON object"),
        (lambda r: r["baseline"].update(accuracy=[0.5]), "baseline: accuracy has 1 entries, expected 40"),
        (lambda r: r["optimized"].update(v0=[0.5]), "optimized: v0 has 1 entries, expected 3"),
        (lambda r: r["optimized"].update(spikes_per_image=float("nan")), "spikes_per_image is nan, expected a f"),
        (lambda r: r["latency"][0].update(target=None), r"latency\[0\]: target is None"),
        (lambda r: r.update(latency={}), "latency is {}, expected a list"),
        (lambda r: r.update(accuracy_gain_ci95=[1]), "expected 40 pairs of numbers"),
        (lambda r: r.update(attack={}), "attack has no method"),
    ],
)
def test_what_is_not_a_result_is_refused_in_a_sentence(change, sentence):
    record = copy.deepcopy(result().to_json())
    change(record)
    with pytest.raises(UserError, match=sentence):
        TestResult.from_json(record, "run.json")


def test_a_result_prints_as_a_short_table():
    lines = str(result()).splitlines()
    assert max(map(len, lines)) <= 80
    assert "2,000 test images, ANN 86.00 %" in lines[0] and "95 % interval" in lines[2]
    assert lines[1] == "baseline: 99.7 percentile, v0 0.5; optimised: v0 0.31 to 0.62"
    assert lines[3].split() == [
        "ANN",
        "-",
        "0.5",
        "(85.50",
        "%)",
        ">",
        "40",
        "31",
        ">",
        f"{100 * (1 - 31 / 41):.1f}",
        "%",
    ]
    assert "14.7 %" in lines[4] and "10 to 18 %" in lines[4]


def test_accuracy_at_a_step_of_either_convention():
    found = result(timesteps=5, baseline=network([0.1, 0.2, 0.3, 0.4, 0.5]))
    at = [found.accuracy_at(found.baseline, step, "layer") for step in range(1, 7)]
    assert at == [None, None, None, 0.4, 0.5, None]  # a delay of 3
    assert [found.accuracy_at(found.baseline, step, "none") for step in (1, 2, 3)] == [0.4, 0.5, None]
    found = result(timesteps=5, delay="none", baseline=found.baseline)
    assert [found.accuracy_at(found.baseline, step, "none") for step in (1, 5, 6)] == [0.1, 0.5, None]
    assert [found.accuracy_at(found.baseline, step, "layer") for step in (3, 4, 8, 9)] == [None, 0.1, 0.5, None]


@pytest.fixture(scope="module")
def snn():
    return dyadic_snn("pool_before")


@pytest.fixture(scope="module")
def some(snn):
    images = dyadic_images(12)
    return images, np.arange(12) % snn.network.classes


def test_the_front_door_compares_two_candidates(snn, some):
    class Test:
        images, labels = some

    usual = dyadic_thresholds(len(snn.network.spiking))
    one, two = Genes(usual), Genes(usual, np.full_like(usual, 0.5))
    found = compare(snn, one, two, Test, timesteps=12)
    assert found == compare_networks((snn, one), (snn, two), *some, 12, Dynamics())
    assert found == compare(snn, Genes(usual[0]), Genes(usual[0], np.full_like(usual[0], 0.5)), some, 12)
    counts = observe(snn, one, *some, timesteps=12)
    assert found.baseline.accuracy == tuple(counts.accuracy[0])
    assert found.baseline.synops_per_image_by_layer == tuple(counts.synops[0] / 12)
    assert sum(found.baseline.spikes_per_image_by_layer) == pytest.approx(found.baseline.spikes_per_image)
    assert found.baseline.thresholds == tuple(usual[0]) and found.optimized.v0 == (0.5,) * usual.shape[1]
    assert compare(snn, one, two, some).timesteps == 100 + snn.network.delay
    with pytest.raises(UserError, match="baseline has 2 candidates, expected one"):
        compare(snn, Genes(np.concatenate([usual, usual])), two, some, timesteps=12)
    with pytest.raises(UserError, match=r"threshold has shape \(1, 2\), expected"):
        compare(snn, one, Genes(usual[:, :2]), some, timesteps=12)
    with pytest.raises(UserError, match="dynamics is 'layer', expected a Dynamics"):
        compare(snn, one, two, some, dynamics="layer")


def test_the_interval_of_a_gain_is_paired():
    rng = np.random.default_rng(0)
    baseline = rng.random((400, 3)) < 0.6
    better = baseline | (rng.random((400, 3)) < 0.3)
    gain = 100 * (better.mean(0) - baseline.mean(0))
    for (low, high), middle in zip(gain_intervals(baseline, better), gain):
        # two shares of 400 that are not paired would give a width of about 13
        assert 0 < low < middle < high and high - low < 8
    assert gain_intervals(baseline, baseline) == ((0.0, 0.0),) * 3


def test_wilsons_interval():
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3
    for right, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert wilson(right / count, count) == pytest.approx((low, high), abs=5e-5)
    assert wilson(1.0, 29) == pytest.approx((0.8830, 1.0), abs=5e-5)
    with pytest.raises(ValueError, match="no interval"):
        wilson(0.5, 0)
