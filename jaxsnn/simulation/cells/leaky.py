"""Integrate-and-fire neurons, leaky where the genes say so, with a reset by subtraction or to zero.

    v = leak v + gain I;  s = v > theta;  v -= theta s,  or v = 0 where s

gain is 1, or 1 - leak with ``averaging``: the discrete leaky integrator of Fang et al. (Incorporating learnable
membrane time constant, ICCV 2021), v += (I - v)/tau with leak = 1 - 1/tau.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxsnn.simulation.cells.cell import Cell, Fired
from jaxsnn.simulation.neuron import if_step


@dataclass(frozen=True, kw_only=True)
class Leaky(Cell):
    """Attributes:
    to_zero: reset to zero, not by subtraction.
    averaging: a current counts by 1 - leak.
    comparison: ">" or ">=".
    """

    to_zero: bool = False
    averaging: bool = False
    comparison: str = ">"

    def step(self, state: jax.Array, drive: jax.Array, theta: jax.Array, leak: jax.Array | None, t) -> Fired:
        if self.averaging and leak is not None:
            drive = (1 - leak) * drive
        if not self.to_zero:
            v, spikes = if_step(state, drive, theta, leak, self.comparison, self.fire)
            return Fired(v, spikes, theta)
        v = (state if leak is None else leak * state) + drive
        spikes = if_step(v, jnp.zeros_like(v), theta, None, self.comparison, self.fire)[1].astype(v.dtype)
        return Fired(v * (1 - spikes), spikes, theta)
