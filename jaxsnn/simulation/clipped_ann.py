"""Where the accuracy goes as T grows: the ANN with every activation clipped at its threshold.

A neuron that fires at most once a step passes on at most theta a step: as T grows, eq. 6,
clip(floor(T W x / theta), 0, T) theta / T, becomes clip(W x, 0, theta). One pass of the clipped ANN costs as much
as one timestep, so that the accuracy which a candidate ends at is known on far more images than can be simulated.
It leaves out what eq. 6 leaves out: spikes that arrive unevenly, and the leak.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.networks.description import Arrays, Edge, Network, run
from jaxsnn.networks.forward import preprocess
from jaxsnn.networks.linear_maps import linear_map
from jaxsnn.networks.spiking import SNN, Genes
from jaxsnn.runtime import processes
from jaxsnn.simulation.plan import Plan

ROWS = 192
"""Candidates x images at once where the plan leaves it open."""


def limit_correct(
    snn: SNN, genes: Genes, images: np.ndarray, labels: np.ndarray, plan: Plan = Plan()
) -> np.ndarray:
    """Images (B, H, W, C) that each candidate classifies right as T goes to infinity, int64 (P,).

    Several processes divide the images (``jaxsnn.runtime.processes``).
    """
    mine = processes.share(len(images))
    images, labels = images[mine], labels[mine]
    theta = np.asarray(genes.threshold, np.float32)
    rows = plan.rows or ROWS
    group = min(plan.group or len(theta), rows)
    size = rows // group
    total = np.zeros(len(theta), np.int64)
    for start in range(0, len(images), size):
        part = images[start : start + size]
        padded = np.pad(part, ((0, size - len(part)), (0, 0), (0, 0), (0, 0)))
        for first in range(0, len(theta), group):
            own = np.arange(first, min(first + group, len(theta)))
            members = theta[np.arange(first, first + group).clip(max=len(theta) - 1)]
            winners = np.asarray(_clipped(snn.network, snn.params, members, padded))
            total[own] += (winners[: len(own), : len(part)] == labels[start : start + size]).sum(1)
    return processes.total([total])[0]


@functools.partial(jax.jit, static_argnames="network")
@jax.default_matmul_precision("highest")  # a GPU would take TF32
def _clipped(network: Network, params: Arrays, theta: jax.Array, images: jax.Array) -> jax.Array:
    """Predicted classes (P, B) of the clipped ANN with thresholds (P, L)."""
    x = preprocess(network, images)

    def apply(edge: Edge, x: jax.Array) -> jax.Array:
        return linear_map(edge.ops, params, x.shape[1:])(x)

    def one(theta: jax.Array) -> jax.Array:
        levels = itertools.chain(theta, [jnp.inf])
        return run(network, x, apply, lambda z: jnp.clip(z, 0, next(levels)))[-1].argmax(-1)

    return jax.vmap(one)(theta)
