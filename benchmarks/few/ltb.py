"""Local threshold balancing (Bu et al., Inference-scale complexity in ANN-SNN conversion, 2024), after their code.

ReLUs become clip(z, 0, theta) with theta = 0 at first, a threshold a channel. Images go forward through the
clipped network, and every layer, in the same pass, moves by

    theta += 2 mean(relu(z - theta))

over batch and positions; the clipped output goes to the next layer. 1,000 batches of 100 (``ltb_batches``), drawn
from the calibration images again and again (theirs: from the whole training set). Membranes begin half full, ">".
Nothing depends on T, so one calibration serves all.

``delayed``: the read-out leaves out t0 first steps, t0 = sum over layers of (theta - v0)/(mean input) of the
fastest neuron of a layer, at most T - 4; T counts all steps, as theirs does. Published: ResNet-18 on ImageNet, ANN
69.76 %: 65.55 % at T = 32; no figure for CIFAR at T <= 16.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.few import clock
from benchmarks.few.layerwise import CHUNK, chunks, padded
from benchmarks.few.task import Converted, Task, agree, half_full, usable
from jaxsnn.networks.description import Edge, Network, layer_shapes, run
from jaxsnn.networks.forward import preprocess
from jaxsnn.networks.linear_maps import linear_map

BATCH = 100
SCORED = 4
"""Steps that a delayed read-out scores at least."""


def balanced(task: Task) -> Converted:
    """Thresholds of each channel; every step is read out."""
    (thresholds, _), seconds = _once(task)
    converted = half_full(task, thresholds)
    return Converted(converted.channels, shared_seconds=seconds)


def delayed(task: Task) -> Converted:
    """The same, without the first steps in the read-out."""
    (thresholds, delay), seconds = _once(task)
    skip = max(0, min(delay, task.timesteps - SCORED))
    converted = half_full(task, thresholds)
    note = f"read-out from step {skip + 1} on"
    return Converted(converted.channels, skip=skip, shared_seconds=seconds, note=note)


def _once(task: Task) -> tuple[tuple[list[np.ndarray], int], float]:
    """Thresholds and delay, and the seconds that they took where they were found for another T."""
    if "ltb" in task.shared:
        return task.shared["ltb"]
    started = clock.seconds()
    found = balance(task)
    task.shared["ltb"] = found, clock.seconds() - started
    return found, 0.0


def balance(task: Task) -> tuple[list[np.ndarray], int]:
    """Thresholds (C,) per spiking layer, and t0."""
    widths = [shape[-1] for shape in layer_shapes(task.network)[:-1]]
    thresholds = [jnp.zeros(width) for width in widths]
    size, rng = min(BATCH, len(task.images)), np.random.default_rng(task.seed)
    order = np.zeros(0, np.int64)
    for _ in range(task.ltb_batches):
        if len(order) < size:
            order = rng.permutation(len(task.images))
        batch, order = order[:size], order[size:]
        thresholds = _move(task.network, task.snn.params, task.images[batch], thresholds)
    found = [usable(np.asarray(theta, np.float64), np.asarray(theta)) for theta in thresholds]
    found = agree(task.network, found)
    return found, _delay(task, found)


def with_activations(network: Network, params, images, activation: Callable) -> list:
    """Sums of the network with ``activation(layer, z)`` in place of ReLUs."""
    layers = iter(range(len(network.layers)))

    def apply(edge: Edge, x: jax.Array) -> jax.Array:
        return linear_map(edge.ops, params, x.shape[1:])(x)

    return run(network, preprocess(network, images), apply, lambda z: activation(next(layers), z))


@functools.partial(jax.jit, static_argnums=0)
def _move(network: Network, params, images, thresholds: list[jax.Array]) -> list[jax.Array]:
    """The thresholds after one batch."""
    moved = []

    def activation(index: int, z: jax.Array) -> jax.Array:
        if index == len(thresholds):
            return z
        theta = thresholds[index]
        moved.append(theta + 2 * jax.nn.relu(z - theta).reshape(-1, z.shape[-1]).mean(0))
        return jnp.clip(z, 0, moved[-1])

    with_activations(network, params, images, activation)
    return moved


@functools.partial(jax.jit, static_argnums=0)
def _clipped_sums(network: Network, params, images, thresholds: list[jax.Array]) -> list[jax.Array]:
    def activation(index: int, z: jax.Array) -> jax.Array:
        return z if index == len(thresholds) else jnp.clip(z, 0, thresholds[index])

    return [jax.nn.relu(z) for z in with_activations(network, params, images, activation)[:-1]]


def _delay(task: Task, thresholds: list[np.ndarray]) -> int:
    """t0: the sum over layers of the steps that the fastest neuron needs to fire first, half full, on average."""
    clips = [jnp.asarray(theta, jnp.float32) for theta in thresholds]
    totals: list = [0.0] * len(clips)
    for part in chunks(len(task.images), CHUNK):
        sums = _clipped_sums(task.network, task.snn.params, padded(task.images[part]), clips)
        count = part.stop - part.start
        totals = [t + np.asarray(s)[:count].sum(0, dtype=np.float64) for t, s in zip(totals, sums)]
    rates = [total / len(task.images) / theta for total, theta in zip(totals, thresholds)]
    return int(sum(0.5 / rate.max() for rate in rates))
