"""The spiking network as a NIR graph: folded weights, integrate-and-fire nodes with threshold 1.

NIR (Pedersen et al., Neuromorphic intermediate representation, Nature Communications 2024) describes neurons in
continuous time: its IF node has no initial membrane, no comparison, and cannot say whether a reset subtracts.
These are kept in the metadata; ``jaxsnn.exports.nir_readers`` knows what each reader makes of the rest.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.exports.converted import (
    Converted,
    channels_first,
    conv_weight,
    dense_weight,
    even_pads,
    plain_name,
    plain_names,
)
from jaxsnn.networks.description import (
    IMAGE,
    Arrays,
    AvgPool,
    Conv,
    Dense,
    Dropout,
    Edge,
    MaxPool,
    layer_shapes,
    output_shape,
)
from jaxsnn.networks.spiking import check_single
from jaxsnn.networks.taps import Pair, Taps


@dataclass(frozen=True)
class Dialect:
    """What a reader of NIR insists on.

    Attributes:
        r: resistance of the IF nodes.
        sum_pools: pools as SumPool2d, their means folded into weights; otherwise AvgPool2d.
    """

    r: float = 1.0
    sum_pools: bool = True


def require_nir() -> Any:
    """The nir package; raises ``UserError`` where it is not installed."""
    try:
        import nir
    except ImportError as error:
        raise UserError('NIR files need the nir package: pip install "jaxsnn-evo[export]"') from error
    return nir


@dataclass
class _Piece:
    """A node to be: a map with float64 weights that are still to be scaled, a pool or a flattening.

    ``taps`` are those of a convolution, whose padding may be below 0 behind ``_widened``.
    """

    kind: str
    shape: tuple[int, ...]
    op: Conv | Dense | AvgPool | None = None
    weight: np.ndarray = field(default_factory=lambda: np.zeros(0))
    bias: np.ndarray = field(default_factory=lambda: np.zeros(0))
    taps: Taps | None = None

    @property
    def is_map(self) -> bool:
        return self.kind in ("conv", "affine")


def nir_graph(converted: Converted, dialect: Dialect = Dialect(), v0: str = "metadata") -> Any:
    """The network as a ``nir.NIRGraph``.

    Membranes are divided by their layer's threshold, and a spike's worth is in the weights that it drives, so that
    every threshold is 1 and every spike 1.

    Args:
        v0: "metadata" leaves initial membranes to the metadata (``initial_membrane`` of each IF node, one number a
            channel, in thresholds); "bias" adds them to the biases in equal parts over the steps, so that a reader
            that starts at 0 has the same sum after the last step, though not the same spikes.

    Raises:
        UserError: leaks, several spikes in a step, an op that NIR lacks, or nir is not installed.
    """
    nir = require_nir()
    if converted.leaky:
        raise UserError("membranes leak, which the IF nodes of NIR cannot: export to torch")
    check_single(converted.dynamics, "NIR, unlike --to torch, is")
    network, theta = converted.network, converted.thresholds().astype(np.float64)
    shapes, names = layer_shapes(network), plain_names(network.layers)
    starts = [start.astype(np.float64) / theta[index] for index, start in enumerate(converted.starts())]
    height, width, channels = network.input_shape
    nodes = {"input": nir.Input(input_type={"input": np.array([channels, height, width])})}
    links: list[tuple[str, str]] = []
    for index, (layer, name) in enumerate(zip(network.layers, names)):
        spiking = index < len(theta)
        target = f"{name}_if" if spiking else "output"
        unit = theta[index] if spiking else 1.0
        for position, edge in enumerate(layer.edges):
            shape = network.input_shape if edge.source == IMAGE else shapes[edge.source]
            worth = 1.0 if edge.source == IMAGE else theta[edge.source]
            pieces = _pieces(edge, shape, converted.snn.params, dialect)
            _scale(pieces, worth, unit, dialect)
            if spiking and v0 == "bias" and position == 0:
                _add_bias(pieces, starts[index] / converted.steps, dialect)
            before = "input" if edge.source == IMAGE else f"{names[edge.source]}_if"
            prefix = name if len(layer.edges) == 1 else f"{name}_{position}"
            for piece, own in zip(pieces, _unique(prefix, pieces)):
                nodes[own] = _node(nir, piece, dialect)
                links.append((before, own))
                before = own
            links.append((before, target))
        if spiking:
            start = np.zeros_like(starts[index]) if v0 == "bias" else starts[index]
            nodes[target] = _neurons(nir, shapes[index], start, dialect, converted, index)
    nodes["output"] = nir.Output(output_type={"output": np.array([network.classes])})
    metadata = converted.conventions() | {
        "name": plain_name(network.name),
        "mean": np.asarray(network.mean, np.float32),
        "std": np.asarray(network.std, np.float32),
        "initial_membrane": "in the biases, a part at each step"
        if v0 == "bias"
        else "of each IF node in its metadata, by channel, as a fraction of the threshold",
        "written_by": "jaxsnn.export",
    }
    return nir.NIRGraph(nodes=nodes, edges=links, metadata=metadata)


def _pieces(edge: Edge, shape: tuple[int, ...], params: Arrays, dialect: Dialect) -> list[_Piece]:
    """The ops of an edge; an edge without a map gets the identity as one, to be scaled."""
    found: list[_Piece] = []
    for op in edge.ops:
        match op:
            case Conv():
                piece = _Piece("conv", shape, op, conv_weight(op, params).astype(np.float64))
                found += [piece] if _side(op.taps) else _widened(piece, op)
            case Dense():
                if len(shape) == 3:
                    found.append(_Piece("flatten", shape))
                found.append(_Piece("affine", shape, op, dense_weight(op, shape, params).astype(np.float64)))
            case AvgPool():
                found.append(_pool(op, shape, dialect))
            case Dropout():
                pass
            case MaxPool():
                raise UserError("NIR has no max pool, of spikes or of values: export to torch or npz")
            case _:
                raise UserError(f"{type(op).__name__} has no counterpart in NIR: export to torch")
        if isinstance(op, Conv | Dense):
            bias = params[f"{op.name}.bias"] if op.bias else np.zeros(op.features)
            found[-1].bias = np.asarray(bias, np.float64)
        shape = output_shape(op, shape)
    if not any(piece.is_map for piece in found):
        start = found[0].shape if found else shape
        eye, size = np.eye(start[-1]), start[-1]
        conv, dense = Conv("", size, 1), Dense("", size)
        one = ("conv", conv, eye[:, :, None, None]) if len(start) == 3 else ("affine", dense, eye)
        found.insert(0, _Piece(one[0], start, one[1], one[2], np.zeros(size)))
    return found


def _pool(op: AvgPool, shape: tuple[int, ...], dialect: Dialect) -> _Piece:
    """A pool; with padding, which the readers of sum pools leave out, as a convolution channel by channel."""
    taps = op.taps
    if taps.pads == ((0, 0), (0, 0)):
        return _Piece("pool", shape, op)
    if not op.count_padding:
        raise UserError("NIR has no average pool that leaves its padding out: export to torch")
    if not dialect.sum_pools and even_pads(taps.pads) is not None:
        return _Piece("pool", shape, op)
    channels = shape[2]
    conv = Conv("", channels, taps.sides, taps.strides, padding=taps.pads, groups=channels)
    weight = np.full((channels, 1, *taps.sides), 1 / math.prod(taps.sides))
    return _Piece("conv", shape, conv, weight, np.zeros(channels))


def _scale(pieces: list[_Piece], worth: float, unit: float, dialect: Dialect) -> None:
    """Fold into the maps what a spike is worth, the unit of the membranes it drives, and the means of pools."""
    maps = [piece for piece in pieces if piece.is_map]
    maps[0].weight *= worth
    maps[-1].weight /= unit
    maps[-1].bias /= unit
    if not dialect.sum_pools:
        return
    for position, piece in enumerate(pieces):
        if piece.kind == "pool" and isinstance(piece.op, AvgPool):
            behind = next((other for other in pieces[position:] if other.is_map), None)
            if behind is not None:
                behind.weight /= math.prod(piece.op.taps.sides)
            else:
                maps[-1].weight /= math.prod(piece.op.taps.sides)
                maps[-1].bias /= math.prod(piece.op.taps.sides)


def _add_bias(pieces: list[_Piece], bias: np.ndarray, dialect: Dialect) -> None:
    """Add to the drive at an edge's end."""
    last = max(position for position, piece in enumerate(pieces) if piece.is_map)
    for piece in pieces[last:]:
        if dialect.sum_pools and isinstance(piece.op, AvgPool):
            bias = bias / math.prod(piece.op.taps.sides)
    pieces[last].bias = pieces[last].bias + bias


