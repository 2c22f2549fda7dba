"""Energy with memory and addressing: the analytical model of Lemaire et al. (2022), 32-bit integers in 45 nm.

E. Lemaire, L. Cordone, A. Castagnetti, P.-E. Novac, J. Courtois, B. Miramond: An analytical estimation of spiking
neural networks energy efficiency, ICONIP 2022. A spike is read from a queue, finds its outputs (two MACs and an
addition a weight), reads each weight, and reads and writes a membrane for each; every membrane is read and written
once more a step, and a spike that is sent costs an addition and a write. The first map is dense, and the ANN is
dense throughout. A byte costs what its buffer's size makes it cost. The formulas are those of SpikingJelly 2.0.0's
``estimate_lemaire_energy``, with which the tests compare them where it is installed, but that a dense first map is
computed once, its drive being constant. A pool passes spikes on and costs nothing; a max
pool is taken to pass all of them, which is an upper bound.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxsnn.analysis.operations import Activity, neurons
from jaxsnn.networks.description import IMAGE, Conv, Dense, Edge, Network, layer_shapes, output_shape

ADD, MULTIPLY = 0.1, 3.1
"""Picojoules of a 32-bit integer operation (Jouppi et al., 2021, after Horowitz)."""
WORD = 4
"""Bytes of a number."""
QUEUE = 1000
"""Spikes that a layer's queue holds, as in the paper's experiments."""
BUFFERS = (0, 8 * 1024, 32 * 1024, 1024 * 1024)
BYTE = (0.0, 10 / WORD, 20 / WORD, 100 / WORD)
"""Picojoules to read or write a byte of a buffer of so many bytes; linear between, constant above."""


def byte_cost(buffer: float) -> float:
    """Picojoules to read or write one byte of a buffer of so many bytes."""
    return float(np.interp(buffer, BUFFERS, BYTE))


@dataclass(frozen=True)
class _Map:
    """A convolution or dense map in its place: sizes of input, output, and the channels and kernel of a weight."""

    op: Conv | Dense
    source: int
    inputs: int
    outputs: int
    fan_in: int
    kernel: int
    spread: int

    @property
    def weights(self) -> int:
        """Buffer of the parameters in bytes."""
        return (self.op.features * (self.fan_in + self.op.bias)) * WORD

    @property
    def dense(self) -> float:
        """Picojoules of all products, once, without writing the output."""
        uses, biases = self.outputs * self.fan_in, self.outputs * self.op.bias
        conv = isinstance(self.op, Conv)
        addressed = self.inputs + self.outputs + (self.op.features * self.kernel if conv else 0)
        read = (uses if conv else self.inputs) * WORD * byte_cost(self.inputs * WORD)
        parameters = (uses + biases) * WORD * byte_cost(self.weights)
        return uses * (MULTIPLY + ADD) + (biases + addressed) * ADD + read + parameters

    def events(self, spikes: float, steps: float) -> float:
        """Picojoules of ``spikes`` over ``steps``."""
        groups = self.op.groups if isinstance(self.op, Conv) else 1
        touched = spikes * (self.op.features // groups) * self.kernel
        synops = spikes * (self.op.features // groups) * self.spread
        found = 2 * spikes * (MULTIPLY + ADD) if isinstance(self.op, Conv) else 0.0
        biases = self.outputs * self.op.bias * steps
        queue = spikes * WORD * byte_cost(QUEUE * WORD)
        parameters = (touched + biases) * WORD * byte_cost(self.weights)
        membranes = 2 * touched * WORD * byte_cost(self.outputs * WORD)
        return (synops + touched + biases) * ADD + found + queue + parameters + membranes


def _maps(network: Network) -> Iterator[_Map]:
    shapes = layer_shapes(network)
    for layer in network.layers:
        for edge in layer.edges:
            yield from _maps_of(edge, network.input_shape if edge.source == IMAGE else shapes[edge.source])


def _maps_of(edge: Edge, shape: tuple[int, ...]) -> Iterator[_Map]:
    for op in edge.ops:
        target = output_shape(op, shape)
        if isinstance(op, Conv):
            kernel = math.prod(op.taps.sides)
            spread = math.prod(-(-side // stride) for side, stride in zip(op.taps.sides, op.taps.strides))
            fan_in = shape[2] // op.groups * kernel
            yield _Map(op, edge.source, math.prod(shape), math.prod(target), fan_in, kernel, spread)
        elif isinstance(op, Dense):
            yield _Map(op, edge.source, math.prod(shape), op.features, math.prod(shape), 1, 1)
        shape = target


def ann_with_memory(network: Network) -> tuple[float, ...]:
    """Picojoules of the ANN for an image, by the layer that is read: the image, then each layer with a ReLU."""
    found = [0.0] * len(network.layers)
    for one in _maps(network):
        found[one.source + 1] += one.dense + one.outputs * WORD * byte_cost(one.outputs * WORD)
    return tuple(found)


def snn_with_memory(network: Network, activity: Activity) -> tuple[float, ...]:
    """Picojoules of the spiking network for an image, by the layer that sends, its own neurons among it."""
    sent = [
        2 * count * activity.steps * WORD * byte_cost(count * WORD)
        + spikes * (ADD + WORD * byte_cost(QUEUE * WORD))
        for count, spikes in zip(neurons(network), activity.spikes, strict=True)
    ]
    found = [0.0, *sent]
    for one in _maps(network):
        image = one.source == IMAGE
        found[one.source + 1] += one.dense if image else one.events(activity.spikes[one.source], activity.steps)
    return tuple(found)
