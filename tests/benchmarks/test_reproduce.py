"""benchmarks.reproduce: what is kept of the test images, and what is asked before hours of searching."""

import dataclasses

import numpy as np
import pytest
from rich.console import Console

from benchmarks import reproduce
from benchmarks.reproduce import Config, Entry, half_full, jobs, key_of, load, main
from data import Dataset
from helpers.networks import dyadic_images, dyadic_snn
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.networks.weights import embedded_path, load_weights, save_weights
from jaxsnn.simulation.observe import observe_images
from jaxsnn.simulation.plan import Plan


def entry(row, seed, threshold, timesteps, precision="float32", v0=False):
    snn = dyadic_snn("bias")
    theta = np.full((1, len(snn.network.spiking)), threshold, np.float32)
    return Entry(row, seed, snn, "sha", half_full(theta) if v0 else Genes(theta), timesteps, precision)


def test_tests_are_kept_and_each_network_has_its_own(monkeypatch, tmp_path):
    """Networks simulated together give what each gives alone, also when read back; steps need not divide by 8."""
    images = dyadic_images(12)
    snn = dyadic_snn("bias")
    classes = tuple(map(str, range(snn.network.classes)))
    labels = (np.arange(12) % len(classes)).astype(np.int32)
    test = Dataset(images, labels, classes, "drawn", "test", "the test")
    config = Config(what="cifar10", out=tmp_path)
    found = [entry("a", None, 1.0, 13), entry("b", 0, 0.5, 13, v0=True), entry("b", 1, 0.5, 9)]
    names = {key_of(each, ">", test) for each in found}
    assert len(names) == 3
    first = reproduce.test_all(config, found, test, Console(quiet=True))
    for each, right in zip(found, first):
        _, expected = observe_images(
            each.snn,
            each.genes,
            images,
            labels,
            timesteps=each.timesteps,
            dynamics=Dynamics(">", "layer"),
            plan=Plan(precision="float32"),
        )
        np.testing.assert_array_equal(right, expected[0])

    def fail(*arguments, **options):
        raise AssertionError("simulated again")

    monkeypatch.setattr(reproduce, "observe_images", fail)
    again = reproduce.test_all(config, found[::-1], test, Console(quiet=True))
    for one, two in zip(first, again[::-1]):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(AssertionError, match="simulated again"):
        reproduce.test_all(config, [found[0]._replace(timesteps=14)], test, Console(quiet=True))


def test_what_distinguishes_networks_distinguishes_their_files():
    test = Dataset(np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int32), ("a",), "drawn", "test", "the test")
    one = entry("a", 0, 1.0, 8)
    others = [
        one._replace(sha256="other"),
        one._replace(timesteps=9),
        one._replace(precision="int8"),
        one._replace(genes=Genes(one.genes.threshold * 2)),
        one._replace(genes=half_full(one.genes.threshold)),
        one._replace(genes=Genes(one.genes.threshold, None, one.genes.threshold)),
        one._replace(snn=dyadic_snn("residual")),
    ]
    keys = [key_of(each, ">", test) for each in (one, *others)] + [key_of(one, ">=", test)]
    assert len(set(keys)) == len(keys)
    assert key_of(one._replace(row="b", seed=3), ">", test) == keys[0]  # a name is not a network


def test_every_row_is_a_search_of_its_own(tmp_path):
    """All but the paper's row start half full and search the same number of timesteps; int8 cannot leak."""
    files = {name: tmp_path / name for name in ("weights", "qcfs", "control")}
    config = Config(what="cifar10", **files, network="vgg15-bn", seeds=2)
    found = jobs(config)
    rows = ["threshold", "v0", "leak", "qcfs", "qcfs-v0", "control-v0"]
    assert list(found) == rows and {len(row) for row in found.values()} == {2}
    assert list(jobs(dataclasses.replace(config, qcfs=None))) == ["threshold", "v0", "leak", "control-v0"]
    assert [job.seed for job in found["v0"]] == [0, 1]
    first = {row: each[0] for row, each in found.items()}
    assert {row: job.v0 for row, job in first.items()} == {row: 0 if row == "threshold" else 0.5 for row in rows}
    assert {first[row].timesteps for row in rows[1:]} == {config.half_full_timesteps}
    assert [row for row in rows if "v0" in first[row].search] == ["v0", "qcfs-v0", "control-v0"]
    assert first["leak"].precision == "float32" and first["control-v0"].weights == config.control
    assert first["qcfs"].weights == first["qcfs-v0"].weights == config.qcfs
    assert first["qcfs"].network is None and first["threshold"].network == "vgg15-bn"


def test_what_cannot_be_compared_is_refused_before_the_searches(tmp_path):
    network, params, _ = load_weights(embedded_path())
    layers = [dataclasses.replace(layer, levels=4) for layer in network.spiking]
    params |= {f"{layer.name}.ceiling": np.ones(1, np.float32) for layer in layers}
    quantised = dataclasses.replace(network, layers=(*layers, network.layers[-1]))
    save_weights(tmp_path / "q.safetensors", quantised, params, {})
    found = load(Config(what="cifar10", qcfs=tmp_path / "q.safetensors", control=embedded_path()))
    assert list(found) == ["given", "qcfs", "control"] and found["qcfs"][0].network.spiking[0].levels == 4
    with pytest.raises(UserError, match="the control has ReLUs"):
        load(Config(what="cifar10", control=tmp_path / "q.safetensors"))
    with pytest.raises(UserError, match="not trained with --activation qcfs"):
        load(Config(what="cifar10", qcfs=embedded_path()))
    with pytest.raises(UserError, match="needs one row"):
        main(dataclasses.replace(Config(what="cifar10"), rows=()))
