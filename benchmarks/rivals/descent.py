"""Gradient descent for the systems that are trained: any loss of any parts, on augmented labelled images."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.rivals.system import Labelled
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import SNN, Genes
from jaxsnn.simulation.cells.unroll import Cells, unrolled
from jaxsnn.training.bptt import BOUNDS, Parts, genes_of, make_optimizer, parts_of
from jaxsnn.training.loop import Batches, augment

Loss = Callable[[Parts, jax.Array, jax.Array, jax.Array], jax.Array]
"""Of parts, uint8 images (B, H, W, C), their classes (B,) and a random key."""


@dataclass(frozen=True)
class Effort:
    """How long, and how fast.

    Attributes:
        epochs: over all images.
        rate, neuron_rate: Adam's, of the weights and of what neurons are made of, falling to 0 along a cosine.
        timesteps: of a network that is trained as it spikes.
    """

    epochs: int
    batch: int = 100
    rate: float = 1e-4
    neuron_rate: float = 1e-3
    timesteps: int = 8


def fit(loss: Loss, trained: Parts, fixed: Parts, images: Labelled, effort: Effort, seed: int) -> Parts:
    """The trained parts after ``effort``, the fixed ones unchanged beside them.

    Raises:
        UserError: the loss is not finite any more.
    """
    batches = Batches(len(images.labels), min(effort.batch, len(images.labels)), seed)
    optimizer = make_optimizer(trained, effort.rate, effort.neuron_rate, effort.epochs * batches.steps)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(trained, state, pixels, labels, batch, key):
        crop, drawn = jax.random.split(key)
        some, classes = augment(crop, pixels[batch]), labels[batch]
        value, gradient = jax.value_and_grad(lambda parts: loss(fixed | parts, some, classes, drawn))(trained)
        updates, state = optimizer.update(gradient, state)
        trained = dict(optax.apply_updates(trained, updates))  # type: ignore[arg-type]
        held = {name: jnp.clip(trained[name], *BOUNDS[name]) for name in BOUNDS if name in trained}
        return trained | held, state, value

    trained = jax.tree.map(lambda part: jnp.array(part, copy=True), trained)
    pixels, labels = jnp.asarray(images.images), jnp.asarray(images.labels)
    state, value = optimizer.init(trained), jnp.zeros(())
    for epoch in range(effort.epochs):
        for batch, key in batches.of_epoch(epoch):
            trained, state, value = step(trained, state, pixels, labels, batch, key)
        if not np.isfinite(float(value)):
            raise UserError(f"the loss is {float(value)} after epoch {epoch + 1}: lower the system's rate")
    return fixed | trained


def spiking_loss(snn: SNN, cells: Cells, base: np.ndarray, effort: Effort, every_step: bool) -> Loss:
    """Cross-entropy of the scores of the unrolled network over t: at every step, or at the last.

    Args:
        base: thresholds (L,), which the part "thresholds" multiplies.
    """
    steps = jnp.arange(1, effort.timesteps + 1, dtype=jnp.float32)[:, None, None]

    def loss(parts: Parts, images: jax.Array, labels: jax.Array, key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(labels))
        genes = genes_of(parts, base)
        curve = unrolled(snn.network, parts["weights"], cells, genes, images, effort.timesteps, keys)[0]
        logits = (curve / steps)[0 if every_step else -1 :]
        every = jnp.broadcast_to(labels, logits.shape[:-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, every).mean()

    return loss


def fit_spiking(
    snn: SNN,
    cells: Cells,
    start: Genes,
    trained: tuple[str, ...],
    images: Labelled,
    effort: Effort,
    seed: int,
    every_step: bool = False,
) -> tuple[SNN, Genes]:
    """The network and its one candidate (1, L) after backpropagation through time.

    Args:
        cells: with ``fire``, so that there is a gradient.
        trained: names in ``jaxsnn.training.bptt.TRAINABLE``.
    """
    parts = parts_of(snn, start)
    base = np.asarray(start.threshold[0], np.float32)
    loss = spiking_loss(snn, cells, base, effort, every_step)
    moved = {name: parts[name] for name in trained}
    parts = fit(loss, moved, {n: p for n, p in parts.items() if n not in moved}, images, effort, seed)
    weights = {name: np.asarray(value) for name, value in parts["weights"].items()}
    found: Any = genes_of(parts, base).map(lambda part: np.asarray(part, np.float64)[None])
    return SNN(snn.network, weights), found
