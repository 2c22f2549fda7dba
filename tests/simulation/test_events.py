"""The event-driven back-end gives the same spikes as everything else; what it cannot do it says."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helpers import reference
from helpers.networks import PLAIN, dyadic_images, dyadic_snn, dyadic_thresholds
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
    output_shape,
    parameter_shapes,
    shapes_of,
)
from jaxsnn.networks.merging import grid, merge, merged_size
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.simulation import backends
from jaxsnn.simulation.backends import decided
from jaxsnn.simulation.events import run
from jaxsnn.simulation.events.lowering import _rows_at_once, _spans, interleave
from jaxsnn.simulation.observe import observe, observe_images
from jaxsnn.simulation.plan import Plan

numba = pytest.importorskip("numba", reason="Numba is not installed")


@st.composite
def _edges(draw):
    """An input shape, and up to three ops of any kind without neurons between them."""
    shape, ops = (draw(st.sampled_from([4, 6, 9])), draw(st.sampled_from([5, 8])), 4), []
    current = shape
    for index in range(draw(st.integers(0, 3))):
        one = convolutions(current[-1], f"op{index}", 3) if len(current) == 3 else st.nothing()
        one = one | pools(3) if len(current) == 3 else one
        op = draw(one | st.builds(lambda index=index: Dense(f"op{index}", 3)))
        try:
            current = output_shape(op, current)
        except UserError:
            assume(False)
        ops.append(op)
    return ops, shape


@settings(max_examples=60, deadline=None)
@given(_edges(), st.integers(0, 999))
def test_an_edge_is_one_convolution(edge, seed):
    """Merged kernels, applied place by place with the spans that the loops use, are the chain of ops."""
    (ops, shape), rng = edge, np.random.default_rng(seed)
    params, inner = {}, shape
    for op in ops:
        arrays = parameter_shapes(op, inner)
        params |= {name: rng.integers(-3, 4, array).astype(np.float64) for name, array in arrays.items()}
        inner = output_shape(op, inner)
    x = rng.integers(0, 2, shape).astype(np.float64)
    target = grid(inner)
    merged = merge(ops, params, shape)
    spans, flat = _spans(merged, grid(shape), target), x.reshape(-1, shape[-1])
    weights = merged.kernels.reshape(-1, target[-1])
    found = np.zeros((target[0] * target[1], target[-1]))
    for position, rows in enumerate(spans):
        for first, last, offset in rows:
            for place in range(first, last):
                for channel in np.nonzero(flat[place])[0]:
                    found[position] += weights[(place % shape[1]) * shape[2] + channel + offset]
    expected = reference.apply_edge(ops, params, x[None], bias=False)[0]
    np.testing.assert_allclose(found.reshape(inner), expected, rtol=1e-9, atol=1e-9)
    assert merged_size(ops, shape) == (np.prod(merged.kernels.shape[:2]), merged.kernels.size)


@st.composite
def _networks(draw):
    """Small dyadic networks: convolutions of any width and stride, pools on either side, shortcuts, biases."""
    layers, side, features = [], 8, []
    for index in range(draw(st.integers(1, 3))):
        bias, wide = draw(st.booleans()), draw(st.sampled_from([3, 17, 40, 130]))
        ops = [Conv(f"c{index}", wide, draw(st.sampled_from([1, 3, 5])), 1, bias)]
        if side > 2 and draw(st.booleans()):
            ops.insert(draw(st.integers(0, 1)), AvgPool(2))
            side //= 2
        edges = [Edge(index - 1, tuple(ops))]
        if index and features[-1] == (side, wide):
            edges.append(Edge(index - 1, ()))
        features.append((side, wide))
        layers.append(Layer(f"l{index}", tuple(edges)))
    layers.append(Layer("out", (Edge(len(layers) - 1, (Dense("out", 3, draw(st.booleans())),)),)))
    network = Network("drawn", (8, 8, 2), 3, tuple(layers), PLAIN["mean"], PLAIN["std"])
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    params = {k: (rng.integers(-2, 3, s) / 4).astype(np.float32) for k, s in shapes_of(network).items()}
    return SNN(network, params), dyadic_thresholds(len(network.spiking), 2, draw(st.integers(0, 999)))


@settings(max_examples=25, deadline=None)
@given(_networks(), st.sampled_from([">", ">="]), st.sampled_from([1, 2]), st.sampled_from([1, 3, 64]))
def test_any_network_and_plan_gives_the_spikes_of_the_reference(drawn, comparison, threads, rows):
    snn, theta = drawn
    images, labels = dyadic_images(3), np.arange(3) % 3
    plan = Plan(backend="events", threads=threads, rows=rows)
    found, right = observe_images(
        snn, Genes(theta), images, labels, timesteps=6, dynamics=Dynamics(comparison, "none"), plan=plan
    )
    for candidate in range(2):
        _, spikes, scores = reference.simulate(
            snn, theta[candidate], images, 6, comparison, "none", x=images.astype(float)
        )
        np.testing.assert_array_equal(found.spikes[candidate], [s.sum() for s in spikes])
        np.testing.assert_array_equal(right[candidate], (scores.argmax(-1) == labels).T)


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(_networks(), st.sampled_from([">", ">="]))
def test_integers_are_the_same_on_both_back_ends(drawn, comparison):
    snn, theta = drawn
    images, labels = dyadic_images(3), np.arange(3) % 3
    found = [
        observe_images(
            snn,
            Genes(theta),
            images,
            labels,
            timesteps=6,
            dynamics=Dynamics(comparison, "none"),
            plan=Plan(backend=b, precision="int8"),
        )
        for b in ("xla", "events")
    ]
    np.testing.assert_array_equal(found[0][1], found[1][1])
    np.testing.assert_array_equal(found[0][0].spikes, found[1][0].spikes)
    np.testing.assert_array_equal(found[0][0].synops, found[1][0].synops)


def test_more_int8_rows_than_int16_can_hold_are_summed_in_pieces():
    """A dense input of 1,000 neurons that all fire, each with the largest weight."""
    from jaxsnn.simulation.events import kernels as event_kernels

    weights = np.full((1, 1000, 64), 127, np.int8)
    rows = np.append(np.arange(1000, dtype=np.int32), np.zeros(16, np.int32))
    starts = np.array([[[0, 1000]]])
    spans = np.array([[[0, 1, 0]]])
    scores, curve = np.zeros((1, 64), np.int32), np.zeros((1, 1, 64), np.int32)
    constant = np.zeros((1, 1, 1, 64), np.int32)
    gains = np.ones((1, 64), np.int32)
    limits = np.array([_rows_at_once(weights)])
    edge = (interleave(weights),), (rows,), (starts,), (spans,)
    event_kernels.readout(*edge, limits, gains, constant, scores, curve)
    assert limits[0] == 258
    assert (scores == 127_000).all() and (curve == 127_000).all()


def test_blocks_of_time_change_nothing(monkeypatch):
    snn, images = dyadic_snn("residual"), dyadic_images(5)
    genes, labels = Genes(dyadic_thresholds(4, 2)), np.arange(5) % 3
    whole = observe(snn, genes, images, labels, timesteps=13, plan=Plan(backend="events"))
    monkeypatch.setattr(run, "SPIKES_IN_MEMORY", 100_000)
    parts = observe(snn, genes, images, labels, timesteps=13, plan=Plan(backend="events"))
    np.testing.assert_array_equal(whole.correct, parts.correct)
    np.testing.assert_array_equal(whole.spikes, parts.spikes)


def test_the_plan_says_what_it_chooses_and_what_cannot_be(monkeypatch):
    network = dyadic_snn("residual").network
    assert decided(Plan(), network).backend == "events"
    assert decided(Plan(precision="bfloat16"), network).backend == "xla"
    both = (Conv("b", 64, 17), Conv("c", 64, 17))
    chain = (Layer("a", (Edge(IMAGE, (Conv("a", 64),)),)), Layer("b", (Edge(0, both),)))
    large = Network("chain", (32, 32, 2), 3, (*chain, Layer("d", (Edge(1, (Dense("d", 3),)),))), (0, 0), (1, 1))
    assert decided(Plan(), large).backend == "xla"
    with pytest.raises(UserError, match=r"cannot merge b and c in layer b.*289 kernels.*--backend xla"):
        decided(Plan(backend="events"), large)
    with pytest.raises(UserError, match="not in bfloat16"):
        decided(Plan(backend="events", precision="bfloat16"), network)
    monkeypatch.setattr(backends, "available", lambda: False)
    assert decided(Plan(), network).backend == "xla"
    with pytest.raises(UserError, match="needs Numba"):
        decided(Plan(backend="events"), network)
    for wrong, message in (
        ({"backend": "gpu"}, "back-end is 'gpu', expected one of auto"),
        ({"precision": "int4"}, "precision is 'int4'"),
        ({"threads": 0}, "threads is 0"),
    ):
        with pytest.raises(UserError, match=message):
            Plan(**wrong)


def test_a_failure_or_ctrl_c_in_a_task_ends_the_run(monkeypatch):
    snn, images = dyadic_snn("bias"), dyadic_images(4)
    genes, labels = Genes(dyadic_thresholds(4)), np.zeros(4, int)

    def interrupted(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        observe(snn, genes, images, labels, timesteps=8, plan=Plan(backend="events"), progress=interrupted)
