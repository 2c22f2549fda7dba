"""A neuron of one's own: one step in a few lines, and a converted network is simulated with it."""

from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import tyro

import data
import jaxsnn
from jaxsnn.simulation.cells.burst import Burst
from jaxsnn.simulation.cells.cell import Cell, Fired
from jaxsnn.simulation.cells.leaky import Leaky
from jaxsnn.simulation.cells.signed import Signed


@dataclass(frozen=True, kw_only=True)
class Tiring(Cell):
    """Its threshold, which is what a spike is worth, is higher for a while after each spike."""

    more: float = 0.5
    kept: float = 0.5

    def init(self, v, theta):
        return v, jnp.zeros_like(v)

    def step(self, state, drive, theta, leak, t):
        v, tired = state
        v, worth = v + drive, theta * (1 + tired)
        spikes = v > worth
        return Fired((v - worth * spikes, self.kept * tired + self.more * spikes), spikes, worth)


def main(images: int = 100, timesteps: int = 16, out: Path = Path("own_neuron.png")) -> None:
    """Accuracy over time of one network with four kinds of neurons."""
    snn, test = jaxsnn.load(), data.load("embedded", "test", limit=images)
    activations = jaxsnn.percentiles(snn, data.load("embedded", "train", limit=200).images)
    genes, no_delay = activations.genes(99.7, v0=0.5), jaxsnn.Dynamics(delay="none")
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for cell in (Leaky(), Signed(), Burst(), Tiring()):
        how = {"timesteps": timesteps, "dynamics": no_delay, "cell": cell}
        seen = jaxsnn.observe(snn, genes, test.images, test.labels, **how)
        name = f"{type(cell).__name__}, {seen.spikes.sum() / images / 1e3:.0f} thousand spikes"
        axes.plot(np.arange(1, timesteps + 1), 100 * seen.accuracy[0], marker=".", label=name)
    axes.set(xlabel="timesteps", ylabel=f"accuracy on {images} images [%]")
    axes.legend(fontsize=8)
    figure.savefig(out)


if __name__ == "__main__":
    tyro.cli(main)
