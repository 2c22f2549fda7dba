"""Thresholds at the 99.7 percentile of the ANN's activations (Sengupta et al. 2019; the project's baseline).

``half_full_start``: membranes begin at half the threshold (Deng and Gu 2021; Bu et al. 2022). ``one_scale``: all
thresholds times one number, which the divergence from the ANN's class probabilities chooses on the calibration
images, without labels.
"""

import numpy as np

from benchmarks.few.task import Converted, Task
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.conversion.channels import of_genes
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.simulation.divergence import probabilities
from jaxsnn.simulation.observe import observe
from jaxsnn.training.distillation import teacher_logits

PERCENTILE = 99.7
SCALES = 0.05 * np.arange(4, 25)
"""0.2 to 1.2."""


def _genes(task: Task, v0: float) -> Genes:
    return calibrate(task.network, task.snn.params, task.images).genes(PERCENTILE, v0)


def empty_start(task: Task) -> Converted:
    """Membranes that begin at zero."""
    return Converted(of_genes(task.snn, _genes(task, 0.0)))


def half_full_start(task: Task) -> Converted:
    """Membranes that begin at half the threshold."""
    return Converted(of_genes(task.snn, _genes(task, 0.5)))


def one_scale(task: Task) -> Converted:
    """Half full, all thresholds times the best of ``SCALES``."""
    genes = _genes(task, 0.5)
    theta = SCALES[:, None] * genes.threshold
    logits = teacher_logits(task.snn, task.images)
    observed = observe(
        task.snn,
        Genes(theta, np.full_like(theta, 0.5)),
        task.images,
        logits.argmax(-1),
        timesteps=task.timesteps,
        dynamics=Dynamics(delay="none"),
        plan=task.plan,
        teacher=probabilities(logits),
    )
    if observed.divergence is None:
        raise ValueError("no divergence was counted")
    best = int(observed.divergence[:, -1].argmin())
    chosen = Genes(theta[best : best + 1], genes.v0)
    return Converted(of_genes(task.snn, chosen), note=f"scale {SCALES[best]:.2f}")
