"""How ``jaxsnn.simulation.tpu`` computes the layers of a network, and which it leaves to XLA."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.networks.description import IMAGE, Arrays, AvgPool, Conv, Dense, Network, layer_shapes, output_shape
from jaxsnn.networks.linear_maps import MATRIX_POSITIONS, conv_matrix
from jaxsnn.simulation import gpu
from jaxsnn.simulation.rows import Grid, grid_of

FEATURES = 256
"""Most channels that a program makes at once."""
DEEPEST = 4096
"""Most channels that a product adds up."""
MEMORY = 100 * 2**20
"""Bytes on the chip that a kernel may take."""


class Taps(NamedTuple):
    """A linear map over positions that lie behind each other.

    Attributes:
        weights: (terms * taps, C, F) bfloat16.
        offsets: of each tap, rows between its output and its input.
        phases: of each tap, which corner of a square of 2 x 2 positions it reads; all 0 without squares.
        source: how the spikes lie that it reads.
        pooled: the sums over all squares of 2 x 2 are read at every second position, so that each output is the
            sum of a pool of 2 x 2.
    """

    weights: jax.Array
    offsets: tuple[int, ...]
    phases: tuple[int, ...]
    source: Grid
    pooled: bool = False


class Layer(NamedTuple):
    """How one layer is computed.

    Attributes:
        grid: how its neurons lie.
        natural: their shape in the network.
        shape: the same as (H, W, C): (1, 1, C) after a dense map, or where a convolution is one matrix product.
        taps: what drives it; None for the image alone.
        gather: turns the source's spikes (steps, B, H, W, C) into those that ``taps`` read.
    """

    grid: Grid
    natural: tuple[int, ...]
    shape: tuple[int, ...]
    taps: Taps | None = None
    gather: Callable | None = None


def weights_of(kernel: jax.Array | np.ndarray, precision: str) -> jax.Array:
    """(taps, C, F) as bfloat16; in float32 three of them, whose sum it is."""
    if precision != "float32":
        return jnp.asarray(kernel).astype(jnp.bfloat16)
    return jnp.concatenate(gpu.terms_of(jnp.asarray(kernel, jnp.float32)))


def layers_of(network: Network, params: Arrays, precision: str) -> list[Layer | None]:
    """How each spiking layer is computed; None where ``fire`` cannot: several edges, other maps."""
    shapes = layer_shapes(network)
    made: list[Layer | None] = []
    for layer, shape in zip(network.spiking, shapes):
        edge = layer.edges[0]
        lies = shape if len(shape) == 3 else (1, 1, *shape)
        if all(edge.source == IMAGE for edge in layer.edges):
            sides = (lies[0] + 1, lies[1] + 1) if lies[0] > 1 else (1, 1)
            found = Layer(grid_of(sides), shape, lies)
        else:
            found = layer_of(edge.ops, params, shapes[edge.source], precision) if len(layer.edges) == 1 else None
            found = found and found._replace(natural=shape)
        made.append(found if found is None or _bytes(found) < 3 * MEMORY // 4 else None)
    return made


def layer_of(ops: Sequence, params: Arrays, shape: tuple[int, ...], precision: str) -> Layer | None:
    """One edge: a convolution or dense map, a pool before or after it; None for anything else."""
    gather, pooled, divisor = None, False, 1
    match ops if all(op.plain for op in ops if isinstance(op, Conv | AvgPool)) else []:
        case [Conv() | Dense() as op]:
            pass
        case [AvgPool() as pool, Conv() | Dense() as op] if (side := pool.taps.sides[0]) <= gpu.MOST_POOLED:
            shape, divisor = output_shape(pool, shape), side**2
            gather = functools.partial(gpu._sum_pool, window=side)
        case [Conv(stride=1) as op, AvgPool(window=2)] if op.taps.sides[0] == 3 and op.taps.pads[0][0] == 1:
            pooled, divisor = True, 4
        case _:
            return None
    kernel = params[f"{op.name}.kernel"]
    if precision != "int8":  # whose unit is that of the sums
        kernel = kernel.astype(jnp.bfloat16 if precision == "bfloat16" else jnp.float32) / divisor
    if isinstance(op, Conv) and not pooled and math.prod((*shape[:2], *shape[:2])) <= MATRIX_POSITIONS:
        kernel = conv_matrix(jnp.asarray(kernel), op, shape)
        target = (1, 1, kernel.shape[-1])
    elif isinstance(op, Dense):
        target = (1, 1, op.features)
    else:
        return _convolution(op, kernel, shape, pooled, gather, precision)
    if len(kernel) > DEEPEST:
        return None
    gathered = _joined if gather is None else lambda x: _joined(gather(x))
    taps = Taps(weights_of(kernel[None], precision), (0,), (0,), grid_of((1, 1)))
    return Layer(taps.source, target, target, taps, gathered)


def _joined(x: jax.Array) -> jax.Array:
    """(steps, B, ...) as (steps, B, 1, 1, all)."""
    return x.reshape(*x.shape[:2], 1, 1, -1)


def _convolution(
    op: Conv,
    kernel: jax.Array | np.ndarray,
    shape: tuple[int, ...],
    pooled: bool,
    gather: Callable | None,
    precision,
) -> Layer | None:
    size, pad, target = op.taps.sides[0], op.taps.pads[0][0], output_shape(op, shape)
    weights = weights_of(kernel.reshape(size * size, *kernel.shape[2:]), precision)
    each = [(i, j) for i in range(size) for j in range(size)]
    source = grid_of((shape[0] + pad, shape[1] + pad))
    if pooled:
        target = output_shape(AvgPool(2), target)
        grid = grid_of((target[0] + 1, target[1] + 1))
        offsets = tuple(i // 2 * grid.sides[1] + j // 2 for i, j in each)
        phases = tuple(i % 2 * 2 + j % 2 for i, j in each)
        return Layer(grid, target, target, Taps(weights, offsets, phases, source, True))
    if target[:2] != shape[:2]:
        return None
    offsets = tuple((i - pad) * source.sides[1] + j - pad for i, j in each)
    return Layer(source, target, target, Taps(weights, offsets, (0,) * len(each), source), gather)


def _bytes(layer: Layer) -> int:
    """What a program of ``gpu.STEPS`` steps takes on the chip, about."""
    lanes = [
        math.ceil(n / 128) * 128 for n in (layer.shape[-1], *(layer.taps.weights.shape[1:2] if layer.taps else ()))
    ]
    own = layer.grid.rows * layer.grid.together
    width = min(lanes[0], FEATURES)
    taken = own * width * (2 * gpu.STEPS + 4 * 6)
    if layer.taps is not None:
        count = layer.taps.source.rows * layer.grid.together
        taken += count * lanes[1] * (2 * gpu.STEPS + 4 * (1 + layer.taps.pooled)) + 16 * own * lanes[1]
        taken += 4 * len(layer.taps.weights) * lanes[1] * width
    return taken
