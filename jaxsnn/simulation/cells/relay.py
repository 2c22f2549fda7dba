"""Neurons without memory, which pass on the spikes that reach them."""

from dataclasses import dataclass

import jax

from jaxsnn.networks.description import Network
from jaxsnn.networks.spiking_input import largest_input
from jaxsnn.simulation.cells.cell import Cell, Fired
from jaxsnn.simulation.cells.leaky import Leaky
from jaxsnn.simulation.cells.poisson import Poisson


@dataclass(frozen=True, kw_only=True)
class Relay(Cell):
    """One fires where what reaches it is nearer to its threshold than to nothing: v is left alone."""

    def step(self, state: jax.Array, drive: jax.Array, theta: jax.Array, leak: jax.Array | None, t) -> Fired:
        return Fired(state, drive > theta / 2, theta)


def poisson_cells(network: Network, comparison: str) -> tuple[Cell, ...]:
    """Cells for a network of ``spiking_input`` whose image comes in as random spikes, of which its first layer
    sends every one: so they are counted."""
    usual = Leaky(comparison=comparison)
    return Relay(coding=Poisson(largest_input(network))), *(usual,) * (len(network.spiking) - 1)
