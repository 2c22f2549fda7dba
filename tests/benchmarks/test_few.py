"""benchmarks.few_timesteps: every method does what its formula says, and rows are kept and read again."""

import dataclasses
import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from benchmarks import few_timesteps
from benchmarks.few import ftbc, iteration, ltb, mmse, ours, percentile, snnc
from benchmarks.few.layerwise import Walk, ann_means, neurons_of, right_answers, simulate
from benchmarks.few.methods import RIVALS, methods
from benchmarks.few.task import Task, alike
from benchmarks.few_timesteps import Config, Inputs, draw, run, table_of
from data import Dataset
from helpers.networks import NETWORKS, PLAIN, dyadic_images, dyadic_snn, with_bias
from helpers.reference import apply_edge, normalise
from jaxsnn.conversion.channel_fit import Recipe
from jaxsnn.conversion.channels import fold_channels, groups
from jaxsnn.errors import UserError
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import layer_shapes, shapes_of
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.simulation.observe import observe, record
from jaxsnn.simulation.plan import Plan

FLOAT = Plan(backend="xla")


CHAIN = with_bias(vgg([[4]], [5], name="chain", pool="before", **PLAIN))


def drawn_snn(network, seed=0):
    """Normal weights, so that no two errors tie."""
    rng = np.random.default_rng(seed)
    params = {
        key: rng.normal(0.05, (2 / np.prod(shape[:-1])) ** 0.5, shape).astype(np.float32)
        for key, shape in shapes_of(network).items()
    }
    return SNN(network, params)


def a_task(network=CHAIN, timesteps=4, images=12, **options):
    return Task(drawn_snn(network), dyadic_images(images), timesteps, plan=FLOAT, **options)


def ann_activations(snn, images):
    """Activations of each spiking layer in float64, for networks that are a chain."""
    x, found = normalise(snn.network, images), []
    for layer in snn.network.spiking:
        x = np.maximum(apply_edge(layer.edges[0].ops, snn.params, x, bias=True), 0)
        found.append(x)
    return found


def dyadic_channels(network, seed=1):
    """Thresholds, biases and starts that are small multiples of powers of two; shapes shared where needed."""
    rng = np.random.default_rng(seed)
    draws = [2.0 ** rng.integers(-1, 2, shape[-1]) for shape in layer_shapes(network)[:-1]]
    thetas = [draws[first] for first in groups(network)]
    biases = [rng.integers(-2, 3, shape[-1]) / 8 for shape in layer_shapes(network)]
    channels = alike(thetas, biases[:-1], 0.25, network.classes)
    return dataclasses.replace(channels, biases=tuple(biases))


@pytest.mark.parametrize("name", ["pool_after", "residual"])
def test_layer_by_layer_is_the_simulator(name):
    """Two programs, one network: scores at every step, more images than a chunk, and what a late read-out sees."""
    snn, images, steps = dyadic_snn(name), dyadic_images(67), 4
    channels = dyadic_channels(snn.network)
    labels = np.arange(67) % snn.network.classes
    folded, genes = fold_channels(snn, channels)
    walk = Walk(snn, images, steps, ">")
    for index, neurons in enumerate(neurons_of(channels)):
        walk.fire(index, neurons)
    expected = record(folded, genes, images, steps)[2][0]
    assert np.array_equal(walk.scores(channels.biases[-1]).cumsum(0), expected)
    given = (snn, neurons_of(channels), channels.biases[-1], images, labels, steps, ">")
    right, spikes, synops = right_answers(*given)
    assert np.array_equal(right, (expected.argmax(-1) == labels).T)
    counted = observe(folded, genes, images, labels, timesteps=steps, dynamics=Dynamics(delay="none"), plan=FLOAT)
    assert np.allclose(spikes, counted.spikes[0] / 67) and np.allclose(synops, counted.synops[0] / 67)
    late = (expected[2:] - expected[1]).argmax(-1) == labels
    assert np.array_equal(right_answers(*given, skip=2)[0][:, 2:], late.T)


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("channels", [False, True])
def test_mmse_is_a_search_in_float64(shift, channels):
    task = a_task(images=70)
    found = mmse.thresholds(task, shift, channels)
    for theta, z in zip(found, ann_activations(task.snn, task.images)):
        z = z.reshape(-1, z.shape[-1])
        for c, own in enumerate(theta):
            values = z[:, c] if channels else z
            grid = values.max() * (1 - 0.01 * np.arange(95))
            errors = [
                ((t / 4 * np.clip(np.floor(values * 4 / t + shift), 0, 4) - values) ** 2).sum() for t in grid
            ]
            assert np.isclose(own, grid[np.argmin(errors)], rtol=1e-5)


