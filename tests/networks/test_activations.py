"""Quantised activations: their equation, their gradient, what they stand for in spikes, and that they train."""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from helpers import reference
from helpers.networks import NETWORKS, PLAIN, dyadic_images, dyadic_snn
from jaxsnn.cli import command
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.conversion.folding import fold
from jaxsnn.conversion.torch_twin import refuse_quantised
from jaxsnn.errors import UserError
from jaxsnn.evaluate import EvaluateConfig, evaluate
from jaxsnn.networks import architectures
from jaxsnn.networks.activations import SHIFT, activations, quantised
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import BatchNorm, ScaleNorm, shapes_of
from jaxsnn.networks.forward import ann_forward, preprocess
from jaxsnn.networks.json_format import from_json, to_json
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.networks.weights import load_weights, save_weights
from jaxsnn.simulation.observe import record
from jaxsnn.train import TrainConfig, train
from jaxsnn.training.ann import ANN


def with_levels(network, levels):
    layers = (*(dataclasses.replace(l, levels=levels) for l in network.spiking), network.layers[-1])
    return dataclasses.replace(network, layers=layers)


@pytest.mark.parametrize("levels", [1, 4, 8])
def test_the_function_is_its_equation(levels):
    """ceiling * clip(floor(z L / ceiling + 1/2) / L, 0, 1), on a grid with ties and beyond both ends."""
    z, ceiling = np.arange(-64, 129) / 32, np.float32(1.5)
    expected = ceiling * np.clip(np.floor(z * levels / ceiling + 0.5) / levels, 0, 1)
    np.testing.assert_allclose(quantised(jnp.asarray(z, jnp.float32), ceiling, levels), expected, rtol=1e-6)


def test_the_floors_gradient_is_one():
    """Of z: 1 inside, 0 beyond both ends. Of the ceiling: 1 above it, 0 below 0, h/ceiling - z/ceiling inside."""
    z = jnp.asarray([-1.0, 0.2, 0.7, 1.4, 5.0])
    ceiling, levels = 1.5, 4
    by_z, by_ceiling = jax.vmap(jax.grad(quantised, (0, 1)), (0, None, None))(z, ceiling, levels)
    np.testing.assert_allclose(by_z, [0, 1, 1, 1, 0])
    inside = (quantised(z, ceiling, levels) - z) / ceiling
    np.testing.assert_allclose(by_ceiling, [0, *inside[1:4], 1], atol=1e-6)


def test_it_is_what_neurons_with_half_a_threshold_pass_on():
    """First layer, constant current, T = L: theta * spikes / T is the activation, exactly; ">=" settles ties."""
    snn, images, levels = dyadic_snn("bias"), dyadic_images(8), 8
    layers = len(snn.network.spiking)
    genes = Genes(np.full((1, layers), 2.0), np.full((1, layers), SHIFT))
    _, spikes, _ = record(snn, genes, images, levels, Dynamics(">=", "none"))
    drive = reference.apply_edge(snn.network.layers[0].edges[0].ops, snn.params, images.astype(float), bias=True)
    expected = quantised(jnp.asarray(drive, jnp.float32), 2.0, levels)
    np.testing.assert_array_equal(2 * spikes[0][0].mean(0, dtype=np.float32), expected)


def test_each_layer_has_its_own_ceiling_and_folding_keeps_them():
    network = with_levels(vgg([[4]], [5], name="n", norm=BatchNorm, **PLAIN), 4)
    assert from_json(to_json(network)) == network
    ann = ANN(network, 0)
    x = preprocess(network, dyadic_images(32))
    nnx.jit(ANN.start_ceilings)(ann, x, jax.random.key(0))
    params = {name: np.asarray(value) for name, value in ann.params().items()}
    ceilings = [params[f"{layer.name}.ceiling"].item() for layer in network.spiking]
    assert len(set(ceilings)) == 2 and min(ceilings) > 0
    folded, arrays = fold(network, params)
    expected = np.asarray(nnx.jit(lambda ann, x: ann(x))(ann, x))
    np.testing.assert_allclose(ann_forward(folded, arrays, dyadic_images(32))[-1], expected, rtol=1e-4, atol=1e-4)
    plain = dataclasses.replace(
        folded, layers=tuple(dataclasses.replace(layer, levels=None) for layer in folded.layers)
    )
    assert not np.allclose(ann_forward(plain, arrays, dyadic_images(32))[-1], expected, rtol=1e-2)


