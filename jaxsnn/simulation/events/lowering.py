"""A network as tables for the event-driven kernels: which weights a spike adds to which membranes."""

import functools
import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jaxsnn.networks.description import IMAGE, Conv, Dense, Edge, MaxPool, Network, Op, layer_shapes, output_shape
from jaxsnn.networks.linear_maps import pool_unit, tap_table
from jaxsnn.networks.merging import Merged, grid, merge, merged_size
from jaxsnn.networks.senders import gates, heard
from jaxsnn.networks.spiking import SNN
from jaxsnn.runtime.memory import out_of_memory
from jaxsnn.runtime.weak_cache import remembered
from jaxsnn.simulation.integers import LARGEST, IntegerSNN

WEIGHTS_IN_CACHE = 2_400_000
"""Bytes of weights that a block of output channels may have. Measured: 0.6 to 9 MB differ by 10 %; about twice the
second-level cache is best, because a wide block reads the spikes less often."""


WIDEST_BLOCK = 128
"""Channels of a block whose sums take 32 bits; twice as many take as many registers where 16 bits are enough."""


STEPS = 4
"""Steps that integer layers simulate together (``jaxsnn.simulation.events.patterns``). VGG15 at T = 4 and 8 on one
Zen 4 core: 452 and 376 us an image-step with four, 518 and 434 with two."""


EVERY_ROW = 1 << 62


FEWEST_GROUPS = 64
"""Groups from which a spike's weights are added one by one, instead of in rows that are zero outside of its group.
Measured on one Zen 4 core, 3x3 on 14x14x256, float32 and int8: 64 groups 30 and 31 ms instead of 57 and 27, 256
groups 23 and 23 ms instead of 56 and 29; rows grow with the square of the channels."""


MOST_MERGED = 1 << 30
"""Bytes that the kernels of one edge may take where those at the border are kernels of their own."""


LARGEST_16 = np.iinfo(np.int16).max


@functools.cache
def available() -> bool:
    """Whether Numba is installed and works; one that fails on import (another NumPy, say) counts as missing."""
    try:
        importlib.import_module("numba")
    except Exception as error:  # whatever a broken installation raises
        if out_of_memory(error):  # a limit on memory is no missing library
            raise MemoryError("Numba does not fit into what memory is left") from error
        return False
    return True


@dataclass(frozen=True)
class LoweredGate:
    """A max pool of a layer's spikes: ``shape`` is (H', W', C), and ``windows`` int32 (H * W, K) lists the outputs
    that read each position, then -1."""

    shape: tuple[int, int, int]
    windows: np.ndarray


@dataclass(frozen=True)
class LoweredLayer:
    """What the kernels need of one layer. ``shape`` is (H, W, C), ``padded`` is C filled up to whole blocks.

    ``sources`` are numbers of senders (``jaxsnn.networks.senders``), ``gates`` the max pools of this layer. With
    ``targets`` the one edge has groups, and weights (1, rows, features / groups): row k reaches the channels from
    ``targets[k]`` on.
    """

    shape: tuple[int, int, int]
    padded: int
    sources: tuple[int, ...]
    weights: tuple[np.ndarray, ...]
    spans: tuple[np.ndarray, ...]
    limits: np.ndarray
    targets: np.ndarray | None = None
    gates: tuple[LoweredGate, ...] = ()


def lower(
    network: Network, kernels: dict[str, np.ndarray], weights: Callable[[Edge, np.ndarray], np.ndarray]
) -> list[LoweredLayer]:
    """The network's layers for the compiled loops.

    Args:
        weights: ``weights(edge, kernels)`` is the array to use for merged kernels of float64: float32, int8, int16
            or int32.
    """
    shapes = [grid(shape) for shape in layer_shapes(network)]
    lowered = []
    for layer, shape, edges, pools in zip(network.layers, shapes, heard(network), (*gates(network), ())):
        sources, arrays, spans, limits = [], [], [], []
        for edge, sender, read in edges:
            if sender == IMAGE:
                continue
            merged = merge(edge.linear, kernels, read)
            sources.append(sender)
            arrays.append(weights(edge, merged.kernels))
            spans.append(_spans(merged, grid(read), shape))
        passing = tuple(_gate(pool, shape) for pool in pools)
        if arrays:  # one type in a layer
            widest = np.result_type(*arrays)
            arrays = [array.astype(widest) for array in arrays]
            limits = [_rows_at_once(array) for array in arrays]
        features = shape[-1]
        groups = groups_of(layer.edges[0].linear, edges[0][2][-1]) if len(arrays) == 1 else 1
        if groups >= FEWEST_GROUPS and layer is not network.layers[-1]:
            padded = math.ceil(features / 16) * 16
            narrow, targets = _narrow(arrays[0], groups)
            lowered.append(
                LoweredLayer(
                    shape, padded, tuple(sources), (narrow,), tuple(spans), np.array(limits), targets, passing
                )
            )
            continue
        widest = 2 * WIDEST_BLOCK if arrays and arrays[0].itemsize < 4 else WIDEST_BLOCK
        width = _block_width(features, max((a[0, 0, ..., 0].size * a.itemsize for a in arrays), default=0), widest)
        padded = math.ceil(features / width) * width
        packed = tuple(_pack(array, width, padded) for array in arrays)
        lowered.append(
            LoweredLayer(
                shape, padded, tuple(sources), packed, tuple(spans), np.array(limits, np.int64), gates=passing
            )
        )
    return lowered


