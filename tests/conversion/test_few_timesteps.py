"""Calibration for few timesteps: folding, fitting, distillation."""

import dataclasses

import numpy as np
import pytest

import data
from helpers.networks import BACKENDS, NETWORKS, with_bias
from helpers.reference import simulate as reference
from jaxsnn.conversion.calibration import percentiles
from jaxsnn.conversion.channel_fit import MEAN_WEIGHT, Recipe, fit_layer, mmse_thresholds, simulate
from jaxsnn.conversion.channels import Channels, fold_channels, groups, of_genes
from jaxsnn.conversion.few_timesteps import calibrate_for, work
from jaxsnn.conversion.start import calibrate
from jaxsnn.errors import UserError
from jaxsnn.networks.description import IMAGE, layer_shapes, shapes_of
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.search.run import evolve
from jaxsnn.simulation.cells.burst import Several
from jaxsnn.simulation.cells.unroll import per_layer, runs
from jaxsnn.simulation.divergence import UNIT, log_softmax, probabilities
from jaxsnn.simulation.observe import observe, record
from jaxsnn.simulation.plan import Plan
from jaxsnn.training.distillation import Distillation, distil, divergence, teacher_logits

FREE = Dynamics(delay="none")


def dyadic(name, seed=0):
    """A network with weights and images that are small multiples of powers of two."""
    network = NETWORKS[name]
    rng = np.random.default_rng(seed)
    params = {n: (rng.integers(-4, 5, s) / 8).astype(np.float32) for n, s in shapes_of(network).items()}
    images = rng.integers(0, 4, (6, *network.input_shape)).astype(np.uint8)
    return SNN(network, params), images


def random_channels(network, seed=1):
    """Channels that are powers of two, shared where layers must share."""
    rng = np.random.default_rng(seed)
    widths = [shape[-1] for shape in layer_shapes(network)]
    first = groups(network)
    shared = [first.count(f) > 1 for f in first]
    draws = [2.0 ** rng.integers(-1, 2, c) for c in widths]
    thresholds = [draws[f] * 2.0 ** rng.integers(0, 2) for f in first]
    amplitudes = [t if s else 2.0 ** rng.integers(-1, 2, len(t)) for t, s in zip(thresholds, shared)]
    biases = [rng.integers(-2, 3, c) / 8 for c in widths]
    starts = [rng.integers(-1, 5, len(t)) / 4 for t in thresholds]
    return Channels(tuple(thresholds), tuple(amplitudes), tuple(biases), tuple(starts))


def channel_reference(snn, channels, images, steps, most=1):
    """Scores (T, B, classes) and spikes of each layer in float64 with the channels as they are, nothing folded."""
    from helpers.reference import apply_edge, normalise

    network, x = snn.network, normalise(snn.network, images)
    state, scores, curve, counts = {}, 0, [], [0] * len(network.spiking)
    for _ in range(steps):
        outputs = []
        for index, layer in enumerate(network.layers):
            drive = channels.biases[index]
            for edge in layer.edges:
                source = x if edge.source == IMAGE else outputs[edge.source]
                drive = drive + apply_edge(edge.ops, snn.params, source, bias=True)
            if index == len(network.spiking):
                scores = scores + drive
                break
            theta = channels.thresholds[index]
            v = state.get(index, channels.starts[index] * theta) + drive
            fired = v > theta if most == 1 else np.clip(np.floor(v / theta), 0, most)
            counts[index] = counts[index] + fired
            state[index] = v - theta * fired
            outputs.append(fired * channels.amplitudes[index])
        curve.append(scores)
    return np.stack(curve), counts


