"""Every system of benchmarks.rivals does what its own equations say, in loops in float64 on a tiny network."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.few import mmse
from benchmarks.few.evaluate import evaluate
from benchmarks.rivals import (
    adafire,
    binary,
    codes,
    da_qcfs,
    norms,
    qcfs,
    soft_lif,
    spike_norm,
    trained,
    ttfs,
    two_stage,
)
from benchmarks.rivals.descent import Effort, spiking_loss
from benchmarks.rivals.system import Job, Labelled
from helpers.networks import PLAIN, dyadic_images, with_bias
from helpers.reference import apply_edge, normalise
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import shapes_of
from jaxsnn.networks.spiking import SNN
from jaxsnn.simulation.cells.leaky import Leaky
from jaxsnn.simulation.cells.unroll import keys_of, per_layer
from jaxsnn.simulation.plan import Plan
from jaxsnn.training.bptt import parts_of

CHAIN = with_bias(vgg([[4]], [5], name="chain", pool="before", **PLAIN))
COUNT, LAYERS = 12, len(CHAIN.spiking)


@pytest.fixture(scope="module")
def job():
    rng = np.random.default_rng(0)
    params = {
        key: rng.normal(0.05, (2 / np.prod(shape[:-1])) ** 0.5, shape).astype(np.float32)
        for key, shape in shapes_of(CHAIN).items()
    }
    images, labels = dyadic_images(COUNT), (np.arange(COUNT) % 3).astype(np.int32)
    few = Plan(backend="xla")
    return Job(
        SNN(CHAIN, params), images, 4, plan=few, labelled=Labelled(images, labels), epochs=1, batch=6, longest=4
    )


def sums(snn, index, x):
    """What layer ``index`` sums of its input x, biases included, float64."""
    return apply_edge(snn.network.layers[index].edges[0].ops, snn.params, x, bias=True)


def activations(snn, images):
    x, found = normalise(snn.network, images), []
    for index in range(LAYERS):
        x = np.maximum(sums(snn, index, x), 0)
        found.append(x)
    return found


def drawn(snn, images, steps, first=0):
    """The random image of ``Poisson`` at each step, (T, N, H, W, C), as the cells draw it."""
    coding, x = spike_norm.Poisson(spike_norm.largest_input(snn.network)), normalise(snn.network, images)
    keys = keys_of(first, len(images))
    at = jax.jit(jax.vmap(lambda image, key, t: coding(image, t, jax.random.fold_in(key, t)), (0, 0, None)))
    return np.stack([np.asarray(at(jnp.asarray(x, jnp.float32), keys, t), np.float64) for t in range(steps)])


def simulated(snn, theta, inputs, to_zero=False, starts=None, worth=None):
    """Scores (T, N, classes), spikes (L) of (T, N, ...), membranes and largest currents of plain neurons.

    A spike is ``worth`` its threshold unless told otherwise.
    """
    worth = theta if worth is None else worth
    v = [0.0 if starts is None else starts[l] for l in range(LAYERS)]
    peaks, spikes, scores, curve = [-np.inf] * LAYERS, [[] for _ in theta], 0.0, []
    for x in inputs:
        for index in range(LAYERS):
            drive = sums(snn, index, x)
            peaks[index] = np.maximum(peaks[index], drive)
            v[index] = v[index] + drive
            s = (v[index] > theta[index]).astype(float)
            v[index] = v[index] * (1 - s) if to_zero else v[index] - theta[index] * s
            spikes[index].append(s)
            x = s * worth[index]
        scores = scores + sums(snn, LAYERS, x)
        curve.append(scores)
    return np.stack(curve), [np.stack(s) for s in spikes], v, peaks


def test_norms_are_read_from_the_activations(job):
    found = activations(job.snn, job.images)
    assert np.allclose(norms.largest(job), [a.max() for a in found], rtol=1e-6)
    robust = [np.percentile(a[a > 0], 99.9) for a in found]
    assert np.allclose(norms.robust_thresholds(job), robust, rtol=1e-5)
    half = norms.deng_gu(job)
    assert half.comparison == ">=" and not any(start.any() for start in half.channels.starts)
    for theta, bias, a in zip(half.channels.thresholds, half.channels.biases, found):
        assert np.allclose(theta, a.max()) and np.allclose(bias, a.max() / 8)
    for method, factor in ((codes.phase, 1.0), (codes.burst, 0.4)):
        assert np.allclose([t[0] for t in method(job).channels.thresholds], np.multiply(robust, factor), rtol=1e-5)
    assert norms.max_norm(job).cells.to_zero and norms.robust(job).cells is None


def test_max_norm_is_a_loop_over_random_steps(job):
    """Right answers and spikes at every step."""
    theta = norms.largest(job) / 4  # so that four steps are enough for spikes
    converted = spike_norm._converted(job, theta, True, "")
    seen = evaluate(converted, job, job.images, job.labelled.labels)
    curve, spikes, _, _ = simulated(job.snn, theta, drawn(job.snn, job.images, 4), to_zero=True)
    assert np.array_equal(seen.right, (curve.argmax(-1) == job.labelled.labels).T)
    assert np.allclose(seen.spikes.T, [s.reshape(4, -1).sum(1).cumsum() / COUNT for s in spikes])
    assert seen.spikes[-1].min() > 0


def test_spike_norm_takes_the_largest_current_behind_normalised_layers(job, monkeypatch):
    monkeypatch.setattr(spike_norm, "STEPS", 6)
    alone = dataclasses.replace(job, shared={})
    found, inputs = spike_norm.spike_norm(alone), drawn(job.snn, job.images, 6)
    theta = np.full(LAYERS, 1e30)
    for index in range(LAYERS):
        theta[index] = simulated(job.snn, theta, inputs, to_zero=True)[3][index].max()
    assert np.allclose(found, theta, rtol=1e-5)
    converted = spike_norm.rmp(alone)
    ann = sums(job.snn, LAYERS, activations(job.snn, job.images)[-1]).argmax(-1)
    ways = [(alpha, alpha * theta) for alpha in spike_norm.ALPHAS] + [
        (alpha, theta) for alpha in spike_norm.ALPHAS
    ]
    curves = [simulated(job.snn, alpha * theta, inputs[:4], worth=worth)[0] for alpha, worth in ways]
    best = int(np.argmax([(curve[-1].argmax(-1) == ann).sum() for curve in curves]))
    assert np.isclose(converted.channels.thresholds[0][0], ways[best][0] * found[0]) and ways[best][0] < 1
    assert not converted.cells.to_zero
    seen = evaluate(converted, alone, job.images, job.labelled.labels)
    assert np.array_equal(seen.right, (curves[best].argmax(-1) == job.labelled.labels).T)
    lower = spike_norm._converted(alone, theta, False, "", 0.6)
    seen = evaluate(lower, alone, job.images, job.labelled.labels)
    curve = simulated(job.snn, 0.6 * theta, inputs[:4], worth=theta)[0]
    assert np.array_equal(seen.right, (curve.argmax(-1) == job.labelled.labels).T)


@pytest.fixture(scope="module")
def quantised(job):
    return qcfs.network_of(job)


def test_qcfs_spikes_with_its_ceilings_half_full(job, quantised):
    """And its one epoch of training lowered the loss on the images."""
    converted = qcfs.qcfs(job)
    tops = [float(quantised.params[f"{layer.name}.ceiling"][0]) for layer in CHAIN.spiking]
    assert np.allclose([t[0] for t in converted.channels.thresholds], tops)
    assert all((start == 0.5).all() for start in converted.channels.starts)
    assert any(not np.array_equal(quantised.params[n], p) for n, p in job.snn.params.items())
    assert {layer.levels for layer in quantised.network.spiking} == {qcfs.LEVELS}


def first_stage(snn, theta, images, starts):
    _, spikes, v, _ = simulated(snn, theta, [normalise(snn.network, images)] * two_stage.BEFORE, starts=starts)
    return [s.sum(0) for s in spikes], v


@pytest.mark.parametrize("name", ["srp", "cos"])
def test_two_stages_are_a_loop(job, quantised, name):
    """On ceilings that are low for their currents, so that membranes end outside of [0, theta)."""
    low = {n: p * 0.3 if n.endswith("ceiling") else p for n, p in quantised.params.items()}
    quantised = SNN(quantised.network, low)
    job = dataclasses.replace(job, shared={"qcfs": quantised})
    theta = [float(quantised.params[f"{layer.name}.ceiling"][0]) for layer in CHAIN.spiking]
    starts = [t / 2 for t in theta]
    if name == "srp":
        starts = [
            np.where(v < 0, -np.inf, s)
            for v, s in zip(first_stage(quantised, theta, job.images, starts)[1], starts)
        ]
    else:
        for index, t in enumerate(theta):
            counts, v = first_stage(quantised, theta, job.images, starts)
            over, short = (v[index] < 0) & (counts[index] > 0), v[index] >= t
            starts[index] = starts[index] + t * (short.astype(float) - over)
    inputs = [normalise(CHAIN, job.images)] * 4
    curve, spikes, _, _ = simulated(quantised, theta, inputs, starts=starts)
    before = first_stage(quantised, theta, job.images, [t / 2 for t in theta])[0]
    seen = evaluate(getattr(two_stage, name)(job), job, job.images, job.labelled.labels)
    assert np.array_equal(seen.right, (curve.argmax(-1) == job.labelled.labels).T)
    total = [(s.sum() + b.sum()) / COUNT for s, b in zip(spikes, before)]
    assert np.allclose(seen.spikes[-1], total) and any(np.ptp(s) > 0 for s in starts)


def test_binary_weights_have_one_size_a_channel(job, monkeypatch):
    """All but the first and the last map; gradients pass where |w| <= 1; percentiles are the binary network's."""
    found = binary.binarised(CHAIN, dict(job.snn.params))
    middle = "dense1.kernel"
    assert [n for n, p in job.snn.params.items() if not np.array_equal(found[n], p)] == [middle]
    kernel = job.snn.params[middle]
    assert np.allclose(found[middle], np.where(kernel >= 0, 1, -1) * np.abs(kernel).mean(0))
    slope = jax.grad(lambda w: (binary._binary(w) * jnp.array([[1.0, 2.0], [3.0, 4.0]])).sum())
    assert np.array_equal(slope(jnp.array([[3.0, -0.5], [0.5, -1.1]])), [[0, 2], [3, 0]])
    monkeypatch.setattr(binary, "fit", lambda loss, parts, fixed, images, effort, seed: parts)
    alone = dataclasses.replace(job, shared={})
    converted = binary.binary(alone)
    assert np.array_equal(converted.snn.params[middle], found[middle])
    theta = np.percentile(activations(converted.snn, job.images)[1], 99.7, method="higher")
    assert np.isclose(converted.channels.thresholds[1][0], theta, rtol=1e-3)


