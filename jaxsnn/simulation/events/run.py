"""The event-driven back-end of the population simulator: work only where a neuron spikes. For CPUs.

Six to twelve in a hundred neurons of a converted network spike in a step. Every edge of the network is lowered
to one strided convolution (a pool is merged into the map beside it), and each spike adds the row of weights that
it drives to the membranes that it reaches. Layer by layer over blocks of timesteps, so that a layer's weights
stay in cache; candidates x images over threads. The compiled loops are in ``jaxsnn.simulation.events.kernels``.
"""

import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.description import IMAGE, Arrays, Network, layer_shapes
from jaxsnn.networks.senders import senders
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.simulation.events.lowering import STEPS, LoweredLayer, aligned, lower_float, lower_integers, padded_to
from jaxsnn.simulation.integers import integer_neurons, integer_pixels, quantize, readout_units, wire_integers
from jaxsnn.simulation.plan import Plan
from jaxsnn.simulation.step import Neurons, neurons_of, wire

SPIKES_IN_MEMORY = 1 << 28
"""Bytes that a thread's spike lists would take if every neuron fired; about a tenth of them do."""


CONSTANTS_IN_MEMORY = 1 << 28
"""Bytes of the constant drives of the images at hand."""


IMAGES_AT_ONCE = 512


IMAGES_A_TASK = 8
"""VGG15 in int8, 64 images: 3,960 itc/s instead of 3,780 with 16 at T = 8, 5,190 instead of 4,850 at T = 42 (two
Zen 4 cores' processor time), as twice as many steps fit; and five candidates on 16 images leave no thread idle."""


LISTED = 1 << 23
"""Bytes at most of the spikes that are listed by pattern at a time, so that the loops find them in a cache."""


EdgeArrays = tuple[np.ndarray, ...]
"""One array for each edge of a layer."""


class Cell(NamedTuple):
    """One candidate's neurons, per layer.

    Gains (edges, C), levels that a membrane must exceed to fire and thresholds that a spike takes away, initial
    membranes, and the bias of each step where only the image drives a layer, all (C,) and filled up to whole
    blocks, and leaks. The read-out has gains only.
    """

    gains: list[np.ndarray]
    levels: list[np.ndarray]
    thresholds: list[np.ndarray]
    starts: list[np.ndarray]
    biases: list[np.ndarray]
    leaks: list[float]


def _cell(layers: Sequence[LoweredLayer], neurons: Neurons, dtype: type, inclusive: bool) -> Cell:
    """The arrays of one candidate from its numbers, scalars or one for each channel."""

    def fill(layer: LoweredLayer, value: Any, rest: float | np.floating = 0) -> np.ndarray:
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
    biases = [fill(layer, bias) for layer, bias in zip(layers, neurons.biases or [0] * len(layers))]
    leaks = [1.0] * len(spiking) if neurons.leaks is None else [float(leak) for leak in neurons.leaks]
    return Cell(gains, levels, thresholds, starts, biases, leaks)


@functools.partial(jax.jit, static_argnames=("network", "integer"))
def _constants(network: Network, integer: bool, params: Arrays, images: jax.Array) -> list[jax.Array]:
    return (wire_integers if integer else wire)(network, params, images).constant


def threads_of(plan: Plan) -> int:
    """The threads of a plan that ``jaxsnn.simulation.backends.decided`` has settled."""
    if plan.threads is None:
        raise ValueError("the plan leaves the number of threads open: settle it with backends.decided")
    return plan.threads


