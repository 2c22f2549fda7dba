"""The simulator does what eq. 1-2 say, spike for spike, and counts it right."""

import gc
import re
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import reference
from helpers.networks import BACKENDS, NETWORKS, dyadic_images, dyadic_snn, dyadic_thresholds
from jaxsnn.errors import UserError
from jaxsnn.networks.description import AvgPool, layer_shapes
from jaxsnn.networks.fan_out import fan_out
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.simulation import dense
from jaxsnn.simulation.observe import observe, observe_images, record
from jaxsnn.simulation.plan import Plan

T = 12


PLANS = [
    Plan(backend="xla", block=1),
    Plan(backend="xla", block=5),
    pytest.param(Plan(backend="events"), marks=BACKENDS[1].marks),
]
"""Step by step, layer by layer, and event-driven."""


@pytest.mark.parametrize("comparison", [">", ">="])
@pytest.mark.parametrize("name", NETWORKS)
def test_membranes_and_spikes_equal_the_reference_bit_for_bit(name, comparison):
    snn, images = dyadic_snn(name), dyadic_images(3)
    theta = dyadic_thresholds(len(snn.network.spiking))
    membranes, spikes, scores = record(snn, Genes(theta), images, T, Dynamics(comparison, "none"))
    expected = reference.simulate(snn, theta[0], images, T, comparison, "none", x=images.astype(float))
    assert all(s.any() for s in expected[1])
    for layer in range(len(snn.network.spiking)):
        np.testing.assert_array_equal(spikes[layer][0], expected[1][layer])
        np.testing.assert_array_equal(membranes[layer][0], expected[0][layer])
    np.testing.assert_array_equal(scores[0], expected[2])


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.backend + str(plan.block or ""))
@pytest.mark.parametrize("comparison", [">", ">="])
@pytest.mark.parametrize("name", NETWORKS)
def test_layer_delay_is_a_shift_of_eq_1_as_printed(name, comparison, plan):
    """The simulator runs without delay and shifts; the reference runs eq. 1-2 with the old membrane."""
    snn, images = dyadic_snn(name), dyadic_images(6)
    theta = dyadic_thresholds(len(snn.network.spiking), 2)
    labels = np.arange(6) % 3
    total = T + snn.network.delay
    dynamics = Dynamics(comparison, "layer")
    observed = observe(snn, Genes(theta), images, labels, timesteps=total, dynamics=dynamics, plan=plan)
    for candidate in range(2):
        _, spikes, scores = reference.simulate(
            snn, theta[candidate], images, total, comparison, "layer", x=images.astype(float)
        )
        correct = (scores.argmax(-1) == labels).sum(1)
        np.testing.assert_array_equal(observed.correct[candidate], correct)
        # spikes that no longer reach the read-out within T are not simulated: layer l loses its last
        # (delay - l) steps
        for layer, depth in enumerate(snn.network.depths[:-1]):
            arriving = spikes[layer][: total - (snn.network.delay - depth)]
            assert observed.spikes[candidate, layer] == arriving.sum()


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.backend + str(plan.block or ""))
@pytest.mark.parametrize("delay", ["layer", "none"])
def test_leak_and_initial_membrane_equal_the_reference(delay, plan):
    """v0 = 1/2 and leak = 1/2 keep every number dyadic over a few steps."""
    snn, images = dyadic_snn("bias"), dyadic_images(4)
    layers = len(snn.network.spiking)
    theta, v0, leak = dyadic_thresholds(layers), np.full((1, layers), 0.5), np.full((1, layers), 0.5)
    labels = np.arange(4) % 3
    total = 6 + (snn.network.delay if delay == "layer" else 0)
    genes = Genes(theta, v0, leak)
    observed = observe(snn, genes, images, labels, timesteps=total, dynamics=Dynamics(delay=delay), plan=plan)
    _, spikes, scores = reference.simulate(
        snn, theta[0], images, total, ">", delay, v0[0], leak[0], x=images.astype(float)
    )
    np.testing.assert_array_equal(observed.correct[0], (scores.argmax(-1) == labels).sum(1))
    assert observed.spikes[0, 0] == spikes[0][: 6 + (delay == "layer")].sum() > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_synaptic_operations_equal_the_weights_that_spikes_touch(name):
    """Brute force: put one spike at each place and count the products that its weights take part in."""
    snn = dyadic_snn(name)
    network = snn.network
    shapes = layer_shapes(network)
    ones = {key: np.ones_like(value) for key, value in snn.params.items()}
    for source, reach in enumerate(fan_out(network)):
        expected = np.zeros(shapes[source])
        for place in np.ndindex(shapes[source]):
            spike = np.zeros((1, *shapes[source]))
            spike[(0, *place)] = 1
            for layer in network.layers:
                for edge in layer.edges:
                    if edge.source == source:
                        weights = [op for op in edge.ops if not isinstance(op, AvgPool)]
                        x = spike
                        for op in edge.ops:
                            # a pool in front of the weights spreads one spike over one cell; behind, it adds none
                            x = reference.apply_edge([op], ones, x, bias=False)
                            if isinstance(op, AvgPool) and op is edge.ops[0]:
                                x = (x > 0).astype(float)
                            if weights and op is weights[-1]:
                                break
                        expected[place] += x.sum()
        per_pixel = expected[..., 0] if expected.ndim == 3 else expected[:1, None]
        np.testing.assert_array_equal(reach, per_pixel)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.backend + str(plan.block or ""))