def test_the_soft_rate_is_that_of_its_neuron_but_for_the_corner(job, monkeypatch):
    """Float64 at some sums; theta at theta, nearly; and the network is converted with it."""
    z, theta = np.array([-0.3, 0.0, 0.2, 0.7, 1.5]), 0.7
    above = 2 * np.log1p(np.exp(10 * z / theta / 2))
    expected = theta * (2 + 20 * np.log1p(0.1)) / (2 + 20 * np.log1p(1 / above))
    assert np.allclose(soft_lif.soft_rate(jnp.asarray(z), theta), expected, rtol=1e-5)
    hard = theta * (2 + 20 * np.log1p(0.1)) / (2 + 20 * np.log1p(theta / (10 * z[3:])))
    assert np.allclose(expected[3:], hard, rtol=0.01)
    monkeypatch.setattr(soft_lif, "fit", lambda loss, parts, fixed, images, effort, seed: parts)
    converted = soft_lif.soft_lif(dataclasses.replace(job, shared={}))
    usual = [np.percentile(a, 99.7, method="higher") for a in activations(job.snn, job.images)]
    assert np.allclose([t[0] for t in converted.channels.thresholds], usual, rtol=1e-3)
    assert converted.cells == soft_lif.CELL


def test_folds_are_a_loop_over_batches(job, monkeypatch):
    monkeypatch.setattr(da_qcfs, "BATCHES", 2)
    found = da_qcfs.folds(job).channels
    theta = [a.reshape(-1, a.shape[-1]).max(0) for a in activations(job.snn, job.images)]
    shifts = [[np.zeros(len(t)), np.zeros(len(t))] for t in theta]
    mean = lambda a: a.reshape(-1, a.shape[-1]).mean(0)  # noqa: E731
    for _ in range(2):
        x = y = normalise(CHAIN, job.images)
        for index, t in enumerate(theta):
            z, zq = sums(job.snn, index, x), sums(job.snn, index, y)
            m, p = shifts[index]
            m = 0.99 * m + 0.01 * mean(z - zq)
            x, y = np.maximum(z, 0), np.clip(np.floor((zq + m) * 4 / t + 0.5) / 4, 0, 1) * (t + p)
            shifts[index] = [m, 0.99 * p + 0.01 * mean(x - y)]
    for index, t in enumerate(theta):
        assert np.allclose(found.thresholds[index], t, rtol=1e-5)
        assert np.allclose(found.biases[index], shifts[index][0], atol=1e-5)
        assert np.allclose(found.amplitudes[index], t + shifts[index][1], atol=1e-5)