def _unique(prefix: str, pieces: list[_Piece]) -> list[str]:
    """A name for each node: prefix and kind, and a number where a kind comes again."""
    names: list[str] = []
    for piece in pieces:
        name = f"{prefix}_{piece.kind}"
        names.append(name if name not in names else f"{name}{len(names)}")
    return names


def _node(nir: Any, piece: _Piece, dialect: Dialect) -> Any:
    weight, bias = piece.weight.astype(np.float32), piece.bias.astype(np.float32)
    match piece.op:
        case Conv() as op:
            weight, pads = _square(op.name, piece.taps or op.taps, _ungrouped(op, weight))
            return nir.Conv2d(
                input_shape=piece.shape[:2],
                weight=weight,
                stride=op.taps.strides,
                padding=pads,
                dilation=op.taps.dilation,
                groups=1,
                bias=bias,
            )
        case Dense():
            return nir.Affine(weight=weight, bias=bias)
        case AvgPool() as op:
            kind = nir.SumPool2d if dialect.sum_pools else nir.AvgPool2d
            sizes = op.taps.sides, op.taps.strides, even_pads(op.taps.pads)
            return kind(
                **{name: np.array(size) for name, size in zip(("kernel_size", "stride", "padding"), sizes)}
            )
    shape = (piece.shape[-1], *piece.shape[:-1])
    return nir.Flatten(input_type={"input": np.array(shape)}, start_dim=0, end_dim=-1)


