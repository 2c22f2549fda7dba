"""Thresholds with the least squared error against the ANN's activations, for T steps of an even current.

    sum (z - theta/T clip(floor(z T/theta + shift), 0, most T))^2,  theta = max(z) (1 - 0.01 i),  i = 0..94

of Li et al. (A free lunch from ANN, ICML 2021) and their code; most is 1. Their ``shift`` is 0 although their
neurons round: the rows of this method take 1/2, which is what half-full neurons do; SNNC and FTBC take 0. They
average over seven batches of 128, 0.9 old + 0.1 new, which is mostly the first batch; here all images are one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.few.layerwise import ann_sums
from benchmarks.few.task import Converted, Task, agree, half_full, usable

GRID = 1 - 0.01 * np.arange(95)


def per_layer(task: Task) -> Converted:
    """One threshold a layer, half full."""
    return half_full(task, thresholds(task, shift=0.5, channels=False))


def per_channel(task: Task) -> Converted:
    """One threshold a channel, half full."""
    return half_full(task, thresholds(task, shift=0.5, channels=True))


def thresholds(task: Task, shift: float, channels: bool, most: int = 1) -> list[np.ndarray]:
    """Per spiking layer (C,), as the formula of this module says; layers that must share a shape do.

    Args:
        most: spikes that a neuron sends in a step at most.
    """
    layers = range(len(task.network.spiking))
    tops = [np.zeros(1)] * len(layers)
    for sums in ann_sums(task.snn, task.images):
        tops = [np.maximum(top, flat(s).max(0)) for top, s in zip(tops, sums)]
    grids = [top if channels else np.full_like(top, top.max()) for top in tops]
    errors = [np.zeros((len(GRID), len(top))) for top in tops]
    for sums in ann_sums(task.snn, task.images):
        for index in layers:
            errors[index] += np.asarray(_errors(flat(sums[index]), grids[index], task.timesteps, shift, most))
    if not channels:
        errors = [error.sum(1, keepdims=True) for error in errors]
    best = [grid * GRID[error.argmin(0)] for grid, error in zip(grids, errors)]
    return agree(task.network, [usable(theta, grid) for theta, grid in zip(best, grids)])


def flat(sums: np.ndarray) -> np.ndarray:
    """Activations (S, C) of sums (n, *shape)."""
    return np.maximum(sums, 0).reshape(-1, sums.shape[-1])


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _errors(values: jax.Array, top: jax.Array, timesteps: int, shift: float, most: int) -> jax.Array:
    """Squared errors (95, C) of values (S, C) for thresholds that are fractions of ``top`` (C,)."""

    def one(fraction):
        unit = jnp.maximum(top * fraction, jnp.finfo(jnp.float32).tiny) / timesteps
        error = unit * jnp.clip(jnp.floor(values / unit + shift), 0, most * timesteps) - values
        return (error * error).sum(0)

    return jax.lax.map(one, jnp.asarray(GRID, jnp.float32))