def one_spike(u, theta, window):
    """The value of the first step of the window that reaches a membrane, step by step."""
    sent, waiting = np.zeros_like(u), np.ones(u.shape, bool)
    for t in range(window):
        level = theta * np.exp(-t / (window / 4))
        fires = waiting & (u >= level)
        sent[fires], waiting = level, waiting & ~fires
    return sent


def test_the_first_spike_is_a_loop_over_its_window(job):
    steps = 24
    theta, window = norms.robust_thresholds(job), steps // (LAYERS + 1)
    x = normalise(CHAIN, job.images)
    x = np.sign(x) * one_spike(np.abs(x), spike_norm.largest_input(CHAIN), window)
    counts = []
    for index in range(LAYERS):
        x = one_spike(sums(job.snn, index, x), theta[index], window)
        counts.append((x > 0).sum() / COUNT)
    right = sums(job.snn, LAYERS, x).argmax(-1) == job.labelled.labels
    longer = dataclasses.replace(job, timesteps=steps)
    seen = evaluate(ttfs.first_spike(longer), longer, job.images, job.labelled.labels)
    assert np.array_equal(seen.right[:, -1], right) and np.allclose(seen.spikes[0], counts)
    short = dataclasses.replace(job, timesteps=LAYERS)
    assert ttfs.first_spike(short).note == "no answer within T"


