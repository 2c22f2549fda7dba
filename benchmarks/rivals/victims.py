"""Systems as victims of an attack: the scores of a converted or trained network, with a gradient by its pixels.

Sharmin et al. (Inherent adversarial robustness of deep spiking neural networks, ECCV 2020) attack a network whose
image comes as random spikes, which have no gradient, at its first layer: they sum the loss's gradient by that
layer's currents over time, send the sum back through its kernel, and move each pixel by the sign. That is what
backpropagation does if a spike passes the gradient on as if it were the pixel (``Passed``). The attacker does not
know the spikes that will be drawn: his own have another seed.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from benchmarks.few.task import Converted, Task
from jaxsnn.analysis.adversarial import Victim, snn_victim
from jaxsnn.conversion.channels import fold_channels
from jaxsnn.networks.description import Network
from jaxsnn.networks.spiking import Dynamics
from jaxsnn.simulation.cells.cell import Cell, Coding
from jaxsnn.simulation.cells.unroll import Cells, keys_of, per_layer, unrolled
from jaxsnn.simulation.surrogate import spike

OWN_SEED = 1
"""Of the attacker's random spikes; the network that is tested draws with 0."""


@dataclass(frozen=True)
class Passed:
    """A coding with the gradient of the pixel itself."""

    coding: Coding

    def __call__(self, x: jax.Array, t: jax.Array, key: jax.Array) -> jax.Array:
        return self.coding(x, t, key) + (x - jax.lax.stop_gradient(x))


@dataclass(frozen=True)
class CellScores:
    """Mean scores over time of a network of cells, for ``Victim``."""

    network: Network
    cells: Cells
    timesteps: int

    def __call__(self, variables: Any, pixels: jax.Array) -> jax.Array:
        params, genes = variables
        keys = keys_of(0, len(pixels), OWN_SEED)
        curve = unrolled(self.network, params, self.cells, genes, pixels, self.timesteps, keys)[0]
        return curve[-1] / self.timesteps


def with_gradient(cell: Cell) -> Cell:
    """The cell with a surrogate's derivative, its own or eq. 18's, and a coding that passes the gradient on."""
    coding = None if cell.coding is None else Passed(cell.coding)
    return dataclasses.replace(cell, fire=cell.fire or functools.partial(spike), coding=coding)


def victim_of(converted: Converted, task: Task) -> Victim:
    """The network after ``task.timesteps`` steps without delay.

    Raises:
        ValueError: it is simulated by something of its own, which has no gradient.
    """
    if converted.run is not None or converted.neurons is not None or converted.skip:
        raise ValueError("this system has no gradient")
    folded, genes = fold_channels(converted.snn or task.snn, converted.channels)
    if converted.cells is None:
        return snn_victim(folded, genes, task.timesteps, Dynamics(converted.comparison, "none"))
    cells = tuple(with_gradient(cell) for cell in per_layer(folded.network, converted.cells))
    one = genes._replace(leak=converted.leak).map(lambda gene: np.asarray(gene, np.float32)[0])
    return Victim(CellScores(folded.network, cells, task.timesteps), (folded.params, one))
