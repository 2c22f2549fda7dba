"""The image as spikes: a layer in front sends them, evenly spaced or random; all else is as without it."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from helpers.networks import BACKENDS, NETWORKS, PLAIN, dyadic_images, dyadic_snn, dyadic_thresholds, with_all_ops
from helpers.reference import normalise, simulate
from jaxsnn.analysis.energy import HOROWITZ, energy_record, snn_energy
from jaxsnn.analysis.operations import Activity
from jaxsnn.errors import UserError
from jaxsnn.networks.description import IMAGE, AvgPool, Conv, Dense, Edge, Layer, Network, shapes_of
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.networks.spiking_input import has_spiking_input, plain_input, spiking_input, with_input_spikes
from jaxsnn.simulation.cells.leaky import Leaky
from jaxsnn.simulation.cells.poisson import Poisson
from jaxsnn.simulation.cells.relay import poisson_cells
from jaxsnn.simulation.cells.unroll import keys_of
from jaxsnn.simulation.observe import observe, observe_images, record
from jaxsnn.simulation.plan import Plan

AT_ONCE = Dynamics(delay="none")
MIXED = Network(
    "mixed",
    (4, 4, 2),
    3,
    (
        Layer("a", (Edge(IMAGE, (AvgPool(2), Conv("a", 4, groups=2, bias=True))),)),
        Layer("input", (Edge(0, (Conv("b", 4),)),)),
        Layer("c", (Edge(1, (AvgPool(2), Dense("c", 3))), Edge(IMAGE, (Dense("d", 3, bias=True),)))),
    ),
    PLAIN["mean"],
    PLAIN["std"],
)
"""A pool and groups in front of the image's map, a dense map of it, and a layer whose name is taken."""


def drawn(network):
    rng = np.random.default_rng(0)
    shapes = shapes_of(network).items()
    return SNN(network, {key: (rng.integers(-2, 3, shape) / 4).astype(np.float32) for key, shape in shapes})


@pytest.mark.parametrize("network", [MIXED, NETWORKS["residual"], with_all_ops(True)], ids=lambda one: one.name)
def test_the_ann_is_the_same_and_what_it_was_made_from_is_known(network):
    snn = drawn(network)
    coded = spiking_input(snn)
    images = dyadic_images(3, network.input_shape)
    forward = jax.jit(ann_forward, static_argnums=0)
    one, other = (forward(s.network, s.params, images)[-1] for s in (snn, coded))
    np.testing.assert_array_equal(one, other)
    assert has_spiking_input(coded.network) and not has_spiking_input(network)
    assert plain_input(coded.network) == plain_input(network) == network
    assert coded.network.delay == network.delay + 1


def test_the_input_s_spikes_are_as_even_as_whole_ones_go():
    """Each sign has a neuron of its own, and after t steps it has sent its pixel, rounded to whole spikes."""
    network = replace(NETWORKS["pool_after"], mean=(2 / 255,) * 2)
    coded, genes = with_input_spikes(SNN(network, dyadic_snn("pool_after").params), Genes(np.ones((1, 3))))
    assert genes.threshold[0, 0] == pytest.approx(253) and genes.v0.tolist() == [[0.5, 0, 0, 0]]
    genes.threshold[0, 0] = 2.5
    images = dyadic_images(2)
    sent = record(coded, genes, images, 9)[1][0][0].cumsum(0)
    x = np.rint(normalise(network, images))  # -2 to 1
    rates = np.stack([x, -x], -1).reshape(*x.shape[:-1], -1).clip(0, 2.5) / 2.5
    expected = np.floor(np.arange(1, 10)[:, None, None, None, None] * rates + 0.5)
    np.testing.assert_array_equal(sent, expected)
    assert set(np.unique(x)) == {-2, -1, 0, 1}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_behind_it_does_what_the_slow_reference_does(backend):
    delay = "layer" if backend == "events" else "none"
    snn, images = spiking_input(dyadic_snn("residual")), dyadic_images(5)
    theta = np.concatenate([[[4.0]], dyadic_thresholds(4)], 1)
    genes, labels = Genes(theta, np.array([[0.5, 0, 0.25, 0, 0]])), np.arange(5) % 3
    _, spikes, scores = simulate(snn, theta[0], images, 8, delay=delay, v0=genes.v0[0])
    how = {"timesteps": 8, "dynamics": Dynamics(delay=delay), "plan": Plan(backend=backend, threads=1)}
    observed, right = observe_images(snn, genes, images, labels, **how)
    np.testing.assert_array_equal(right[0].T, scores.argmax(-1) == labels)
    if delay == "none":  # with a delay the last spikes come too late for the read-out, and are not simulated
        assert observed.spikes[0].tolist() == [layer.sum() for layer in spikes]
    assert observed.spikes[0, 0] > 100


