"""The folds of parallel conversion: Hao et al. (Faster and stronger: when ANN-SNN conversion meets parallel
spiking calculation, ICML 2025), after their code, on plain neurons.

theta is each channel's largest activation. Then batches run through the ANN, sums z and activations a, and through
the same network with quantised, clipped activations behind each other, z' and a':

    m <- 0.99 m + 0.01 mean(z - z');  a' = clip(floor((z' + m) T/theta + 1/2)/T, 0, 1) (theta + p)
    p <- 0.99 p + 0.01 mean(a - a')

over batch and positions of a channel. m folds into the bias and p into what a spike is worth; their neurons, which
see all T inputs before they fire, are not built here. Deviations: ``BATCHES`` batches of 100 from the calibration
images (theirs: one pass over all training images); layers that an edge without a kernel joins keep p = 0.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.few.layerwise import ann_sums
from benchmarks.few.ltb import BATCH, with_activations
from benchmarks.few.task import Converted, Task, agree, alike, usable
from jaxsnn.conversion.channels import Channels, can_bias, groups
from jaxsnn.networks.description import Network
from jaxsnn.networks.forward import ann_forward

BATCHES = 300
KEPT = 0.99


def folds(task: Task) -> Converted:
    """A threshold, a bias and a spike's worth a channel."""
    network = task.network
    theta = largest(task)
    shifts = [(np.zeros(len(t)), np.zeros(len(t))) for t in theta]
    size, rng = min(BATCH, len(task.images)), np.random.default_rng(task.seed)
    tops = [jnp.asarray(t, jnp.float32) for t in theta]
    for _ in range(BATCHES):
        batch = task.images[rng.permutation(len(task.images))[:size]]
        shifts = moved(network, task.timesteps, task.snn.params, batch, tops, shifts)
    group = groups(network)
    alone = [sum(first == other for other in group) == 1 for first in group]
    biases = [np.asarray(m, np.float64) * can_bias(l) for (m, _), l in zip(shifts, network.spiking)]
    worth = tuple(t + own * np.asarray(p, np.float64) for t, own, (_, p) in zip(theta, alone, shifts))
    plain = alike(theta, biases, 0.5, network.classes)
    return Converted(Channels(plain.thresholds, worth, plain.biases, plain.starts))


def largest(task: Task) -> list[np.ndarray]:
    """The largest activation of each channel, (C,) per spiking layer."""
    tops: list = [0.0] * len(task.network.spiking)
    for sums in ann_sums(task.snn, task.images):
        tops = [np.maximum(top, s.reshape(-1, s.shape[-1]).max(0)) for top, s in zip(tops, sums)]
    return agree(task.network, [usable(np.asarray(top, np.float64), top) for top in tops])


@functools.partial(jax.jit, static_argnums=(0, 1))
def moved(network: Network, timesteps: int, params, images, theta: list, shifts: list) -> list:
    """(m, p) of each spiking layer after one batch."""
    sums = ann_forward(network, params, images)
    found = []

    def mean(values: jax.Array) -> jax.Array:
        return values.reshape(-1, values.shape[-1]).mean(0)

    def activation(index: int, z: jax.Array) -> jax.Array:
        if index == len(theta):
            return z
        m, p = shifts[index]
        m = KEPT * m + (1 - KEPT) * mean(sums[index] - z)
        levels = jnp.floor((z + m) * timesteps / theta[index] + 0.5)
        sent = jnp.clip(levels / timesteps, 0, 1) * (theta[index] + p)
        p = KEPT * p + (1 - KEPT) * mean(jax.nn.relu(sums[index]) - sent)
        found.append((m, p))
        return sent

    with_activations(network, params, images, activation)
    return found
