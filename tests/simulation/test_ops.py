"""Every convolution and pool that a description holds is simulated as its definition says, by both back-ends."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helpers import reference
from helpers.integer_reference import integer_reference
from helpers.networks import PLAIN, dyadic_images, dyadic_thresholds
from helpers.ops import convolutions, pools
from jaxsnn.errors import UserError
from jaxsnn.networks.description import (
    IMAGE,
    AvgPool,
    Conv,
    Dense,
    Edge,
    Layer,
    Network,
    layer_shapes,
    output_shape,
    shapes_of,
    then,
)
from jaxsnn.networks.fan_out import fan_out
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.simulation.events.lowering import available, lower_float, lower_integers
from jaxsnn.simulation.integers import quantize
from jaxsnn.simulation.observe import observe_images
from jaxsnn.simulation.plan import Plan

STEPS = 5
BACKENDS = ["xla", "events"] if available() else ["xla"]
HALVING = st.builds(AvgPool, st.sampled_from([2, (1, 2), (2, 1), (2, 4)]), st.sampled_from([None, 1, (2, 1)]))
"""Pools over as many positions as float32 divides by without rounding."""


def network_of(edges, shape, name="drawn"):
    """Layers of the given edges, the image first, and a read-out."""
    layers = tuple(Layer(f"l{index}", each) for index, each in enumerate(edges))
    layers += (Layer("out", (Edge(len(layers) - 1, (Dense("out", 3),)),)),)
    return Network(name, shape, 3, layers, PLAIN["mean"], PLAIN["std"])


def dyadic(network, seed):
    rng = np.random.default_rng(seed)
    return SNN(
        network, {k: (rng.integers(-2, 3, s) / 4).astype(np.float32) for k, s in shapes_of(network).items()}
    )


def found_by(backend, snn, theta, images, precision="float32"):
    plan = Plan(backend=backend, precision=precision, threads=1 if backend == "events" else None)
    labels = np.arange(len(images)) % 3
    options = {"timesteps": STEPS, "dynamics": Dynamics(delay="none"), "plan": plan}
    return observe_images(snn, Genes(theta), images, labels, **options)


@st.composite
def _networks(draw, pooling=HALVING):
    """Two layers of any convolution, with a pool in front of it, behind it or nowhere, and perhaps a shortcut."""
    shape, edges = (draw(st.sampled_from([7, 8])), draw(st.sampled_from([6, 9])), 2), []
    current = shape
    for index in range(2):
        ops = [draw(convolutions(current[-1], f"c{index}", 3))]
        if draw(st.booleans()):
            ops.insert(draw(st.integers(0, 1)), draw(pooling))
        try:
            target = current
            for op in ops:
                target = output_shape(op, target)
        except UserError:
            assume(False)
        here = (Edge(index - 1, tuple(ops)),)
        if index and target == current and pooling is HALVING:
            here += (Edge(index - 1, ()),)
        edges.append(here)
        current = target
    return dyadic(network_of(edges, shape), draw(st.integers(0, 999)))


@settings(max_examples=8, deadline=None)
@given(_networks(), st.integers(0, 999))
def test_spikes_and_synops_are_those_of_the_reference(snn, seed):
    images, theta = dyadic_images(2, snn.network.input_shape), dyadic_thresholds(2, 1, seed)
    _, spikes, scores = reference.simulate(snn, theta[0], images, STEPS, ">", "none", x=images.astype(float))
    reach = fan_out(snn.network)
    for backend in BACKENDS:
        found, right = found_by(backend, snn, theta, images)
        np.testing.assert_array_equal(found.spikes[0], [s.sum() for s in spikes])
        np.testing.assert_array_equal(right[0], (scores.argmax(-1) == np.arange(2) % 3).T)
        work = [(s.sum((0, 1, 4)) * each).sum() for s, each in zip(spikes, reach)]
        np.testing.assert_array_equal(found.synops[0], work)


def differs_at_the_border(ops):
    """Whether a bias is in front of a pool that averages it with zeros."""
    return any(
        getattr(op, "bias", False)
        and any(isinstance(p, AvgPool) and p.padding and p.count_padding for p in ops[i:])
        for i, op in enumerate(ops)
    )


@settings(max_examples=6, deadline=None)
@given(_networks(pools(3)), st.integers(0, 999))
def test_integers_are_exact_whatever_pools_divide_by(snn, seed):
    images, theta = dyadic_images(2, snn.network.input_shape), dyadic_thresholds(2, 1, seed)
    if any(differs_at_the_border(edge.ops) for layer in snn.network.layers for edge in layer.edges):
        with pytest.raises(UserError, match="alike at all positions"):
            quantize(snn)
        return
    spikes, scores = integer_reference(snn, theta[0], images, STEPS, 0)
    for backend in BACKENDS:
        found, right = found_by(backend, snn, theta, images, "int8")
        np.testing.assert_array_equal(found.spikes[0], [s.sum() for s in spikes])
        np.testing.assert_array_equal(right[0], (scores.argmax(-1) == np.arange(2) % 3).T)


@settings(max_examples=5, deadline=None)
@given(st.booleans(), st.integers(0, 999))
def test_merged_weights_beyond_16_bits_are_still_exact(first, seed):
    """A large kernel beside a large pool: 127 times 289 is more than int16 holds, with sums below 2^24."""
    kernel, window = (17, 17) if first else (17, 19)  # two shapes, so that little is compiled
    ops = (Conv("c1", 2, kernel), AvgPool(window)) if not first else (AvgPool(window, 1), Conv("c1", 2, kernel))
    side = window + kernel - 1 if first else window  # so that all of the kernel reads one window's pixel
    network = network_of([(Edge(IMAGE, (Conv("c0", 1, 1),)),), (Edge(0, ops),)], (side, side, 1))
    rng = np.random.default_rng(seed)
    params = {name: rng.uniform(0.95, 1, shape).astype(np.float32) for name, shape in shapes_of(network).items()}
    snn = SNN(network, params)
    if available():
        assert lower_integers(quantize(snn))[1].weights[0].dtype == np.int32
    images, theta = dyadic_images(2, (side, side, 1)), np.array([[1.5, 2.0]])
    images[:, np.abs(np.arange(side) - side // 2) > 1] = 0  # dark but where the merged weights are largest
    images[:, :, np.abs(np.arange(side) - side // 2) > 1] = 0
    spikes, _ = integer_reference(snn, theta[0], images, STEPS, 0)
    assert all(s.any() for s in spikes)
    for backend in BACKENDS:
        found, _ = found_by(backend, snn, theta, images, "int8")
        np.testing.assert_array_equal(found.spikes[0], [s.sum() for s in spikes])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_layer_hears_each_image_beside_spikes(backend):
    """What an image gives a layer beside its spikes is that image's own."""
    both = (Edge(IMAGE, (Conv("c1", 4, bias=True),)), Edge(0, ()))
    snn = dyadic(network_of([(Edge(IMAGE, (Conv("c0", 4),)),), both], (6, 6, 2)), 3)
    images, theta = dyadic_images(2, (6, 6, 2)), np.array([[1.25, 2.75]])
    _, spikes, scores = reference.simulate(snn, theta[0], images, STEPS, ">", "none", x=images.astype(float))
    found, right = found_by(backend, snn, theta, images)
    np.testing.assert_array_equal(found.spikes[0], [s.sum() for s in spikes])
    np.testing.assert_array_equal(right[0], (scores.argmax(-1) == np.arange(2) % 3).T)


