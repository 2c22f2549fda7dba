"""Conversion keeps the function: folding, percentiles, eq. 6, and the SNN that becomes the ANN as T grows."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from helpers import reference
from helpers.networks import PLAIN, dyadic_images, dyadic_snn
from jaxsnn.conversion.calibration import BINS, calibrate
from jaxsnn.conversion.folding import fold
from jaxsnn.errors import UserError
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import (
    IMAGE,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Edge,
    Layer,
    Network,
    ScaleNorm,
    shapes_of,
    then,
    walk,
)
from jaxsnn.networks.forward import ann_forward, preprocess
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.simulation.observe import observe, record
from jaxsnn.training.ann import ANN


@functools.cache
def trained(norm):
    network = vgg([[8], [8, 12]], [10], name="n", norm=norm, dropout=0.2, **PLAIN)
    ann = ANN(network, 0)
    x = preprocess(network, dyadic_images(64))
    in_training = nnx.jit(lambda ann, x, key: ann(x, key))
    for step in range(20):
        in_training(ann, x, jax.random.key(step))
    rng = np.random.default_rng(0)
    state = nnx.state(ann, nnx.Param)
    nnx.update(ann, jax.tree.map(lambda a: a + 0.1 * rng.standard_normal(a.shape).astype(np.float32), state))
    return network, ann


def trained_like(norm):
    """A network whose norms have the statistics of some batches, with scales and biases off their start."""
    network, ann = trained(norm)
    return network, nnx.clone(ann)


forward = nnx.jit(lambda ann, x: ann(x))


@pytest.mark.slow
@pytest.mark.parametrize("norm", [BatchNorm, ScaleNorm, None])
def test_folding_keeps_the_function(norm):
    network, ann = trained_like(norm)
    folded, params = fold(network, {k: np.asarray(v) for k, v in ann.params().items()})
    images = dyadic_images(16, seed=5)
    expected = np.asarray(forward(ann, preprocess(network, images)))
    np.testing.assert_allclose(ann_forward(folded, params, images)[-1], expected, rtol=1e-4, atol=1e-4)
    assert all(isinstance(op, Conv | Dense) or op.__class__.__name__ == "AvgPool" for _, _, op, _ in walk(folded))
    has_bias = any(name.endswith(".bias") for name in params)
    assert has_bias == (norm is BatchNorm)


@pytest.mark.slow
def test_training_mode_uses_the_batch_and_moves_the_statistics():
    network, ann = trained_like(ScaleNorm)
    x = preprocess(network, dyadic_images(8))
    before = np.asarray(ann.ops["norm1"].var[...])
    in_training = nnx.jit(lambda ann, x, key: ann(x, key))
    first, second = (np.asarray(in_training(ann, x, jax.random.key(n))) for n in (0, 1))
    assert not np.allclose(first, second)  # dropout
    assert not np.array_equal(before, np.asarray(ann.ops["norm1"].var[...]))
    np.testing.assert_array_equal(np.asarray(forward(ann, x)), np.asarray(forward(ann, x)))


def test_a_norm_without_a_map_in_front_is_refused():
    network, ann = trained_like(ScaleNorm)
    layer = network.layers[0]
    edge = layer.edges[0]
    broken = edge.__class__(edge.source, edge.ops[::-1])
    network = network.__class__(
        **vars(network) | {"layers": (layer.__class__(layer.name, (broken,)), *network.layers[1:])}
    )
    with pytest.raises(UserError, match="layer conv1: norm1 has no convolution or dense map in front"):
        fold(network, {k: np.asarray(v) for k, v in ann.params().items()})


def of_layers(*layers, side=6):
    last = Layer("out", (Edge(len(layers) - 1, (Dense("out", 3),)),))
    return Network("n", (side, side, 2), 3, (*layers, last), PLAIN["mean"], PLAIN["std"])


def drawn(network, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(0.5, 1, shape).astype(np.float32) for name, shape in shapes_of(network).items()}


def test_norms_fold_into_grouped_and_dilated_maps():
    """The folded network is the trained one, per group of channels."""
    ops = (Conv("a", 8, (3, 1), groups=2, dilation=2, padding=((2, 2), (0, 0))), BatchNorm("n1"), AvgPool(3, 2, 1))
    network = of_layers(Layer("s", (Edge(IMAGE, (Conv("s", 4), BatchNorm("n0"))),)), Layer("a", (Edge(0, ops),)))
    params, images = drawn(network), dyadic_images(3, (6, 6, 2))
    ann = ANN(network, 0)
    ann.set_params(params)
    expected = np.asarray(forward(ann, preprocess(network, images)))
    np.testing.assert_allclose(ann_forward(*fold(network, params), images)[-1], expected, rtol=1e-4)


@pytest.mark.parametrize(
    "edges, message",
    [
        ((Edge(IMAGE, (Conv("a", 4), AvgPool(2, padding=1), BatchNorm("n"))),), "n cannot be folded past a pool"),
        (
            (Edge(IMAGE, (Conv("a", 4), BatchNorm("n"))), Edge(IMAGE, (Conv("a", 4),))),
            "n cannot be folded into a, which several edges share",
        ),
    ],
)
def test_a_norm_that_folding_would_change_is_refused(edges, message):
    network = of_layers(Layer("l", edges))
    with pytest.raises(UserError, match=f"layer l: {message}"):
        fold(network, drawn(network))


def test_a_cap_clips_the_ann_and_bounds_the_percentiles():
    """A threshold at the cap is the clip: as time grows the neurons pass on what the ANN does."""
    network = of_layers(Layer("a", (Edge(IMAGE, (Conv("a", 4, 1),)),), cap=2.0))
    snn, images = SNN(network, drawn(network)), dyadic_images(4, (6, 6, 2))
    active = np.clip(np.asarray(ann_forward(network, snn.params, images)[0]), 0, 2)
    assert (active == 2).any() and (active < 2).any()
    logits = active.reshape(4, -1) @ snn.params["out.kernel"]
    np.testing.assert_allclose(ann_forward(network, snn.params, images)[-1], logits, rtol=1e-5)
    calibration = calibrate(network, snn.params, images)
    top = calibration.threshold(100.0)
    np.testing.assert_array_equal(calibration.caps, [2.0])
    assert top == pytest.approx([2.0])
    _, _, scores = record(snn, Genes(top[None]), images, 256)
    np.testing.assert_allclose(scores[0, -1] / 256, logits, rtol=0.02)


def test_training_reaches_every_weight_of_grouped_and_shared_maps():
    """A gradient step lowers the loss, and a shared kernel is one array with one bias."""
    first = (Edge(0, (Conv("p", 2, 1, bias=True),)), Edge(1, ()))
    layers = (
        Layer("s", (Edge(IMAGE, (Conv("s", 2),)),), cap=6.0),
        Layer("d", (Edge(0, (Conv("d", 2, groups=2, padding=((0, 2), (1, 1))),)),)),
        Layer("e", then(first, Conv("e", 4, 1, bias=True))),
    )
    ann = ANN(of_layers(*layers), 0)
    x, labels = preprocess(ann.network, dyadic_images(16, (6, 6, 2))) / 4, np.arange(16) % 3

    @nnx.jit
    @nnx.value_and_grad
    def loss(ann):
        return -jax.nn.log_softmax(ann(x))[np.arange(16), labels].mean()

    before, slopes = loss(ann)
    flat = jax.tree.leaves(slopes)
    assert len(flat) == len(ann.params()) == 7 and all(np.abs(slope).max() > 0 for slope in flat)
    nnx.update(ann, jax.tree.map(lambda a, slope: a - 1e-3 * slope, nnx.state(ann, nnx.Param), slopes))
    assert loss(ann)[0] < before


def test_percentiles_equal_numpys_and_invert():
    network, ann = trained_like(ScaleNorm)
    folded, params = fold(network, {k: np.asarray(v) for k, v in ann.params().items()})
    images = dyadic_images(130, seed=3)
    calibration = calibrate(folded, params, images, batch=50)
    sums = ann_forward(folded, params, images)[:-1]
    for percentile in (90.0, 99.0, 99.7, 100.0):
        thresholds = calibration.threshold(percentile)
        for values, threshold, maximum in zip(sums, thresholds, calibration.maxima):
            values = np.maximum(np.asarray(values, np.float64), 0).ravel()
            # NumPy's percentile, with one rank and one bin of slack
            ranks = percentile + np.array([-100, 100]) / len(values)
            low, high = np.percentile(values, np.clip(ranks, 0, 100))
            assert low - maximum / BINS <= threshold <= high + maximum / BINS
    values = calibration.threshold(99.7)
    np.testing.assert_allclose(calibration.percentile(values), 99.7, atol=100 / BINS)
    both = calibration.threshold(np.array([[99.0] * len(values), [99.7] * len(values)]))
    np.testing.assert_array_equal(both[1], values)
    np.testing.assert_allclose(calibration.percentile(2 * calibration.maxima), 100)


def test_a_dead_layer_is_named():
    network, ann = trained_like(None)
    params = {k: np.asarray(v) for k, v in ann.params().items()} | {
        "conv2.kernel": np.zeros((3, 3, 8, 8), np.float32)
    }
    with pytest.raises(UserError, match="layer conv2 has a largest activation of 0"):
        calibrate(*fold(network, params), dyadic_images(4))


def test_one_layer_obeys_eq_6():
    """Spike counts of the first layer: clip(floor(T W x / theta), 0, T).

    With a constant current and subtractive reset the count is exact up to one spike: ">" leaves a membrane that
    is exactly at the threshold, and a count cannot be negative.
    """
    snn, images, steps = dyadic_snn("pool_before"), dyadic_images(8), 24
    theta = np.full((1, 5), 1.75)
    _, spikes, _ = record(snn, Genes(theta), images, steps)
    counts = spikes[0][0].sum(0)
    edge = snn.network.layers[0].edges[0]
    drive = reference.apply_edge(edge.ops, snn.params, images.astype(float), bias=True)
    expected = np.clip(np.floor(drive * steps / theta[0, 0]), 0, steps)
    assert np.abs(counts - expected).max() <= 1
    ties = (drive * steps % theta[0, 0] == 0) & (drive > 0)
    np.testing.assert_array_equal(counts[~ties], expected[~ties])


def test_the_snn_becomes_the_ann_as_time_grows():
    """Mean scores at T = 512 lie within 2 % of the ANN's logits, and their error falls with T.

    At the 100th percentile nothing is clipped on the calibration images themselves.
    """
    network, ann = trained_like(ScaleNorm)
    snn = SNN(*fold(network, {k: np.asarray(v) for k, v in ann.params().items()}))
    images = dyadic_images(24, seed=8)
    theta = calibrate(snn.network, snn.params, images).threshold(100.0)[None]
    logits = np.asarray(ann_forward(snn.network, snn.params, images)[-1])
    _, _, scores = record(snn, Genes(theta), images, 512)
    errors = [np.abs(scores[0, t - 1] / t - logits).max() / np.abs(logits).max() for t in (32, 128, 512)]
    assert errors[2] < 0.02 and errors[2] < errors[1] < errors[0]
    labels = logits.argmax(-1)
    observed = observe(snn, Genes(theta), images, labels, timesteps=512, dynamics=Dynamics(delay="none"))
    assert observed.accuracy[0, -1] == 1.0
