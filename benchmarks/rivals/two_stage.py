"""SRP and COS: a first stage on each test image, whose membranes change how the second begins; see ``qcfs``."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.few.evaluate import seen_of
from benchmarks.few.task import Converted, Seen
from benchmarks.rivals.qcfs import genes_of, network_of
from benchmarks.rivals.system import Job
from jaxsnn.conversion.channels import of_genes
from jaxsnn.networks.activations import SHIFT
from jaxsnn.networks.description import Network, layer_shapes
from jaxsnn.networks.spiking import Genes
from jaxsnn.simulation.cells.leaky import Leaky
from jaxsnn.simulation.cells.unroll import keys_of, per_layer, pixel_counts, unrolled

BEFORE = 4
"""tau and rho."""
BATCH = 100
NEVER = -1e30
"""A membrane that no current lifts to a threshold."""
Stage = Callable[[Callable, list, list], list]
"""``simulate(starts) -> (counts, membranes)`` of the first stage, thresholds and usual starts -> starts."""


def srp(job: Job) -> Converted:
    """Neurons below zero after the first stage are silent in the second."""
    return _converted(job, silenced)


def cos(job: Job) -> Converted:
    """Neurons that have sent a spike too many or too few begin a threshold lower or higher."""
    return _converted(job, shifted)


def silenced(simulate: Callable, thresholds: list, starts: list) -> list:
    """SRP."""
    _, membranes = simulate(starts)
    return [jnp.where(v < 0, NEVER, start) for v, start in zip(membranes, starts)]


def shifted(simulate: Callable, thresholds: list, starts: list) -> list:
    """COS; a layer is judged behind layers that are corrected."""
    for index, theta in enumerate(thresholds):
        counts, membranes = simulate(starts)
        many = (membranes[index] < 0) & (counts[index] > 0)
        few = membranes[index] >= theta
        moved = starts[index] + theta * (few.astype(jnp.float32) - many)
        starts = [*starts[:index], moved, *starts[index + 1 :]]
    return starts


def _converted(job: Job, stage: Stage) -> Converted:
    snn = network_of(job)
    genes = genes_of(snn)

    def run(images: np.ndarray, labels: np.ndarray, timesteps: int) -> Seen:
        right, spikes = [], []
        for start in range(0, len(images), BATCH):
            some = images[start : start + BATCH]
            padded = np.pad(some, ((0, BATCH - len(some)), (0, 0), (0, 0), (0, 0)))
            curve, counts = two_stages(snn.network, timesteps, stage, snn.params, genes, padded)
            answers = np.asarray(curve).argmax(-1)[:, : len(some)]
            right.append((answers == labels[start : start + BATCH]).T)
            spikes.append([np.asarray(layer)[:, : len(some)].sum(1) for layer in counts])
        return seen_of(snn, np.concatenate(right), [np.sum(parts, 0) for parts in zip(*spikes)])

    note = f"{BEFORE} steps before T are not in it; their spikes count"
    return Converted(of_genes(snn, genes), snn=snn, run=run, note=note)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def two_stages(network: Network, timesteps: int, stage: Stage, params, genes: Genes, images):
    """Scores (T, B, classes) of the second stage; spikes at each step and position, (T, B, H, W) a layer, those of
    the first stage with the first step's."""
    cells, keys = per_layer(network, Leaky()), keys_of(0, len(images))
    one = genes.map(lambda part: part[0])
    usual = [
        jnp.full((len(images), *shape), SHIFT * theta, jnp.float32)
        for shape, theta in zip(layer_shapes(network), one.threshold)
    ]

    def run(starts: list, steps: int, counted: Callable) -> tuple:
        return unrolled(network, params, cells, one, images, steps, keys, counted, starts)

    def simulate(starts: list) -> tuple[list, list]:
        counts, membranes = run(starts, BEFORE, lambda spikes: spikes.astype(jnp.float32))[1:]
        return [layer.sum(0) for layer in counts], membranes

    starts = stage(simulate, list(one.threshold), usual)
    before = run(usual, BEFORE, pixel_counts)[1]
    curve, counts, _ = run(starts, timesteps, pixel_counts)
    return curve, [layer.at[0].add(first.sum(0)) for first, layer in zip(before, counts)]
