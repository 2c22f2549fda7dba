"""Signed spikes: a neuron that has sent too much takes a spike back.

Wang et al. (Signed neuron with memory, IJCAI 2022): s = 1 where v > theta; s = -1 where v <= low theta and the
neuron has sent more than it took back, so that a rate never falls below that of a ReLU.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxsnn.simulation.cells.cell import Cell, Fired


@dataclass(frozen=True, kw_only=True)
class Signed(Cell):
    """Attributes:
    low: of the threshold, at or below which a spike is taken back.
    """

    low: float = -1.0

    def init(self, v: jax.Array, theta: jax.Array) -> tuple[jax.Array, jax.Array]:
        return v, jnp.zeros_like(v)

    def step(self, state: tuple[jax.Array, jax.Array], drive: jax.Array, theta, leak, t) -> Fired:
        v, sent = state
        v = (v if leak is None else leak * v) + drive
        spikes = (v > theta).astype(v.dtype) - ((v <= self.low * theta) & (sent > 0))
        return Fired((v - theta * spikes, sent + spikes), spikes, theta)
