"""The search around a calibrated network: where it starts, what it may not lose, and the command that runs it."""

import dataclasses

import numpy as np
import pytest

import data
from helpers.networks import dyadic_images, dyadic_snn
from helpers.runs import config_of, interrupted
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.conversion.start import calibrate as calibrate_few
from jaxsnn.errors import UserError
from jaxsnn.evaluate import EvaluateConfig, evaluate
from jaxsnn.networks.spiking import SNN
from jaxsnn.optimize import OptimizeConfig, optimize
from jaxsnn.records.calibrated_network import NAME
from jaxsnn.records.finished_run import read_run
from jaxsnn.search.around import Around
from jaxsnn.search.job import make_job
from jaxsnn.search.settings import SearchSettings

SMALL = {
    "start": "calibrated",
    "divergence": 1.0,
    "alpha": 0.0,
    "beta": 0.0,
    "gamma": 0.0,
    "area": 0.0,
    "limit": 0.0,
    "reconstruct": True,
    "distillation": 2,
    "distillation_batch": 4,
}
"""The cost of the preset few."""


def test_the_start_competes_and_nothing_worse_is_returned():
    snn, images = dyadic_snn("bias"), dyadic_images(12)
    labels = np.arange(12, dtype=np.int32) % 3
    train = data.Dataset(np.repeat(images, 1, 0), labels, ("a", "b", "c"), "small", "train", "a test")
    start = calibrate_few(snn, images, 3)
    settings = SearchSettings(
        population=6, generations=3, images=12, timesteps=3, delay="none", finalists=1, **SMALL
    ).checked()
    calibration = calibrate(snn.network, snn.params, images)
    runs = []
    for _ in range(2):
        job = make_job(settings, snn, train, calibration, start=start)
        runs.append([generation for generation, _ in job.generations(job.start())])
    costs = [generation.best.cost for generation in runs[0]]
    assert costs == sorted(costs, reverse=True) == [generation.best.cost for generation in runs[1]]
    own = job.objective(start.genes, np.arange(12))
    assert costs[0] <= (own.divergence[0, -1] + 0.03 * own.divergence[0].mean()) / 12 / 2**20 + 1e-12


def test_the_vector_of_ones_and_zeros_is_the_start():
    snn, images = dyadic_snn("bias"), dyadic_images(12)
    genes = calibrate_few(snn, images, 3).genes
    around = Around(genes)
    np.testing.assert_array_equal(around.baseline().threshold, genes.threshold)
    np.testing.assert_allclose(around.baseline().v0, genes.v0)


def test_no_layer_that_the_ann_clips_passes_on_more_than_the_clip():
    """But the start itself may, where calibration chose so; a layer without a cap goes as far as the search."""
    snn, images = dyadic_snn("bias"), dyadic_images(12)
    first, *others = snn.network.layers
    network = dataclasses.replace(snn.network, layers=(dataclasses.replace(first, cap=0.75), *others))
    start = calibrate_few(SNN(network, snn.params), images, 3, reconstruct=False, sweeps=0, amplitudes=False)
    own, layers = start.genes.threshold[0], len(network.spiking)
    capped = start.snn.network.layers[0].cap
    assert own[0] <= capped < 2 * own[0]
    vectors = np.concatenate([np.full((2, layers), [[2.0], [0.5]]), np.zeros((2, layers))], 1)
    found = Around.of(start).decode(vectors).threshold
    np.testing.assert_allclose(found, [[capped, *2 * own[1:]], own / 2])
    beyond = Around(start.genes, np.full(layers, 0.5 * own.min())).decode(vectors).threshold
    np.testing.assert_allclose(beyond, [own, own / 2])


@pytest.mark.slow
def test_a_run_keeps_its_network_resumes_and_is_evaluated(tiny, monkeypatch, tmp_path):
    """The folder holds the calibrated network, which the thresholds belong to; a killed run ends the same."""
    whole, parts = config_of(tiny, tmp_path / "whole", **SMALL), config_of(tiny, tmp_path / "parts", **SMALL)
    results = optimize(whole)
    assert (tmp_path / "whole" / NAME).is_file()
    assert (tmp_path / "whole" / "figures" / "layers.png").is_file()
    assert results["calibration"]["changed"] == ["reconstructed"] and "half_full" in results
    interrupted(monkeypatch, parts, 1)
    again = optimize(OptimizeConfig(resume=tmp_path / "parts"))
    for key in ("thresholds", "v0", "cost", "accuracy"):
        assert again["optimized"][key] == results["optimized"][key]
    run = read_run(tmp_path / "whole")
    assert run.optimized_snn is not run.snn
    again = {"images": 20, "timesteps": results["timesteps"], "precision": "int8"}
    found = evaluate(EvaluateConfig(tmp_path / "whole", **again))
    assert found["optimized"]["accuracy"] == results["optimized"]["accuracy"]
    assert found["baseline"]["accuracy"] == results["baseline"]["accuracy"]
    (tmp_path / "whole" / NAME).unlink()
    with pytest.raises(UserError, match=r"has no calibrated\.safetensors"):
        read_run(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"start": "calibrated", "search": ("threshold", "v0")}, "--start calibrated searches factors"),
        ({"start": "calibrated", "leak": 0.9}, "--start calibrated searches factors"),
        ({"divergence": 1.0, "attack": "fgsm"}, "--divergence compares with the ANN on clean images"),
        ({"distillation": 5}, "--distillation trains what --start calibrated finds"),
        ({"reconstruct": True}, "--reconstruct is a part of --start calibrated"),
        ({"divergence": -1.0}, "--divergence is -1.0, expected at least 0 and finite"),
        ({"divergence": float("nan")}, "--divergence is nan"),
        ({"timesteps": 1}, "--timesteps is 1, expected at least 2"),
    ],
)
def test_contradictions_are_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        OptimizeConfig(**changes).checked()


def test_one_timestep_is_enough_without_eq_11():
    OptimizeConfig.of("few", timesteps=1).checked()
