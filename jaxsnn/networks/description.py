"""A network description that the ANN and the spiking network share.

A network is a tuple of layers. A layer sums linear maps (``Edge``) of earlier layers' outputs, or of the
image, and passes the sum through its activation: a ReLU in the ANN, integrate-and-fire neurons in the SNN. The
last layer has no activation: its sum is the class scores. A residual add is a layer with two edges; a pool
before the activation follows the convolution in its edge, a pool after it is at the start of the next edge.

Parameters are one flat dict of arrays named ``<op>.<parameter>``: convolution kernels are HWIO, dense kernels
are (inputs, outputs), images and activations are NHWC.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np

from jaxsnn.errors import UserError

T = TypeVar("T", bound=Any)
Params = dict[str, np.ndarray]
"""Parameters by name, on the host."""
Arrays = Mapping[str, np.ndarray | jax.Array]
"""Parameters by name, read only, on the host or on a device."""
EPSILON = 1e-5
"""Added to a norm's variance, in training and in folding, where the network does not say otherwise."""


IMAGE = -1
"""The ``source`` of an edge that reads the image."""


@dataclass(frozen=True)
class Conv:
    """A square convolution with zero padding ``kernel // 2``, no dilation and no groups."""

    name: str
    features: int
    kernel: int = 3
    stride: int = 1
    bias: bool = False


@dataclass(frozen=True)
class Dense:
    """A dense map of the flattened input (row-major over H, W, C)."""

    name: str
    features: int
    bias: bool = False


@dataclass(frozen=True)
class AvgPool:
    """Mean over disjoint ``window`` x ``window`` squares; the input must divide."""

    window: int = 2


@dataclass(frozen=True)
class BatchNorm:
    """Per-channel normalisation by mean and variance; folded into the map in front of it on conversion.

    ``epsilon`` is added to the variance: 1e-5 here and in PyTorch, other libraries take others.
    """

    name: str
    epsilon: float = EPSILON


@dataclass(frozen=True)
class ScaleNorm:
    """Per-channel division by the root mean square; folds like ``BatchNorm`` but adds no bias.

    The ANN trains the map in front of it with centred kernels (see ``jaxsnn.training.ann.ANN``).
    """

    name: str


@dataclass(frozen=True)
class Dropout:
    """Dropout while the ANN trains; nothing otherwise."""

    rate: float


WithParameters = Conv | Dense | BatchNorm | ScaleNorm
"""Ops that have parameters, and therefore a name."""
Op = WithParameters | AvgPool | Dropout


@dataclass(frozen=True)
class Edge:
    """Linear ``ops``, applied in order to the output of layer ``source`` (``IMAGE`` for the image)."""

    source: int
    ops: tuple[Op, ...]


@dataclass(frozen=True)
class Layer:
    """One layer: the sum of its edges, then the activation (none on the last layer).

    The activation is a ReLU; with ``levels`` the ANN's is quantised to so many steps up to a learned ceiling, the
    parameter ``<layer>.ceiling`` (``jaxsnn.networks.activations``). With ``start`` the neurons of each channel
    begin at a membrane of their own: the parameter ``<layer>.start``, a fraction of the threshold, is added to the
    gene v0. The ANN does not know of it.
    """

    name: str
    edges: tuple[Edge, ...]
    levels: int | None = None
    start: bool = False


