"""The event-driven back-end gives the same spikes as everything else; what it cannot do it says."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import reference
from helpers.networks import PLAIN, dyadic_images, dyadic_snn, dyadic_thresholds
from jaxsnn.errors import UserError
from jaxsnn.networks.description import IMAGE, AvgPool, Conv, Dense, Edge, Layer, Network, output_shape, shapes_of
from jaxsnn.networks.linear_maps import linear_map
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.simulation import backends
from jaxsnn.simulation.backends import decided
from jaxsnn.simulation.events import run
from jaxsnn.simulation.events.lowering import _rows_at_once, _spans, as_convolution
from jaxsnn.simulation.observe import observe, observe_images
from jaxsnn.simulation.plan import Plan

numba = pytest.importorskip("numba", reason="Numba is not installed")


@pytest.mark.parametrize(
    "ops, shape",
    [
        ((Conv("a", 3), AvgPool(2)), (8, 8, 2)),
        ((AvgPool(2), Conv("a", 3)), (8, 8, 2)),
        ((Conv("a", 3, 5, 2), AvgPool(4)), (8, 8, 2)),
        ((AvgPool(2), AvgPool(2), Dense("a", 3)), (8, 8, 2)),
        ((Conv("a", 3, 1), Conv("b", 2), AvgPool(2), Dense("c", 4)), (4, 4, 2)),
        ((Dense("a", 5), Dense("b", 3)), (7,)),
        ((AvgPool(2),), (4, 4, 3)),
        ((), (4, 4, 3)),
    ],
)
def test_an_edge_is_one_convolution(ops, shape):
    """A merged kernel, applied place by place with the spans that the loops use, is the chain of ops."""
    rng = np.random.default_rng(0)
    params, inner = {}, shape
    for op in ops:
        if hasattr(op, "name"):
            fan = (op.kernel, op.kernel, inner[-1]) if isinstance(op, Conv) else (int(np.prod(inner)),)
            params[f"{op.name}.kernel"] = rng.integers(-3, 4, (*fan, op.features)).astype(np.float32)
        inner = output_shape(op, inner)
    x = rng.integers(0, 2, shape).astype(np.float32)
    grid, target = (s if len(s) == 3 else (1, 1, *s) for s in (shape, inner))
    merged = as_convolution(ops, params, shape)
    spans, flat = _spans(merged, grid, target), x.reshape(-1, grid[-1])
    weights = merged.kernel.reshape(-1, target[-1])
    found = np.zeros((target[0] * target[1], target[-1]))
    for position, rows in enumerate(spans):
        for first, last, offset in rows:
            for place in range(first, last):
                for channel in np.nonzero(flat[place])[0]:
                    found[position] += weights[(place % grid[1]) * grid[2] + channel + offset]
    expected = linear_map(ops, params, shape)(jnp.asarray(x)[None])[0]
    np.testing.assert_allclose(found.reshape(inner), expected, rtol=0, atol=1e-4)


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
    event_kernels.readout((weights,), (rows,), (starts,), (spans,), limits, gains, constant, scores, curve)
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
    chain = (Layer("a", (Edge(IMAGE, (Conv("a", 2),)),)), Layer("b", (Edge(0, (Conv("b", 2), Conv("c", 2))),)))
    merged = Network("chain", (4, 4, 2), 3, (*chain, Layer("d", (Edge(1, (Dense("d", 3),)),))), (0, 0), (1, 1))
    assert decided(Plan(), merged).backend == "xla"
    with pytest.raises(UserError, match=r"cannot merge b and c.*--backend xla"):
        decided(Plan(backend="events"), merged)
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