def test_a_spike_at_a_border_counts_the_weights_that_it_reaches_there(plan):
    """The reference says where spikes are; at a border they drive fewer weights than inside."""
    snn, images = dyadic_snn("pool_after"), dyadic_images(4)
    theta = dyadic_thresholds(3)
    observed = observe(
        snn, Genes(theta), images, np.zeros(4, int), timesteps=6, dynamics=Dynamics(delay="none"), plan=plan
    )
    _, spikes, _ = reference.simulate(snn, theta[0], images, 6, ">", "none", x=images.astype(float))
    for layer, (fired, reach) in enumerate(zip(spikes, fan_out(snn.network))):
        assert observed.synops[0, layer] == (fired.sum((0, 1, 4)) * reach).sum()
    assert observed.synops[0, 0] < observed.spikes[0, 0] * fan_out(snn.network)[0].max()


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_population_equals_separate_runs_and_chunks_change_nothing(backend):
    """One vmap over P candidates is P runs; any chunking of the images, padded or not, gives the same counts."""
    snn, images = dyadic_snn("residual"), dyadic_images(10)
    theta = dyadic_thresholds(4, 5)
    labels = np.arange(10) % 3
    whole = observe(snn, Genes(theta), images, labels, timesteps=16, plan=Plan(backend=backend))
    for rows in (5, 20, 35):
        part = observe(snn, Genes(theta), images, labels, timesteps=16, plan=Plan(backend=backend, rows=rows))
        for name in ("correct", "spikes", "synops"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name))
    for candidate in range(5):
        only = Genes(theta[candidate : candidate + 1])
        one = observe(snn, only, images, labels, timesteps=16, plan=Plan(backend=backend))
        for name in ("correct", "spikes", "synops"):
            np.testing.assert_array_equal(getattr(one, name)[0], getattr(whole, name)[candidate])


def test_per_image_record_adds_up_to_the_counts():
    snn, images = dyadic_snn("pool_before"), dyadic_images(7)
    theta, labels = dyadic_thresholds(5, 2), np.arange(7) % 3
    observed, right = observe_images(snn, Genes(theta), images, labels, timesteps=14, plan=Plan(rows=6))
    assert right.shape == (2, 7, 14)
    np.testing.assert_array_equal(right.sum(1), observed.correct)
    np.testing.assert_array_equal(
        observed.correct, observe(snn, Genes(theta), images, labels, timesteps=14).correct
    )


def test_a_second_generation_of_the_same_shapes_does_not_compile():
    snn, images = dyadic_snn("pool_after"), dyadic_images(6)
    labels, plan = np.zeros(6, int), Plan(backend="xla")
    observe(snn, Genes(dyadic_thresholds(3, 4, seed=1)), images, labels, timesteps=9, plan=plan)
    before = dense.simulate._cache_size()
    observe(snn, Genes(dyadic_thresholds(3, 4, seed=2)), images[::-1], labels, timesteps=9, plan=plan)
    assert dense.simulate._cache_size() == before


