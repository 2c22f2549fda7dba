"""A network description that the ANN and the spiking network share.

A network is a tuple of layers. A layer sums linear maps (``Edge``) of earlier layers' outputs, or of the
image, and passes the sum through its activation: a ReLU in the ANN, integrate-and-fire neurons in the SNN. The
last layer has no activation: its sum is the class scores. A residual add is a layer with two edges; a pool
before the activation stands behind the convolution in its edge, a pool after it at the start of the next edge.

Parameters are one flat dict of arrays named ``<op>.<parameter>``: convolution kernels are HWIO, dense kernels
are (inputs, outputs), images and activations are NHWC.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields

from jaxsnn.errors import UserError

EPSILON = 1e-5
"""Added to a norm's variance, in training and in folding, where the network does not say otherwise."""

MOST_LEVELS = 1 << 16
"""Steps of a quantised activation: what float32 tells apart with room to spare."""
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
    """Per-channel division by the root mean square; folds like ``BatchNorm`` but leaves no bias behind.

    The ANN trains the map in front of it with centred kernels (see ``jaxsnn.ann.ANN``).
    """

    name: str


@dataclass(frozen=True)
class Dropout:
    """Dropout while the ANN trains; nothing otherwise."""

    rate: float


Op = Conv | Dense | AvgPool | BatchNorm | ScaleNorm | Dropout
_OPS = {op.__name__: op for op in (Conv, Dense, AvgPool, BatchNorm, ScaleNorm, Dropout)}


@dataclass(frozen=True)
class Edge:
    """Linear ``ops``, applied in order to the output of layer ``source`` (``IMAGE`` for the image)."""

    source: int
    ops: tuple[Op, ...]


@dataclass(frozen=True)
class Layer:
    """One layer: the sum of its edges, then the activation (none on the last layer).

    The activation is a ReLU; with ``levels`` the ANN's is quantised to so many steps up to a learned ceiling, the
    parameter ``<layer>.ceiling`` (``jaxsnn.activation``).
    """

    name: str
    edges: tuple[Edge, ...]
    levels: int | None = None


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
    """Shape of one example behind ``op``; raises ``UserError`` where the op does not fit."""
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
    return shapes | {f"{layer.name}.ceiling": (1,) for layer in network.spiking if layer.levels}


def run(network: Network, x, apply: Callable, activation: Callable) -> list:
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


def vgg(
    blocks: Sequence[Sequence[int]],
    dense: Sequence[int] = (),
    *,
    name: str,
    classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    norm: type[BatchNorm] | type[ScaleNorm] | None = None,
    pool: str = "before",
    windows: Sequence[int] | None = None,
    dropout: float = 0.0,
    mean: Sequence[float] = (0.4914, 0.4822, 0.4465),
    std: Sequence[float] = (0.247, 0.2435, 0.2616),
) -> Network:
    """A VGG: blocks of 3x3 convolutions, each block ending in an average pool, then dense layers.

    Args:
        blocks: features of the convolutions, block by block.
        dense: features of the hidden dense layers.
        norm: normalisation behind every map but the last, or none.
        pool: "before" the activation (conv, pool, ReLU; the paper's VGG15) or "after" it.
        windows: window of each block's pool, 1 for none; 2 unless given.
        dropout: rate in front of every dense layer.
    """
    layers: list[Layer] = []
    pending: tuple[Op, ...] = ()

    def add(op: Op, *behind: Op) -> None:
        nonlocal pending
        normed = (norm(f"norm{len(layers) + 1}"),) if norm else ()
        layers.append(Layer(op.name, (Edge(len(layers) - 1, (*pending, op, *behind, *normed)),)))
        pending = ()

    for block, window in zip(blocks, windows or [2] * len(blocks)):
        for position, features in enumerate(block):
            op = Conv(f"conv{len(layers) + 1}", features)
            pools = (AvgPool(window),) if position == len(block) - 1 and window > 1 else ()
            add(op, *(pools if pool == "before" else ()))
            if pool == "after":
                pending = pools
    drop = (Dropout(dropout),) if dropout else ()
    for index, features in enumerate(dense):
        pending += drop
        add(Dense(f"dense{index + 1}", features))
    readout = Dense(f"dense{len(dense) + 1}", classes)
    layers.append(Layer(readout.name, (Edge(len(layers) - 1, (*pending, *drop, readout)),)))
    return Network(name, tuple(input_shape), classes, tuple(layers), tuple(mean), tuple(std))