def _ungrouped(op: Conv, weight: np.ndarray) -> np.ndarray:
    """A grouped kernel with its zeros: nir takes the channels of a group for those of the input."""
    features, channels = weight.shape[0] // op.groups, weight.shape[1]
    whole = np.zeros((weight.shape[0], channels * op.groups, *weight.shape[2:]), np.float32)
    for group in range(op.groups):
        rows = slice(group * features, (group + 1) * features)
        whole[rows, group * channels : (group + 1) * channels] = weight[rows]
    return whole


def _shifts(taps: Taps) -> list[tuple[int, int]]:
    """Taps by which the padding behind is longer than in front, along rows and columns, and what is left."""
    return [divmod(pad[1] - pad[0], apart) for pad, apart in zip(taps.pads, taps.dilation)]


def _side(taps: Taps) -> int | None:
    """The side of the smallest square kernel with an even padding that does as ``taps`` do, if there is one."""
    steps, rests = zip(*_shifts(taps))
    least = max(own + abs(step) for own, step in zip(taps.sides, steps))
    odd = {(own + step) % 2 for own, step in zip(taps.sides, steps)}
    fitting = [side for side in (least, least + 1) if odd == {side % 2}]
    return None if any(rests) or not fitting else fitting[0]


def _widened(piece: _Piece, op: Conv) -> list[_Piece]:
    """A convolution whose rows and columns do not agree on a side, behind one that adds zeros to its input.

    That one has two by two taps, the columns' two apart, of which the last passes the input on: behind it lie a
    row and two columns of zeros more, so that the next kernel may grow by one tap along the rows alone.
    """
    height, width, channels = piece.shape
    weight = np.zeros((channels, channels, 2, 2))
    weight[range(channels), range(channels), 1, 1] = 1
    wider = Conv("", channels, 2, padding=((1, 1), (2, 2)), dilation=(1, 2))
    (top, bottom), (left, right) = op.taps.pads
    taps = op.taps._replace(pads=((top, bottom - 1), (left, right - 2)))
    own = replace(piece, shape=(height + 1, width + 2, channels), taps=taps)
    return [_Piece("conv", piece.shape, wider, weight, np.zeros(channels)), own]


def _square(name: str, taps: Taps, weight: np.ndarray) -> tuple[np.ndarray, Pair]:
    """A kernel of equal sides, with zeros around it, and its padding: nir infers shapes from the rows alone.

    Zeros in front of a kernel make up for a padding that is larger there than behind, and the other way round.
    """
    side = _side(taps)
    if side is None:
        raise UserError(
            f"convolution {name} has taps {taps.dilation[0]} x {taps.dilation[1]} apart and a padding that "
            "differs between its sides by no multiple of that, which NIR has no kernel for: export to torch"
        )
    steps = [step for step, _ in _shifts(taps)]
    more = [side - own for own in taps.sides]
    around = [((extra + step) // 2, (extra - step) // 2) for extra, step in zip(more, steps)]
    wider = [pad[0] + front * apart for pad, (front, _), apart in zip(taps.pads, around, taps.dilation)]
    return np.pad(weight, ((0, 0), (0, 0), *around)), (wider[0], wider[1])


def _neurons(
    nir: Any, shape: tuple[int, ...], start: np.ndarray, dialect: Dialect, converted: Converted, index: int
) -> Any:
    ones = channels_first(np.ones(shape, np.float32))
    return nir.IF(
        r=ones * np.float32(dialect.r),
        v_threshold=ones,
        v_reset=np.zeros_like(ones),
        metadata={
            "layer": index,
            "initial_membrane": start.astype(np.float32),
            "reset": "subtract the threshold",
            "comparison": converted.dynamics.comparison,
        },
    )
