"""Linear ops without neurons between them as one convolution."""

import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.description import (
    AvgPool,
    Conv,
    Dense,
    Edge,
    Network,
    Op,
    layer_shapes,
    output_shape,
    source_shape,
)
from jaxsnn.networks.linear_maps import keeps_constants
from jaxsnn.networks.taps import Pair, Taps

OUTSIDE = -1


Sliding = Conv | AvgPool | Dense
"""Ops that read several positions."""


class Merged(NamedTuple):
    """One convolution whose kernel may depend on how near to the border an output position is.

    Attributes:
        kernels: (row classes, column classes, KH, KW, C, F), float64.
        rows, columns: the class of each output row and column.
        strides, pads: of rows and columns, the zeros in front; those behind follow from the number of outputs.
    """

    kernels: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    strides: Pair
    pads: Pair


class _Axis(NamedTuple):
    """A chain of windows along one axis.

    ``classes`` are those of the outputs; ``parts`` holds the class of what each tap of one reads, or ``OUTSIDE``.
    """

    classes: np.ndarray
    parts: np.ndarray
    span: int
    stride: int
    pad: int


def _first(side: int) -> _Axis:
    """Each position by itself."""
    return _Axis(np.zeros(side, np.int64), np.zeros((1, 1), np.int64), 1, 1, 0)


def _next(before: _Axis, axis: int, op: Sliding, taps: Taps, alone: bool) -> _Axis:
    """The chain with another op.

    What a tap reads outside of the values in between is zero, and that its class must know; outside of the input
    (``alone``) there are no spikes anyway. A pool that does not count them must know both.
    """
    side, apart = len(before.classes), taps.dilation[axis]
    outputs = taps.target((side, side))[axis]
    read = np.arange(outputs)[:, None] * taps.strides[axis] - taps.pads[axis][0]
    read = read + np.arange(taps.sides[axis]) * apart
    harmless = alone and not (isinstance(op, AvgPool) and not op.count_padding)
    inside = (read >= 0) & (read < side)
    seen = np.where(inside | harmless, before.classes[read.clip(0, side - 1)], OUTSIDE)
    parts, classes = np.unique(seen, axis=0, return_inverse=True)
    return _Axis(
        classes.reshape(-1),
        parts,
        before.span + (taps.sides[axis] - 1) * apart * before.stride,
        before.stride * taps.strides[axis],
        before.pad + taps.pads[axis][0] * before.stride,
    )


