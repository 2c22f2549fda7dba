"""Soft LIF: a network that is trained with the rates of leaky neurons, and runs with these neurons.

Hunsberger and Eliasmith (Training spiking deep networks for neuromorphic hardware, 2016): in place of the ReLU
stands the rate of a LIF neuron with its corner rounded off, here times what makes it theta at z = theta,

    r(z) = 1/(ref + rc log1p(1/j)),  j = gamma log(1 + exp(gain z/(theta gamma)))

and the spiking network has the LIF neuron itself (``jaxsnn.simulation.cells.refractory``). Deviations: a few
epochs from the common network's weights; no noise on the rates; theta is the 99.7 percentile of each layer;
constants of Nengo, a step a millisecond.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.few.ltb import with_activations
from benchmarks.few.task import Converted
from benchmarks.rivals.descent import Effort, fit
from benchmarks.rivals.system import Job
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.conversion.channels import of_genes
from jaxsnn.networks.spiking import SNN, Genes
from jaxsnn.simulation.cells.refractory import Refractory

CELL = Refractory()
GAMMA = 0.2
"""Of the gain: how round the corner is."""
EPOCHS = 10


def soft_rate(z: jax.Array, theta: jax.Array | float) -> jax.Array:
    """The activation."""
    gamma = GAMMA * CELL.gain
    above = jnp.maximum(gamma * jax.nn.softplus(CELL.gain * z / (theta * gamma)), 1e-6)
    return theta / CELL.full / (CELL.ref + CELL.rc * jnp.log1p(1 / above))


def soft_lif(job: Job) -> Converted:
    """Train once; all neurons begin empty."""
    if "soft-lif" not in job.shared:
        job.shared["soft-lif"] = _trained(job)
    snn, theta = job.shared["soft-lif"]
    return Converted(of_genes(snn, Genes(theta[None])), snn=snn, cells=CELL)


def _trained(job: Job) -> tuple[SNN, np.ndarray]:
    theta = calibrate(job.network, job.snn.params, job.images).threshold(99.7)

    def activation(index: int, z: jax.Array) -> jax.Array:
        return z if index == len(theta) else soft_rate(z, float(theta[index]))

    def loss(parts: Any, images: jax.Array, labels: jax.Array, key: jax.Array) -> jax.Array:
        logits = with_activations(job.network, parts["weights"], images, activation)[-1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    effort = Effort(EPOCHS if job.epochs is None else job.epochs, job.batch, rate=3e-4)
    weights = {name: jnp.asarray(value) for name, value in job.snn.params.items()}
    found = fit(loss, {"weights": weights}, {}, job.labelled, effort, job.seed)["weights"]
    return SNN(job.network, {name: np.asarray(value) for name, value in found.items()}), theta
