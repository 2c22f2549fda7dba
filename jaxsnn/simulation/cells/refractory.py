"""Leaky integrate-and-fire neurons with a refractory time, in continuous time between steps.

The LIF neuron of Hunsberger and Eliasmith (Training spiking deep networks for neuromorphic hardware, 2016) as
Nengo steps it, all times in steps of dt: with current J, membrane v and refractory time r left,

    r <- r - 1;  d = clip(1 - r, 0, 1);  v <- v - (J - v) expm1(-d/rc);  s = v > 1
    r <- ref + 1 + rc log1p(-(v - 1)/(J - 1)) and v <- 0 where s;  v <- max(v, 0)

J = 1 + gain I/theta for a drive I. Under a constant J > 1 it fires 1/(ref + rc log1p(1/(J - 1))) times a step; a
spike is worth what makes that theta at I = theta.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxsnn.simulation.cells.cell import Cell, Fired


@dataclass(frozen=True, kw_only=True)
class Refractory(Cell):
    """Attributes:
    rc, ref: membrane's time constant and refractory time, in steps; theirs are 20 and 2 ms.
    gain: of the current, over the threshold.
    """

    rc: float = 20.0
    ref: float = 2.0
    gain: float = 10.0

    @property
    def full(self) -> float:
        """Spikes a step under a constant current of the threshold."""
        return 1 / (self.ref + self.rc * math.log1p(1 / self.gain))

    def init(self, v: jax.Array, theta: jax.Array) -> tuple[jax.Array, jax.Array]:
        return v / theta, jnp.zeros_like(v)

    def step(self, state: tuple[jax.Array, jax.Array], drive: jax.Array, theta, leak, t) -> Fired:
        v, wait = state
        wait, above = wait - 1, self.gain * drive / theta
        v = v - (1 + above - v) * jnp.expm1(-jnp.clip(1 - wait, 0, 1) / self.rc)
        spikes = v > 1
        # where there is no spike the logarithm is not used, and must not be NaN
        early = jnp.log1p(-jnp.where(spikes, (v - 1) / jnp.where(spikes, above, 1.0), 0.0))
        wait = jnp.where(spikes, self.ref + 1 + self.rc * early, wait)
        return Fired((jnp.where(spikes, 0.0, jnp.maximum(v, 0.0)), wait), spikes, theta / self.full)
