"""Small networks for the tests. Dyadic ones have weights, biases, thresholds and inputs that are small multiples
of powers of two, so that every sum is exact in float32 and every path must agree bit for bit."""

import dataclasses

import numpy as np
import pytest

from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import IMAGE, AvgPool, Conv, Dense, Edge, Layer, Network, shapes_of
from jaxsnn.networks.spiking import SNN
from jaxsnn.networks.weights import save_weights
from jaxsnn.simulation.events.lowering import available

BACKENDS = [
    "xla",
    pytest.param("events", marks=pytest.mark.skipif(not available(), reason="Numba is not installed")),
]


PLAIN = {"mean": (0.0, 0.0), "std": (1 / 255.0, 1 / 255.0), "classes": 3, "input_shape": (8, 8, 2)}


def residual(bias=True):
    """Two edges into one layer, an identity and a strided shortcut, over paths of different depth."""
    layers = (
        Layer("a", (Edge(IMAGE, (Conv("a", 4, bias=bias),)),)),
        Layer("b", (Edge(0, (Conv("b", 4, bias=bias),)),)),
        Layer("c", (Edge(1, (Conv("c", 4, bias=bias),)), Edge(0, ()))),
        Layer("d", (Edge(2, (Conv("d1", 6, stride=2, bias=bias),)), Edge(2, (Conv("d2", 6, 1, 2, bias=bias),)))),
        Layer("e", (Edge(3, (AvgPool(4), Dense("e", 3, bias=bias))),)),
    )
    return Network("residual", (8, 8, 2), 3, layers, PLAIN["mean"], PLAIN["std"])


def with_bias(network):
    """The same network with a bias on every map."""

    def edge(e):
        return Edge(e.source, tuple(dataclasses.replace(o, bias=True) if hasattr(o, "bias") else o for o in e.ops))

    layers = tuple(Layer(l.name, tuple(edge(e) for e in l.edges)) for l in network.layers)
    return dataclasses.replace(network, layers=layers)


NETWORKS = {
    "pool_before": vgg([[4], [4, 6], [6]], [5], name="pool_before", pool="before", **PLAIN),
    "pool_after": vgg([[4], [6, 6]], [], name="pool_after", pool="after", **PLAIN),
    "bias": with_bias(vgg([[4], [4, 6]], [5], name="bias", pool="before", **PLAIN)),
    "residual": residual(),
}


def save_tiny(folder):
    """Path of the weights of a small random network for the embedded images, written into ``folder``."""
    network = vgg([[4], [4]], name="tiny", mean=(0.5,) * 3, std=(0.25,) * 3)
    rng = np.random.default_rng(0)
    params = {
        name: (rng.normal(size=shape) * (3 / np.prod(shape[:-1])) ** 0.5).astype(np.float32)
        for name, shape in shapes_of(network).items()
    }
    path = folder / "tiny.safetensors"
    save_weights(path, network, params)
    return path


def dyadic_snn(name, seed=0):
    """A network of ``NETWORKS`` with weights in {-2..2} / 4 and biases in {-1, 0, 1} / 4."""
    network = NETWORKS[name]
    rng = np.random.default_rng(seed)
    params = {}
    for key, shape in shapes_of(network).items():
        limit = 2 if key.endswith("kernel") else 1
        params[key] = (rng.integers(-limit, limit + 1, shape) / 4).astype(np.float32)
    return SNN(network, params)


def dyadic_images(count, shape=(8, 8, 2), seed=1):
    """uint8 images of small integers: ``PLAIN`` normalises them to themselves."""
    return np.random.default_rng(seed).integers(0, 4, (count, *shape), dtype=np.uint8)


def dyadic_thresholds(layers, candidates=1, seed=2):
    """Thresholds in {2..8} / 4, (candidates, layers)."""
    return np.random.default_rng(seed).integers(2, 9, (candidates, layers)) / 4


def with_all_ops(even):
    """Rectangular, dilated, depthwise, overlapping and padded pools, a shortcut; unless ``even``, a padding that
    differs between the sides."""
    padding = ((0, 0), (1, 1) if even else (2, 1))
    layers = (
        Layer("a", (Edge(IMAGE, (Conv("a", 4, (1, 3), bias=True, padding=padding),)),)),
        Layer("b", (Edge(0, (Conv("b", 4, 3, dilation=2, groups=4, bias=True), AvgPool(3, 2, 1))),)),
        Layer("c", (Edge(1, (Conv("c", 4, bias=True),)), Edge(1, ()))),
        Layer("d", (Edge(2, (AvgPool((3, 2)), Dense("d", 3, bias=True))),)),
    )
    return Network("all ops", (8, 6, 2), 3, layers, PLAIN["mean"], PLAIN["std"])


def random_snn(network, seed=0, starts=True):
    """Random weights that make every layer fire, and unless not ``starts``, an initial membrane a channel."""
    if starts:
        spiking = (dataclasses.replace(layer, start=True) for layer in network.spiking)
        network = dataclasses.replace(network, layers=(*spiking, network.layers[-1]))
    rng = np.random.default_rng(seed)
    params = {}
    for key, shape in shapes_of(network).items():
        kernel = key.endswith("kernel")
        drawn = rng.normal(0.05, np.prod(shape[:-1]) ** -0.5, shape) if kernel else rng.uniform(-0.4, 0.5, shape)
        params[key] = drawn.astype(np.float32)
    return SNN(network, params)


WIDE = {
    "pool before": with_bias(vgg([[32], [32, 64]], [64], name="wide", pool="before", **PLAIN)),
    "pool after": vgg([[32, 32], [32]], [32], name="wide", pool="after", **PLAIN),
}
"""Networks whose channels are enough for the kernels of accelerators."""


def wide_snn(name):
    """One of ``WIDE`` with dyadic weights."""
    network = WIDE[name]
    rng = np.random.default_rng(0)
    return SNN(
        network,
        {key: (rng.integers(-2, 3, shape) / 4).astype(np.float32) for key, shape in shapes_of(network).items()},
    )
