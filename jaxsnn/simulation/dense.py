"""The dense back-end: one compiled scan over timesteps for P candidates x B images, on any device or several."""

import functools
import math
import operator
import warnings
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxsnn.errors import UserError
from jaxsnn.networks.description import Arrays, Network
from jaxsnn.networks.senders import has_gates, senders
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.runtime import int8_products
from jaxsnn.runtime.memory import device_memory
from jaxsnn.runtime.weak_cache import remembered
from jaxsnn.simulation import gpu, kernels, tpu
from jaxsnn.simulation.integers import (
    IntegerSNN,
    dense_alone,
    integer_neurons,
    integer_pixels,
    matrix_products,
    quantize,
    readout_units,
    wire_integers,
)
from jaxsnn.simulation.plan import Plan
from jaxsnn.simulation.rows import PACKED
from jaxsnn.simulation.step import Neurons, initial_state, neurons_of, snn_block, snn_step, wire

CPU_ROWS = 192
"""Candidates x images of 32 x 32 at once on a CPU, larger ones by their pixels: more gain nothing there."""


FEW = 4
"""Where a CPU could take so many times the rows that there are, a layer does several steps at once."""


MOST_ROWS = 1 << 14

Chunk = tuple[np.ndarray, np.ndarray, list[np.ndarray], int, np.ndarray | None]
"""What ``chunks`` yields."""


def chunks(
    snn: SNN,
    genes: Genes,
    images: np.ndarray,
    labels: np.ndarray,
    timesteps: int,
    dynamics: Dynamics,
    plan: Plan,
    progress: Callable[[int], None],
    per_image: bool,
    scored: bool = False,
) -> Iterator[Chunk]:
    """For one chunk of images after the other: right answers (P, T); with ``per_image`` which ones, (P, B, T);
    spikes of each sender (P, H, W); the number of images; and if ``scored`` the class scores in the ANN's units,
    summed over time, float64 (P, B, steps, classes).

    Where the device runs out of memory, chunks are halved and the simulation continues.
    """
    candidates = len(genes.threshold)
    network, params, each, inputs = snn.network, snn.params, genes, lambda part: part
    units = np.ones(candidates)
    if plan.precision == "int8":
        integers = quantize(snn)
        network, silent = integers.network, min(timesteps, dynamics.silent_steps(snn.network))
        params, each = _placed(integers), integer_neurons(integers, genes, timesteps - silent)
        inputs = functools.partial(integer_pixels, integers)
        units = readout_units(integers, genes)
    mesh, across, along = make_mesh(plan.mesh)
    rows = rows_at_once(snn, dynamics, timesteps, per_image, plan, candidates) * across * along
    held = _held.setdefault(snn, {})
    what = (dynamics.delay, timesteps, per_image, plan.precision, plan.block, across * along)
    rows = min(rows, held.get(what, rows))
    compiled = program(plan.precision)
    call = functools.partial(compiled, network, dynamics, timesteps, per_image, plan.precision, mesh)
    if scored:
        call = functools.partial(call, scored=True)
    start, left = 0, len(images)
    while start < len(images):
        # of what was left when ``rows`` was found, so that the last chunk is padded and not compiled again
        group, size = chunk_shape(candidates, left, rows, plan.group, across, along)
        part = slice(start, start + size)
        count = len(images[part])
        chunk = _padded(inputs(images[part]), labels[part], size)
        steps = timesteps - dynamics.silent_steps(snn.network)
        # where memory is short, no more of it for the sake of speed
        block = 1 if what in held else block_steps(plan, snn.network, steps, group * size)
        parts = []
        try:
            for first in range(0, candidates, group):
                members = np.arange(first, first + group).clip(max=candidates - 1)
                mine = jax.tree.map(operator.itemgetter(members), each)
                parts.append(jax.block_until_ready(call(block, params, mine, *chunk)))
                progress(min(group, candidates - first) * count)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            progress(-min(len(parts) * group, candidates) * count)
            rows, left = _halved(rows, across * along), len(images) - start
            held[what] = rows
            continue
        right = np.concatenate([np.asarray(part[0]) for part in parts])[:candidates]
        maps = [np.concatenate(layer)[:candidates] for layer in zip(*(part[1] for part in parts))]
        scores = None
        if scored:
            scores = np.concatenate([np.asarray(part[2], np.float64) for part in parts])[:candidates, :, :count]
            scores = scores.swapaxes(1, 2) * units[:, None, None, None]
        yield right.sum(1) if per_image else right, right[:, :count], maps, count, scores
        start += size


