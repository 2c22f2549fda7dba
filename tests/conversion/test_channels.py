"""Numbers for each channel fold into grouped convolutions and into maps that several edges share."""

import numpy as np
import pytest

from helpers import reference
from helpers.networks import PLAIN, dyadic_images
from jaxsnn.conversion.channels import Channels, can_bias, fold_channels, of_genes
from jaxsnn.networks.description import (
    IMAGE,
    AvgPool,
    Conv,
    Dense,
    Edge,
    Layer,
    Network,
    layer_shapes,
    shapes_of,
    then,
)
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.spiking import SNN, Genes

STEPS = 6


def of_layers(*layers):
    last = Layer("out", (Edge(len(layers) - 1, (Dense("out", 3),)),))
    return Network("n", (6, 6, 2), 3, (*layers, last), PLAIN["mean"], PLAIN["std"])


STEM = Layer("s", (Edge(IMAGE, (Conv("s", 4, bias=True),)),), cap=6.0)
PROJECT = Edge(0, (Conv("p", 2, 1, bias=True),))
SHARED = (
    STEM,
    Layer("e", then((PROJECT,), Conv("e", 4, 1, bias=True))),
    Layer("f", then((PROJECT, Edge(1, (Conv("q", 2, 1),))), Conv("f", 4, bias=True))),
)
NETWORKS = {
    "depthwise": of_layers(STEM, Layer("d", (Edge(0, (Conv("d", 8, groups=4, bias=True),)),))),
    "grouped": of_layers(STEM, Layer("g", (Edge(0, (AvgPool(2, 1), Conv("g", 6, (1, 3), groups=2))),))),
    "shared": of_layers(*SHARED),
}


def unfolded(snn, channels, images):
    """Scores (T, B, classes) in float64 with the channels as they are."""
    v = [t * s for t, s in zip(channels.thresholds, channels.starts)]
    scores, curve = 0, []
    for _ in range(STEPS):
        outputs = []
        for index, layer in enumerate(snn.network.layers):
            drive = channels.biases[index]
            for edge in layer.edges:
                source = images.astype(float) if edge.source == IMAGE else outputs[edge.source]
                drive = drive + reference.apply_edge(edge.ops, snn.params, source, bias=True)
            if index < len(v):
                v[index] = v[index] + drive
                fired = v[index] > channels.thresholds[index]
                v[index] = v[index] - channels.thresholds[index] * fired
                outputs.append(fired * channels.amplitudes[index])
        scores = scores + drive
        curve.append(scores)
    return np.array(curve)


@pytest.mark.parametrize("name", NETWORKS)
def test_folding_is_exact(name):
    """Powers of two, so that every product is."""
    network, rng = NETWORKS[name], np.random.default_rng(0)
    params = {n: (rng.integers(-4, 5, s) / 8).astype(np.float32) for n, s in shapes_of(network).items()}
    widths = [shape[-1] for shape in layer_shapes(network)]
    powers = [[2.0 ** rng.integers(-1, 2, c) for c in widths[:-1]] for _ in range(2)]
    biases = [rng.integers(-2, 3, c) / 8 for c in widths]
    starts = [rng.integers(-1, 5, c) / 4 for c in widths[:-1]]
    snn, channels = SNN(network, params), Channels(*map(tuple, (*powers, biases, starts)))
    images = dyadic_images(4, (6, 6, 2))
    folded, genes = fold_channels(snn, channels)
    capped, *others = (layer.cap for layer in folded.network.layers)
    assert capped == 6.0 * genes.threshold[0, 0] / max(channels.amplitudes[0]) and not any(others)
    starts = [
        (genes.v0[0, i] + (folded.params[f"{layer.name}.start"] if layer.start else 0))
        for i, layer in enumerate(folded.network.spiking)
    ]
    theta = genes.threshold[0]
    widths = widths[:-1]
    plain = Channels(
        tuple(np.full(c, t) for c, t in zip(widths, theta)),
        tuple(np.full(c, t) for c, t in zip(widths, theta)),
        (0,) * (len(widths) + 1),
        tuple(starts),
    )
    expected = unfolded(snn, channels, images)
    assert len(np.unique(expected)) > 20
    np.testing.assert_array_equal(unfolded(folded, plain, images), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_alike_channels_leave_the_ann_as_it_was_with_its_clip(name):
    """ReLU6 in front, which many sums exceed."""
    network, rng = NETWORKS[name], np.random.default_rng(1)
    params = {n: rng.normal(0, 3, s).astype(np.float32) for n, s in shapes_of(network).items()}
    snn, images = SNN(network, params), dyadic_images(4, (6, 6, 2))
    genes = Genes(np.full((1, len(network.spiking)), 1.5))
    folded, _ = fold_channels(snn, of_genes(snn, genes))
    first, *_, scores = ann_forward(network, params, images)
    assert (first > 6).any() and folded.network.layers[0].cap == 6
    np.testing.assert_allclose(ann_forward(folded.network, folded.params, images)[-1], scores, rtol=1e-5)


def test_a_pool_that_counts_zeros_carries_no_bias():
    assert can_bias(Layer("a", (Edge(0, (AvgPool(2, padding=1), Conv("a", 4))),)))
    assert not can_bias(Layer("a", (Edge(0, (Conv("a", 4), AvgPool(2, padding=1))),)))
