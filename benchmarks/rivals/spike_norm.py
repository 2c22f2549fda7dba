"""Thresholds from the spiking network itself: spike-norm, and its scaled successor with the soft reset.

Sengupta et al. (Going deeper in spiking neural networks, Frontiers in Neuroscience 2019): layer by layer, with
random input and thresholded layers in front, theta is the largest current that a neuron receives in T steps.
Theirs: 2,500 steps, a network without biases, and a reset to zero, as RMP's authors describe it. ``rmp`` (Han et
al., RMP-SNN, CVPR 2020) resets by subtraction and scales these thresholds by one alpha < 1. Their rule for alpha
is not published, nor whether spikes stay worth what they were, so that every layer sends more (``lowered``), or
shrink with it, so that only the first one does: both are taken from a grid, by whose answers on the calibration
images are nearest to the ANN's, without labels.

Deviations: fewer steps and images; biases where the network has them; the input is signed, since pixels are
normalised, and its largest value is the largest that a pixel can have, so that none is cut off.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.few.task import Converted, Task
from jaxsnn.conversion.channels import fold_channels, of_genes
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.networks.spiking_input import largest_input
from jaxsnn.simulation.cells.cell import Fired
from jaxsnn.simulation.cells.leaky import Leaky
from jaxsnn.simulation.cells.poisson import Poisson
from jaxsnn.simulation.cells.unroll import keys_of, per_layer, unrolled
from jaxsnn.simulation.observe import observe
from jaxsnn.training.distillation import teacher_logits

IMAGES, STEPS = 32, 64
"""Of spike-norm's pass."""
ALPHAS = 0.1 * np.arange(1, 11)
NEVER = np.float32(1e30)
"""A threshold that no membrane reaches."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peak(Leaky):
    """The same neurons, which remember the largest current of each."""

    def init(self, v: jax.Array, theta: jax.Array) -> Any:
        return v, jnp.full_like(v, -jnp.inf)

    def step(self, state, drive, theta, leak, t) -> Fired:
        fired = super().step(state[0], drive, theta, leak, t)
        return fired._replace(state=(fired.state, jnp.maximum(state[1], drive)))


def spike_norm(task: Task) -> np.ndarray:
    """Thresholds (L,), the same whatever T."""
    if "spike-norm" not in task.shared:
        task.shared["spike-norm"] = _spike_norm(task)
    return task.shared["spike-norm"]


def _spike_norm(task: Task) -> np.ndarray:
    network, images = task.network, task.images[:IMAGES]
    cells = per_layer(network, Peak(to_zero=True, coding=Poisson(largest_input(network))))
    keys = keys_of(0, len(images), task.seed)

    @jax.jit
    def peaks(theta: jax.Array) -> list[jax.Array]:
        states = unrolled(network, task.snn.params, cells, Genes(theta), images, STEPS, keys)[2]
        return [peak.max() for _, peak in states]

    theta = np.full(len(cells), NEVER)
    for index in range(len(cells)):
        found = float(peaks(jnp.asarray(theta))[index])
        theta[index] = found if found > 0 else 1.0
    return theta.astype(np.float64)


def lowered(snn: SNN, theta: np.ndarray, factor: float) -> tuple[SNN, Genes]:
    """Thresholds (L,) times ``factor``, while spikes stay worth ``theta``: a network, and its candidate (1, L)."""
    channels = of_genes(snn, Genes(theta[None]))
    return fold_channels(
        snn, dataclasses.replace(channels, thresholds=tuple(factor * t for t in channels.thresholds))
    )


def _converted(task: Task, theta: np.ndarray, to_zero: bool, note: str, factor: float = 1.0) -> Converted:
    cell = Leaky(to_zero=to_zero, coding=Poisson(largest_input(task.network)))
    snn, genes = lowered(task.snn, theta, factor)
    return Converted(of_genes(snn, genes), cells=cell, snn=snn, note=note)


def normalised(task: Task) -> Converted:
    """Spike-norm with a reset to zero."""
    return _converted(task, spike_norm(task), True, f"{STEPS} steps of normalisation")


def rmp(task: Task) -> Converted:
    """Reset by subtraction, thresholds times the alpha that answers most like the ANN at T."""
    theta, some = spike_norm(task), task.images[:IMAGES]
    classes = teacher_logits(task.snn, some).argmax(-1)
    cell = Leaky(coding=Poisson(largest_input(task.network)))

    def agree(scales: tuple[float, float]) -> int:
        snn, genes = lowered(task.snn, scales[0] * theta, scales[1])
        how = {"timesteps": task.timesteps, "dynamics": Dynamics(delay="none"), "cell": cell}
        return int(observe(snn, genes, some, classes, **how).correct[0, -1])

    shrunk, factor = max([(a, 1.0) for a in ALPHAS] + [(1.0, a) for a in ALPHAS], key=agree)
    note = f"alpha {shrunk:.1f}, spikes shrunk" if factor == 1 else f"alpha {factor:.1f}"
    return _converted(task, shrunk * theta, False, note, factor)