def test_adafire_takes_the_least_divergence_within_its_spikes():
    rng = np.random.default_rng(0)
    spikes, lost = rng.integers(1, 9, (3, 4)).astype(float), rng.integers(0, 9, (3, 4)).astype(float)
    every = list(itertools.product(range(3), repeat=4))
    cost = lambda table, picked: sum(table[row, layer] for layer, row in enumerate(picked))  # noqa: E731
    for budget in (8.0, 14.0, 30.0):
        within = [picked for picked in every if cost(spikes, picked) <= budget]
        found = adafire.chosen(spikes, lost, budget)
        if within:
            assert found[1] == min(cost(lost, picked) for picked in within) and found[0] <= budget
        else:
            assert found[0] == min(cost(spikes, picked) for picked in every)


def test_adafire_s_sweep_is_a_loop(job):
    """Divergence and spikes of one layer that may send one spike, the other at the usual four."""
    widths, draw = [len(theta) for theta in mmse.thresholds(job, 0.5, True)], np.random.default_rng(1).uniform
    theta = [[draw(0.3, 1.2, width) / most**0.5 for width in widths] for most in adafire.GAMMAS]
    lost, sent = adafire.sweep(job, theta)
    rows = (0, adafire.USUAL)
    v, scores, count = [0.5 * theta[row][l] for l, row in enumerate(rows)], 0.0, 0.0
    for _ in range(4):
        x = normalise(CHAIN, job.images)
        for index, row in enumerate(rows):
            t, most = theta[row][index], adafire.GAMMAS[row]
            v[index] = v[index] + sums(job.snn, index, x)
            s = np.clip(np.floor(v[index] / t), 0, most)
            v[index], x = v[index] - s * t, s * t
            count += s.sum() * (index == 0)
        scores = scores + sums(job.snn, LAYERS, x)
    ann = sums(job.snn, LAYERS, activations(job.snn, job.images)[-1])
    one, other = (z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (ann, scores / 4))
    both = ((np.exp(one) - np.exp(other)) * (one - other)).sum(-1).mean()
    assert np.isclose(lost[0, 0], both, rtol=1e-4) and sent[0, 0] == count