def images_at_once(network: Network, plan: Plan) -> int:
    """How many images' constant drives are held at once: what a quarter of the memory limit, or 256 MB, holds."""
    shapes = layer_shapes(network)
    driven = [shape for layer, shape in zip(network.layers, shapes) if layer.edges[0].source == IMAGE]
    held = 4 * sum(math.prod(shape) for shape in driven)
    room = (plan.memory_limit or 4 * CONSTANTS_IN_MEMORY) // 4
    threads = threads_of(plan)
    counted = [
        shape for sender in senders(network) if sender.pool for shape in (shapes[sender.layer], sender.shape)
    ]
    needed = held + threads * task_memory([*shapes, *counted], 1, 1)
    if plan.memory_limit is not None and needed > plan.memory_limit:
        raise UserError(
            f"the memory limit of {plan.memory_limit / 1e6:,.1f} MB is too small: one image on {threads} "
            f"threads needs {needed / 1e6:,.1f} MB"
        )
    return max(1, min(plan.rows or IMAGES_AT_ONCE, room // held))


def task_memory(shapes: Sequence[tuple[int, ...]], images: int, steps: int) -> int:
    """Bytes at most that a thread needs for a task: membranes, and every spike as a bit, a row and a start."""
    neurons = sum(math.prod(shape) for shape in shapes)
    return images * neurons * (4 + steps * (4 + 1 + 8))


def sent_shapes(layers: Sequence[LoweredLayer]) -> list[tuple[int, int, int]]:
    """(H, W, C) of each sender: the spiking layers, each followed by its max pools."""
    return [part.shape for layer in layers[:-1] for part in (layer, *layer.gates)]


def held_shapes(layers: Sequence[LoweredLayer]) -> list[tuple[int, int, int]]:
    """Shapes of what a task holds numbers of: layers, and for each max pool its counts before and behind it."""
    counted = [shape for layer in layers for gate in layer.gates for shape in (layer.shape, gate.shape)]
    return [layer.shape for layer in layers] + counted


def task_shape(
    shapes: Sequence[tuple[int, ...]], plan: Plan, candidates: int, count: int, timesteps: int
) -> tuple[int, int]:
    """Images of a task, and timesteps that it lists spikes of at once: whole patterns if there is room for one.

    Twice ``IMAGES_A_TASK`` where few steps leave room for them in a cache and threads end together: VGG15 on 64
    images at T = 4 takes 446 us of a Zen 4 core an image-step instead of 480 in int8, and 1,233 instead of 1,314
    in float32; at T = 8 in int8 it would be 463 instead of 430.
    """
    threads = threads_of(plan)
    room = SPIKES_IN_MEMORY if plan.memory_limit is None else plan.memory_limit // (2 * threads)
    tasks = candidates * math.ceil(count / (2 * IMAGES_A_TASK))
    even = tasks >= 2 * threads and 20 * (-tasks % threads) <= tasks
    most = 2 * IMAGES_A_TASK if timesteps <= STEPS and even else IMAGES_A_TASK
    images = max(1, min(most, math.ceil(candidates * count / (2 * threads))))
    while images > 1 and task_memory(shapes, images, 1 if images <= IMAGES_A_TASK else timesteps) > room:
        images //= 2
    each = task_memory(shapes, images, 1) - task_memory(shapes, images, 0)
    steps = max(1, (room - task_memory(shapes, images, 0)) // each)
    return images, steps - steps % STEPS if steps > STEPS else steps


def run(
    snn: SNN,
    genes: Genes,
    images: np.ndarray,
    steps: int,
    dynamics: Dynamics,
    plan: Plan,
    progress: Callable[[int], None],
    scored: bool = False,
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray | None]:
    """Every candidate on every image for ``steps`` delay-free steps, over the plan's threads.

    Returns:
        the classes with the highest scores after each step (P, B, steps), and the spikes of each sender summed
        over images, steps and channels, int64 (P, H, W); and if ``scored`` the class scores in the ANN's units,
        summed over time, float64 (P, B, steps, classes).
    """
    candidates, count = len(genes.threshold), len(images)
    ready = prepared(snn, genes, images, steps, dynamics, plan)
    layers = ready.layers
    size, block = task_shape(held_shapes(layers), plan, candidates, count, steps)
    slices = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    answers = np.zeros((candidates, count, steps), np.int32)
    maps = [np.zeros((candidates, *shape[:2]), np.int64) for shape in sent_shapes(layers)]
    scores = np.zeros((candidates, count, steps, snn.network.classes)) if scored else None

    def task(candidate: int, part: slice) -> tuple[int, slice, Counts]:
        cell, drives = ready.of(candidate, part)
        return candidate, part, simulate(layers, cell, drives, part.stop - part.start, steps, block)

    if not steps:
        progress(candidates * count)
        return answers, maps, scores
    with ThreadPoolExecutor(plan.threads) as pool:
        tasks = [pool.submit(task, p, part) for part in slices for p in range(candidates)]
        try:
            for done in as_completed(tasks):
                candidate, part, counts = done.result()
                answers[candidate, part] = counts.scores.argmax(-1)
                if scores is not None:
                    scores[candidate, part] = counts.scores * ready.units[candidate]
                for total, mine in zip(maps, counts.maps):
                    total[candidate] += mine
                progress(part.stop - part.start)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return answers, maps, scores


class Prepared(NamedTuple):
    """A network, candidates and images as the kernels take them.

    Attributes:
        constants: per layer the drive that all candidates share, (images or 1, H, W, padded channels), or (1, 1,
            1, padded channels) where there is none.
        units: what 1 in the class scores of each candidate stands for in the units of the ANN's, (P,).
        of: a candidate's cell, and the constant drives of a part of the images.
    """

    layers: Sequence[LoweredLayer]
    constants: list[np.ndarray]
    units: np.ndarray
    of: Callable[[int, slice], tuple[Cell, list[np.ndarray]]]


def prepared(snn: SNN, genes: Genes, images: np.ndarray, steps: int, dynamics: Dynamics, plan: Plan) -> Prepared:
    """What ``run`` needs beside its threads; ``steps`` are how many membranes must have room for."""
    integers = quantize(snn) if plan.precision == "int8" else None
    candidate_neurons: Genes | Neurons = genes
    if integers is not None:
        layers, dtype = lower_integers(integers), np.int32
        candidate_neurons = integer_neurons(integers, genes, steps)
        constants = _constants(integers.network, True, integers.kernels, integer_pixels(integers, images))
    else:
        layers, dtype = lower_float(snn), np.float32
        constants = _constants(snn.network, False, snn.params, images)
    constants = [_drive(np.asarray(c, dtype), layer) for c, layer in zip(constants, layers)]

    @functools.cache
    def cell_of(candidate: int) -> tuple[Cell, list[np.ndarray]]:
        mine: Genes | Neurons = jax.tree.map(lambda value: value[candidate], candidate_neurons)
        if isinstance(mine, Genes):
            mine = neurons_of(snn.network, mine, snn.params)
        cell = _cell(layers, mine, dtype, dynamics.comparison == ">=")
        if integers is None:
            return cell, constants
        biased = [d + bias if layer.sources else d for d, bias, layer in zip(constants, cell.biases, layers)]
        return cell, biased

    def of(candidate: int, part: slice) -> tuple[Cell, list[np.ndarray]]:
        cell, drives = cell_of(candidate)
        return cell, [drive[part] if len(drive) > 1 else drive for drive in drives]

    units = np.ones(len(genes.threshold)) if integers is None else readout_units(integers, genes)
    return Prepared(layers, constants, units, of)


def _drive(constant: np.ndarray, layer: LoweredLayer) -> np.ndarray:
    """The constant drive (images or 1, *shape) of a layer, or the same everywhere, as the kernels take it."""
    if not constant.ndim:
        return np.full((1, 1, 1, layer.padded), constant)
    shaped = constant.reshape(-1, *layer.shape)
    if not layer.sources and layer.padded == layer.shape[-1]:
        return shaped  # those of the image are large, and only read
    return padded_to(shaped, layer.padded)


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
    last = layers[-1]
    state = begin(layers, constants, images, kept=steps > block)
    shapes = [shape[:2] for shape in sent_shapes(layers)]
    maps = [np.zeros(math.prod(shape), np.int64) for shape in shapes]
    curves, additions = [], 0
    for first in range(0, steps, block):
        count = min(block, steps - first)
        curve, _, added = advance(layers, cell, constants, state, count, maps, fresh=not first)
        curves.append(curve[..., : last.shape[-1]])
        additions += added
    shaped = [m.reshape(shape) for m, shape in zip(maps, shapes)]
    return Counts(np.concatenate(curves, 1), shaped, additions)


class TaskState(NamedTuple):
    """Of a task's images: ``membranes`` of each spiking layer (images or 1, H, W, padded channels), and ``scores``
    (images, padded classes), summed over time; ``counts`` of each max pool's inputs (images, H * W, C) so far, and
    the largest of each window (images, H' * W', C)."""

    membranes: list[np.ndarray]
    scores: np.ndarray
    counts: list[tuple[np.ndarray, np.ndarray]]


def begin(
    layers: Sequence[LoweredLayer], constants: Sequence[np.ndarray], images: int, kept: bool = True
) -> TaskState:
    """Room for membranes, which the first steps fill, and scores at zero.

    Args:
        kept: membranes are needed after the first block of steps; else one image's room serves all.
    """
    *spiking, last = layers
    dtype = constants[0].dtype
    membranes = [aligned((images if kept else 1, *layer.shape[:2], layer.padded), dtype) for layer in spiking]
    counts = [
        (np.zeros((images, h * w, c), np.int32), np.zeros((images, high * wide, c), np.int32))
        for layer in spiking
        for (h, w, c), (high, wide, _) in ((layer.shape, gate.shape) for gate in layer.gates)
    ]
    return TaskState(membranes, np.zeros((images, last.padded), dtype), counts)


def advance(
    layers: Sequence[LoweredLayer],
    cell: Cell,
    constants: Sequence[np.ndarray],
    state: TaskState,
    count: int,
    maps: Sequence[np.ndarray],
    fresh: bool,
) -> tuple[np.ndarray, list[np.ndarray], int]:
    """``count`` steps, layer by layer; ``state`` moves on, and each sender's spikes are added to ``maps`` (H * W).

    Args:
        fresh: these are the first steps, and membranes start.

    Returns:
        the scores after each step (images, count, padded classes); per sender where in its list the spikes
        of each position start, (images, count, H * W + 1); and the additions made.
    """
    from jaxsnn.simulation.events import kernels, patterns
    from jaxsnn.simulation.events.passing import pass_spikes

    *spiking, last = layers
    images, additions, pools = len(state.scores), 0, iter(state.counts)
    patterned = constants[0].dtype == np.int32 and count > 1
    by_step = [layer for layer in layers if not patterned or layer.targets is not None or layer is last]
    listed = {source for layer in by_step for source in layer.sources}
    channels = np.array([shape[2] for shape in sent_shapes(layers)])
    words: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    starts: list[np.ndarray] = []
    for index, layer in enumerate(spiking):
        height, width, _ = layer.shape
        each = 2 * math.ceil(layer.padded / 32)
        bits = (np.empty if 16 * each == layer.padded else np.zeros)(
            (images, count, height, width, each), np.uint16
        )
        origin = cell.starts[index][: None if fresh else 0]
        neuron = (cell.levels[index], cell.thresholds[index], cell.leaks[index], origin)
        moved = (state.membranes[index], bits)
        if layer.targets is not None:
            edge = (rows[layer.sources[0]], starts[layer.sources[0]], layer.spans[0], cell.gains[index][0])
            additions += kernels.grouped_layer(
                layer.weights[0][0], layer.targets, *edge, constants[index], *neuron, *moved
            )
        elif layer.sources and patterned:
            sources = list(layer.sources)
            sent, all_spikes = tuple(words[source] for source in sources), 4 * images * count * height * width
            additions += patterns.spiking_patterns(
                *(layer.weights, sent, channels[sources], layer.spans, layer.limits, cell.gains[index]),
                *(constants[index], *neuron[:2], origin, *moved, min(LISTED, all_spikes * layer.padded)),
            )
        elif layer.sources:
            additions += kernels.spiking_layer(
                *_inputs(layer, rows, starts, cell.gains[index]), constants[index], *neuron, *moved
            )
        else:
            current = constants[index].view()
            current.flags.writeable = False  # as JAX's arrays are: Numba would compile another loop
            kernels.constant_layer(current, cell.biases[index], *neuron, *moved)
        words.append(bits)
        for gate in layer.gates:
            words.append(np.zeros((images, count, *gate.shape[:2], each), np.uint16))
            pass_spikes(bits, gate.windows, *next(pools), words[-1])
        for number in range(len(rows), len(words)):
            positions = math.prod(words[number].shape[2:4])
            starts.append(np.empty((images, count, positions + 1), np.int64))
            spikes = kernels.count_spikes(words[number], starts[-1], maps[number])
            rows.append(np.empty(spikes + 16 if number in listed else 0, np.int32))
            if number in listed:
                kernels.list_spikes(words[number], channels[number], rows[-1])
    curve = np.empty((images, count, last.padded), constants[0].dtype)
    inputs = _inputs(last, rows, starts, cell.gains[-1])
    additions += kernels.readout(*inputs, constants[-1], state.scores, curve)
    return curve, starts, additions


def _inputs(
    layer: LoweredLayer, rows: Sequence[np.ndarray], starts: Sequence[np.ndarray], gains: np.ndarray
) -> tuple[EdgeArrays, EdgeArrays, EdgeArrays, EdgeArrays, np.ndarray, np.ndarray]:
    """The first six arguments of a kernel for a layer that spikes drive."""
    return (
        layer.weights,
        tuple(rows[source] for source in layer.sources),
        tuple(starts[source] for source in layer.sources),
        layer.spans,
        layer.limits,
        gains,
    )
