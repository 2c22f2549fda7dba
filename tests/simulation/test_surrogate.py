"""The simulator with a gradient: the same spikes, and the gradient of independent implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.networks import NETWORKS, dyadic_images, dyadic_snn, dyadic_thresholds
from jaxsnn.errors import UserError
from jaxsnn.networks.description import IMAGE, Dense, Edge, Layer, Network, shapes_of
from jaxsnn.networks.linear_maps import conv
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.simulation import surrogate
from jaxsnn.simulation.observe import record
from jaxsnn.simulation.surrogate import SURROGATES, float_pixels, spike, surrogate_scores

INTEGRALS = {
    "triangle": lambda u: jnp.where(
        u < 0, 0.5 * jnp.maximum(0.0, 1 + u) ** 2, 1 - 0.5 * jnp.maximum(0.0, 1 - u) ** 2
    ),
    "arctan": lambda u: jnp.arctan(jnp.pi * u) / jnp.pi + 0.5,
    "sigmoid": lambda u: jax.nn.sigmoid(4 * u),
}


def dense_snn():
    """Image -> 6 -> 5 -> 3 classes, dyadic, with biases: small enough for a gradient by hand; float pixels."""
    layers = tuple(
        Layer(name, (Edge(source, (Dense(name, features, bias=True),)),))
        for source, name, features in ((IMAGE, "a", 6), (0, "b", 5), (1, "c", 3))
    )
    network = Network("dense", (2, 2, 2), 3, layers, (0.0, 0.0), (1.0, 1.0))
    rng = np.random.default_rng(0)
    shapes = shapes_of(network)
    return SNN(network, {k: (rng.integers(-2, 4, s) / 4).astype(np.float32) for k, s in shapes.items()})


def float_images(count):
    """Dyadic float pixels for ``dense_snn``."""
    return np.random.default_rng(1).integers(0, 5, (count, 2, 2, 2)).astype(np.float32) / 4


def scores_of(snn, timesteps, **options):
    """``surrogate_scores`` of a network, compiled."""
    return jax.jit(
        lambda params, genes, images: surrogate_scores(snn.network, params, genes, images, timesteps, **options)
    )


def gradients(snn, timesteps, genes, images, weights, **options):
    """Gradient of sum(weights * scores) by parameters and genes, and by images if they are float."""
    scores = scores_of(snn, timesteps, **options)
    by = (0, 1) if images.dtype == np.uint8 else (0, 1, 2)
    return jax.jit(jax.grad(lambda *inputs: (weights * scores(*inputs)).sum(), by))(snn.params, genes, images)


@pytest.mark.parametrize("name, comparison", list(zip(NETWORKS, [">", ">=", ">", ">="])))
def test_scores_are_the_simulators_bit_for_bit(name, comparison):
    snn, images = dyadic_snn(name), dyadic_images(4)
    layers = len(snn.network.spiking)
    theta = dyadic_thresholds(layers).astype(np.float32)
    dynamics = Dynamics(comparison, "none")
    _, spikes, expected = record(snn, Genes(theta), images, 11, dynamics)
    assert all(s.any() for s in spikes)
    if comparison == ">":  # and float pixels are the uint8 images
        curve = scores_of(snn, 11, dynamics=dynamics, every_step=True)(
            snn.params, Genes(theta[0]), float_pixels(images)
        )
    else:
        delay = snn.network.delay
        options = {"dynamics": Dynamics(comparison), "checkpoint": True, "truncate": 3}
        curve = scores_of(snn, 11 + delay, every_step=True, **options)(snn.params, Genes(theta[0]), images)
        assert not curve[:delay].any()
        curve = curve[delay:]
    np.testing.assert_array_equal(curve, expected[0])


@pytest.mark.parametrize("kind", SURROGATES)
def test_the_derivative_of_a_spike_is_that_of_the_surrogates_integral(kind):
    """By the membrane and by the threshold, with gamma and the chain rule's 1 / theta; eq. 18 is the triangle."""
    v, theta = jnp.linspace(-1.0, 5.0, 50), jnp.float32(2.0)
    smooth = lambda v, theta: 0.15 * INTEGRALS[kind](v / theta - 1)  # noqa: E731
    cotangent = jnp.cos(jnp.arange(50.0))
    values, pull = jax.vjp(lambda v, theta: spike(v, theta, kind, 0.15), v, theta)
    np.testing.assert_array_equal(values, (v > 2).astype(jnp.float32))
    for mine, expected in zip(pull(cotangent), jax.vjp(smooth, v, theta)[1](cotangent)):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-6)
    peak = jax.grad(spike)(theta, theta, kind, 0.15)
    assert float(peak) == pytest.approx(0.15 / 2)