@dataclass(frozen=True)
class Network:
    """Layers in the order of evaluation; the last one is the read-out.

    ``mean`` and ``std`` (per channel, of pixels in [0, 1]) normalise the image: they belong to the network
    because its weights mean nothing without them.
    """

    name: str
    input_shape: tuple[int, int, int]
    classes: int
    layers: tuple[Layer, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def spiking(self) -> tuple[Layer, ...]:
        """The layers with an activation; their number is the number of thresholds L."""
        return self.layers[:-1]

    @property
    def depths(self) -> tuple[int, ...]:
        """Number of spiking layers on the longest path from the image up to and including each layer."""
        depths: list[int] = []
        for index, layer in enumerate(self.layers):
            before = max(0 if edge.source == IMAGE else depths[edge.source] for edge in layer.edges)
            depths.append(before + (index < len(self.layers) - 1))
        return tuple(depths)

    @property
    def delay(self) -> int:
        """Steps from the image to the read-out when every spiking layer adds one (``delay="layer"``)."""
        return self.depths[-1]


def output_shape(op: Op, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one example after ``op``; raises ``UserError`` where the op does not fit."""
    match op:
        case Conv():
            if len(shape) != 3:
                raise UserError(f"convolution {op.name} needs an input (H, W, C), but gets one of shape {shape}")
            height, width, _ = shape
            padded = 2 * (op.kernel // 2) - op.kernel
            return (height + padded) // op.stride + 1, (width + padded) // op.stride + 1, op.features
        case Dense():
            return (op.features,)
        case AvgPool():
            if len(shape) != 3 or shape[0] % op.window or shape[1] % op.window:
                raise UserError(
                    f"a {op.window}x{op.window} average pool does not divide an input of shape {shape}"
                )
            return shape[0] // op.window, shape[1] // op.window, shape[2]
    return shape


def parameter_shapes(op: Op, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of ``op`` on an input of ``shape`` (without the batch)."""
    match op:
        case Conv():
            kernel = (op.kernel, op.kernel, shape[-1], op.features)
        case Dense():
            kernel = (math.prod(shape), op.features)
        case BatchNorm():
            return {f"{op.name}.{part}": (shape[-1],) for part in ("scale", "bias", "mean", "var")}
        case ScaleNorm():
            return {f"{op.name}.{part}": (shape[-1],) for part in ("scale", "var")}
        case _:
            return {}
    return {f"{op.name}.kernel": kernel} | ({f"{op.name}.bias": (op.features,)} if op.bias else {})


def walk(network: Network) -> list[tuple[Layer, Edge, Op, tuple[int, ...]]]:
    """Every op with its layer, its edge and the shape of its input, in the order of evaluation."""
    shapes: list[tuple[int, ...]] = []
    rows = []
    for layer in network.layers:
        ends = []
        for edge in layer.edges:
            if not IMAGE <= edge.source < len(shapes):
                raise UserError(f"layer {layer.name} reads layer {edge.source}, which does not come before it")
            shape = network.input_shape if edge.source == IMAGE else shapes[edge.source]
            for op in edge.ops:
                rows.append((layer, edge, op, shape))
                shape = output_shape(op, shape)
            ends.append(shape)
        if len(set(ends)) != 1:
            raise UserError(f"layer {layer.name}: its edges end in different shapes {ends}")
        shapes.append(ends[0])
    if shapes[-1] != (network.classes,):
        raise UserError(f"network {network.name} ends in shape {shapes[-1]}, expected ({network.classes},)")
    return rows


def layer_shapes(network: Network) -> tuple[tuple[int, ...], ...]:
    """Output shape of every layer, without the batch."""
    shapes = {layer.name: output_shape(op, shape) for layer, _, op, shape in walk(network)}
    return tuple(shapes[layer.name] for layer in network.layers)


def shapes_of(network: Network) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all parameters."""
    shapes: dict[str, tuple[int, ...]] = {}
    for _, _, op, shape in walk(network):
        shapes |= parameter_shapes(op, shape)
    starts = {
        f"{layer.name}.start": shape[-1:]
        for layer, shape in zip(network.spiking, layer_shapes(network))
        if layer.start
    }
    return shapes | {f"{layer.name}.ceiling": (1,) for layer in network.spiking if layer.levels} | starts


def run(network: Network, x: T, apply: Callable[[Edge, T], T], activation: Callable[[T], T]) -> list[T]:
    """Sums in front of the activation of every layer, for a batch ``x`` of normalised images.

    Args:
        apply: ``apply(edge, x)`` is the value of one edge.
        activation: what a layer does to its sum.
    """
    outputs, sums = [], []
    for layer in network.layers:
        values = [apply(edge, x if edge.source == IMAGE else outputs[edge.source]) for edge in layer.edges]
        sums.append(sum(values[1:], start=values[0]))
        outputs.append(activation(sums[-1]))
    return sums
