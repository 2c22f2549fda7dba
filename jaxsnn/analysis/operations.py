"""How many operations networks do for an image: multiplications of the ANN, and what spikes cause."""

import math
from dataclasses import dataclass

from jaxsnn.networks.description import IMAGE, Conv, Dense, Edge, Network, layer_shapes, output_shape
from jaxsnn.networks.linear_maps import tap_table


@dataclass(frozen=True)
class Activity:
    """What a spiking network does for an image, on average.

    Attributes:
        steps: that each layer acts, on average; a layer delay is not counted.
        spikes, synops: (L,) of each spiking layer, and the weights that these spikes drive.
    """

    steps: float
    spikes: tuple[float, ...]
    synops: tuple[float, ...]


def macs(network: Network) -> tuple[int, ...]:
    """Multiplications of the ANN for an image, by the layer that is read: the image, then each layer with a ReLU.

    Zeros of paddings are not multiplied.
    """
    shapes, found = layer_shapes(network), [0] * len(network.layers)
    for layer in network.layers:
        for edge in layer.edges:
            found[edge.source + 1] += _macs(
                edge, network.input_shape if edge.source == IMAGE else shapes[edge.source]
            )
    return tuple(found)


def _macs(edge: Edge, shape: tuple[int, ...]) -> int:
    total = 0
    for op in edge.ops:
        if isinstance(op, Conv | Dense):
            total += products(op, shape)
        shape = output_shape(op, shape)
    return total


def products(op: Conv | Dense, shape: tuple[int, ...]) -> int:
    """Inputs times the weights that each drives, for a map of an input of ``shape``."""
    if isinstance(op, Dense):
        return math.prod(shape) * op.features
    rows, columns = (int(tap_table(op.taps, axis, shape[axis]).sum()) for axis in (0, 1))
    return rows * columns * shape[2] // op.groups * op.features


def neurons(network: Network) -> tuple[int, ...]:
    """Neurons of each spiking layer."""
    return tuple(math.prod(shape) for shape in layer_shapes(network)[:-1])
