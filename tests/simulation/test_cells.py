"""Cells do what their equations say, step by step, in a network; the back-ends that have none say so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.networks import PLAIN, dyadic_images, dyadic_snn, dyadic_thresholds, with_bias
from helpers.reference import apply_edge, normalise
from helpers.reference import simulate as reference
from jaxsnn.errors import UserError
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import shapes_of
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.simulation.cells.burst import Burst, Several
from jaxsnn.simulation.cells.cell import Cell
from jaxsnn.simulation.cells.leaky import Leaky
from jaxsnn.simulation.cells.phase import Bits, Phase
from jaxsnn.simulation.cells.poisson import Poisson
from jaxsnn.simulation.cells.refractory import Refractory
from jaxsnn.simulation.cells.schedule import Scheduled
from jaxsnn.simulation.cells.signed import Signed
from jaxsnn.simulation.cells.unroll import chunks, per_layer
from jaxsnn.simulation.observe import observe, observe_images
from jaxsnn.simulation.plan import Plan

AT_ONCE = Dynamics(delay="none")
STEPS, IMAGES = 9, 6
CHAIN = with_bias(vgg([[4]], [5], name="chain", pool="before", **PLAIN))


def loop(snn, theta, v0, images, neuron, coded=None, bias=lambda t: 1.0, steps=STEPS):
    """Scores (T, B, classes) and spikes of each layer, of a chain, in float64: ``neuron(memory, drive, theta, t)``
    changes its memory, a dict that begins with v, and returns spikes and what one is worth."""
    x = normalise(snn.network, images)
    memories = [None] * len(snn.network.spiking)
    counts, scores, curve = [0.0] * len(memories), 0.0, []
    for t in range(steps):
        sent = x if coded is None else coded(x, t)
        for index, layer in enumerate(snn.network.layers):
            (edge,) = layer.edges
            drive = apply_edge(edge.ops, snn.params, sent, bias=False)
            drive = drive + bias(t) * apply_edge(edge.ops, snn.params, np.zeros_like(sent), bias=True)
            if index == len(memories):
                scores = scores + drive
                break
            if memories[index] is None:
                memories[index] = {"v": np.full(drive.shape, v0[index] * theta[index])}
            spikes, worth = neuron(memories[index], drive, theta[index], t)
            counts[index] += np.abs(spikes).sum()
            sent = spikes * worth
        curve.append(scores)
    return np.stack(curve), counts


def burst(m, drive, theta, t):
    g = m.setdefault("g", np.ones_like(drive))
    m["v"] = m["v"] + drive
    s = (m["v"] > g * theta).astype(float)
    worth = g * theta
    m["v"], m["g"] = m["v"] - worth * s, np.where(s > 0, 2 * g, 1)
    return s, worth


def several(m, drive, theta, t):
    v = m["v"] + drive
    s = np.clip(np.floor(v / theta), 0, 3)
    m["v"] = v - s * theta
    return s, theta


def phase(m, drive, theta, t):
    worth = theta * 0.5 ** (t % 4)
    v = m["v"] + drive
    s = (v > worth).astype(float)
    m["v"] = v - worth * s
    return s, worth


def signed(m, drive, theta, t):
    sent = m.setdefault("sent", np.zeros_like(drive))
    v = m["v"] + drive
    s = np.where(v > theta, 1.0, np.where((v <= -theta) & (sent > 0), -1.0, 0.0))
    m["v"], m["sent"] = v - s * theta, sent + s
    return s, theta


def to_zero(m, drive, theta, t):
    v = 0.5 * m["v"] + 0.5 * drive
    s = (v > theta).astype(float)
    m["v"] = np.where(s > 0, 0, v)
    return s, theta


def scheduled(m, drive, theta, t):
    worth = theta * (2.0, 1.0, 0.5)[t % 3]
    v = m["v"] + drive
    s = (v > worth).astype(float)
    m["v"] = v - worth * s
    return s, worth


def bits(x, t):
    """In the 4 leading bits of |x| / 4, one a step."""
    digits = np.floor(np.abs(x) / 4 * 16).clip(0, 15).astype(int)
    return np.sign(x) * ((digits >> (3 - t % 4)) & 1) * 4 * 0.5 ** (t % 4 + 1)


CASES = {
    "burst": (Burst(), burst, {}),
    "several": (Several(most=3), several, {}),
    "phase": (
        Phase(period=4, coding=Bits(4.0, 4)),
        phase,
        {"coded": bits, "bias": lambda t: float(t % 4 == 0)},
    ),
    "signed": (Signed(), signed, {}),
    "averaging, to zero": (Leaky(to_zero=True, averaging=True), to_zero, {}),
    "scheduled": (Scheduled(factors=(2.0, 1.0, 0.5)), scheduled, {}),
}


def seen(snn, genes, cell, images, delay="none", steps=STEPS, **plan):
    labels = np.arange(len(images)) % snn.network.classes
    given = (per_layer(snn.network, cell), snn, genes, images, labels, steps, Dynamics(delay=delay), Plan(**plan))
    return list(chunks(*given, lambda count: None, True, True))


def a_case():
    """A chain of two spiking layers with weights, biases and thresholds that are exact in float32."""
    rng = np.random.default_rng(3)
    params = {key: (rng.integers(-2, 4, shape) / 4).astype(np.float32) for key, shape in shapes_of(CHAIN).items()}
    snn, theta = SNN(CHAIN, params), dyadic_thresholds(len(CHAIN.spiking)).astype(np.float32)
    return snn, Genes(theta, np.full_like(theta, 0.5)), dyadic_images(IMAGES)


@pytest.mark.parametrize("name", CASES)
def test_a_cell_is_its_equations(name):
    """Scores after each step and spikes, bit for bit where sums are exact."""
    cell, neuron, how = CASES[name]
    snn, genes, images = a_case()
    if "averaging" in name:  # half of the current, so lower thresholds
        genes = genes._replace(threshold=genes.threshold / 4, leak=np.full_like(genes.threshold, 0.5))
    ((_, _, maps, _, scores),) = seen(snn, genes, cell, images)
    expected, counts = loop(snn, genes.threshold[0], genes.v0[0], images, neuron, **how)
    assert np.array_equal(scores[0].swapaxes(0, 1), expected)
    assert [m.sum() for m in maps] == counts and min(counts) > 0


@pytest.mark.parametrize("delay, comparison", [("none", ">="), ("layer", ">")])
def test_the_package_s_own_neuron_as_a_cell_is_the_simulator(delay, comparison):
    """Counts of two candidates over shortcuts, in chunks; with a delay all spikes count, also late ones."""
    snn = dyadic_snn("residual")
    theta = dyadic_thresholds(len(snn.network.spiking), 2)
    genes, images = Genes(theta, np.full_like(theta, 0.25)), dyadic_images(IMAGES)
    labels = np.arange(IMAGES) % snn.network.classes
    usual = observe(
        snn, genes, images, labels, timesteps=6, dynamics=Dynamics(comparison, delay), plan=Plan(backend="xla")
    )
    how = {"cell": Leaky(comparison=comparison), "plan": Plan(rows=4 * 2)}
    other, right = observe_images(snn, genes, images, labels, timesteps=6, dynamics=Dynamics(delay=delay), **how)
    assert np.array_equal(right.sum(1), usual.correct) and np.array_equal(other.correct, usual.correct)
    assert np.array_equal(other.spikes, usual.spikes) and np.array_equal(other.synops, usual.synops)


def test_refractory_neurons_step_as_their_equations_and_fire_at_their_rate():
    """In float64, neuron by neuron, and within a spike of the rate that integrating a period gives."""
    cell, theta, steps = Refractory(), 0.7, 60
    drives = np.random.default_rng(0).uniform(-0.2, 1.4, (steps, 20))
    constant = np.linspace(0.05, 1.4, 20)
    for rows in (drives, np.broadcast_to(constant, (steps, 20))):
        one = jax.jit(lambda state, drive: tuple(cell.step(state, drive, jnp.float32(theta), None, None)))
        state, total = cell.init(jnp.zeros(20), theta), 0
        for drive in rows:
            state, spikes, worth = one(state, jnp.asarray(drive, jnp.float32))
            total = total + np.asarray(spikes)
        counts = [_refractory_spikes(column, theta) for column in rows.T]
        assert np.abs(total - counts).max() <= 1 and np.abs(total - counts).sum() <= 1
    rate = 1 / (2 + 20 * np.log1p(theta / (10 * constant)))
    assert np.abs(total - rate * steps).max() < 1.2
    assert np.isclose(float(worth) / (2 + 20 * np.log1p(0.1)), theta)
    at_its_threshold = cell.step(cell.init(jnp.ones(1), jnp.ones(1)), jnp.zeros(1), jnp.ones(1), None, None)
    assert not at_its_threshold.spikes.any()


def _refractory_spikes(drives, theta):
    v = wait = 0.0
    count = 0
    for drive in drives:
        current = 1 + 10 * drive / theta
        wait -= 1
        v -= (current - v) * np.expm1(-np.clip(1 - wait, 0, 1) / 20)
        if v > 1:
            wait, v = 2 + 1 + 20 * np.log1p(-(v - 1) / (current - 1)), 0.0
            count += 1
        v = max(v, 0.0)
    return count


def test_each_layer_may_have_its_cell():
    """A layer of another kind is that kind, and the others stay."""
    snn, genes, images = a_case()
    cells = [Leaky(), Several(most=3)]
    ((_, _, maps, _, _),) = seen(snn, genes, cells, images)
    counts = reference(snn, genes.threshold[0], images, STEPS, delay="none", v0=genes.v0[0])[1]
    assert maps[0].sum() == counts[0].sum() and maps[1].sum() != counts[1].sum()
    with pytest.raises(UserError, match="3 cells, expected one or 2"):
        per_layer(snn.network, [*cells, Leaky()])


def test_random_spikes_are_the_image_on_average_and_do_not_depend_on_chunks():
    """Each pixel's mean is the pixel, within four standard errors; and a draw belongs to its image."""
    x, coding = np.array([[[0.5, -1.5, 3.0, 0.0]]]), Poisson(2.0)
    drawn = np.array(jax.jit(jax.vmap(lambda t: coding(x, t, jax.random.key(t))))(np.arange(4000)))
    assert set(np.unique(drawn)) == {-2.0, 0.0, 2.0}
    assert (np.abs(drawn.mean(0) - x.clip(-2, 2)) <= 4 * drawn.std(0) / 4000**0.5).all()
    snn, genes, images = a_case()
    cell = Leaky(coding=Poisson(4.0))
    whole = observe(snn, genes, images, np.zeros(IMAGES, int), timesteps=4, dynamics=AT_ONCE, cell=cell)
    parts = observe(
        snn, genes, images, np.zeros(IMAGES, int), timesteps=4, dynamics=AT_ONCE, cell=cell, plan=Plan(rows=4)
    )
    assert np.array_equal(whole.spikes, parts.spikes) and np.array_equal(whole.correct, parts.correct)


def test_bits_add_up_to_the_image_rounded_down():
    x = np.linspace(-3.9, 3.9, 41)[:, None, None]
    total = sum(np.asarray(Bits(4.0, 8)(x, t, None)) for t in range(8))
    assert np.allclose(total, np.sign(x) * np.floor(np.abs(x) * 64) / 64)


def test_plans_without_cells_say_so():
    snn, genes, images = a_case()
    labels = np.zeros(IMAGES, int)

    def tried(**how):
        observe(snn, genes, images, labels, timesteps=2, cell=Burst(), **how)

    with pytest.raises(UserError, match="event-driven back-end has no neurons but its own"):
        tried(plan=Plan(backend="events"))
    with pytest.raises(UserError, match="in float32 on one device"):
        tried(plan=Plan(precision="int8"))
    with pytest.raises(UserError, match="leave comparison out"):
        tried(dynamics=Dynamics(">="))


def test_a_cell_without_a_step_is_refused():
    snn, genes, images = a_case()
    with pytest.raises(NotImplementedError, match="Cell has no step"):
        observe(snn, genes, images, np.zeros(IMAGES, int), timesteps=2, dynamics=AT_ONCE, cell=Cell())
