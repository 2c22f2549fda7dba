"""The named networks: published sizes, any width, classes and image size; shortcuts survive conversion."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from flax import nnx

from helpers.networks import PLAIN, dyadic_images
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.conversion.folding import fold
from jaxsnn.errors import UserError
from jaxsnn.networks.architectures import ARCHITECTURES, NORMS, architecture, resnet
from jaxsnn.networks.description import AvgPool, BatchNorm, Conv, Dense, ScaleNorm, layer_shapes, shapes_of, walk
from jaxsnn.networks.forward import ann_forward, preprocess
from jaxsnn.networks.spiking import SNN, Genes
from jaxsnn.networks.weights import embedded_path, load_weights
from jaxsnn.simulation.observe import record
from jaxsnn.training.ann import ANN


def parameters(network, kinds=("kernel", "bias", "scale")):
    """Number of trainable parameters."""
    return sum(math.prod(shape) for name, shape in shapes_of(network).items() if name.split(".")[-1] in kinds)


@pytest.mark.parametrize(
    "name, expected",
    [
        # He et al. count 0.27 M with parameter-free shortcuts; 1x1 projections with norms add 2,752
        ("resnet20", 269_722 + 2_752),
        # the usual PyTorch ResNet18 with a 3x3 stem and ten classes
        ("resnet18", 11_173_962),
        # thirteen convolutions of VGG16, then 512 x 4096 and 4096 x 10
        ("vgg15", 14_710_464 + 512 * 4096 + 40_960),
        ("vgg15-bn", 14_710_464 + 512 * 4096 + 40_960 + 2 * (4_224 + 4_096)),
        # torchvision's vgg16_bn on a 1x1 map with ten classes, its biases in front of norms left out
        ("vgg16-bn", 14_710_464 + 2 * 4_224 + 513 * 4096 + 4097 * 4096 + 40_970),
    ],
)
def test_published_sizes(name, expected):
    assert parameters(architecture(name)) == expected


def test_names_count_the_layers_with_weights():
    for name in ("vgg4", "vgg5", "vgg9", "vgg11", "vgg15", "vgg15-bn", "vgg16-bn", "resnet18", "resnet20"):
        network = architecture(name)
        maps = [
            op
            for _, _, op, _ in walk(network)
            if isinstance(op, Dense) or (isinstance(op, Conv) and op.kernel > 1)
        ]
        assert str(len(maps)) in name, name


def test_the_papers_network_has_no_bias_and_pools_in_front_of_the_activation():
    for name in ("vgg5", "vgg9", "vgg11", "vgg15"):
        network = architecture(name)
        assert all(key.endswith(".kernel") for key in shapes_of(network))
        assert not any(isinstance(layer.edges[0].ops[0], AvgPool) for layer in network.layers)


def test_the_embedded_network_is_the_named_one():
    stored, _, _ = load_weights(embedded_path())
    assert architecture("vgg8", mean=stored.mean, std=stored.std) == stored


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (64, 64, 3)])
def test_any_width_classes_and_image_size(name, shape):
    channels = shape[2]
    options = {"mean": (0.5,) * channels, "std": (0.2,) * channels, "input_shape": shape, "classes": 7}
    full, half = architecture(name, **options), architecture(name, width=0.5, **options)
    assert layer_shapes(half)[-1] == (7,) and half.input_shape == shape
    for one, two in zip(layer_shapes(full)[:-1], layer_shapes(half)[:-1]):
        assert one[:-1] == two[:-1] and one[-1] == 2 * two[-1]
    for norm in NORMS.values():
        norms = {type(op) for _, _, op, _ in walk(architecture(name, norm=norm, **options))}
        assert norms & {BatchNorm, ScaleNorm} == ({norm} if norm else set())


@pytest.mark.parametrize(
    "name, options, message",
    [
        (
            "resnet20",
            {"input_shape": (32, 24, 3)},
            "resnet20 averages over a square at its end: 32 x 24 is not one",
        ),
        (
            "vgg15",
            {"input_shape": (28, 32, 3)},
            "images of 28 x 32 must be square, or have sides that divide by 32",
        ),
        ("vgg15", {"width": 0}, "--width is 0, expected above 0"),
        ("vgg15", {"width": float("nan")}, "--width is nan"),
        ("resnet19", {}, "unknown network 'resnet19': did you mean resnet18"),
    ],
)
def test_what_does_not_go_is_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        architecture(name, **options)


@pytest.fixture(scope="module")
def small_resnet():
    """A residual network with an identity and a projection, everything in its norms off the start."""
    network = resnet([4, 6], 1, name="small", **PLAIN)
    ann = ANN(network, 0)
    rng = np.random.default_rng(0)
    state = nnx.state(ann)
    nnx.update(ann, jax.tree.map(lambda a: a + rng.uniform(0, 0.2, a.shape).astype(np.float32), state))
    return network, ann, {name: np.asarray(value) for name, value in ann.params().items()}


def test_a_residual_network_folds_and_becomes_its_ann_as_time_grows(small_resnet):
    """The folded network is the ANN; mean scores at T = 512 lie within 2 % of its logits."""
    network, ann, params = small_resnet
    images = dyadic_images(12, seed=5)
    expected = np.asarray(nnx.jit(lambda ann, x: ann(x))(ann, preprocess(network, images)))
    snn = SNN(*fold(network, params))
    logits = np.asarray(ann_forward(snn.network, snn.params, images)[-1])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    theta = calibrate(snn.network, snn.params, images).threshold(100.0)[None]
    _, _, scores = record(snn, Genes(theta), images, 512)
    errors = [np.abs(scores[0, t - 1] / t - logits).max() / np.abs(logits).max() for t in (32, 512)]
    assert errors[1] < 0.02 and errors[1] < errors[0] / 8


def test_folding_uses_the_norms_own_epsilon(small_resnet):
    """Some libraries add 1e-3 to the variance; with small variances that changes the function."""
    network, _, params = small_resnet
    params = {name: value * 1e-3 if name.endswith(".var") else value for name, value in params.items()}

    def with_epsilon(edge):
        ops = (dataclasses.replace(op, epsilon=1e-3) if isinstance(op, BatchNorm) else op for op in edge.ops)
        return dataclasses.replace(edge, ops=tuple(ops))

    layers = tuple(dataclasses.replace(l, edges=tuple(map(with_epsilon, l.edges))) for l in network.layers)
    changed = dataclasses.replace(network, layers=layers)
    first, second = fold(network, params)[1], fold(changed, params)[1]
    ratio = np.sqrt((params["bn1.var"] + 1e-5) / (params["bn1.var"] + 1e-3))
    np.testing.assert_allclose(second["conv1.kernel"], first["conv1.kernel"] * ratio, rtol=1e-5)
