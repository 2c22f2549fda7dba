"""The event-driven back-end of the population simulator: work only where a neuron spikes. For CPUs.

Six to twelve in a hundred neurons of a converted network spike in a step. Every edge of the network is lowered
to one strided convolution (a pool is merged into the map beside it), and each spike adds the row of weights that
it drives to the membranes that it reaches. Layer by layer over blocks of timesteps, so that a layer's weights
stay in cache; candidates x images over threads. The compiled loops are in ``jaxsnn.event_kernels``.
"""

import functools
import importlib.util
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.network import IMAGE, AvgPool, Conv, Dense, Edge, Network, Op, layer_shapes, output_shape
from jaxsnn.plan import Plan
from jaxsnn.quantize import LARGEST, IntegerSNN, integer_neurons, pixels, quantize, window, wire_integers
from jaxsnn.snn import SNN, Dynamics, Genes, Neurons, neurons_of, wire

WEIGHTS_IN_CACHE = 2_400_000
"""Bytes of weights that a block of output channels may have. Measured: 0.6 to 9 MB differ by 10 %; about twice the
second-level cache is best, because a wide block reads the spikes less often."""
WIDEST_BLOCK = 128
SPIKES_IN_MEMORY = 1 << 28
"""Bytes that a thread's spike lists would take if every neuron fired; about a tenth of them do."""
CONSTANTS_IN_MEMORY = 1 << 28
"""Bytes of the constant drives of the images at hand."""
IMAGES_AT_ONCE = 512
IMAGES_A_TASK = 16
EVERY_ROW = 1 << 62


def available() -> bool:
    """Whether Numba is installed."""
    return importlib.util.find_spec("numba") is not None


class Convolution(NamedTuple):
    """An edge as one convolution: ``kernel`` (KH, KW, C, F) over an input padded by ``pad`` zeros."""

    kernel: np.ndarray
    stride: int
    pad: int


def as_convolution(ops: Sequence[Op], kernels: dict[str, np.ndarray], shape: tuple[int, ...]) -> Convolution:
    """The linear ops of an edge, without biases, on inputs of ``shape`` as one convolution in float64.

    Raises:
        UserError: two padded convolutions behind each other, which are no convolution at the border.
    """
    channels = shape[-1]
    merged = Convolution(np.eye(channels)[None, None], 1, 0)
    bordered = False
    for op in ops:
        if isinstance(op, AvgPool):
            mean = np.eye(shape[-1]) / op.window**2
            merged = _behind(
                merged, Convolution(np.broadcast_to(mean, (op.window, op.window, *mean.shape)), op.window, 0)
            )
        elif isinstance(op, Dense):
            grid = shape if len(shape) == 3 else (1, 1, *shape)
            kernel = np.asarray(kernels[f"{op.name}.kernel"], np.float64).reshape(*grid, op.features)
            merged = _behind(merged, Convolution(kernel, 1, 0))
        elif isinstance(op, Conv):
            pad = op.kernel // 2
            if bordered and pad:
                raise UserError(f"{op.name} follows another padded convolution without neurons between them")
            bordered |= pad > 0
            kernel = np.asarray(kernels[f"{op.name}.kernel"], np.float64)
            merged = _behind(merged, Convolution(kernel, op.stride, pad))
        shape = output_shape(op, shape)
    return merged


def _behind(first: Convolution, second: Convolution) -> Convolution:
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


class Cell(NamedTuple):
    """One candidate's neurons, per layer.

    Gains (edges, C), levels that a membrane must exceed to fire and thresholds that a spike takes away, initial
    membranes, all (C,) and filled up to whole blocks, and leaks. The read-out has gains only.
    """

    gains: list[np.ndarray]
    levels: list[np.ndarray]
    thresholds: list[np.ndarray]
    starts: list[np.ndarray]
    leaks: list[float]


def lower(
    network: Network, kernels: dict[str, np.ndarray], weights: Callable[[Edge, np.ndarray], np.ndarray]
) -> list[LoweredLayer]:
    """The network's layers for the compiled loops.

    Args:
        weights: ``weights(edge, kernel)`` is the array to use for a merged kernel (KH, KW, C, F) of float64:
            float32, int8 or int16.
    """
    shapes = [shape if len(shape) == 3 else (1, 1, *shape) for shape in layer_shapes(network)]
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
    packed = _aligned(blocks.shape, blocks.dtype)
    packed[:] = blocks
    return packed