def test_the_highest_percentile_is_the_ceiling():
    """Where activations reach it; sums beyond it do not count, and those of a layer with a ReLU are not cut."""
    network = with_levels(vgg([[4], [4]], name="n", **PLAIN), 4)
    params = {name: np.ones(shape, np.float32) for name, shape in shapes_of(network).items()}
    params |= {"conv1.ceiling": np.full(1, 0.5, np.float32), "conv2.ceiling": np.full(1, 1e6, np.float32)}
    images = dyadic_images(8)
    assert ann_forward(network, params, images)[0].max() > 1
    cut = calibrate(network, params, images)
    np.testing.assert_allclose(cut.threshold(100.0)[0], 0.5)
    assert 0 < cut.threshold(100.0)[1] < 1e6
    assert cut.percentile(np.array([0.4, 0.4]))[0] < cut.percentile(np.array([0.5, 0.5]))[0] == 100
    relu = dataclasses.replace(
        network, layers=tuple(dataclasses.replace(layer, levels=None) for layer in network.layers)
    )
    np.testing.assert_allclose(
        calibrate(relu, params, images).threshold(100.0)[0], ann_forward(relu, params, images)[0].max()
    )


def test_weights_keep_the_ceilings(tmp_path):
    network = with_levels(NETWORKS["residual"], 4)
    params = {name: np.ones(shape, np.float32) for name, shape in shapes_of(network).items()}
    save_weights(tmp_path / "w.safetensors", network, params | {"d.ceiling": np.full(1, 3, np.float32)})
    stored, arrays, _ = load_weights(tmp_path / "w.safetensors")
    assert stored == network and arrays["d.ceiling"] == 3
    activate = activations(stored, arrays)
    for layer in stored.spiking:
        assert activate(jnp.asarray(10.0)).item() == (3 if layer.name == "d" else 1)


@pytest.mark.parametrize("levels", [0, 1.5, True, "4"])
def test_levels_that_make_no_sense_are_refused(levels):
    raw = json.loads(to_json(NETWORKS["bias"]))
    raw["layers"][1]["levels"] = levels
    with pytest.raises(UserError, match="layer conv2: levels is"):
        from_json(json.dumps(raw))
    raw = json.loads(to_json(NETWORKS["bias"]))
    raw["layers"][-1]["levels"] = 4
    with pytest.raises(UserError, match="none on the last"):
        from_json(json.dumps(raw))
    with pytest.raises(UserError, match="only networks with ReLUs can be exported or imported"):
        refuse_quantised(with_levels(NETWORKS["bias"], 4))


@pytest.mark.slow
def test_training_learns_and_its_ceilings_are_thresholds(monkeypatch, tmp_path):
    """Two epochs on the embedded images: the loss falls, the ceilings move, and jaxsnn.evaluate reads them."""
    small = lambda **options: vgg([[6]], windows=[8], name="small", norm=ScaleNorm, **options)  # noqa: E731
    monkeypatch.setitem(architectures.ARCHITECTURES, "small", small)
    out = tmp_path / "run"
    train(TrainConfig(network="small", epochs=2, batch=100, activation="qcfs", levels=4, out=out))
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert rows[1]["loss"] < rows[0]["loss"]
    network, params, notes = load_weights(out / "weights.safetensors")
    assert float(notes["test_accuracy"]) > 0.15
    assert [layer.levels for layer in network.layers] == [4, None]
    found = json.loads((out / "thresholds.json").read_text())
    assert found["thresholds"] == [params[f"{name}.ceiling"].item() for name in found["layers"]]
    assert found["v0"] == [0.5]
    monkeypatch.setattr(sys, "argv", ["-m", str(out / "thresholds.json"), "--images", "40", "--timesteps", "8"])
    command.main(EvaluateConfig, evaluate, "jaxsnn.evaluate")
