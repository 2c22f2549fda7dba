"""Statistics of channels, and what norms do with them, with gradients whose sums are matrix products on a CPU.

XLA's own sums over all axes but the last take about ten times as long there (two Zen 4 cores: 7.4 ms against 0.8
at 128 x 32 x 32 x 64, 2.0 against 0.2 at 128 x 8 x 8 x 256). A step of VGG15 with BatchNorm takes 16 % less.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

GROUPS = 64
"""Partial sums, fewer where the rows cannot be shared out: wider products, and smaller rounding errors."""


def sums(x: jax.Array) -> jax.Array:
    """Sum of float32 (..., C) over all axes but the last."""

    def product(x):
        rows, groups = _count(x.shape), math.gcd(_count(x.shape), GROUPS)
        ones = jnp.ones((1, rows // groups), x.dtype)
        partial = jnp.matmul(ones, x.reshape(rows // groups, -1), precision=lax.Precision.HIGHEST)
        return partial.reshape(groups, -1).sum(0)

    return lax.platform_dependent(x, cpu=product, default=lambda x: x.sum(tuple(range(x.ndim - 1))))


@jax.custom_vjp
def mean(x: jax.Array) -> jax.Array:
    """Mean of (..., C) over all axes but the last."""
    return sums(x) / _count(x.shape)


def _mean_backward(like, cotangent):
    return (jnp.broadcast_to(cotangent / _count(like.shape), like.shape),)


mean.defvjp(lambda x: (mean(x), x), _mean_backward)


@jax.custom_vjp
def mean_square(x: jax.Array) -> jax.Array:
    """Mean of the squares of (..., C) over all axes but the last."""
    return sums(x * x) / _count(x.shape)


mean_square.defvjp(lambda x: (mean_square(x), x), lambda x, cotangent: (x * (2 / _count(x.shape) * cotangent),))


@jax.custom_vjp
def affine(x: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
    """``x * scale + shift`` for (..., C) and two vectors (C,)."""
    return x * scale + shift


def _affine_backward(saved, cotangent):
    x, scale = saved
    return cotangent * scale, sums(cotangent * x), sums(cotangent)


affine.defvjp(lambda x, scale, shift: (affine(x, scale, shift), (x, scale)), _affine_backward)


def _count(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-1])
