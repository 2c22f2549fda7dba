"""Bursts: neurons that send more at once, the longer they fire, or several spikes in a step.

``Burst`` is Park et al. (Fast and efficient information transmission with burst spikes in deep spiking neural
networks, DAC 2019): after a spike the threshold, which is also what a spike is worth, doubles; without one it is
back where it was.

    theta(t) = g(t) theta;  s = v > theta(t);  v -= theta(t) s;  g(t + 1) = factor g(t) where s, else 1

``Several`` sends up to ``most`` spikes in one step (Li and Zeng, Efficient and accurate conversion of spiking
neural network with burst spikes, IJCAI 2022): s = clip(floor(v / theta), 0, most).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxsnn.simulation.cells.cell import Cell, Fired
from jaxsnn.simulation.neuron import if_step


@dataclass(frozen=True, kw_only=True)
class Burst(Cell):
    """Attributes:
    factor: on the threshold after each spike of a burst.
    """

    factor: float = 2.0

    def init(self, v: jax.Array, theta: jax.Array) -> tuple[jax.Array, jax.Array]:
        return v, jnp.ones_like(v)

    def step(self, state: tuple[jax.Array, jax.Array], drive: jax.Array, theta, leak, t) -> Fired:
        v, gain = state
        worth = gain * theta
        v, spikes = if_step(v, drive, worth, leak)
        return Fired((v, jnp.where(spikes, gain * self.factor, 1.0)), spikes, worth)


@dataclass(frozen=True, kw_only=True)
class Several(Cell):
    """Attributes:
    most: spikes of a neuron in one step.
    """

    most: int = 5

    def step(self, state: jax.Array, drive: jax.Array, theta, leak, t) -> Fired:
        v = (state if leak is None else leak * state) + drive
        spikes = jnp.clip(jnp.floor(v / theta), 0, self.most)
        return Fired(v - theta * spikes, spikes, theta)
