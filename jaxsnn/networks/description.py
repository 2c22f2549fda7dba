"""A network description that the ANN and the spiking network share.

A network is a tuple of layers. A layer sums linear maps (``Edge``) of earlier layers' outputs, or of the
image, and passes the sum through its activation: a ReLU in the ANN, integrate-and-fire neurons in the SNN. The
last layer has no activation: its sum is the class scores. A residual add is a layer with two edges; a pool
before the activation follows the convolution in its edge, a pool after it is at the start of the next edge. A max
pool is not linear and stands first in an edge that reads a layer (``jaxsnn.networks.senders``).

Whatever is linear needs no op of its own. A map of a sum without an activation between (the linear bottleneck of
MobileNetV2) is the sum of its maps: the op stands at the end of several edges, under one name, which shares its
kernel, and with its bias in the first of them only (``then``). A map of concatenated channels is the sum of maps
of its parts, with the kernel cut into them. A norm that stands alone is a 1x1 convolution with as many groups as
channels.

Parameters are one flat dict of arrays named ``<op>.<parameter>``: convolution kernels are HWIO, dense kernels
are (inputs, outputs), images and activations are NHWC.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import jax
import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.taps import Pads, Pair, Taps, check_pads, check_sizes, pads_of, pair, short, short_pads

T = TypeVar("T", bound=Any)
Params = dict[str, np.ndarray]
"""Parameters by name, on the host."""
Arrays = Mapping[str, np.ndarray | jax.Array]
"""Parameters by name, read only, on the host or on a device."""
EPSILON = 1e-5
"""Added to a norm's variance, in training and in folding, where the network does not say otherwise."""


LONGEST_NAME = 100
"""Characters of the name of a network, a layer or an op."""


MOST_VALUES = 1 << 30
"""Of one op on one example: a description must not ask for memory by its padding alone."""


IMAGE = -1
"""The ``source`` of an edge that reads the image."""


def _set(op: Any, **values: Any) -> None:
    """Write fields of a frozen dataclass while it is made."""
    for name, value in values.items():
        object.__setattr__(op, name, value)