def _gate(pool: MaxPool, shape: tuple[int, int, int]) -> LoweredGate:
    """A max pool of a layer of ``shape``."""
    rows, columns = (tap_table(pool.taps, axis, shape[axis]).any(2) for axis in (0, 1))
    reads = np.einsum("ho,wp->hwop", rows, columns).reshape(shape[0] * shape[1], -1)
    order = np.argsort(~reads, 1, kind="stable")[:, : reads.sum(1).max()]
    windows = np.where(np.take_along_axis(reads, order, 1), order, -1).astype(np.int32)
    return LoweredGate(grid(output_shape(pool, shape)), windows)


def groups_of(ops: Sequence[Op], channels: int) -> int:
    """Groups of an edge that reads ``channels``: those of its one map, all channels apart where there is none."""
    maps = [op for op in ops if isinstance(op, Conv | Dense)]
    if not maps:
        return channels
    return maps[0].groups if len(maps) == 1 and isinstance(maps[0], Conv) else 1


def _narrow(array: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """The weights (..., C, F) of groups as (1, rows, F / groups), and the first channel that each row reaches."""
    *kernels, channels, features = array.shape
    inputs, outputs = channels // groups, features // groups
    parts = array.reshape(-1, groups, inputs, groups, outputs)
    own = np.stack([parts[:, group, :, group] for group in range(groups)], 1).reshape(1, -1, outputs)
    first = np.repeat(np.arange(groups) * outputs, inputs)
    return np.ascontiguousarray(own), np.tile(first, math.prod(kernels)).astype(np.uint32)


def _spans(merged: Merged, source: tuple[int, int, int], target: tuple[int, int, int]) -> np.ndarray:
    """For each output position and kernel row: the input positions [first, last) that it sees, and the offset of
    their rows of weights; (H' * W', KH, 3)."""
    height, width, channels = source
    _, classes, rows, columns = merged.kernels.shape[:4]
    y, x, k = np.meshgrid(*(np.arange(n) for n in (*target[:2], rows)), indexing="ij")
    line = y * merged.strides[0] - merged.pads[0] + k
    left = x * merged.strides[1] - merged.pads[1]
    inside = (line >= 0) & (line < height)
    first = np.where(inside, line * width + left.clip(0, width), 0)
    last = np.where(inside, line * width + (left + columns).clip(0, width), 0)
    kernel = merged.rows[y] * classes + merged.columns[x]
    offset = ((kernel * rows + k) * columns - left) * channels
    return np.stack([first, last, offset], -1).reshape(-1, rows, 3).astype(np.int64)


def _rows_at_once(weights: np.ndarray) -> int:
    """How many rows can be summed whatever spikes, in int16 for weights that are not wider."""
    if weights.dtype.itemsize == 4:  # sums of int32 were found to fit when the network was quantised
        return EVERY_ROW
    return np.iinfo(np.int16).max // max(1, np.abs(weights.astype(np.int64)).max())


def _block_width(features: int, bytes_per_channel: int, widest: int = WIDEST_BLOCK) -> int:
    whole = math.ceil(features / 16) * 16
    if whole <= WIDEST_BLOCK and whole * bytes_per_channel <= WEIGHTS_IN_CACHE:
        return whole
    for width in (256, 128, 64):
        if width <= min(whole, widest) and width * bytes_per_channel <= WEIGHTS_IN_CACHE:
            return width
    return min(32, whole)


def paired(dtype: np.typing.DTypeLike, width: int) -> bool:
    """Whether a block of weights is kept as pairs of channels, which one addition takes together."""
    return dtype == np.int8 and width % 64 == 0


def interleave(weights: np.ndarray) -> np.ndarray:
    """int8 weights (..., width) as pairs: of each 64 channels the k-th of the first half, as an unsigned byte that
    is 128 higher, beside the k-th of the second half."""
    halves = weights.reshape(*weights.shape[:-1], -1, 2, 32)
    low, high = (halves[..., half, :].astype(np.int8).view(np.uint8) for half in (0, 1))
    return np.stack([low ^ np.uint8(128), high], -1).reshape(weights.shape).view(np.int8)


def _pack(array: np.ndarray, width: int, padded: int) -> np.ndarray:
    """(..., KH, KW, C, F) as (blocks, ... KH * KW * C, width)."""
    rows = array.reshape(-1, array.shape[-1])
    rows = np.pad(rows, ((0, 0), (0, padded - rows.shape[1])))
    blocks = rows.reshape(len(rows), -1, width).swapaxes(0, 1)
    packed = aligned(blocks.shape, blocks.dtype)
    packed[:] = interleave(blocks) if paired(blocks.dtype, width) else blocks
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
    if not missing:
        return np.array(values, order="C")
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)], constant_values=fill)


@functools.lru_cache(maxsize=32)
def obstacle(network: Network) -> str | None:
    """Why the network cannot be lowered, if it cannot."""
    for layer, edges in zip(network.layers, heard(network)):
        for edge, sender, shape in edges:
            if sender == IMAGE:
                continue
            kernels, numbers = merged_size(edge.linear, shape)
            if kernels > 1 and 4 * numbers > MOST_MERGED:
                maps = [op.name for op in edge.ops if isinstance(op, Conv | Dense)]
                return (
                    f"cannot merge {' and '.join(maps)} in layer {layer.name}, which have no neurons between "
                    f"them: their {kernels} kernels at the border would take {4 * numbers / 1e9:,.1f} GB"
                )
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
    """The layers with int8 weights, or wider ones where a pool sums several."""
    network = integers.network

    def weights(edge: Edge, kernels: np.ndarray) -> np.ndarray:
        whole = np.round(kernels * pool_unit(edge.ops, layer_shapes(network)[edge.source]))
        most = np.abs(whole).max()
        return whole.astype(np.int8 if most <= LARGEST else np.int16 if most <= LARGEST_16 else np.int32)

    return lower(network, integers.kernels, weights)