def to_json(network: Network) -> str:
    """The description as JSON; ``from_json`` is its inverse."""

    def op_fields(op: Op) -> dict:
        return {"op": type(op).__name__} | asdict(op)

    layers = [
        {
            "name": layer.name,
            "edges": [{"source": e.source, "ops": [op_fields(op) for op in e.ops]} for e in layer.edges],
            "levels": layer.levels,
        }
        for layer in network.layers
    ]
    return json.dumps(asdict(network) | {"layers": layers})


def from_json(text: str) -> Network:
    """A network from its JSON description; raises ``UserError`` where it is not one.

    Fields of an op that have a default may be left out.
    """
    try:
        raw = json.loads(text)
        layers = tuple(
            Layer(
                layer["name"],
                tuple(
                    Edge(e["source"], tuple(_read_op(op, layer["name"]) for op in e["ops"]))
                    for e in layer["edges"]
                ),
                layer.get("levels"),
            )
            for layer in raw["layers"]
        )
        _check_types(raw, layers)
        _check_names(layers)
        _check_levels(layers)
        network = Network(
            raw["name"],
            tuple(raw["input_shape"]),
            raw["classes"],
            layers,
            tuple(raw["mean"]),
            tuple(raw["std"]),
        )
        walk(network)
        channels = network.input_shape[2]
        if len(network.mean) != channels or len(network.std) != channels or not all(s > 0 for s in network.std):
            raise UserError(f"mean and std need {channels} numbers each, std above 0")
    except KeyError as error:
        raise UserError(f"not a network description: {error} is missing") from error
    except (TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError, RecursionError) as error:
        raise UserError(f"not a network description: {error}") from error
    return network


def _read_op(item: dict, layer: str) -> Op:
    kind = item["op"]
    if kind not in _OPS:
        why = (
            "spiking neurons cannot compute a maximum exactly, put AvgPool there and train again"
            if "max" in str(kind).lower()
            else f"the ops are {', '.join(_OPS)}"
        )
        raise UserError(f"layer {layer} has the op {kind!r}, which cannot be converted: {why}")
    op = _OPS[kind](**{key: value for key, value in item.items() if key != "op"})
    for field in fields(op):
        value = getattr(op, field.name)
        good = isinstance(value, int | float if field.type is float else field.type)
        if field.type in (int, float):
            good = good and not isinstance(value, bool) and 0 <= value < math.inf
            good = good and (value > 0 or field.type is float)
        if not good:
            raise UserError(f"layer {layer}: {field.name} of {kind} is {value!r}")
    return op


def _check_types(raw: dict, layers: Sequence[Layer]) -> None:
    """A number with a point, which equals a whole one, would be taken for a size and fail much later."""

    def whole(values: Sequence) -> bool:
        return all(type(value) is int and value > 0 for value in values)

    sources = [edge.source for layer in layers for edge in layer.edges]
    if not whole([*raw["input_shape"], raw["classes"]]) or len(raw["input_shape"]) != 3:
        raise UserError(
            f"input_shape is {raw['input_shape']!r} and classes {raw['classes']!r}, expected whole sizes"
        )
    if not all(type(source) is int for source in sources):
        raise UserError(f"the sources of the edges are {sources!r}, expected numbers of layers")
    for name in (raw["name"], *(layer.name for layer in layers)):
        if type(name) is not str or not name.isprintable():
            raise UserError(f"a name is {name!r}, expected printable text")
    for value in (*raw["mean"], *raw["std"]):
        if type(value) not in (int, float) or not math.isfinite(value):
            raise UserError(f"mean and std hold {value!r}, expected finite numbers")


def _check_levels(layers: Sequence[Layer]) -> None:
    for layer in layers:
        if layer.levels is None:
            continue
        if type(layer.levels) is not int or not 1 <= layer.levels <= MOST_LEVELS or layer is layers[-1]:
            raise UserError(
                f"layer {layer.name}: levels is {layer.levels!r}, expected 1 to {MOST_LEVELS}, none on the last"
            )


def _check_names(layers: Sequence[Layer]) -> None:
    """Names are what parameters are found by, so two layers or two ops may not share one."""
    ops = [op.name for layer in layers for edge in layer.edges for op in edge.ops if hasattr(op, "name")]
    for what, names in (("layers", [layer.name for layer in layers]), ("ops", ops)):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise UserError(f"two {what} are called {twice[0]!r}")
