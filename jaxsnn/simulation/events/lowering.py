"""A network as tables for the event-driven kernels: which weights a spike adds to which membranes."""

import functools
import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.description import IMAGE, AvgPool, Conv, Dense, Edge, Network, Op, layer_shapes, output_shape
from jaxsnn.networks.spiking import SNN
from jaxsnn.runtime.weak_cache import remembered
from jaxsnn.simulation.integers import LARGEST, IntegerSNN, window

WEIGHTS_IN_CACHE = 2_400_000
"""Bytes of weights that a block of output channels may have. Measured: 0.6 to 9 MB differ by 10 %; about twice the
second-level cache is best, because a wide block reads the spikes less often."""


WIDEST_BLOCK = 128


EVERY_ROW = 1 << 62


@functools.cache
def available() -> bool:
    """Whether Numba is installed and works; one that fails on import (another NumPy, say) counts as missing."""
    try:
        importlib.import_module("numba")
    except Exception:  # whatever a broken installation raises
        return False
    return True


class Convolution(NamedTuple):
    """An edge as one convolution: ``kernel`` (KH, KW, C, F) over an input padded by ``pad`` zeros."""

    kernel: np.ndarray
    stride: int
    pad: int


def as_convolution(ops: Sequence[Op], kernels: dict[str, np.ndarray], shape: tuple[int, ...]) -> Convolution:
    """The linear ops of an edge, without biases, on inputs of ``shape`` as one convolution in float64.

    Raises:
        UserError: two padded convolutions in a row, which are not one convolution at the border.
    """
    channels = shape[-1]
    merged = Convolution(np.eye(channels)[None, None], 1, 0)
    bordered = False
    for op in ops:
        if isinstance(op, AvgPool):
            mean = np.eye(shape[-1]) / op.window**2
            merged = _followed_by(
                merged, Convolution(np.broadcast_to(mean, (op.window, op.window, *mean.shape)), op.window, 0)
            )
        elif isinstance(op, Dense):
            kernel = np.asarray(kernels[f"{op.name}.kernel"], np.float64).reshape(*_grid(shape), op.features)
            merged = _followed_by(merged, Convolution(kernel, 1, 0))
        elif isinstance(op, Conv):
            pad = op.kernel // 2
            if bordered and pad:
                raise UserError(f"{op.name} follows another padded convolution without neurons between them")
            bordered |= pad > 0
            kernel = np.asarray(kernels[f"{op.name}.kernel"], np.float64)
            merged = _followed_by(merged, Convolution(kernel, op.stride, pad))
        shape = output_shape(op, shape)
    return merged