@pytest.mark.skipif(not available(), reason="Numba is not installed")
@pytest.mark.parametrize("ops", [(Conv("d", 128, (3, 2), groups=64), AvgPool(2)), (AvgPool(2, 1),)])
def test_many_groups_are_added_weight_by_weight(ops):
    """As a depthwise convolution is, and a pool without one: the loop that reads no zeros."""
    snn = dyadic(network_of([(Edge(IMAGE, (Conv("c", 64, 1, bias=True),)),), (Edge(0, ops),)], (6, 6, 2)), 1)
    assert lower_float(snn)[1].targets is not None and lower_integers(quantize(snn))[1].targets is not None
    images, theta = dyadic_images(2, (6, 6, 2)), np.array([[1.25, 0.75]])
    _, spikes, scores = reference.simulate(snn, theta[0], images, STEPS, ">", "none", x=images.astype(float))
    found, right = found_by("events", snn, theta, images)
    np.testing.assert_array_equal(found.spikes[0], [s.sum() for s in spikes])
    np.testing.assert_array_equal(right[0], (scores.argmax(-1) == np.arange(2) % 3).T)
    assert all(s.any() for s in spikes)
    if isinstance(ops[0], Conv):
        spikes, _ = integer_reference(snn, theta[0], images, STEPS, 0)
        found, _ = found_by("events", snn, theta, images, "int8")
        np.testing.assert_array_equal(found.spikes[0], [s.sum() for s in spikes])