def _aligned(shape: tuple[int, ...], dtype) -> np.ndarray:
    """An uninitialised array that starts on a cache line, so that no vector crosses two."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)


def padded_to(values: np.ndarray, channels: int, fill=0) -> np.ndarray:
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


@functools.lru_cache(maxsize=4)
def lower_float(snn: SNN) -> list[LoweredLayer]:
    """The layers with float32 weights."""
    kernels = {name: np.asarray(value) for name, value in snn.params.items()}
    return lower(snn.network, kernels, lambda edge, kernel: kernel.astype(np.float32))


@functools.lru_cache(maxsize=4)
def lower_integers(integers: IntegerSNN) -> list[LoweredLayer]:
    """The layers with int8 weights, or int16 where a pool sums several."""

    def weights(edge: Edge, kernel: np.ndarray) -> np.ndarray:
        whole = np.round(kernel * window(edge))
        return whole.astype(np.int8 if np.abs(whole).max() <= LARGEST else np.int16)

    return lower(integers.network, integers.kernels, weights)


def _cell(layers: Sequence[LoweredLayer], neurons: Neurons, dtype, inclusive: bool) -> Cell:
    """The arrays of one candidate from its numbers, scalars or one for each channel."""

    def fill(layer: LoweredLayer, value, rest=0) -> np.ndarray:
        return padded_to(np.broadcast_to(np.asarray(value, dtype), layer.shape[-1:]), layer.padded, rest)

    huge = np.finfo(np.float32).max if dtype == np.float32 else np.iinfo(np.int32).max
    spiking = layers[:-1]
    gains = [
        np.stack([fill(layer, gain) for gain in each]) if each else np.zeros((0, layer.padded), dtype)
        for layer, each in zip(layers, neurons.gains)
    ]
    thresholds = [fill(layer, value, huge) for layer, value in zip(spiking, neurons.thresholds)]
    levels = thresholds
    if inclusive:  # v >= theta is v > the number below theta
        below = (lambda v: np.nextafter(v, np.float32(0))) if dtype == np.float32 else (lambda v: v - 1)
        levels = [below(value) for value in thresholds]
    starts = [fill(layer, value) for layer, value in zip(spiking, neurons.starts)]
    leaks = [1.0] * len(spiking) if neurons.leaks is None else [float(leak) for leak in neurons.leaks]
    return Cell(gains, levels, thresholds, starts, leaks)


@functools.partial(jax.jit, static_argnames=("network", "integer"))
def _constants(network, integer, params, images):
    return (wire_integers if integer else wire)(network, params, images).constant


def images_at_once(network: Network, plan: Plan) -> int:
    """How many images' constant drives are held at once: what a quarter of the memory limit, or 256 MB, holds."""
    shapes = layer_shapes(network)
    driven = [shape for layer, shape in zip(network.layers, shapes) if layer.edges[0].source == IMAGE]
    held = 4 * sum(math.prod(shape) for shape in driven)
    room = (plan.memory_limit or 4 * CONSTANTS_IN_MEMORY) // 4
    if held + plan.threads * task_memory(shapes, 1, 1) > (plan.memory_limit or math.inf):
        raise UserError(
            f"the memory limit of {plan.memory_limit / 1e6:,.1f} MB is too small: one image on {plan.threads} "
            f"threads needs {(held + plan.threads * task_memory(shapes, 1, 1)) / 1e6:,.1f} MB"
        )
    return max(1, min(plan.rows or IMAGES_AT_ONCE, room // held))


def task_memory(shapes: Sequence[tuple[int, ...]], images: int, steps: int) -> int:
    """Bytes at most that a thread needs for a task: membranes, and every spike as a bit, a row and a start."""
    neurons = sum(math.prod(shape) for shape in shapes)
    return images * neurons * (4 + steps * (4 + 1 + 8))


def task_shape(shapes: Sequence[tuple[int, ...]], plan: Plan, work: int) -> tuple[int, int]:
    """Images of a task, and timesteps that it lists spikes of at once."""
    room = SPIKES_IN_MEMORY if plan.memory_limit is None else plan.memory_limit // (2 * plan.threads)
    images = max(1, min(IMAGES_A_TASK, math.ceil(work / (2 * plan.threads))))
    while images > 1 and task_memory(shapes, images, 1) > room:
        images //= 2
    each = task_memory(shapes, images, 1) - task_memory(shapes, images, 0)
    return images, max(1, (room - task_memory(shapes, images, 0)) // each)


def run(
    snn: SNN,
    genes: Genes,
    images: np.ndarray,
    steps: int,
    dynamics: Dynamics,
    plan: Plan,
    progress: Callable[[int], None],
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Every candidate on every image for ``steps`` delay-free steps, over the plan's threads.

    Returns:
        the classes with the highest scores after each step (P, B, steps), and the spikes of each layer summed
        over images, steps and channels, int64 (P, H, W).
    """
    candidates, count = len(genes.threshold), len(images)
    integer = plan.precision == "int8"
    if integer:
        integers = quantize(snn)
        layers, dtype = lower_integers(integers), np.int32
        neurons = integer_neurons(integers, genes, steps)
        constants = _constants(snn.network, True, integers.kernels, pixels(integers, images))
    else:
        layers, dtype = lower_float(snn), np.float32
        neurons = None
        constants = _constants(snn.network, False, snn.params, images)
    constants = [
        padded_to(
            np.asarray(np.broadcast_to(c, (len(c) if np.ndim(c) else 1, *shape)), dtype).reshape(-1, *layer.shape),
            layer.padded,
        )
        for c, shape, layer in zip(constants, layer_shapes(snn.network), layers)
    ]
    size, block = task_shape([layer.shape for layer in layers], plan, candidates * count)
    slices = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    answers = np.zeros((candidates, count, steps), np.int32)
    maps = [np.zeros((candidates, *layer.shape[:2]), np.int64) for layer in layers[:-1]]

    def task(candidate: int, part: slice) -> tuple[int, slice, Counts]:
        mine = jax.tree.map(lambda value: value[candidate], neurons if integer else genes)
        mine = mine if integer else neurons_of(snn.network, mine)
        cell = _cell(layers, mine, dtype, dynamics.comparison == ">=")
        drives = [c[part] if len(c) > 1 else c for c in constants]
        if integer:
            drives = [
                d + padded_to(np.broadcast_to(b, layer.shape[-1:]), layer.padded)
                for d, b, layer in zip(drives, mine.biases, layers)
            ]
        return candidate, part, simulate(layers, cell, drives, part.stop - part.start, steps, block)

    if not steps:
        progress(candidates * count)
        return answers, maps
    with ThreadPoolExecutor(plan.threads) as pool:
        tasks = [pool.submit(task, p, part) for part in slices for p in range(candidates)]
        try:
            for done in as_completed(tasks):
                candidate, part, counts = done.result()
                answers[candidate, part] = counts.scores.argmax(-1)
                for total, mine in zip(maps, counts.maps):
                    total[candidate] += mine
                progress(part.stop - part.start)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return answers, maps


class Counts(NamedTuple):
    """What one task found: ``scores`` (images, T, classes), ``maps`` per layer spikes (H, W), additions made."""

    scores: np.ndarray
    maps: list[np.ndarray]
    additions: int


def simulate(
    layers: Sequence[LoweredLayer],
    cell: Cell,
    constants: Sequence[np.ndarray],
    images: int,
    steps: int,
    block: int,
) -> Counts:
    """One candidate on a few images for ``steps`` delay-free steps, ``block`` of them at a time.

    Args:
        constants: per layer the constant drive (images or 1, H, W, padded channels).
    """
    from jaxsnn import event_kernels as kernels

    *spiking, last = layers
    dtype = constants[0].dtype
    membranes = [_aligned((images, *layer.shape[:2], layer.padded), dtype) for layer in spiking]
    for membrane, start in zip(membranes, cell.starts):
        membrane[:] = start
    scores = np.zeros((images, last.padded), dtype)
    maps = [np.zeros(layer.shape[0] * layer.shape[1], np.int64) for layer in spiking]
    curves, additions = [], 0
    for begin in range(0, steps, block):
        count = min(block, steps - begin)
        rows: list[np.ndarray] = []
        starts: list[np.ndarray] = []
        for index, layer in enumerate(spiking):
            height, width, channels = layer.shape
            words = 2 * math.ceil(layer.padded / 32)
            bits = (np.empty if 16 * words == layer.padded else np.zeros)(
                (images, count, height, width, words), np.uint16
            )
            neuron = (cell.levels[index], cell.thresholds[index], cell.leaks[index], membranes[index], bits)
            if layer.sources:
                additions += kernels.spiking_layer(
                    *_inputs(layer, rows, starts, cell.gains[index]), constants[index], *neuron
                )
            else:
                kernels.constant_layer(constants[index], *neuron)
            starts.append(np.empty((images, count, height * width + 1), np.int64))
            rows.append(np.empty(kernels.count_spikes(bits, starts[-1], maps[index]) + 16, np.int32))
            kernels.list_spikes(bits, channels, rows[-1])
        curve = np.empty((images, count, last.padded), dtype)
        additions += kernels.readout(*_inputs(last, rows, starts, cell.gains[-1]), constants[-1], scores, curve)
        curves.append(curve[..., : last.shape[-1]])
    shaped = [m.reshape(layer.shape[:2]) for m, layer in zip(maps, spiking)]
    return Counts(np.concatenate(curves, 1), shaped, additions)


def _inputs(layer: LoweredLayer, rows: list, starts: list, gains: np.ndarray) -> tuple:
    """The first six arguments of a kernel for a layer that spikes drive."""
    return (
        layer.weights,
        tuple(rows[source] for source in layer.sources),
        tuple(starts[source] for source in layer.sources),
        layer.spans,
        layer.limits,
        gains,
    )