@pytest.mark.parametrize("name", NETWORKS)
def test_folding_is_exact_on_dyadic_networks(name):
    snn, images = dyadic(name)
    channels = random_channels(snn.network)
    folded, genes = fold_channels(snn, channels)
    scores = record(folded, genes, images, 6)[2][0]
    assert np.array_equal(scores, channel_reference(snn, channels, images, 6)[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_backends_agree_on_folded_networks(backend, precision):
    snn, images = dyadic("residual")
    folded, genes = fold_channels(snn, random_channels(snn.network))
    labels = np.zeros(len(images), int)
    teacher = probabilities(teacher_logits(snn, images))
    every = [
        observe(
            folded,
            genes,
            images,
            labels,
            timesteps=5,
            dynamics=FREE,
            plan=Plan(backend=b, precision=precision, rows=rows),
            teacher=teacher,
        )
        for b, rows in ((backend, 2), (backend, 64), ("xla", 5))
    ]
    for one in every[1:]:
        for field in ("correct", "spikes", "synops", "divergence"):
            assert np.array_equal(getattr(one, field), getattr(every[0], field))


@pytest.mark.parametrize("delay", ["none", "layer"])
def test_divergence_is_that_of_the_reference(delay):
    snn, images = dyadic("bias")
    genes = Genes(np.array([[0.5] * len(snn.network.spiking), [1.0] * len(snn.network.spiking)]))
    teacher = probabilities(teacher_logits(snn, images))
    dynamics, steps = Dynamics(delay=delay), 9
    observed = observe(
        snn, genes, images, np.zeros(len(images), int), timesteps=steps, dynamics=dynamics, teacher=teacher
    )
    silent = dynamics.silent_steps(snn.network)
    for row, theta in enumerate(genes.threshold):
        scores = np.zeros((steps, *teacher.shape))
        scores[silent:] = reference(snn, theta, images, steps - silent, delay="none")[2]
        t = np.maximum(np.arange(1, steps + 1) - silent, 1)[:, None, None]
        kl = (teacher * (np.log(teacher) - log_softmax(scores / t))).sum(-1)
        assert np.array_equal(observed.divergence[row], np.rint(kl * UNIT).astype(np.int64).sum(1))


def test_alike_channels_leave_the_weights_alone():
    snn, _ = dyadic("pool_before")
    genes = Genes(np.full((1, len(snn.network.spiking)), 0.7), np.full((1, len(snn.network.spiking)), 0.3))
    folded, found = fold_channels(snn, of_genes(snn, genes))
    assert folded.network == snn.network
    assert all(np.array_equal(folded.params[name], value) for name, value in snn.params.items())
    assert np.array_equal(found.threshold, genes.threshold) and np.array_equal(found.v0, genes.v0)


def test_layers_joined_without_a_kernel_share_a_shape():
    network = NETWORKS["residual"]
    assert groups(network) == (0, 1, 0, 3)
    channels = random_channels(network)
    thresholds = list(channels.thresholds)
    thresholds[2] = thresholds[2] * np.array([1, 2, 1, 1])
    with pytest.raises(UserError, match="a and c are joined"):
        fold_channels(dyadic("residual")[0], dataclasses.replace(channels, thresholds=tuple(thresholds)))


def test_residual_networks_can_be_calibrated_and_distilled():
    """An identity and a strided shortcut: layers that share a shape keep sharing it."""
    snn, images = dyadic("residual")
    found = calibrate_for(snn, images, Recipe(3, sweeps=1, reconstruct=True))
    snn, channels, fits = found.snn, found.channels, found.fits
    folded, genes = fold_channels(snn, channels)
    assert all(fit.squared_error <= fit.before[1] for fit in fits)
    assert np.isfinite(record(folded, genes, images[:2], 3)[2]).all()
    _, trained = distil(snn, channels, snn, images, Distillation(2, steps=2, batch=4))
    fold_channels(snn, trained)


@pytest.mark.parametrize("name, reconstruct", [("pool_after", False), ("bias", False), ("pool_before", True)])
@pytest.mark.parametrize("steps", [1, 4])
def test_calibration_comes_closer_to_the_ann(name, reconstruct, steps):
    snn, images = dyadic(name)
    seen = []
    found = calibrate_for(snn, images, Recipe(steps, reconstruct=reconstruct), seen.append)
    channels, fits = found.channels, found.fits
    assert sum(seen) == work(snn.network, len(images), reconstruct)
    assert all(fit.squared_error <= fit.before[1] * (1 + 1e-6) for fit in fits)
    folded, genes = fold_channels(found.snn, channels)
    scores = record(folded, genes, images, steps)[2][0, -1] / steps
    # the read-out's bias takes its mean error back
    assert np.allclose(scores.mean(0), teacher_logits(snn, images).mean(0), atol=1e-4)


@pytest.mark.parametrize(
    "name, reconstruct, most", [("bias", False, 3), ("pool_before", True, 3), ("residual", False, 1)]
)
def test_calibration_sees_the_spikes_that_the_equations_give(name, reconstruct, most):
    """How well each layer follows the ANN, as reported, is what a loop in float64 finds."""
    snn, images = dyadic(name)
    found = calibrate_for(snn, images, Recipe(3, reconstruct=reconstruct, most=most))
    counts = channel_reference(found.snn, found.channels, images, 3, most)[1]
    targets = [np.maximum(sums, 0) for sums in ann_forward(snn.network, snn.params, images)[:-1]]
    for fit, count, amplitude, target in zip(found.fits, counts, found.channels.amplitudes, targets):
        target = np.asarray(target, np.float64)
        error = np.square(amplitude * count / 3 - target).mean() / np.square(target).mean()
        assert np.isclose(fit.squared_error, error, rtol=1e-4)
    assert max(count.max() for count in counts) > 3 * (most - 1)


def test_several_spikes_a_step_do_what_as_many_steps_do():
    """A network of one step with several spikes in it is about as near to its ANN as one of more steps."""
    snn, images = dyadic("bias")
    ann = teacher_logits(snn, images)

    def error(steps, most):
        start = calibrate(snn, images, steps, reconstruct=False, most=most)
        cells = per_layer(snn.network, Several(most=most))
        genes = start.genes.map(lambda part: np.asarray(part, np.float32))
        ((scores, _),) = runs(cells, start.snn, genes, images, steps)
        return np.square(scores[0, -1] / steps - ann).mean()

    assert error(1, 8) < min(error(1, 1) / 2, 1.5 * error(8, 1))


def test_calibrated_for_more_steps_it_tends_to_the_ann():
    """No clipping is left that the number of steps does not ask for."""
    snn, images = dyadic("bias")
    ann, errors = teacher_logits(snn, images), []
    for steps in (4, 64):
        found = calibrate_for(snn, images, Recipe(steps))
        folded, genes = fold_channels(found.snn, found.channels)
        scores = record(folded, genes, images, steps)[2][0, -1] / steps
        errors.append(np.sqrt(((scores - ann) ** 2).mean() / ann.var()))
    assert errors[1] < 0.01 and errors[1] < errors[0] / 10


def test_calibration_gives_the_same_bits_again():
    snn, images = dyadic("bias")
    one, other = (calibrate_for(snn, images, Recipe(4)).channels for _ in range(2))
    for name in vars(one):
        assert all(np.array_equal(a, b) for a, b in zip(getattr(one, name), getattr(other, name)))


def test_correction_takes_back_mean_errors():
    rng = np.random.default_rng(0)
    currents = rng.normal(0.1, 0.3, (8, 2000, 5)).astype(np.float32)
    targets = np.maximum(currents.mean(0) + rng.normal(0, 0.05, 5), 0).astype(np.float32)
    plain, corrected = (fit_layer(currents, targets, Recipe(8, descend=(), correct=on))[1] for on in (False, True))
    assert corrected[0] < plain[0] / 4


def test_a_correction_after_the_descent_costs_no_more_than_it_is_worth():
    """Taken back at any price, mean errors left VGG15 at T = 4 with 2.6 points less."""
    rng = np.random.default_rng(0)
    currents = rng.normal(0.1, 0.3, (4, 500, 40)).astype(np.float32)
    targets = np.maximum(currents.mean(0), 0).astype(np.float32)

    def errors(cells):
        rate = simulate(currents, cells[0], cells[2], cells[3], 4, FREE)[0] / 4
        error = np.asarray(cells[1] * rate - targets, np.float64)
        return (error**2).mean(0), error.mean(0) ** 2

    plain, corrected = (fit_layer(currents, targets, Recipe(4, correct=on))[0] for on in (False, True))
    assert not np.array_equal(plain[2], corrected[2])
    (squared, mean), (other, less) = errors(plain), errors(corrected)
    assert (other + MEAN_WEIGHT * less <= (squared + MEAN_WEIGHT * mean) * (1 + 1e-5)).all()
    assert less.sum() < mean.sum()


@pytest.mark.parametrize("most", [1, 3])
def test_thresholds_are_those_of_least_squared_error(most):
    values = np.random.default_rng(0).gamma(0.5, size=(500, 3)).astype(np.float32)
    theta = mmse_thresholds(values, 4, most)
    for c in range(3):
        grid = values[:, c].max() / most * (1 - 0.01 * np.arange(95))
        error = [
            ((t / 4 * np.clip(np.floor(values[:, c] * 4 / t + 0.5), 0, 4 * most) - values[:, c]) ** 2).sum()
            for t in grid
        ]
        assert np.isclose(theta[c], grid[np.argmin(error)])


def test_dead_channels_stay_silent():
    snn, images = dyadic("bias")
    params = dict(snn.params)
    params["conv1.kernel"] = params["conv1.kernel"].copy()
    params["conv1.kernel"][..., 0] = 0
    params["conv1.bias"] = np.array([-1, 0.5, 0.5, 0.5], np.float32)
    channels = calibrate_for(SNN(snn.network, params), images, Recipe(4)).channels
    folded, genes = fold_channels(SNN(snn.network, params), channels)
    spikes = record(folded, genes, images, 4)[1][0]
    assert not spikes[..., 0].any() and np.isfinite(channels.thresholds[0]).all()


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda snn, images: (snn, images[:0]), "images have shape"),
        (lambda snn, images: (SNN(snn.network, snn.params | {"conv1.bias": np.full(4, np.nan)}), images), "NaN"),
        (
            lambda snn, images: (SNN(snn.network, {n: 0 * v for n, v in snn.params.items()}), images),
            "conv1 is never active",
        ),
    ],
)
def test_bad_input_is_one_sentence(change, sentence):
    snn, images = change(*dyadic("bias"))
    with pytest.raises(UserError, match=sentence):
        calibrate_for(snn, images, Recipe(4))