@pytest.mark.parametrize("mean, spread", [(0.3, 1.0), (-1.0, 0.7), (2.0, 0.5), (-4.0, 1.0)])
@pytest.mark.parametrize("steps", [1, 4])
def test_threshold_iteration_ends_at_the_least_error_of_a_normal_current(mean, spread, steps):
    x = mean + spread * np.linspace(-8, 8, 40001)
    weight = np.exp(-(((x - mean) / spread) ** 2) / 2)

    def error(theta):
        sent = theta / steps * np.clip(np.floor(x * steps / theta + 0.5), 0, steps)
        return (weight * (sent - np.maximum(x, 0)) ** 2).sum()

    theta = iteration.fixed_point(np.array([mean]), np.array([spread]), steps)[0]
    others = theta * np.exp(np.linspace(-1, 1, 81))
    assert error(theta) <= min(error(other) for other in others) * (1 + 1e-4)


def mean_errors(task, neurons):
    """Each layer's mean SNN output - ANN output (*shape) on the task's images."""
    walk = Walk(task.snn, task.images, task.timesteps, snnc.COMPARISON)
    return [walk.fire(i, n) - mean for (i, n), mean in zip(enumerate(neurons), ann_means(task.snn, task.images))]


def over_positions(error):
    return error.reshape(-1, error.shape[-1]).mean(0)


@pytest.fixture(scope="module")
def for_snnc():
    task = a_task(timesteps=16)
    return task, mmse.thresholds(task, 0.0, False)


def test_snnc_takes_mean_errors_back(for_snnc):
    """The bias loses the mean error of its channel, seen behind corrected layers, and with it goes the error."""
    task, thetas = for_snnc
    light = snnc.correct(task, thetas, snnc.lower_bias)
    first = over_positions(mean_errors(task, [snnc.plain(thetas[0], 16)])[0])
    assert np.allclose(light[0].bias, thetas[0] / 32 - first)
    second = mean_errors(task, [light[0], snnc.plain(thetas[1], 16)])[1]
    assert np.allclose(light[1].bias, thetas[1] / 32 - over_positions(second))
    before = mean_errors(task, [snnc.plain(theta, 16) for theta in thetas])
    for plain, corrected in zip(before, mean_errors(task, light)):
        assert np.abs(over_positions(corrected)).mean() < np.abs(over_positions(plain)).mean() / 2


def test_snnc_fills_each_neuron_by_its_own_error(for_snnc):
    task, thetas = for_snnc
    filled = snnc.correct(task, thetas, snnc.fill)
    error = mean_errors(task, [snnc.plain(thetas[0], 16)])[0]
    assert filled[0].start.shape == layer_shapes(task.network)[0]
    assert np.allclose(filled[0].start, -16 * error)
    before = mean_errors(task, [snnc.plain(theta, 16) for theta in thetas])
    assert np.abs(mean_errors(task, filled)[0]).mean() < np.abs(before[0]).mean()
    folded = snnc.advanced_channels(task).channels
    assert np.allclose(folded.starts[0] * thetas[0], -16 * over_positions(error))