def test_adafire_takes_mean_errors_back(job):
    """Each bias is the mean error of its channel, behind corrected layers, as a loop of its own finds it."""
    gammas = [4, 2]
    theta = [mmse.thresholds(job, 0.5, True, gamma)[layer] for layer, gamma in enumerate(gammas)]
    biases = adafire.corrected(job, theta, gammas)
    before = _mean_errors(job, theta, gammas, [0.0 * t for t in theta])
    assert np.allclose(biases[0], -before[0], atol=1e-5)
    behind = _mean_errors(job, theta, gammas, [biases[0], 0.0 * theta[1]])
    assert np.allclose(biases[1], -behind[1], atol=1e-5)


def _mean_errors(job, theta, gammas, biases):
    """What channels send on average, less the ANN's activations, by layer."""
    v, sent = [0.5 * t for t in theta], [0.0] * LAYERS
    for _ in range(4):
        x = normalise(CHAIN, job.images)
        for index, (t, most) in enumerate(zip(theta, gammas)):
            v[index] = v[index] + sums(job.snn, index, x) + biases[index]
            s = np.clip(np.floor(v[index] / t), 0, most)
            v[index], x = v[index] - s * t, s * t
            sent[index] = sent[index] + x / 4
    means = [np.mean(a.reshape(-1, a.shape[-1]), 0) for a in activations(job.snn, job.images)]
    return [s.reshape(-1, s.shape[-1]).mean(0) - m for s, m in zip(sent, means)]


@pytest.mark.parametrize(
    "name, factor, leak, parts, to_zero, random",
    [
        ("bptt", 1.0, None, ("weights",), False, False),
        ("diet", 0.5, 1.0, ("weights", "thresholds", "leak"), False, False),
        ("plif", 0.5, 0.5, ("weights", "leak"), True, False),
        ("lee", 0.5, 0.99, ("weights",), True, True),
        ("hybrid", 0.5, 1.0, ("weights",), False, True),
    ],
)
def test_what_is_trained_and_from_where(job, monkeypatch, name, factor, leak, parts, to_zero, random):
    """Leaks, the neuron and the image as its authors have them; a share leaves spikes worth what they were."""
    seen = {}

    def fit_spiking(snn, cells, start, trained, *rest):
        seen.update(snn=snn, cell=cells[0], start=start, trained=trained, steps=rest[1].timesteps)
        return snn, start

    monkeypatch.setattr(trained, "fit_spiking", fit_spiking)
    monkeypatch.setattr(trained, "spike_norm", lambda job: np.array([2.0, 3.0]))
    monkeypatch.setattr(trained, "SHARES", (0.5,))
    converted = getattr(trained, name)(dataclasses.replace(job, shared={}))
    usual = [np.percentile(a, 99.7, method="higher") for a in activations(job.snn, job.images)]
    theta = [2.0, 3.0] if name == "hybrid" else usual
    assert np.allclose(seen["start"].threshold, np.multiply(factor, theta), rtol=1e-3) and seen["trained"] == parts
    kernels = [
        [snn.params[f"{name}.kernel"] for name in ("conv1", "dense1", "dense2")] for snn in (job.snn, seen["snn"])
    ]
    for scale, before, after in zip((1, factor, factor), *kernels):
        assert np.allclose(after, before / scale, rtol=1e-5)
    assert seen["start"].leak is None if leak is None else np.array_equal(seen["start"].leak, [[leak] * LAYERS])
    assert (seen["start"].v0 == (0.5 if name == "bptt" else 0)).all()
    cell = seen["cell"]
    assert converted.cells == cell and (cell.to_zero, cell.averaging) == (to_zero, name == "plif")
    assert (cell.coding is not None) == random and cell.fire is not None
    if random:  # as many steps as benchmarks.attacks says
        assert getattr(trained, name)(dataclasses.replace(job, shared={}), 3).note == "trained at T = 3"
        assert seen["steps"] == 3


