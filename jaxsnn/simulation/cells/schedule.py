"""Thresholds that change over time, the same way in every layer."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxsnn.simulation.cells.cell import Cell, Fired
from jaxsnn.simulation.neuron import if_step


@dataclass(frozen=True, kw_only=True)
class Scheduled(Cell):
    """Integrate-and-fire neurons whose threshold at step t, and what a spike is worth, is factors[t] theta.

    After the last factor it begins again.
    """

    factors: tuple[float, ...]

    def step(self, state: jax.Array, drive: jax.Array, theta, leak, t) -> Fired:
        worth = theta * jnp.asarray(self.factors)[t % len(self.factors)]
        v, spikes = if_step(state, drive, worth, leak)
        return Fired(v, spikes, worth)
