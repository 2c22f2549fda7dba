"""Forward temporal bias correction (Wu et al., FTBC, ECCV 2024), after their code.

Thresholds a channel by least squared error (``benchmarks.few.mmse``, shift 0), empty membranes with theta/(2 T)
more at each step, ">=". For each batch, each layer in order and each step t, behind layers that are corrected:

    d = mean(SNN output at t) - mean(ANN output);  b[t] += alpha d,  alpha = 1/2

over batch and positions, and the neuron subtracts b[t] before it fires; the step is then taken again with the new
b. A bias for each step is no constant current and folds into no weights: this row is simulated by
``benchmarks.few.layerwise`` in float32, and hardware would have to inject T currents.

Deviations: batches of 128 of the calibration images, ``ftbc_rounds`` times over (theirs on CIFAR: 5 batches, up to
100 rounds, of which the best *on test images* is reported; on ImageNet 10 of 10); the last round counts, no image
with a label is looked at. Dense layers have a threshold a channel, theirs one a layer. Published: VGG-16 on
ImageNet, ANN 75.36 %: 51.13 / 64.20 / 71.19 % at T = 4 / 8 / 16; no table for CIFAR that could be read.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.few import mmse
from benchmarks.few.layerwise import Neurons, Walk, ann_means, chunks
from benchmarks.few.snnc import COMPARISON
from benchmarks.few.task import Converted, Task, alike
from jaxsnn.conversion.channels import can_bias

ALPHA = 0.5
BATCH = 128


def temporal(task: Task) -> Converted:
    """A threshold a channel, and a bias a channel and step."""
    thresholds = mmse.thresholds(task, 0.0, True)
    steps = task.timesteps
    order = np.random.default_rng(task.seed).permutation(len(task.images))
    batches = [task.images[order[part]] for part in chunks(len(order), BATCH)]
    means = [
        [mean.reshape(-1, mean.shape[-1]).mean(0) for mean in ann_means(task.snn, batch)] for batch in batches
    ]
    biases = [np.zeros((steps, len(theta))) for theta in thresholds]
    for _ in range(task.ftbc_rounds):
        for batch, mean in zip(batches, means):
            walk = Walk(task.snn, batch, steps, COMPARISON)
            for index, theta in enumerate(thresholds):
                if can_bias(task.network.layers[index]):
                    biases[index] = corrected(walk, index, theta, biases[index], mean[index], len(batch))
                walk.fire(index, neurons_with(theta, biases[index]))
    neurons = tuple(neurons_with(theta, bias) for theta, bias in zip(thresholds, biases))
    constant = [layer.bias.mean(0) for layer in neurons]
    channels = alike(thresholds, constant, 0.0, task.network.classes)
    return Converted(channels, COMPARISON, neurons, note=f"{steps} biases a channel")


def neurons_with(theta: np.ndarray, bias: np.ndarray) -> Neurons:
    """Neurons that get theta/(2 T) more and ``bias`` (T, C) less."""
    return Neurons(theta, theta, theta / (2 * len(bias)) - bias, np.zeros(len(theta)))


def corrected(
    walk: Walk, index: int, theta: np.ndarray, bias: np.ndarray, mean: np.ndarray, images: int
) -> np.ndarray:
    """The bias (T, C) of one layer after one batch; ``mean`` (C,) is that of the ANN's activations."""
    currents = jnp.concatenate(
        [walk.currents(index, part)[:, : part.stop - part.start] for part in chunks(images)], 1
    )
    parts = (np.asarray(part, np.float32) for part in (theta, bias, mean))
    return np.asarray(_corrected(currents, *parts), np.float64)


@functools.partial(jax.jit)
def _corrected(currents, theta, bias, mean):
    v, found = jnp.zeros(currents.shape[1:]), []
    steps = len(bias)
    for t in range(steps):
        v = v + currents[t % len(currents)] + theta / (2 * steps)
        rate = (v - bias[t] >= theta).reshape(-1, v.shape[-1]).mean(0, dtype=jnp.float32)
        found.append(bias[t] + ALPHA * (theta * rate - mean))
        v = v - found[-1]
        v = v - jnp.where(v >= theta, theta, 0)
    return jnp.stack(found)