def test_ltb_moves_by_twice_the_mean_of_what_is_cut_off():
    """Two batches of all images; a layer sees the outputs that the layer before cuts at its new thresholds."""
    task = a_task(ltb_batches=2)
    network, params = task.network, task.snn.params
    thetas = [0.0] * len(network.spiking)
    for _ in range(2):
        x = normalise(network, task.images)
        for index, layer in enumerate(network.spiking):
            z = apply_edge(layer.edges[0].ops, params, x, bias=True)
            cut = np.maximum(z - thetas[index], 0)
            thetas[index] = thetas[index] + 2 * cut.reshape(-1, z.shape[-1]).mean(0)
            x = np.clip(z, 0, thetas[index])
    found, delay = ltb.balance(task)
    assert all(np.allclose(a, b, rtol=1e-4) for a, b in zip(found, thetas))
    x, waits = normalise(network, task.images), []
    for theta, layer in zip(thetas, network.spiking):
        z = apply_edge(layer.edges[0].ops, params, x, bias=True)
        waits.append((theta / 2 / np.maximum(np.maximum(z, 0).mean(0), 1e-9)).min())
        x = np.clip(z, 0, theta)
    assert delay == int(sum(waits))
    skips = {steps: ltb.delayed(dataclasses.replace(task, timesteps=steps)).skip for steps in (3, 5, 64)}
    assert skips == {3: 0, 5: min(delay, 1), 64: delay} and delay > 0


def test_ftbc_is_a_loop_over_steps():
    """The first layer, whose current is even, in float64."""
    task = a_task(ftbc_rounds=2)
    theta = mmse.thresholds(task, 0.0, True)[0]
    z = ann_activations(task.snn, task.images)[0]
    current = apply_edge(
        task.network.layers[0].edges[0].ops, task.snn.params, normalise(task.network, task.images), True
    )
    bias = np.zeros((4, len(theta)))
    for _ in range(2):
        v = np.zeros_like(current)
        for t in range(4):
            v = v + current + theta / 8
            rate = over_positions((theta * (v - bias[t] >= theta)).mean(0))
            bias[t] += 0.5 * (rate - over_positions(z.mean(0)))
            v = v - bias[t]
            v = v - theta * (v >= theta)
    neurons = ftbc.temporal(task).neurons
    assert np.allclose(neurons[0].bias, theta / 8 - bias, atol=1e-5)


def test_ftbc_takes_the_mean_error_of_each_step_back():
    task = a_task(ftbc_rounds=12)
    walk = Walk(task.snn, task.images, 4, ftbc.COMPARISON)
    mean = over_positions(ann_means(task.snn, task.images)[0])
    corrected = ftbc.temporal(task).neurons[0]

    def error(neurons):
        parts = (np.asarray(p, np.float32) for p in (neurons.threshold, neurons.bias, neurons.start))
        spikes = np.asarray(simulate(walk.currents(0, slice(0, 12)), *parts, 4, ">="))[:, :12]
        return np.abs(neurons.threshold * spikes.mean((1, 2, 3)) - mean).mean()

    assert error(corrected) < error(snnc.plain(corrected.threshold, 4)) / 4


def test_one_scale_has_the_least_divergence():
    """Of its neighbours and of none, on the calibration images."""
    task = a_task()
    found = percentile.one_scale(task)
    half = percentile.half_full_start(task)
    scale = found.channels.thresholds[0][0] / half.channels.thresholds[0][0]
    assert np.isclose(percentile.SCALES, scale).any() and found.note == f"scale {scale:.2f}"
    others = np.array([scale, scale - 0.05, scale + 0.05, 1.0])
    theta = others[:, None] * [t[0] for t in half.channels.thresholds]
    logits = percentile.teacher_logits(task.snn, task.images)
    observed = observe(
        task.snn,
        Genes(theta, np.full_like(theta, 0.5)),
        task.images,
        logits.argmax(-1),
        timesteps=4,
        dynamics=Dynamics(delay="none"),
        plan=FLOAT,
        teacher=percentile.probabilities(logits),
    )
    assert observed.divergence[:, -1].argmin() == 0


@pytest.mark.parametrize("method", [mmse.per_channel, iteration.per_channel, snnc.light_channels, ltb.balanced])
def test_thresholds_a_channel_fold_where_a_shortcut_has_no_kernel(method):
    task = a_task(NETWORKS["residual"], ltb_batches=2)
    channels = method(task).channels
    folded, genes = fold_channels(task.snn, channels)
    assert np.isfinite(record(folded, genes, task.images, 4)[2]).all()
    one, other = channels.thresholds[0], channels.thresholds[2]
    assert np.ptp(one) > 0 and np.allclose(one / one[0], other / other[0])


