"""Time to first spike: Park et al. (T2FSNN, DAC 2020), after their code.

Layers act one after the other, each in a window of S steps, and a neuron fires once or not at all: at the first
step t of the window at which its membrane reaches theta exp(-t/tau), which is what the layers behind it receive.
The image is sent in the same way, with its sign, by the first window. T = (L + 1) S for L spiking layers;
tau = S/4, as theirs, 20 of 80. theta is the 99.9 percentile of non-zero activations.

Deviations: no windows that overlap ("early firing", which halves T) and no training of theta and tau. A T that is
shorter than L + 1 gives no answer, and counts as class 0.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.few.task import Converted, Seen
from benchmarks.rivals.norms import robust_thresholds
from benchmarks.rivals.system import Job
from jaxsnn.conversion.channels import of_genes
from jaxsnn.networks.description import Edge, Network, run
from jaxsnn.networks.fan_out import fan_out
from jaxsnn.networks.forward import preprocess
from jaxsnn.networks.linear_maps import linear_map
from jaxsnn.networks.spiking import Genes
from jaxsnn.networks.spiking_input import largest_input
from jaxsnn.simulation.cells.unroll import pixel_counts

BATCH = 100
OF_WINDOW = 0.25
"""tau, as a share of the window."""


def first_spike(task: Job) -> Converted:
    """One spike a neuron; only the last step has an answer."""
    theta = robust_thresholds(task)

    def simulate(images: np.ndarray, labels: np.ndarray, timesteps: int) -> Seen:
        network, window = task.network, timesteps // (len(theta) + 1)
        right = np.repeat((labels == 0)[:, None], timesteps, 1)
        counts = [np.zeros(reach.shape) for reach in fan_out(network)]
        for start in range(0, len(images) if window else 0, BATCH):
            some = images[start : start + BATCH]
            padded = np.pad(some, ((0, BATCH - len(some)), (0, 0), (0, 0), (0, 0)))
            scores, maps = answers(network, window, task.snn.params, jnp.asarray(theta), padded)
            found = np.asarray(scores)[: len(some)].argmax(-1)
            right[start : start + BATCH, -1] = found == labels[start : start + BATCH]
            counts = [total + np.asarray(m)[: len(some)].sum(0) for total, m in zip(counts, maps)]
        spikes = np.array([[total.sum() for total in counts]]) / len(images)
        synops = np.array([[(m * reach).sum() for m, reach in zip(counts, fan_out(network))]]) / len(images)
        return Seen(right, spikes, synops, "float32, one spike a neuron")

    window = task.timesteps // (len(theta) + 1)
    note = "no answer within T" if not window else f"windows of {window} steps"
    return Converted(of_genes(task.snn, Genes(theta[None])), run=simulate, final=True, note=note)


def coded(u: jax.Array, theta: jax.Array | float, window: int) -> jax.Array:
    """What a spike says of membranes ``u``: theta exp(-t/tau) at the first step t that reaches it, else 0."""
    tau = OF_WINDOW * window
    step = jnp.ceil(tau * jnp.log(theta / jnp.maximum(u, 1e-30)) - 1e-6)
    step = jnp.maximum(step, 0)
    return jnp.where((u > 0) & (step < window), theta * jnp.exp(-step / tau), 0.0)


@functools.partial(jax.jit, static_argnums=(0, 1))
def answers(network: Network, window: int, params, theta: jax.Array, images):
    """Scores (B, classes), and the spikes at each position, (B, H, W) a layer."""
    x = preprocess(network, images)
    x = jnp.sign(x) * coded(jnp.abs(x), largest_input(network), window)
    layers, spikes = iter(range(len(network.layers))), []

    def apply(edge: Edge, values: jax.Array) -> jax.Array:
        return linear_map(edge.ops, params, values.shape[1:])(values)

    def fire(z: jax.Array) -> jax.Array:
        index = next(layers)
        if index == len(network.spiking):
            return z
        sent = coded(z, theta[index], window)
        spikes.append(pixel_counts(sent > 0))
        return sent

    return run(network, x, apply, fire)[-1], spikes