@remembered
def _placed(integers: IntegerSNN) -> Arrays:
    """The kernels where they are used, so that they do not travel with every chunk."""
    return integers.kernels if jax.default_backend() == "cpu" else jax.device_put(integers.kernels)


_held: weakref.WeakKeyDictionary[SNN, dict[tuple, int]] = weakref.WeakKeyDictionary()
"""Rows that were left where a device ran out of memory, so that the next call does not fail again."""


def _halved(rows: int, devices: int) -> int:
    if rows <= devices:
        raise UserError("the device has too little memory for one image: use a smaller network or another device")
    # the same text every time, which Python shows once
    warnings.warn("the device is out of memory: continuing with fewer candidates x images at once", stacklevel=2)
    return rows // 2


def chunk_shape(
    candidates: int, images: int, rows: int, group: int | None, across: int, along: int
) -> tuple[int, int]:
    """Candidates and images of a chunk: multiples of the mesh's sides, about ``rows`` together."""
    group = min(group or candidates, max(1, rows // along))
    group = math.ceil(group / across) * across
    size = max(1, rows // group)
    size = math.ceil(images / math.ceil(images / size))  # equal chunks: one compiled shape serves them all
    return group, math.ceil(size / along) * along


def cpu_rows(network: Network) -> int:
    """Candidates x images at once that keep a CPU busy."""
    height, width, _ = network.input_shape
    return max(1, CPU_ROWS * 32 * 32 // (height * width))


def block_steps(plan: Plan, network: Network, steps: int, rows: int) -> int:
    """Steps that each layer does at once: the plan's, or on a CPU as many as make up for too few ``rows``.

    It pays there where a quarter of the rows or fewer are in use (compare ``--block 1`` in jaxsnn.evaluate
    --backend xla). Where our kernels do the layers, ``block_of``; otherwise one, as with a memory limit: in XLA's
    own code on an H100, blocks of 7 were 6 % slower than single steps.
    """
    alone = plan.memory_limit is None and plan.mesh is None and jax.default_backend() == "cpu"
    most = cpu_rows(network)
    ours = _kernels(network, plan.precision)
    if plan.block is None and ours is not None:
        return gpu.block_of(steps)
    if ours is tpu:  # whose blocks lie on the chip
        steps = min(steps, gpu.STEPS)
    wanted = plan.block or (most // rows if alone and rows * FEW <= most else 1)
    return max(1, min(wanted, steps))


def _kernels(network: Network, precision: str) -> ModuleType | None:
    """Our kernels, where the device has them; they have no max pools."""
    return None if has_gates(network) else kernels.usable(precision)


def make_mesh(sides: tuple[int, int] | None) -> tuple[Mesh | None, int, int]:
    """A mesh over (population, data) and its sides."""
    if sides is None or sides == (1, 1):
        return None, 1, 1
    devices = jax.local_devices()
    if math.prod(sides) > len(devices):
        raise UserError(
            f"a mesh of {sides[0]} x {sides[1]} needs {math.prod(sides)} devices, but there are {len(devices)}"
        )
    grid = np.array(devices[: math.prod(sides)]).reshape(sides)
    return Mesh(grid, ("population", "data")), *sides


def rows_at_once(
    snn: SNN, dynamics: Dynamics, timesteps: int, per_image: bool, plan: Plan, candidates: int
) -> int:
    """Candidates x images that a device takes at once: the plan's, or what the memory limit allows.

    Raises:
        UserError: one image does not fit.
    """
    most = plan.rows or (cpu_rows(snn.network) if jax.default_backend() == "cpu" else MOST_ROWS)
    ours = _kernels(snn.network, plan.precision)
    if ours is not None:
        most = min(most, gpu.most_rows(snn.network, plan.block or gpu.STEPS))
        # two programs less to compile; a device that runs out of memory says so
        if plan.memory_limit is None and ours is gpu:
            return most
    if plan.memory_limit is None and (plan.rows or jax.default_backend() == "cpu"):
        return most
    limit = plan.memory_limit or device_memory() * 4 // 5
    block = plan.block or (1 if ours is None else gpu.STEPS)
    block = min(block, gpu.STEPS) if ours is tpu else block
    fixed, each = memory(snn, dynamics, timesteps, per_image, plan.precision, block, min(candidates, 4))
    rows = int((limit - fixed) // each)
    if rows < 1:
        raise UserError(
            f"the memory limit of {limit / 1e6:,.1f} MB is too small: "
            f"one candidate on one image needs {(fixed + each) / 1e6:,.1f} MB"
        )
    return min(rows, most)


@remembered
def memory(
    snn: SNN, dynamics: Dynamics, timesteps: int, per_image: bool, precision: str, block: int, candidates: int
) -> tuple[float, float]:
    """Bytes that are needed whatever the chunk, and for each candidate x image: from two compiled programs."""
    network = snn.network
    layers = len(network.spiking)
    each: Genes | Neurons = Genes(np.ones((candidates, layers), np.float32))
    params, kind = snn.params, np.uint8
    if precision == "int8":
        integers = quantize(snn)
        network, params, kind = integers.network, integers.kernels, np.float32
        each = integer_neurons(integers, each, 1)

    def used(images: int) -> int:
        arguments = (
            jax.ShapeDtypeStruct((images, *network.input_shape), kind),
            jax.ShapeDtypeStruct((images,), np.int32),
            jax.ShapeDtypeStruct((images,), bool),
        )
        lowered = program(precision).lower(
            network, dynamics, timesteps, per_image, precision, None, block, params, each, *arguments
        )
        found = lowered.compile().memory_analysis()
        if found is None:
            raise ValueError("this device does not tell how much memory a program takes: set the plan's rows")
        return found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes

    count = PACKED if _kernels(snn.network, precision) is tpu else 4
    few, more = used(count), used(2 * count)
    each_row = max(1.0, (more - few) / (count * candidates))
    return max(0.0, few - count * candidates * each_row), each_row


def _padded(images: np.ndarray, labels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images and labels filled up to ``size`` rows, and which rows are real."""
    missing = size - len(images)
    real = np.arange(size) < len(images)
    return np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))), np.pad(labels, (0, missing)), real


STATIC = ("network", "dynamics", "timesteps", "per_image", "precision", "mesh", "block", "scored")


def simulate_chunk(
    network: Network,
    dynamics: Dynamics,
    timesteps: int,
    per_image: bool,
    precision: str,
    mesh: Mesh | None,
    block: int,
    params: Arrays,
    each: Genes | Neurons,
    images: jax.Array,
    labels: jax.Array,
    real: jax.Array,
    scored: bool = False,
) -> tuple[jax.Array, list[jax.Array], jax.Array | None]:
    """One chunk of images, of which those marked ``real`` count; layer by layer over ``block`` steps.

    ``each`` are the genes of P candidates; in int8 their neurons, and the images are the integers of
    ``jaxsnn.simulation.integers.integer_pixels``. A ``mesh`` over ("population", "data") divides P and B.

    Returns:
        images that are right (P, T) int32, or if ``per_image`` which ones, bool (P, B, T); the spikes of each
        sender, summed over images, steps and channels: int32 (P, H, W), or (P, 1, 1) after a dense layer; and if
        ``scored`` the scores (P, delay-free steps, B, classes), else None.
    """
    one_device = functools.partial(_simulate, network, dynamics, timesteps, per_image, precision, block, scored)
    if mesh is None:
        return one_device(params, each, images, labels, real)

    def shard(*arguments):
        right, counts, scores = one_device(*arguments)
        counts = jax.lax.psum(counts, "data")
        return right if per_image else jax.lax.psum(right, "data"), counts, scores

    population, rows = P("population"), P("data")
    right = P("population", "data") if per_image else population
    inside = (P(), population, rows, rows, rows)
    outside = (right, population, P("population", None, "data"))
    return jax.shard_map(shard, mesh=mesh, in_specs=inside, out_specs=outside, check_vma=False)(
        params, each, images, labels, real
    )


simulate = jax.jit(simulate_chunk, static_argnames=STATIC)
_simulate_int8 = jax.jit(simulate_chunk, static_argnames=STATIC, compiler_options=int8_products.OPTIONS)


def program(precision: str) -> jax.stages.Wrapped:
    """``simulate_chunk``, compiled in the way that suits this device."""
    return _simulate_int8 if precision == "int8" and int8_products.fast() else simulate


def _simulate(
    network: Network,
    dynamics: Dynamics,
    timesteps: int,
    per_image: bool,
    precision: str,
    block: int,
    scored: bool,
    params: Arrays,
    each: Genes | Neurons,
    images: jax.Array,
    labels: jax.Array,
    real: jax.Array,
) -> tuple[jax.Array, list[jax.Array], jax.Array | None]:
    """``simulate_chunk`` on one device."""
    steps = max(0, timesteps - dynamics.silent_steps(network))
    integer = precision == "int8"
    ours = _kernels(network, precision)
    if integer:
        narrow = dense_alone if ours is not None else matrix_products if int8_products.fast() else None
        wiring = wire_integers(network, params, images, narrow)
    else:
        wiring = wire(network, params, images, precision)
    layers = [] if ours is None else ours.layers_of(network, params, precision)

    def read(scores: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        right = (scores.argmax(-1) == labels) & real
        return right if per_image else right.sum(-1, dtype=jnp.int32), scores if scored else None

    def one(mine: Genes | Neurons):
        neurons = mine if isinstance(mine, Neurons) else neurons_of(network, mine, params)

        def step(carry, _):
            state, counts = carry
            state, spikes = snn_step(network, dynamics, wiring, neurons, state)
            counts = [count + _pixel_sum(s, real) for count, s in zip(counts, spikes)]
            return (state, counts), read(state.scores)

        def several(carry, length):
            state, counts = carry
            if ours is not None:
                state, spikes, scores = ours.block(
                    network, dynamics, wiring, layers, neurons, state, length, precision
                )
                counts = [count + jnp.where(real[:, None, None], s, 0).sum(0) for count, s in zip(counts, spikes)]
                return (state, counts), read(scores)
            state, spikes, scores = snn_block(network, dynamics, wiring, neurons, state, length)
            flat = [s.reshape(-1, *s.shape[2:]) for s in spikes]
            counts = [count + _pixel_sum(s, jnp.tile(real, length)) for count, s in zip(counts, flat)]
            return (state, counts), read(scores)

        state = initial_state(network, neurons, len(images), jnp.int32 if integer else jnp.float32)
        state = state if ours is None else ours.start(state, layers)
        shapes = [sender.shape for sender in senders(network)]
        counts = [jnp.zeros(shape[:2] if len(shape) == 3 else (1, 1), jnp.int32) for shape in shapes]
        if block == 1 and ours is None:
            (_, counts), (right, scores) = jax.lax.scan(step, (state, counts), length=steps)
            return right, counts, scores
        whole, rest = divmod(steps, block)
        carry, seen = jax.lax.scan(lambda carry, _: several(carry, block), (state, counts), length=whole)
        seen = jax.tree.map(lambda part: part.reshape(-1, *part.shape[2:]), seen)
        if rest:
            carry, last = several(carry, rest)
            seen = jax.tree.map(lambda *parts: jnp.concatenate(parts), seen, last)
        return seen[0], carry[1], seen[1]

    right, counts, scores = jax.vmap(one)(each)  # (P, steps) or (P, steps, B)
    # before anything reaches the read-out all scores are zero and the first class wins
    first = (labels == 0) & real
    silent = first if per_image else first.sum(dtype=jnp.int32)
    silent = jnp.broadcast_to(silent, (len(right), timesteps - steps, *silent.shape))
    right = jnp.concatenate([silent, right], 1)
    return right.swapaxes(1, 2) if per_image else right, counts, scores


def _pixel_sum(spikes: jax.Array, real: jax.Array) -> jax.Array:
    """Spikes (B, H, W, C) or (B, C) of the real images summed to int32 (H, W) or (1, 1)."""
    spikes = spikes.reshape(len(spikes), *(spikes.shape[1:] if spikes.ndim == 4 else (1, 1, -1)))
    if len(spikes) * spikes.shape[-1] >= 1 << 24:  # float32 would not hold every sum
        return (spikes.sum(-1).astype(jnp.int32) * real[:, None, None]).sum(0)
    return jnp.einsum("bhwc,b->hw", spikes, real.astype(spikes.dtype)).astype(jnp.int32)