def _grid(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A shape (H, W, C), or (C,) as one position."""
    height, width, channels = shape if len(shape) == 3 else (1, 1, *shape)
    return height, width, channels


def _followed_by(first: Convolution, second: Convolution) -> Convolution:
    """``second`` applied to the output of ``first``."""
    if first.kernel.shape[:2] == (1, 1) and first.kernel.shape[2] == first.kernel.shape[3] and first.stride == 1:
        identity = np.array_equal(first.kernel[0, 0], np.eye(first.kernel.shape[2]))
        if identity:
            return Convolution(second.kernel, second.stride, second.pad)
    height, width, channels, _ = first.kernel.shape
    rows, columns, _, features = second.kernel.shape
    grown = np.zeros(
        (height + (rows - 1) * first.stride, width + (columns - 1) * first.stride, channels, features)
    )
    for i in range(rows):
        for j in range(columns):
            top, left = i * first.stride, j * first.stride
            grown[top : top + height, left : left + width] += first.kernel @ second.kernel[i, j]
    return Convolution(grown, first.stride * second.stride, first.pad + second.pad * first.stride)


@dataclass(frozen=True)
class LoweredLayer:
    """What the kernels need of one layer. ``shape`` is (H, W, C), ``padded`` is C filled up to whole blocks."""

    shape: tuple[int, int, int]
    padded: int
    sources: tuple[int, ...]
    weights: tuple[np.ndarray, ...]
    spans: tuple[np.ndarray, ...]
    limits: np.ndarray


def lower(
    network: Network, kernels: dict[str, np.ndarray], weights: Callable[[Edge, np.ndarray], np.ndarray]
) -> list[LoweredLayer]:
    """The network's layers for the compiled loops.

    Args:
        weights: ``weights(edge, kernel)`` is the array to use for a merged kernel (KH, KW, C, F) of float64:
            float32, int8 or int16.
    """
    shapes = [_grid(shape) for shape in layer_shapes(network)]
    lowered = []
    for layer, shape in zip(network.layers, shapes):
        sources, arrays, spans, limits = [], [], [], []
        for edge in layer.edges:
            if edge.source == IMAGE:
                continue
            merged = as_convolution(edge.ops, kernels, layer_shapes(network)[edge.source])
            sources.append(edge.source)
            arrays.append(weights(edge, merged.kernel))
            spans.append(_spans(merged, shapes[edge.source], shape))
        if arrays:  # one type in a layer
            widest = np.result_type(*arrays)
            arrays = [array.astype(widest) for array in arrays]
            limits = [_rows_at_once(array) for array in arrays]
        features = shape[-1]
        width = _block_width(features, max((a[..., 0].size * a.itemsize for a in arrays), default=0))
        padded = math.ceil(features / width) * width
        packed = tuple(_pack(array, width, padded) for array in arrays)
        lowered.append(
            LoweredLayer(shape, padded, tuple(sources), packed, tuple(spans), np.array(limits, np.int64))
        )
    return lowered


def _spans(merged: Convolution, source: tuple[int, int, int], target: tuple[int, int, int]) -> np.ndarray:
    """For each output position and kernel row: the input positions [first, last) that it sees, and the offset of
    their rows of weights; (H' * W', KH, 3)."""
    height, width, channels = source
    rows, columns = merged.kernel.shape[:2]
    y, x, k = np.meshgrid(*(np.arange(n) for n in (*target[:2], rows)), indexing="ij")
    line = y * merged.stride - merged.pad + k
    left = x * merged.stride - merged.pad
    inside = (line >= 0) & (line < height)
    first = np.where(inside, line * width + left.clip(0, width), 0)
    last = np.where(inside, line * width + (left + columns).clip(0, width), 0)
    offset = (k * columns - left) * channels
    return np.stack([first, last, offset], -1).reshape(-1, rows, 3).astype(np.int64)


def _rows_at_once(weights: np.ndarray) -> int:
    """How many rows can be summed in int16 whatever spikes."""
    if weights.dtype == np.float32:
        return EVERY_ROW
    return np.iinfo(np.int16).max // max(1, np.abs(weights.astype(np.int64)).max())


def _block_width(features: int, bytes_per_channel: int) -> int:
    whole = math.ceil(features / 16) * 16
    if whole <= WIDEST_BLOCK and whole * bytes_per_channel <= WEIGHTS_IN_CACHE:
        return whole
    for width in (WIDEST_BLOCK, 64):
        if width <= whole and width * bytes_per_channel <= WEIGHTS_IN_CACHE:
            return width
    return min(32, whole)


def _pack(array: np.ndarray, width: int, padded: int) -> np.ndarray:
    """(KH, KW, C, F) as (blocks, KH * KW * C, width)."""
    rows = array.reshape(-1, array.shape[-1])
    rows = np.pad(rows, ((0, 0), (0, padded - rows.shape[1])))
    blocks = rows.reshape(len(rows), -1, width).swapaxes(0, 1)
    packed = aligned(blocks.shape, blocks.dtype)
    packed[:] = blocks
    return packed


def aligned(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
    """An uninitialised array that starts on a cache line, so that no vector crosses two."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)


def padded_to(values: np.ndarray, channels: int, fill: float | np.floating = 0) -> np.ndarray:
    """The last axis filled up to ``channels``."""
    missing = channels - values.shape[-1]
    return np.ascontiguousarray(
        np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)], constant_values=fill)
    )


def obstacle(network: Network) -> str | None:
    """Why the network cannot be lowered, if it cannot."""
    for layer in network.layers:
        for edge in layer.edges:
            padded = [op for op in edge.ops if isinstance(op, Conv) and op.kernel > 1]
            if edge.source != IMAGE and len(padded) > 1:
                return f"cannot merge {padded[0].name} and {padded[1].name}, which have no neurons between them"
    if {edge.source == IMAGE for edge in network.layers[-1].edges} != {False}:
        return "needs a read-out that spikes drive"
    return None


@remembered
def lower_float(snn: SNN) -> list[LoweredLayer]:
    """The layers with float32 weights."""
    kernels = {name: np.asarray(value) for name, value in snn.params.items()}
    return lower(snn.network, kernels, lambda edge, kernel: kernel.astype(np.float32))


@remembered
def lower_integers(integers: IntegerSNN) -> list[LoweredLayer]:
    """The layers with int8 weights, or int16 where a pool sums several."""

    def weights(edge: Edge, kernel: np.ndarray) -> np.ndarray:
        whole = np.round(kernel * window(edge))
        return whole.astype(np.int8 if np.abs(whole).max() <= LARGEST else np.int16)

    return lower(integers.network, integers.kernels, weights)