def test_a_channel_that_is_never_active_stays_silent():
    snn = drawn_snn(CHAIN)
    kernel, bias = snn.params["conv1.kernel"].copy(), snn.params["conv1.bias"].copy()
    kernel[..., 0], bias[0] = 0, -1
    task = dataclasses.replace(
        a_task(), snn=SNN(snn.network, snn.params | {"conv1.kernel": kernel, "conv1.bias": bias})
    )
    for method in (mmse.per_channel, iteration.per_channel, ltb.balanced):
        folded, genes = fold_channels(task.snn, method(dataclasses.replace(task, ltb_batches=2)).channels)
        assert not record(folded, genes, task.images, 4)[1][0][..., 0].any()


def test_each_piece_of_ours_is_changed_alone(monkeypatch):
    """A row differs from ours in one field of the recipe, and all but the numbers and the seed have rows."""
    seen = {}
    monkeypatch.setattr(ours, "calibrate_for", lambda snn, images, recipe: seen.setdefault("recipe", recipe))
    changed = set()
    for name, method in ours.rows().items():
        seen.clear()
        with pytest.raises(AttributeError):  # a recipe is no calibration
            method(a_task(seed=3))
        usual = Recipe(4, seed=3)
        differs = {
            f.name for f in dataclasses.fields(Recipe) if getattr(seen["recipe"], f.name) != getattr(usual, f.name)
        }
        assert len(differs) == (name != "ours")
        changed |= differs
    assert changed == {f.name for f in dataclasses.fields(Recipe)} - {"timesteps", "sweeps", "comparison", "seed"}


def test_a_delayed_readout_leaves_out_the_steps_that_only_harm():
    """The sums of two first steps speak for the wrong class, those after them say what the ANN says."""
    teacher = np.array([[0.0, 2.0, 1.0], [1.0, 0.0, 3.0]])
    wrong = np.stack([np.roll(teacher, 1, axis=-1)] * 2)
    sums = np.concatenate([wrong, np.stack([teacher] * 4)]).cumsum(0)
    assert ours.closest_skip(sums, teacher) == 2
    assert ours.closest_skip(np.stack([teacher] * 6).cumsum(0), teacher) == 0


def test_all_rows_run_and_are_read_again(monkeypatch, tmp_path):
    snn, images = drawn_snn(CHAIN), dyadic_images(12)
    labels, classes = (np.arange(12) % 3).astype(np.int32), ("a", "b", "c")
    train = Dataset(images, labels, classes, "drawn", "train", "drawn")
    rows = (*RIVALS, "ours", "ours-delayed-readout", *ours.distillations())
    config = Config(
        timesteps=(4,),
        images=12,
        rows=rows,
        ltb_batches=2,
        ftbc_rounds=1,
        distillation=2,
        distillation_batch=4,
        precision="float32",
        json=tmp_path / "few.json",
    )
    inputs = Inputs(snn, train, train, config.settings() | {"test_images": 12})
    quiet = Console(quiet=True)
    report = run(config, inputs, quiet)
    assert tuple(row["row"] for row in report["rows"]) == rows
    for row in report["rows"]:
        assert len(row["accuracy"]) == 4 and 0 <= row["accuracy"][-1] <= 1 and row["seconds"] > 0
    titles = {name: methods()[name][0] for name in rows}
    assert table_of(config, report, titles).row_count == len(rows)
    draw(config, report, titles, tmp_path / "few.png")
    assert (tmp_path / "few.png").read_bytes().startswith(b"\x89PNG")

    def fail(*arguments):
        raise AssertionError("run again")

    monkeypatch.setattr(few_timesteps, "measure", fail)
    assert run(config, inputs, quiet)["rows"] == report["rows"]
    with pytest.raises(AssertionError, match="run again"):
        run(dataclasses.replace(config, timesteps=(4, 5)), inputs, quiet)
    assert json.loads(config.json.read_text())["rows"] == report["rows"]
    monkeypatch.setattr(few_timesteps, "code", lambda: "changed")
    said = Console(file=StringIO(), width=200)
    run(config, inputs, said)
    assert f"{len(rows)} rows of {config.json} are from other code" in said.file.getvalue().replace("\n", "")
    others = dataclasses.replace(inputs, identity=inputs.identity | {"images": 30})
    with pytest.raises(UserError, match=r"rows with images 12, not 30: choose another --json"):
        run(config, others, quiet)