@pytest.mark.parametrize("block", [1, 4])
def test_no_convolution_is_grouped_by_the_population(block):
    """Thresholds stay out of the weights, so vmap folds candidates into the batch."""
    snn, images = dyadic_snn("pool_after"), dyadic_images(6)
    genes = Genes(dyadic_thresholds(3, 4))
    arguments = (snn.network, Dynamics(), 9, False, "float32", None, block, snn.params, genes)
    text = dense.simulate.lower(*arguments, images, np.zeros(6, int), np.ones(6, bool)).as_text()
    assert "feature_group_count = 1" in text and "batch_group_count = 1" in text
    assert not set(re.findall(r"(?:feature|batch)_group_count = (\d+)", text)) - {"1"}


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["pool_before", "residual"]), st.integers(1, 9), st.integers(0, 10**6))
def test_counts_add_up_over_any_split_of_the_images(name, cut, seed):
    snn, images = dyadic_snn(name), dyadic_images(10, seed=seed)
    genes = Genes(dyadic_thresholds(len(snn.network.spiking), 2, seed))
    labels = np.random.default_rng(seed).integers(0, 3, 10)
    plan = Plan(backend="xla", rows=2)  # one image at a time: one compiled shape for every split
    total = observe(snn, genes, images, labels, timesteps=8, plan=plan)
    parts = [
        observe(snn, genes, images[s], labels[s], timesteps=8, plan=plan) for s in (slice(cut), slice(cut, None))
    ]
    joined = parts[0] + parts[1]
    assert joined.images == total.images
    np.testing.assert_array_equal(joined.correct, total.correct)
    np.testing.assert_array_equal(joined.synops, total.synops)


@pytest.mark.parametrize(
    "genes, message",
    [
        (Genes(np.array([[1, 0, 1.0]])), "threshold of layer conv2 is 0.0, expected finite and positive"),
        (Genes(np.array([[1, -2, 1.0]])), "-2.0"),
        (Genes(np.array([[1, 1, np.nan]])), "threshold of layer conv3 is nan"),
        (
            Genes(np.array([[1, 1e-300, 1.0]])),
            "conv2 is 1e-300, expected finite and positive, also as float32",
        ),
        (Genes(np.array([[1, 1e300, 1.0]])), "is 1e.300, expected finite and positive, also as float32"),
        (Genes(np.ones((2, 4))), r"shape \(2, 4\), expected \(candidates, 3\)"),
        (Genes(np.ones((1, 3)), np.ones((1, 3))), r"v0 of layer conv1 is 1.0, expected finite and in \[0, 1\)"),
        (Genes(np.ones((1, 3)), None, np.full((1, 3), 1.5)), "leak of layer conv1 is 1.5"),
    ],
)
def test_genes_that_make_no_sense_are_refused(genes, message):
    snn, images = dyadic_snn("pool_after"), dyadic_images(2)
    with pytest.raises(UserError, match=message):
        observe(snn, genes, images, np.zeros(2, int), timesteps=4)


def test_no_timesteps_and_wrong_images_are_refused():
    snn, genes = dyadic_snn("pool_after"), Genes(np.ones((1, 3)))
    with pytest.raises(UserError, match="timesteps is 0"):
        observe(snn, genes, dyadic_images(2), np.zeros(2, int), timesteps=0)
    with pytest.raises(UserError, match=r"expected \(N >= 1, \*\(8, 8, 2\)\)"):
        observe(snn, genes, dyadic_images(2, (4, 4, 2)), np.zeros(2, int), timesteps=4)
    with pytest.raises(UserError, match="there are 3 labels for 2 images"):
        observe(snn, genes, dyadic_images(2), np.zeros(3, int), timesteps=4)
    for label in (3, -1):
        with pytest.raises(UserError, match=f"the label of image 1 is {label}, expected 0 to 2"):
            observe(snn, genes, dyadic_images(2), np.array([0, label]), timesteps=4)
    with pytest.raises(UserError, match=r"dynamics is 'none', expected a Dynamics, such as .*delay=\"none\""):
        observe(snn, genes, dyadic_images(2), np.zeros(2, int), timesteps=4, dynamics="none")
    with pytest.raises(UserError, match="comparison is '<'"):
        Dynamics("<")
    with pytest.raises(UserError, match="delay is 'some'"):
        Dynamics(delay="some")


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_no_cache_keeps_a_network_alive(backend, precision):
    """A notebook makes many networks; each must go when its last name does."""
    snn = dyadic_snn("pool_before")
    plan = Plan(backend=backend, precision=precision, memory_limit=10**9)
    observe(snn, Genes(dyadic_thresholds(5)), dyadic_images(2), np.zeros(2, int), timesteps=8, plan=plan)
    gone = weakref.ref(snn)
    del snn
    gc.collect()
    assert gone() is None