@pytest.mark.parametrize("change", [{"timesteps": 0}, {"descend": ("leak",)}, {"most": 0}, {"most": 256}])
def test_bad_recipes(change):
    with pytest.raises(UserError):
        Recipe(**{"timesteps": 4} | change)


def test_networks_without_biases_get_them():
    snn, images = dyadic("pool_before")
    folded, _ = fold_channels(snn, calibrate_for(snn, images, Recipe(4)).channels)
    assert set(shapes_of(folded.network)) == set(folded.params)
    assert any(name.endswith(".bias") for name in folded.params)
    assert shapes_of(with_bias(snn.network)).keys() <= shapes_of(with_bias(folded.network)).keys()


@pytest.mark.parametrize("given, named", [("dataset", "a Dataset, whose array is its .images"), ("name", "str")])
def test_images_of_another_kind_are_refused_in_a_sentence(given, named):
    """evolve takes a dataset, so that somebody will give one here too."""
    snn, _ = dyadic("bias")
    wrong = data.load("embedded", "train", limit=4) if given == "dataset" else "train"
    genes = Genes(np.ones((1, len(snn.network.spiking))))
    for refused in (
        lambda: calibrate(snn, wrong, 2),
        lambda: percentiles(snn, wrong),
        lambda: observe(snn, genes, wrong, np.zeros(4, np.int32), timesteps=9),
    ):
        with pytest.raises(UserError, match=rf"images are {named}: expected an array \(N >= 1, \*\(8, 8, 2\)\)"):
            refused()


