"""A network with quantised activations, and the two-stage inference on it.

- qcfs (Bu et al., Optimal ANN-SNN conversion, ICLR 2022): ReLUs become theta clip(floor(z L/theta + 1/2)/L, 0, 1)
  with theta learned for each layer; theta is the threshold, membranes begin half full.
- srp (Hao et al., Reducing ANN-SNN conversion error through residual membrane potential, AAAI 2023): tau steps on
  the image; neurons whose membrane is then below zero are silenced; membranes begin anew, and T steps count.
- cos (Hao et al., Bridging the gap between ANNs and SNNs by calibrating offset spikes, ICLR 2023): rho steps; a
  neuron that has sent more spikes than its mean input asks for begins theta lower, one that has sent fewer begins
  theta higher, layer by layer, rho more steps for each; then T steps count.

tau and rho are not in the T of their tables, nor of ours; the note of a row says them. What the first stage finds
belongs to one image and neuron.

Deviations: the common network, a few epochs more with the quantised activations (theirs: 300 from scratch), Adam;
the levels are ``LEVELS``. Each layer of COS is corrected once, by one spike at most, after rho steps of the
network that has been corrected up to the layer before.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.few.task import Converted
from benchmarks.rivals.descent import Effort, fit
from benchmarks.rivals.system import Job
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.conversion.channels import of_genes
from jaxsnn.networks.activations import SHIFT, ceiling
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.spiking import SNN, Genes

LEVELS, EPOCHS = 8, 10


def network_of(job: Job) -> SNN:
    """The network with quantised activations, trained once."""
    if "qcfs" not in job.shared:
        job.shared["qcfs"] = _trained(job)
    return job.shared["qcfs"]


def _trained(job: Job) -> SNN:
    layers = tuple(replace(layer, levels=LEVELS, cap=None) for layer in job.network.spiking)
    network = replace(job.network, layers=(*layers, job.network.layers[-1]))
    theta = calibrate(job.network, job.snn.params, job.images).threshold(99.7)
    tops = {f"{layer.name}.ceiling": np.array([t], np.float32) for layer, t in zip(layers, theta)}

    def loss(parts: Any, images: jax.Array, labels: jax.Array, key: jax.Array) -> jax.Array:
        logits = ann_forward(network, parts["weights"], images)[-1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    effort = Effort(EPOCHS if job.epochs is None else job.epochs, job.batch, rate=3e-4)
    weights = {name: jnp.asarray(value) for name, value in {**job.snn.params, **tops}.items()}
    found = fit(loss, {"weights": weights}, {}, job.labelled, effort, job.seed)["weights"]
    return SNN(network, {name: np.asarray(value) for name, value in found.items()})


def genes_of(snn: SNN) -> Genes:
    """Thresholds at the ceilings, half full."""
    theta = np.array([[ceiling(layer, snn.params) for layer in snn.network.spiking]])
    return Genes(theta, np.full_like(theta, SHIFT))


def qcfs(job: Job) -> Converted:
    """The network as it is trained."""
    snn = network_of(job)
    return Converted(of_genes(snn, genes_of(snn)), snn=snn, note=f"{LEVELS} levels")
