"""Weighted phases: a spike is worth half of what it was a step before, in periods of K steps.

Kim et al. (Deep neural networks with weighted spikes, Neurocomputing 2018), as in Park's code: in phase
k = t mod K neurons fire at theta 2^-k, which is what a spike is worth; the image comes as the bits of its
pixels, 2^-(k + 1) each, and biases once a period, so that a period carries what one step of a rate code does.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxsnn.simulation.cells.cell import Cell, Fired
from jaxsnn.simulation.neuron import if_step

PERIOD = 8


@dataclass(frozen=True)
class Bits:
    """The image as the ``period`` leading bits of |x| / ``largest``, one a step, the largest first."""

    largest: float
    period: int = PERIOD

    def __call__(self, x: jax.Array, t: jax.Array, key: jax.Array) -> jax.Array:
        k = t % self.period
        whole = jnp.minimum(jnp.floor(jnp.abs(x) / self.largest * 2**self.period), 2**self.period - 1)
        bit = jnp.floor(whole / 2.0 ** (self.period - 1 - k)) % 2
        return jnp.sign(x) * bit * self.largest * 2.0 ** -(k + 1.0)


@dataclass(frozen=True, kw_only=True)
class Phase(Cell):
    """Attributes:
    period: K.
    """

    period: int = PERIOD

    def step(self, state: jax.Array, drive: jax.Array, theta, leak, t) -> Fired:
        worth = theta * 2.0 ** -(t % self.period)
        v, spikes = if_step(state, drive, worth, leak)
        return Fired(v, spikes, worth)

    def bias(self, t: jax.Array) -> jax.Array:
        return (t % self.period == 0).astype(jnp.float32)