@dataclass(frozen=True)
class Conv:
    """A convolution with a kernel (h, w, channels / groups, features).

    ``kernel``, ``stride`` and ``dilation`` are one number, or two for rows and columns; ``padding`` is one number
    or ((top, bottom), (left, right)), of zeros, and half of the kernel (``kernel // 2``) where it is None. Output
    features are in ``groups`` equal parts in a row, each of which sees its part of the input channels; as many
    groups as channels make a depthwise convolution.
    """

    name: str
    features: int
    kernel: int | Pair = 3
    stride: int | Pair = 1
    bias: bool = False
    padding: int | Pads | None = None
    dilation: int | Pair = 1
    groups: int = 1

    def __post_init__(self):
        check_sizes("Conv", 1, kernel=self.kernel, stride=self.stride, dilation=self.dilation, groups=self.groups)
        usual = tuple((side // 2, side // 2) for side in pair(self.kernel))
        if self.padding is not None:
            check_pads("Conv", self.padding)
            _set(self, padding=None if pads_of(self.padding) == usual else short_pads(self.padding))
        _set(self, kernel=short(self.kernel), stride=short(self.stride), dilation=short(self.dilation))

    @property
    def taps(self) -> Taps:
        """What each output position reads."""
        high, wide = sides = pair(self.kernel)
        usual = (high // 2, high // 2), (wide // 2, wide // 2)
        pads = usual if self.padding is None else pads_of(self.padding)
        return Taps(sides, pair(self.stride), pads, pair(self.dilation))

    @property
    def plain(self) -> bool:
        """Whether kernel and stride are square, the padding is half of the kernel, and there is nothing else."""
        square = isinstance(self.kernel, int) and isinstance(self.stride, int) and self.padding is None
        return square and self.dilation == self.groups == 1


@dataclass(frozen=True)
class Dense:
    """A dense map of the flattened input (row-major over H, W, C)."""

    name: str
    features: int
    bias: bool = False


@dataclass(frozen=True)
class AvgPool:
    """Mean over windows of one number of rows and columns, or of two; the whole input makes a global pool.

    ``stride`` is the window where it is None. What is left over at the end of an input that does not divide is
    not read. ``padding`` as in ``Conv``; with ``count_padding`` its zeros count in the mean, as in PyTorch, and
    without it the mean is over the positions of the input alone.
    """

    window: int | Pair = 2
    stride: int | Pair | None = None
    padding: int | Pads = 0
    count_padding: bool = True

    def __post_init__(self):
        _check_window(self)
        _set(self, count_padding=self.count_padding or self.padding == 0)

    @property
    def taps(self) -> Taps:
        """What each output position reads."""
        return _taps_of(self)

    @property
    def plain(self) -> bool:
        """Whether the windows are disjoint squares without padding."""
        return isinstance(self.window, int) and self.stride is None and self.padding == 0


@dataclass(frozen=True)
class MaxPool:
    """Largest value of each window; ``window``, ``stride`` and ``padding`` as in ``AvgPool``. Padding never is it.

    Spiking neurons have gates in its place (``jaxsnn.networks.senders``).
    """

    window: int | Pair = 2
    stride: int | Pair | None = None
    padding: int | Pads = 0

    def __post_init__(self):
        _check_window(self)

    @property
    def taps(self) -> Taps:
        """What each output position reads."""
        return _taps_of(self)


def _check_window(op: AvgPool | MaxPool) -> None:
    """Check the sizes of a pool, and write equal ones in one way."""
    name = type(op).__name__
    check_sizes(name, 1, window=op.window)
    check_pads(name, op.padding)
    stride = None
    if op.stride is not None:
        check_sizes(name, 1, stride=op.stride)
        stride = None if pair(op.stride) == pair(op.window) else short(op.stride)
    for side, pads in zip(pair(op.window), pads_of(op.padding)):
        if max(pads) >= side:
            raise UserError(f"padding of {name} is {op.padding!r}, expected less than its window")
    _set(op, window=short(op.window), stride=stride, padding=short_pads(op.padding))


def _taps_of(op: AvgPool | MaxPool) -> Taps:
    sides = pair(op.window)
    return Taps(sides, sides if op.stride is None else pair(op.stride), pads_of(op.padding))


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
Op = WithParameters | AvgPool | MaxPool | Dropout


@dataclass(frozen=True)
class Edge:
    """``ops``, applied in order to the output of layer ``source`` (``IMAGE`` for the image); linear but for a max
    pool in front."""

    source: int
    ops: tuple[Op, ...]

    @property
    def max_pool(self) -> MaxPool | None:
        """The max pool in front, if there is one."""
        return self.ops[0] if self.ops and isinstance(self.ops[0], MaxPool) else None

    @property
    def linear(self) -> tuple[Op, ...]:
        """The ops behind it."""
        return self.ops if self.max_pool is None else self.ops[1:]


def then(edges: tuple[Edge, ...], *ops: Op) -> tuple[Edge, ...]:
    """Edges whose sum is ``ops`` of the sum of ``edges``, linear ops: biases stay in the first edge alone."""
    plain = [replace(op, bias=False) if isinstance(op, Conv | Dense) else op for op in ops]
    first, *rest = edges
    grown = (Edge(edge.source, (*edge.ops, *plain)) for edge in rest)
    return Edge(first.source, (*first.ops, *ops)), *grown


@dataclass(frozen=True)
class Layer:
    """One layer: the sum of its edges, then the activation (none on the last layer).

    The activation is a ReLU; with ``levels`` the ANN's is quantised to so many steps up to a learned ceiling, the
    parameter ``<layer>.ceiling`` (``jaxsnn.networks.activations``). With ``start`` the neurons of each channel
    begin at a membrane of their own: the parameter ``<layer>.start``, a fraction of the threshold, is added to the
    gene v0. The ANN does not know of it. With ``cap`` the ANN's activation is clipped there (6 for ReLU6). Neurons
    need nothing for it: one that fires at most once a step passes on at most its threshold, so that a threshold of
    ``cap`` is the clip, and percentiles of the clipped activations are below. Above it the clip is lost. Where a
    network is folded from channels that are unlike, ``cap`` is the least of theirs.
    A layer with ``levels`` has no cap: its ceiling is one.
    """

    name: str
    edges: tuple[Edge, ...]
    levels: int | None = None
    start: bool = False
    cap: float | None = None

    def __post_init__(self):
        if self.cap is not None and self.levels is not None:
            raise UserError(
                f"layer {self.name}: cap is {self.cap!r} and levels is {self.levels!r}, but quantised activations "
                "have a ceiling of their own: choose one, a clipped ReLU (as ReLU6) or quantised activations"
            )


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


def is_name(text: Any) -> bool:
    """Whether a text from a file may be a name: printable, and short enough to be printed."""
    return isinstance(text, str) and text.isprintable() and len(text) <= LONGEST_NAME


def output_shape(op: Op, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one example after ``op``; raises ``UserError`` where the op does not fit."""
    match op:
        case Conv():
            what, features = f"convolution {op.name}", op.features
            if len(shape) == 3 and (shape[2] % op.groups or op.features % op.groups):
                raise UserError(
                    f"{what} divides {shape[2]} channels and {op.features} features into {op.groups} groups: "
                    "both must divide"
                )
        case AvgPool() | MaxPool():
            high, wide = pair(op.window)
            kind = "average" if isinstance(op, AvgPool) else "max"
            what, features = f"a {high}x{wide} {kind} pool", shape[-1]
        case Dense():
            return (op.features,)
        case _:
            return shape
    if len(shape) != 3:
        raise UserError(f"{what} needs an input (H, W, C), but gets one of shape {shape}")
    height, width = op.taps.target((shape[0], shape[1]))
    if min(height, width) < 1:
        raise UserError(f"{what} does not fit into an input of shape {shape}")
    if height * width * features > MOST_VALUES:
        raise UserError(
            f"{what} makes {height} x {width} x {features} values of an input of shape {shape}: too many"
        )
    return height, width, features


def parameter_shapes(op: Op, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of ``op`` on an input of ``shape`` (without the batch)."""
    match op:
        case Conv():
            kernel = (*pair(op.kernel), shape[-1] // op.groups, op.features)
        case Dense():
            kernel = (math.prod(shape), op.features)
        case BatchNorm():
            return {f"{op.name}.{part}": (shape[-1],) for part in ("scale", "bias", "mean", "var")}
        case ScaleNorm():
            return {f"{op.name}.{part}": (shape[-1],) for part in ("scale", "var")}
        case _:
            return {}
    return {f"{op.name}.kernel": kernel} | ({f"{op.name}.bias": (op.features,)} if op.bias else {})


def source_shape(network: Network, shapes: Sequence[tuple[int, ...]], edge: Edge) -> tuple[int, ...]:
    """Shape of what an edge reads, ``shapes`` being those of the layers' outputs."""
    return network.input_shape if edge.source == IMAGE else shapes[edge.source]


def walk(network: Network) -> list[tuple[Layer, Edge, Op, tuple[int, ...]]]:
    """Every op with its layer, its edge and the shape of its input, in the order of evaluation."""
    shapes: list[tuple[int, ...]] = []
    rows = []
    for layer in network.layers:
        ends = []
        for edge in layer.edges:
            if not IMAGE <= edge.source < len(shapes):
                raise UserError(f"layer {layer.name} reads layer {edge.source}, which does not come before it")
            shape = source_shape(network, shapes, edge)
            late = any(isinstance(op, MaxPool) for op in edge.linear)
            if late or (edge.max_pool is not None and edge.source == IMAGE):
                raise UserError(
                    f"layer {layer.name} has a max pool {'behind other ops' if late else 'of the image'}: it must "
                    "stand first in an edge that reads a layer, where it chooses among that layer's spikes"
                )
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
    walk(network)  # which compares the edges of each layer
    shapes: list[tuple[int, ...]] = []
    for layer in network.layers:
        shape = source_shape(network, shapes, layer.edges[0])
        for op in layer.edges[0].ops:
            shape = output_shape(op, shape)
        shapes.append(shape)
    return tuple(shapes)


def shapes_of(network: Network) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all parameters."""
    shapes: dict[str, tuple[int, ...]] = {}
    for _, _, op, shape in walk(network):
        for name, found in parameter_shapes(op, shape).items():
            if shapes.setdefault(name, found) != found:
                raise UserError(f"{name} is used with shapes {shapes[name]} and {found}")
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
