"""Images as rows of a matrix, position behind position: how ``jaxsnn.simulation.tpu`` keeps spikes and membranes.

Between the rows and columns of an image there are zeros enough for the convolution that reads it, so that each of
its taps is the same matrix some rows further on.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

ROWS = 1200
"""About so many positions belong to a program."""
TILE = 8
"""Rows of a float32 tile."""
PACKED = 32
"""Rows of an int8 tile: a program owns a multiple of them, and images are padded to one."""


class Grid(NamedTuple):
    """How a layer's positions lie: images (rows of an image, of which ``sides`` are its own), images a program."""

    sides: tuple[int, int]
    rows: int
    together: int


def grid_of(sides: tuple[int, int]) -> Grid:
    """Programs of about ``ROWS`` rows, a power of two of images each: ``PACKED`` images fill them.

    An image of several positions begins where a tile of ``TILE`` rows does.
    """
    rows = math.prod(sides)
    rows = rows if rows == 1 else math.ceil(rows / TILE) * TILE
    if rows * PACKED <= 2 * ROWS:
        return Grid(sides, rows, PACKED)
    rows = math.ceil(rows / PACKED) * PACKED
    return Grid(sides, rows, 1 << max(0, (ROWS // rows).bit_length() - 1))


def to_rows(x: jax.Array, grid: Grid) -> jax.Array:
    """(..., B, H, W, C) as rows (..., images * rows, C), zeros where there is nothing."""
    lead = [(0, 0)] * (x.ndim - 4)
    images = -x.shape[-4] % PACKED
    x = jnp.pad(x, [*lead, (0, images), *((0, side - n) for side, n in zip(grid.sides, x.shape[-3:-1])), (0, 0)])
    x = x.reshape(*x.shape[:-3], math.prod(grid.sides), x.shape[-1])
    x = jnp.pad(x, [*lead, (0, 0), (0, grid.rows - x.shape[-2]), (0, 0)])
    return x.reshape(*x.shape[:-3], -1, x.shape[-1])


def from_rows(x: jax.Array, grid: Grid, shape: tuple[int, ...]) -> jax.Array:
    """The images (..., B, H, W, C) of ``shape`` (B, H, W, C) in rows."""
    x = x.reshape(*x.shape[:-2], -1, grid.rows, x.shape[-1])[..., : math.prod(grid.sides), :]
    x = x.reshape(*x.shape[:-2], *grid.sides, x.shape[-1])
    return x[..., : shape[0], : shape[1], : shape[2], :]