def test_float_images_and_labels_that_cannot_be_meant_are_refused():
    """Percentiles of pixels from 0 to 255 were taken 255 times too high; labels of other images were counted."""
    snn, images = dyadic("bias")
    genes = Genes(np.ones((1, len(snn.network.spiking))))
    with pytest.raises(UserError, match=r"float images must be pixels in \[0, 1\], but these go from 0 to 3"):
        percentiles(snn, images.astype(np.float32))
    with pytest.raises(UserError, match="there are 7 labels for 6 images"):
        observe(snn, genes, images, np.zeros(7, np.int32), timesteps=9)
    with pytest.raises(UserError, match=r"train is a ndarray, expected a dataset or a tuple \(images, labels\)"):
        evolve(snn, images)


def test_distillation_lowers_the_divergence():
    snn, images = dyadic("bias")
    snn = SNN(snn.network, snn.params | {"dense2.kernel": snn.params["dense2.kernel"] / 16})
    layers = len(snn.network.spiking)
    channels = of_genes(snn, Genes(np.full((1, layers), 4.0), np.full((1, layers), 0.1)))
    teacher = teacher_logits(snn, images)

    def loss(channels):
        folded, genes = fold_channels(snn, channels)
        return float(divergence(teacher, record(folded, genes, images, 3)[2][0, -1] / 3).mean())

    losses = []
    same, trained = distil(
        snn, channels, snn, images, Distillation(3, steps=60, batch=6, rate=0.02), lambda n, l: losses.append(l)
    )
    assert same.params is not None and len(losses) == 6 and losses[-1] < losses[0]
    assert loss(trained) < loss(channels) / 2
    weights, _ = distil(snn, channels, snn, images, Distillation(3, steps=2, batch=6, weights=True))
    assert not np.array_equal(weights.params["conv1.kernel"], snn.params["conv1.kernel"])