def grid(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A shape (H, W, C), or (C,) as one position."""
    height, width, channels = shape if len(shape) == 3 else (1, 1, *shape)
    return height, width, channels


def _chain(
    ops: Sequence[Op], shape: tuple[int, ...]
) -> tuple[list[tuple[Sliding, Taps, tuple[int, ...]]], list[list[_Axis]]]:
    """The ops with a window, each with its input's shape; and per axis the chain after none of them, one, ..."""
    steps, axes = [], [[_first(side)] for side in grid(shape)[:2]]
    for op in ops:
        if isinstance(op, Sliding):
            height, width, _ = grid(shape)
            taps = Taps((height, width)) if isinstance(op, Dense) else op.taps
            for axis, chain in enumerate(axes):
                chain.append(_next(chain[-1], axis, op, taps, not steps))
            steps.append((op, taps, shape))
        shape = output_shape(op, shape)
    return steps, axes


def merged_size(ops: Sequence[Op], shape: tuple[int, ...]) -> tuple[int, int]:
    """How many kernels ``merge`` needs, and how many numbers all of them hold."""
    _, axes = _chain(ops, shape)
    features = grid(_after(ops, shape))[2]
    kernels = math.prod(len(chain[-1].parts) for chain in axes)
    return kernels, kernels * math.prod(chain[-1].span for chain in axes) * grid(shape)[2] * features


def merge(ops: Sequence[Op], params: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> Merged:
    """The ops on inputs of ``shape``, without their biases, as one convolution in float64."""
    steps, (rows, columns) = _chain(ops, shape)
    kernels = np.ones((1, 1, 1, 1, 1, 1))  # one number for all channels, as long as there are only pools
    for index, (op, taps, before) in enumerate(steps):
        kernels = _grown(
            kernels, op, _weights(op, params, before), taps, rows[index : index + 2], columns[index : index + 2]
        )
    if kernels.shape[4:] == (1, 1):
        kernels = kernels * np.eye(grid(shape)[2])
    strides, pads = ((getattr(rows[-1], part), getattr(columns[-1], part)) for part in ("stride", "pad"))
    return Merged(kernels, rows[-1].classes, columns[-1].classes, strides, pads)


def _grown(
    kernels: np.ndarray,
    op: Sliding,
    weights: np.ndarray,
    taps: Taps,
    rows: Sequence[_Axis],
    columns: Sequence[_Axis],
) -> np.ndarray:
    """The kernels of a chain with ``op`` behind it; the axes before and after it."""
    (row, after), (column, beside) = rows, columns
    grown = np.zeros(
        (
            len(after.parts),
            len(beside.parts),
            after.span,
            beside.span,
            *_times(kernels[0, 0], weights[0, 0]).shape[2:],
        )
    )
    for r, high in enumerate(after.parts):
        for c, wide in enumerate(beside.parts):
            taken = [(i, j) for i in np.nonzero(high != OUTSIDE)[0] for j in np.nonzero(wide != OUTSIDE)[0]]
            alone = isinstance(op, AvgPool) and not op.count_padding
            for i, j in taken:
                top, left = i * taps.dilation[0] * row.stride, j * taps.dilation[1] * column.stride
                part = _times(kernels[high[i], wide[j]], weights[i, j] / len(taken) if alone else weights[i, j])
                grown[r, c, top : top + row.span, left : left + column.span] += part
    return grown


def _weights(op: Sliding, params: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The weights of each tap, (KH, KW, C, F); those of a pool, alike for all channels, (KH, KW, 1, 1)."""
    if isinstance(op, AvgPool):
        sides = op.taps.sides
        return np.full((*sides, 1, 1), 1 / math.prod(sides) if op.count_padding else 1.0)
    kernel = np.asarray(params[f"{op.name}.kernel"], np.float64)
    return (
        kernel.reshape(*grid(shape), op.features) if isinstance(op, Dense) else without_groups(kernel, op.groups)
    )


def without_groups(kernel: np.ndarray, groups: int) -> np.ndarray:
    """The kernel (h, w, C / groups, F) of a convolution with groups as that of one without, (h, w, C, F)."""
    if groups == 1:
        return kernel
    height, width, channels, features = kernel.shape
    whole = np.zeros((height, width, groups, channels, groups, features // groups), kernel.dtype)
    parts = kernel.reshape(height, width, channels, groups, features // groups)
    for group in range(groups):
        whole[:, :, group, :, group] = parts[:, :, :, group]
    return whole.reshape(height, width, groups * channels, features)


def _times(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two maps in a row, of which either may be one number for all channels."""
    alike = first.shape[2:] == (1, 1) or second.shape == (1, 1)
    return first * second if alike else first @ second


def one_map_an_edge(network: Network, params: Mapping[str, np.ndarray]) -> tuple[Network, dict[str, np.ndarray]]:
    """The same function where maps without neurons between them are one map, and its parameters.

    Raises:
        UserError: maps that are not one, because they differ at the border.
    """
    made, shapes, layers = dict(params), layer_shapes(network), []
    for layer in network.layers:
        edges = []
        for number, edge in enumerate(layer.edges):
            at = [index for index, op in enumerate(edge.ops) if isinstance(op, Conv | Dense)]
            if len(at) > 1:
                before, chain, after = edge.ops[: at[0]], edge.ops[at[0] : at[-1] + 1], edge.ops[at[-1] + 1 :]
                shape = _after(before, source_shape(network, shapes, edge))
                op, arrays = _one_map(chain, params, shape, f"{layer.name}, edge {number}")
                made |= arrays
                edge = Edge(edge.source, (*before, op, *after))
            edges.append(edge)
        layers.append(replace(layer, edges=tuple(edges)))
    return replace(network, layers=tuple(layers)), made


def _after(ops: Sequence[Op], shape: tuple[int, ...]) -> tuple[int, ...]:
    return functools.reduce(lambda before, op: output_shape(op, before), ops, shape)


def _one_map(
    chain: Sequence[Op], params: Mapping[str, np.ndarray], shape: tuple[int, ...], name: str
) -> tuple[Conv | Dense, dict[str, np.ndarray]]:
    """A chain that begins and ends with a map as one op called ``name``, and its arrays."""
    maps = [op.name for op in chain if isinstance(op, Conv | Dense)]
    refusal = UserError(
        f"int8 needs neurons between {maps[0]} and {maps[1]}, which are not one map at the image's border: use "
        "float32"
    )
    target, inputs = _after(chain, shape), grid(shape)
    kernels, _ = merged_size(chain, shape)
    if not _constant(chain):
        raise UserError(
            f"int8 cannot hold the bias of {maps[0]} in front of {maps[1]}, whose padding it does not reach (a "
            "norm behind a ReLU?): use float32, or train with the norm in front of the ReLU"
        )
    if kernels > 1:
        raise refusal
    merged = merge(chain, params, shape)
    kernel = merged.kernels[0, 0]
    high, wide, channels, features = kernel.shape
    bias = _bias(chain, params, shape)
    if len(target) == 1:  # over the input's positions, without what hangs over its border
        here = [np.arange(span) - pad for span, pad in zip((high, wide), merged.pads)]
        inside = [(places >= 0) & (places < side) for places, side in zip(here, inputs)]
        whole = np.zeros((*inputs[:2], channels, features))
        whole[np.ix_(*(places[good] for places, good in zip(here, inside)))] = kernel[np.ix_(*inside)]
        kernel, op = whole.reshape(-1, features), Dense(name, features, bias is not None)
    else:
        spans = zip(target, merged.strides, (high, wide), merged.pads, inputs)
        front, side = ((pad, max(0, (n - 1) * step + span - pad - side)) for n, step, span, pad, side in spans)
        op = Conv(name, features, (high, wide), merged.strides, bias is not None, (front, side))
    if output_shape(op, shape) != target:  # what a chain leaves out at the end, one window might read
        raise refusal
    return op, {f"{name}.kernel": kernel} | ({} if bias is None else {f"{name}.bias": bias})


def _constant(chain: Sequence[Op]) -> bool:
    """Whether the biases in a chain come out alike at all positions."""
    biased = False
    for op in chain:
        padded = isinstance(op, Conv) and any(map(any, op.taps.pads))
        if biased and (padded or not keeps_constants([op])):
            return False
        biased |= isinstance(op, Conv | Dense) and op.bias
    return True


def _bias(chain: Sequence[Op], params: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray | None:
    """What the biases in a chain come to, (F,)."""
    bias = None
    for op in chain:
        if isinstance(op, Conv | Dense):
            kernel = _weights(op, params, shape)
            bias = None if bias is None else bias @ kernel.sum((0, 1))
            if op.bias:
                bias = (0 if bias is None else bias) + np.asarray(params[f"{op.name}.bias"], np.float64)
        shape = output_shape(op, shape)
    return bias


def unshared(network: Network, params: Mapping[str, np.ndarray]) -> tuple[Network, dict[str, np.ndarray]]:
    """The same function where each op has a kernel of its own, and its parameters."""
    made, uses, layers = dict(params), Counter(), []

    def own(op: Op) -> Op:
        if not isinstance(op, Conv | Dense):
            return op
        uses[op.name] += 1
        if uses[op.name] == 1:
            return op
        alone = replace(op, name=f"{op.name}, use {uses[op.name]}")
        for part in ("kernel", "bias") if op.bias else ("kernel",):
            made[f"{alone.name}.{part}"] = params[f"{op.name}.{part}"]
        return alone

    for layer in network.layers:
        edges = (Edge(edge.source, tuple(own(op) for op in edge.ops)) for edge in layer.edges)
        layers.append(replace(layer, edges=tuple(edges)))
    return replace(network, layers=tuple(layers)), made