@pytest.mark.slow
def test_finite_differences_on_a_smoothed_cell(monkeypatch):
    """With spikes that are smooth, the network's gradient is what small changes of its inputs do."""
    monkeypatch.setattr(
        surrogate, "spike", lambda v, theta, kind, scale, comparison: scale * INTEGRALS[kind](v / theta - 1)
    )
    snn, rng = dyadic_snn("pool_after"), np.random.default_rng(1)
    images = float_pixels(dyadic_images(3))
    layers = len(snn.network.spiking)
    genes = Genes(
        dyadic_thresholds(layers)[0].astype(np.float32),
        np.full(layers, 0.3, np.float32),
        np.full(layers, 0.9, np.float32),
    )
    inputs = (snn.params, genes, images)
    scores = scores_of(snn, 6, kind="arctan", scale=0.5)
    value = jax.jit(lambda inputs: (scores(*inputs) ** 2).mean())
    gradient = jax.jit(jax.grad(value))(inputs)
    # one direction for the weights, one for each kind of gene, one for the images
    for chosen in ("params", "threshold", "v0", "leak", "images"):
        marks = (
            dict.fromkeys(snn.params, chosen == "params"),
            Genes(*(chosen == f for f in Genes._fields)),
            chosen == "images",
        )
        direction = jax.tree.map(
            lambda a, mark: (mark * rng.choice([-1.0, 1.0], a.shape)).astype(np.float32), inputs, marks
        )
        size = 1e-5 if chosen == "images" else 2e-3
        up, down = (jax.tree.map(lambda a, d, by=by: a + by * d, inputs, direction) for by in (size, -size))
        by_differences = float(value(up) - value(down)) / (2 * size)
        by_gradient = sum(float((g * d).sum()) for g, d in zip(*map(jax.tree.leaves, (gradient, direction))))
        assert by_gradient == pytest.approx(by_differences, rel=1e-2)


def by_hand(snn, genes, images, weights, timesteps, scale, window=None):
    """Gradient of sum(weights * scores) of ``dense_snn``, float64, by the chain rule written out.

    v[t] = leak p[t-1] + I[t];  s = (v > theta);  p = v - theta s;  I of the next layer = theta W s + b.
    """
    theta, v0, leak = (np.asarray(part, np.float64) for part in genes)
    kernels = [np.asarray(snn.params[f"{name}.kernel"], np.float64) for name in "abc"]
    biases = [np.asarray(snn.params[f"{name}.bias"], np.float64) for name in "abc"]
    x = images.reshape(len(images), -1).astype(np.float64)
    after = [np.full((len(x), 6), v0[0] * theta[0]), np.full((len(x), 5), v0[1] * theta[1])]
    steps = []
    for _ in range(timesteps):
        drive, rows = x @ kernels[0] + biases[0], []
        for layer in range(2):
            before, v = after[layer], leak[layer] * after[layer] + drive
            s = (v > theta[layer]).astype(float)
            after[layer] = v - theta[layer] * s
            rows.append((before, v, s))
            drive = theta[layer] * s @ kernels[layer + 1] + biases[layer + 1]
        steps.append(rows)
    d_kernels, d_biases = [np.zeros_like(k) for k in kernels], [np.zeros_like(b) for b in biases]
    d_theta, d_v0, d_leak, d_x = np.zeros(2), np.zeros(2), np.zeros(2), np.zeros_like(x)
    d_after = [np.zeros_like(a) for a in after]
    for t in reversed(range(timesteps)):
        d_drive = weights  # of the read-out, which is summed over time
        for layer in (1, 0):
            before, v, s = steps[t][layer]
            d_kernels[layer + 1] += theta[layer] * s.T @ d_drive
            d_biases[layer + 1] += d_drive.sum(0)
            d_amplitude = d_drive @ kernels[layer + 1].T
            d_s = theta[layer] * (d_amplitude - d_after[layer])
            d_u = d_s * scale * np.maximum(0, 1 - np.abs(v / theta[layer] - 1))
            d_v = d_after[layer] + d_u / theta[layer]
            d_theta[layer] += (s * (d_amplitude - d_after[layer]) - d_u * v / theta[layer] ** 2).sum()
            d_leak[layer] += (d_v * before).sum()
            d_after[layer] = leak[layer] * d_v
            d_drive = d_v
        d_kernels[0] += x.T @ d_drive
        d_biases[0] += d_drive.sum(0)
        d_x += d_drive @ kernels[0].T
        if window and t % window == 0 and t:  # what a window starts from is a constant
            d_after = [np.zeros_like(d) for d in d_after]
    for layer in range(2):
        d_v0[layer] = theta[layer] * d_after[layer].sum()
        d_theta[layer] += v0[layer] * d_after[layer].sum()
    params = {f"{n}.kernel": k for n, k in zip("abc", d_kernels)} | {
        f"{n}.bias": b for n, b in zip("abc", d_biases)
    }
    return params, Genes(d_theta, d_v0, d_leak), d_x.reshape(images.shape)