def test_those_who_are_trained_start_where_they_lose_least(job):
    """Leaky neurons that are reset to zero, by a loop: the cross-entropy of the scores after T steps over T."""
    ann = sums(job.snn, LAYERS, activations(job.snn, job.images)[-1]).argmax(-1).astype(np.int32)
    job = dataclasses.replace(job, labelled=Labelled(job.images, ann))
    theta, losses = trained._percentile(job), []
    for share in trained.SHARES:
        v, scores = [0.0] * LAYERS, 0.0
        for _ in range(8):
            x = normalise(CHAIN, job.images)
            for index in range(LAYERS):
                v[index] = v[index] + (sums(job.snn, index, x) - v[index]) / 2
                s = (v[index] > share * theta[index]).astype(float)
                v[index], x = v[index] * (1 - s), s * theta[index]
            scores = scores + sums(job.snn, LAYERS, x)
        likely = scores / 8 - np.log(np.exp(scores / 8).sum(-1, keepdims=True))
        losses.append(-likely[np.arange(COUNT), ann].mean())
    cell = Leaky(fire=trained.ARCTAN, to_zero=True, averaging=True)
    how = {"thresholds": trained._percentile, "leak": 0.5}
    _, genes = trained._least_lossy(job, cell, Effort(1, timesteps=8), **how)
    assert np.allclose(genes.threshold[0] / theta, trained.SHARES[np.argmin(losses)], rtol=1e-5)
    assert losses[0] > min(losses)


def test_training_changes_what_it_says(job, monkeypatch):
    """Two steps of a network whose weights, thresholds and leaks are free, and which spikes afterwards."""
    monkeypatch.setattr(trained, "SHARES", (0.3,))
    converted = trained.diet(dataclasses.replace(job, shared={}))
    theta = 0.3 * trained._percentile(job)
    assert not np.allclose([t[0] for t in converted.channels.thresholds], theta, rtol=1e-6)
    assert (converted.leak != 1).any() and (converted.leak <= 1).all()
    assert not np.array_equal(converted.snn.params["conv1.kernel"], job.snn.params["conv1.kernel"])
    assert evaluate(converted, job, job.images, job.labelled.labels).right.shape == (COUNT, 4)


def test_the_gradient_of_the_unrolled_loss_is_that_of_a_loop(job):
    """One step, whose chain rule is short: the read-out's kernel and a threshold, by hand in float64."""
    theta = np.array([0.5, 0.6])
    start = trained.Genes(theta[None])
    parts = parts_of(job.snn, start)
    cells = per_layer(CHAIN, Leaky(fire=trained.TRIANGLE))
    loss = spiking_loss(job.snn, cells, theta, Effort(1, timesteps=1), False)
    given = (job.images, job.labelled.labels, jax.random.key(0))
    free = {name: parts[name] for name in ("weights", "thresholds")}
    slope = jax.jit(jax.grad(lambda p: loss(parts | p, *given)))(free)
    a = sums(job.snn, 0, normalise(CHAIN, job.images))
    first = (a > theta[0]).astype(float)
    b = sums(job.snn, 1, first * theta[0])
    second = (b > theta[1]).astype(float)
    scores = sums(job.snn, 2, second * theta[1])
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    error = (shares / shares.sum(-1, keepdims=True) - np.eye(3)[job.labelled.labels]) / COUNT
    name = CHAIN.layers[-1].edges[0].ops[-1].name
    assert np.allclose(slope["weights"][f"{name}.kernel"], (second * theta[1]).T @ error, atol=1e-6)
    back = error @ job.snn.params[f"{name}.kernel"].T.astype(float)
    surrogate = 0.3 * np.maximum(0, 1 - np.abs(b / theta[1] - 1))
    by_theta = (back * (second - theta[1] * surrogate * b / theta[1] ** 2)).sum()
    assert np.isclose(slope["thresholds"][1], by_theta * theta[1], rtol=1e-4)