def bottlenecks():
    """Linear bottlenecks with a shortcut, as in MobileNetV2: sums without an activation."""
    first = (Edge(0, (Conv("project1", 2, 1, bias=True),)),)
    hidden = then(first, Conv("expand2", 4, 1, bias=True))
    second = (Edge(2, (Conv("project2", 2, 1, bias=True),)),)
    last = then((*first, *second), Conv("expand3", 4, 1, bias=True))
    edges = [(Edge(IMAGE, (Conv("stem", 4),)),), hidden, (Edge(1, (Conv("depthwise", 4, groups=4),)),), last]
    return dyadic(network_of(edges, (6, 6, 2)), 0)


def merged_by_hand(snn):
    """The same network with the products of its 1x1 kernels, and what their biases come to."""
    params = {name: np.asarray(value, np.float64) for name, value in snn.params.items()}
    made = {name: params[name] for name in ("stem.kernel", "depthwise.kernel", "out.kernel")}
    b1, b2 = params["project1.bias"], params["project2.bias"]
    for expand, projects, bias in (("expand2", (1,), b1), ("expand3", (1, 2), b1 + b2)):
        kernel = params[f"{expand}.kernel"][0, 0]
        made[f"{expand}.bias"] = bias @ kernel + params[f"{expand}.bias"]
        for number in projects:
            made[f"{expand}{number}.kernel"] = params[f"project{number}.kernel"] @ kernel
    made |= {"expand21.bias": made.pop("expand2.bias"), "expand31.bias": made.pop("expand3.bias")}
    edges = [
        (Edge(IMAGE, (Conv("stem", 4),)),),
        (Edge(0, (Conv("expand21", 4, 1, bias=True),)),),
        (Edge(1, (Conv("depthwise", 4, groups=4),)),),
        (Edge(0, (Conv("expand31", 4, 1, bias=True),)), Edge(2, (Conv("expand32", 4, 1),))),
    ]
    return SNN(network_of(edges, (6, 6, 2)), made)


def test_maps_of_sums_share_kernels_and_add_biases_once():
    """In float32 as the reference; in int8, where maps in a row are one, as the product of their kernels."""
    snn, images, theta = bottlenecks(), dyadic_images(3, (6, 6, 2)), dyadic_thresholds(4)
    _, spikes, _ = reference.simulate(snn, theta[0], images, STEPS, ">", "none", x=images.astype(float))
    assert all(s.any() for s in spikes)
    by_hand = found_by("xla", merged_by_hand(snn), theta, images, "int8")[0].spikes
    for backend in BACKENDS:
        found = found_by(backend, snn, theta, images)[0].spikes[0]
        np.testing.assert_array_equal(found, [s.sum() for s in spikes])
        np.testing.assert_array_equal(found_by(backend, snn, theta, images, "int8")[0].spikes, by_hand)


@pytest.mark.parametrize(
    "ops, weights",
    [
        ((Conv("a", 4, groups=2),), 9 * 2),
        ((Conv("a", 8, groups=4, stride=(1, 2)),), 6 * 2),  # an even column: the middle tap alone, or two
        ((AvgPool(3, 1, 1), Conv("a", 5, 1)), 9 * 5),
        ((AvgPool(3, 1, 1),), 9),
        ((Conv("a", 2, 1), Conv("b", 7)), 9 * 7),
        ((Conv("a", 2), AvgPool(3, 1, 1)), 9 * 2),
    ],
)
def test_a_spike_drives_the_weights_of_its_edge(ops, weights):
    """Inside an image; maps without neurons between them count as the one that they are."""
    network = network_of([(Edge(IMAGE, (Conv("c", 4),)),), (Edge(0, ops),)], (9, 9, 2))
    assert layer_shapes(network)[0] == (9, 9, 4)
    assert fan_out(network)[0][4, 3 if isinstance(ops[0], Conv) and ops[0].stride != 1 else 4] == weights