@pytest.mark.slow
@pytest.mark.parametrize("window, checkpoint", [(None, False), (None, True), (3, False), (3, True)])
def test_the_gradient_is_the_chain_rule_written_out(window, checkpoint):
    """By all that can be trained and by the image; over all of time or truncated, with checkpoints or not."""
    snn, images = dense_snn(), float_images(4)
    genes = Genes(np.float32([2.5, 1.25]), np.float32([0.5, 0.5]), np.float32([0.5, 0.5]))
    weights = np.random.default_rng(3).normal(size=(4, 3)).astype(np.float32)
    expected = by_hand(snn, genes, images, weights, 8, 0.5, window)
    mine = gradients(snn, 8, genes, images, weights, scale=0.5, truncate=window, checkpoint=checkpoint)
    for name, value in expected[0].items():
        np.testing.assert_allclose(mine[0][name], value, rtol=1e-5, atol=1e-5)
    for found, value in zip((*mine[1], mine[2]), (*expected[1], expected[2])):
        assert np.abs(value).max() > 0.1
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_checkpoints_save_memory():
    snn, images, genes = dense_snn(), float_images(64), Genes(np.float32([2.5, 1.25]))

    def temporaries(checkpoint):
        def loss(*inputs):
            return surrogate_scores(snn.network, *inputs, 41, checkpoint=checkpoint).var()

        compiled = jax.jit(jax.grad(loss, (0, 1))).lower(snn.params, genes, images).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(True) < 0.6 * temporaries(False)


