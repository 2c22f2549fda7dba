"""Exported modules and integers compute what the simulator computes, step by step, without this package."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from helpers.exported import run_integers, run_torch, written
from helpers.networks import (
    BACKENDS,
    PLAIN,
    dyadic_images,
    dyadic_snn,
    dyadic_thresholds,
    random_snn,
    with_all_ops,
)
from jaxsnn.errors import UserError
from jaxsnn.exports.converted import Converted
from jaxsnn.exports.integers import integer_files
from jaxsnn.exports.torch_module import code, torch_files
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import IMAGE, AvgPool, BatchNorm, Conv, Dense, Edge, Layer, Network
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.simulation.observe import observe_images, record
from jaxsnn.simulation.plan import Plan


def converted(snn, timesteps=12, **changes):
    layers = len(snn.network.spiking)
    genes = Genes(np.float32(dyadic_thresholds(layers)), np.full((1, layers), 0.375), changes.pop("leak", None))
    return Converted(snn, genes, Dynamics(**changes), timesteps)


@pytest.mark.parametrize("comparison", [">", ">="])
@pytest.mark.parametrize("name", ["pool_before", "bias", "residual"])
def test_the_module_is_the_simulator_bit_for_bit_where_sums_are_exact(name, comparison, tmp_path):
    pytest.importorskip("torch")
    one, images = converted(dyadic_snn(name), comparison=comparison), dyadic_images(3)
    found = run_torch(written(tmp_path, torch_files(one)), images)
    _, spikes, scores = record(one.snn, one.genes, images, one.steps, Dynamics(comparison, "none"))
    assert all(s.any() for s in spikes)
    np.testing.assert_array_equal(found, scores[0])


def test_the_module_has_every_op_and_channels_that_start_apart(tmp_path):
    pytest.importorskip("torch")
    one = converted(random_snn(with_all_ops(even=False)), delay="none", leak=np.array([[0.5, 0.875, 1.0]]))
    images = dyadic_images(40, (8, 6, 2))
    found = run_torch(written(tmp_path, torch_files(one)), images)
    _, spikes, scores = record(one.snn, one.genes, images, one.steps, one.dynamics)
    assert all(s.any() and not s.all() for s in spikes)
    np.testing.assert_allclose(found, scores[0], atol=1e-5)


def test_the_module_needs_no_package_of_ours_and_is_short(tmp_path):
    torch = pytest.importorskip("torch")
    one = converted(dyadic_snn("residual"))
    folder = written(tmp_path, torch_files(one))
    program = (
        "import network, sys, torch; print(network.load()(torch.zeros(1, 2, 8, 8)).shape[0], 'jax' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(one.steps), "False"] and torch is not None
    text = code(one)
    lines = [line for line in text[text.index("class Layer") :].splitlines() if line.strip()]
    # beside the layers themselves, a line or two each
    assert len([line for line in lines if "Layer(" not in line and "nn.Sequential" not in line]) <= 50


def test_names_from_a_file_cannot_become_code():
    hostile = '"); import os; os.abort() #'
    network = vgg(
        [[4]], [], name='"""\nimport os', input_shape=(8, 8, 2), classes=3, mean=(0.0, 0.0), std=(1.0, 1.0)
    )
    layers = (dataclasses.replace(network.layers[0], name=hostile), *network.layers[1:])
    snn = random_snn(dataclasses.replace(network, layers=layers), starts=False)
    text = code(converted(snn))
    assert "import os" not in text and "abort()" not in text
    compile(text, "network.py", "exec")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["pool_after", "bias", "residual"])
def test_the_integers_give_the_spikes_of_int8_bit_for_bit(name, backend, tmp_path):
    snn = dyadic_snn(name)
    one = converted(random_snn(snn.network), comparison=">=", delay="none")
    images, labels = dyadic_images(4), np.arange(4) % 3
    scores, spikes = run_integers(written(tmp_path, integer_files(one)), images)
    counts, right = observe_images(
        one.snn,
        one.genes,
        images,
        labels,
        timesteps=one.steps,
        dynamics=one.dynamics,
        plan=Plan(backend=backend, precision="int8"),
    )
    assert spikes.all()
    np.testing.assert_array_equal(spikes, counts.spikes[0])
    np.testing.assert_array_equal((scores.argmax(-1) == labels).T, right[0])


def test_the_integers_are_integers_of_the_promised_width(tmp_path):
    folder = written(tmp_path, integer_files(converted(random_snn(dyadic_snn("residual").network))))
    with np.load(folder / "network.npz") as arrays:
        types = {name.rpartition(".")[2]: array.dtype for name, array in arrays.items()}
    assert types.pop("weight") == np.int8
    assert set(types.values()) == {np.dtype(np.int32)} and {"start", "bias", "gain", "threshold"} <= types.keys()


def test_what_cannot_be_exported_ends_in_a_sentence():
    snn = dyadic_snn("pool_after")
    with pytest.raises(UserError, match=r"timesteps is 3, expected more than the layer delay of 3 steps"):
        converted(snn, 3)
    with pytest.raises(UserError, match=r"cannot leak"):
        integer_files(converted(snn, leak=np.full((1, 3), 0.5)))
    with pytest.raises(UserError, match=r"dynamics is 'none', expected a Dynamics, such as"):
        Converted(snn, Genes(np.ones((1, 3))), "none", 9)


@pytest.mark.parametrize(
    ("ops", "changes", "sentence"),
    [
        ((AvgPool(3, 1, 1, count_padding=False), Conv("b", 4)), {}, "no average pool that leaves its padding out"),
        ((Conv("b", 4, bias=True), AvgPool(3, 1, 1)), {}, "int8 needs the bias of b to be alike at all positions"),
        ((Conv("b", 4),), {"theta": 1e12}, "int8: a threshold of layer a is too large for its weights"),
        (
            (Conv("b", 4),),
            {"steps": 10**8},
            r"int8: membranes of layer \w could exceed 32 bits.*or fewer timesteps",
        ),
        ((Conv("b", 4),), {"leak": 0.5}, "int8 membranes cannot leak"),
        ((Conv("b", 4), BatchNorm("norm")), {}, "BatchNorm cannot be exported as integers"),
    ],
)
def test_what_integers_cannot_hold_ends_in_a_sentence_that_names_the_other_format(ops, changes, sentence):
    layers = (
        Layer("a", (Edge(IMAGE, (Conv("a", 4),)),)),
        Layer("b", (Edge(0, ops),)),
        Layer("c", (Edge(1, (Dense("c", 3),)),)),
    )
    snn = random_snn(Network("small", (8, 6, 2), 3, layers, PLAIN["mean"], PLAIN["std"]))
    leak = np.full((1, 2), changes["leak"]) if "leak" in changes else None
    genes = Genes(np.full((1, 2), changes.get("theta", 0.5)), None, leak)
    with pytest.raises(UserError, match=sentence) as error:
        integer_files(Converted(snn, genes, Dynamics(delay="none"), changes.get("steps", 6)))
    assert "export to torch" in str(error.value) and "float32" not in str(error.value)