def test_integers_are_the_same_on_both_back_ends():
    snn, images = spiking_input(dyadic_snn("bias")), dyadic_images(4)
    genes = Genes(np.array([[3.0, 1.0, 1.5, 1.0, 0.5]]), np.full((1, 5), 0.5))
    one, other = (
        observe(
            snn,
            genes,
            images,
            np.arange(4) % 3,
            timesteps=6,
            dynamics=AT_ONCE,
            plan=Plan(backend=backend, precision="int8", threads=1),
        )
        for backend in ("xla", "auto")
    )
    assert np.array_equal(one.spikes, other.spikes) and np.array_equal(one.correct, other.correct)


def test_random_spikes_are_those_of_the_coding_and_the_layer_in_front_counts_them():
    snn, images, labels = dyadic_snn("pool_before"), dyadic_images(4), np.arange(4) % 3
    theta = dyadic_thresholds(len(snn.network.spiking))
    coded, genes = spiking_input(snn), Genes(np.concatenate([[[4.0]], theta], 1))
    first, *rest = poisson_cells(coded.network, ">")
    cells = [replace(first, coding=Poisson(4.0)), *rest]
    found, right = observe_images(coded, genes, images, labels, timesteps=6, dynamics=AT_ONCE, cell=cells)
    usual, expected = observe_images(
        snn, Genes(theta), images, labels, timesteps=6, dynamics=AT_ONCE, cell=Leaky(coding=Poisson(4.0))
    )
    np.testing.assert_array_equal(right, expected)
    np.testing.assert_array_equal(found.spikes[:, 1:], usual.spikes)
    x, coding = normalise(snn.network, images).astype(np.float32), Poisson(4.0)
    draw = jax.jit(jax.vmap(lambda image, key, t: coding(image, t, jax.random.fold_in(key, t)), (0, 0, None)))
    sent = sum(np.count_nonzero(draw(x, keys_of(0, 4), t)) for t in range(6))
    assert found.spikes[0, 0] == sent > 0


def test_energies_are_additions_for_each_spike_and_the_ann_s_are_its_own():
    """A spike in the middle drives 3 x 3 x 4 weights; what is left to multiply are two currents a pixel."""
    snn = dyadic_snn("pool_before")
    coded, plain = spiking_input(snn).network, snn.network
    none = (0.0,) * len(plain.spiking)
    activity = Activity(5.0, (7.0, *none), (7.0 * 36, *none))
    assert snn_energy(coded, activity, HOROWITZ["INT8"]) == pytest.approx((8 * 8 * 4 * 0.23, 252 * 0.03, *none))
    one, other = energy_record(coded, {"x": activity}), energy_record(plain, {})
    assert one["layers"] == ["image", "input", *other["layers"][1:]]
    assert one["ann_macs"] == [other["ann_macs"][0], 0, *other["ann_macs"][1:]]
    for kind, totals in one["totals"].items():
        assert totals["ann"] == other["totals"][kind]["ann"]
        assert len(one["kinds"][kind]["ann"]) == len(one["layers"])


def test_an_image_that_is_read_without_weights_is_refused():
    layers = (
        Layer("a", (Edge(IMAGE, (AvgPool(2),)),)),
        Layer("b", (Edge(0, (Dense("b", 3),)),)),
    )
    with pytest.raises(UserError, match="layer a reads the image without weights: it cannot be sent as spikes"):
        spiking_input(drawn(replace(MIXED, layers=layers)))