@pytest.mark.parametrize("name", ["residual", "bias"])
def test_the_gradient_equals_spikingjellys(name):
    """Convolutions and pools by PyTorch, neurons and surrogate by SpikingJelly, to 1e-5 of the largest entry.

    SpikingJelly's neurons have threshold 1 and fire at it, so membranes there are divided by theta, which is exact
    for powers of two: the same function.
    """
    torch = pytest.importorskip("torch")
    neurons = pytest.importorskip("spikingjelly.activation_based.neuron")
    functions = pytest.importorskip("spikingjelly.activation_based.surrogate")
    snn, images = dyadic_snn(name), dyadic_images(3)
    network, layers = snn.network, len(snn.network.spiking)
    theta = np.float32([1, 0.5, 2, 1])
    params = {k: torch.tensor(np.asarray(v), requires_grad=True) for k, v in snn.params.items()}
    thresholds = torch.tensor(theta, requires_grad=True)
    cells = [
        neurons.IFNode(1.0, None, functions.PiecewiseQuadratic(1.0), detach_reset=False) for _ in range(layers)
    ]

    def apply(ops, x):
        for op in ops:
            match type(op).__name__:
                case "Conv":
                    x = torch.nn.functional.conv2d(
                        x,
                        params[f"{op.name}.kernel"].permute(3, 2, 0, 1),
                        params[f"{op.name}.bias"],
                        op.stride,
                        op.kernel // 2,
                    )
                case "Dense":
                    flat = x.permute(0, 2, 3, 1).reshape(len(x), -1) if x.ndim == 4 else x
                    x = flat @ params[f"{op.name}.kernel"] + params[f"{op.name}.bias"]
                case "AvgPool":
                    x = torch.nn.functional.avg_pool2d(x, op.window)
        return x

    x = torch.tensor(images.transpose(0, 3, 1, 2).astype(np.float32))
    total = 0.0
    for _ in range(7):
        spikes = []
        for index, layer in enumerate(network.layers):
            drive = sum(
                apply(e.ops, x if e.source == IMAGE else thresholds[e.source] * spikes[e.source])
                for e in layer.edges
            )
            if index < layers:
                spikes.append(cells[index](drive / thresholds[index]))
        total = total + drive
    weights = np.random.default_rng(3).normal(size=(3, 3)).astype(np.float32)
    (torch.tensor(weights) * total).sum().backward()

    options = {"scale": 1.0, "dynamics": Dynamics(">=", "none")}
    scores = scores_of(snn, 7, **options)(snn.params, Genes(theta), images)
    np.testing.assert_array_equal(scores, total.detach().numpy())
    mine, genes = gradients(snn, 7, Genes(theta), images, weights, **options)
    pairs = [(mine[k], params[k].grad.numpy()) for k in params] + [(genes.threshold, thresholds.grad.numpy())]
    for found, expected in pairs:
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_bfloat16_is_close_and_its_gradient_float32():
    snn, images, weights = dyadic_snn("pool_after"), dyadic_images(4), np.ones((4, 3), np.float32)
    genes = Genes(dyadic_thresholds(3)[0].astype(np.float32))
    exact, half = (
        gradients(snn, 7, genes, images, weights, precision=kind)[0] for kind in surrogate.GRADIENT_PRECISIONS
    )
    for name, value in exact.items():
        assert half[name].dtype == np.float32
        assert np.abs(half[name] - value).max() <= 0.03 * np.abs(value).max() + 1e-6


@pytest.mark.parametrize(
    "size, kernel, stride, padding",
    [
        ((8, 6), 3, 1, None),
        ((12, 11), 3, 2, None),
        ((8, 7), 3, 2, None),
        ((5, 5), 3, 2, 0),
        ((7, 9), 1, 2, 0),
        ((8, 8), 5, 3, None),
    ],
)
def test_the_gradient_of_a_convolution_is_xlas(size, kernel, stride, padding):
    """On a CPU it is written by hand, for speed, in two ways."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    weights = rng.normal(size=(kernel, kernel, 3, 4)).astype(np.float32)
    pad = (kernel // 2 if padding is None else padding,) * 2

    def plain(x, weights):
        return jax.lax.conv_general_dilated(
            x, weights, (stride, stride), (pad, pad), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    y, pull = jax.vjp(plain, x, weights)
    cotangent = rng.normal(size=y.shape).astype(np.float32)
    mine = jax.vjp(lambda x, weights: conv(x, weights, stride, padding), x, weights)[1](cotangent)
    for found, expected in zip(mine, pull(cotangent)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"timesteps": 0}, "timesteps is 0, expected at least 1"),
        ({"kind": "square"}, "surrogate is 'square', expected one of triangle, arctan, sigmoid"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"scale": float("inf")}, "scale is inf"),
        ({"truncate": 9}, "truncate is 9, expected 1 to 8"),
        ({"precision": "int8"}, "precision is 'int8'"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    snn = dense_snn()
    arguments = {"timesteps": 8} | options
    with pytest.raises(UserError, match=message):
        surrogate_scores(snn.network, snn.params, Genes(np.ones(2, np.float32)), float_images(1), **arguments)
