"""Binary weights: Lu and Sengupta (Exploring the connection between binary and spiking neural networks, Frontiers
in Neuroscience 2020).

Every kernel is alpha_c sign(w), alpha_c = mean |w| over what output channel c reads (XNOR-Net); the first and the
last map stay as they are. Trained with the sign's gradient where |w| <= 1, then converted at the 99.7 percentile,
half full. Deviations: a few epochs from the common network's weights.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.few.percentile import half_full_start
from benchmarks.few.task import Converted, Task
from benchmarks.rivals.descent import Effort, fit
from benchmarks.rivals.system import Job
from jaxsnn.networks.description import Conv, Dense, Network
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.spiking import SNN

EPOCHS = 15


def binarised(network: Network, weights: dict[str, Any]) -> dict[str, Any]:
    """The parameters with all kernels but the first and the last made binary, a scale an output channel."""
    maps = [op for layer in network.layers for edge in layer.edges for op in edge.ops]
    order = [f"{op.name}.kernel" for op in maps if isinstance(op, Conv | Dense)]
    return weights | {name: _binary(weights[name]) for name in order[1:-1]}


@jax.custom_vjp
def _binary(kernel: jax.Array) -> jax.Array:
    scale = jnp.abs(kernel).mean(tuple(range(kernel.ndim - 1)))
    return jnp.where(kernel >= 0, scale, -scale)


def _forward(kernel):
    return _binary(kernel), kernel


def _backward(kernel, cotangent):
    return (jnp.where(jnp.abs(kernel) <= 1, cotangent, 0.0),)


_binary.defvjp(_forward, _backward)


def binary(job: Job) -> Converted:
    """Train once, convert with the network's own percentiles."""
    if "binary" not in job.shared:
        job.shared["binary"] = _trained(job)
    snn = job.shared["binary"]
    found = half_full_start(Task(snn, job.images, job.timesteps, job.seed, job.plan))
    return Converted(found.channels, snn=snn)


def _trained(job: Job) -> SNN:
    network = job.network

    def loss(parts: Any, images: jax.Array, labels: jax.Array, key: jax.Array) -> jax.Array:
        logits = ann_forward(network, binarised(network, parts["weights"]), images)[-1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    effort = Effort(EPOCHS if job.epochs is None else job.epochs, job.batch, rate=1e-3)
    weights = {name: jnp.asarray(value) for name, value in job.snn.params.items()}
    found = fit(loss, {"weights": weights}, {}, job.labelled, effort, job.seed)["weights"]
    return SNN(network, {name: np.asarray(value) for name, value in binarised(network, found).items()})
