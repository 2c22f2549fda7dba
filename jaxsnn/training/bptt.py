"""Backpropagation through time: the unrolled loss, its parts, and one descent."""

import functools
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsnn.networks.description import Network
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.networks.weights import to_device
from jaxsnn.simulation.surrogate import surrogate_scores
from jaxsnn.training.loop import augment

TRAINABLE = ("weights", "thresholds", "leak", "v0")
"""What can be trained."""
Parts = dict[str, Any]
"""The network's parameters by the name "weights", and arrays (L,) by the others in ``TRAINABLE``."""
BOUNDS = {"thresholds": (0.05, 20.0), "leak": (0.01, 1.0), "v0": (0.0, 0.99)}
"""Where the neurons' parts are held; thresholds are relative to where they started."""


@dataclass(frozen=True)
class Unrolling:
    """How the gradient of one batch is computed; ``timesteps`` are without layer delay, the rest as configured."""

    timesteps: int
    comparison: str = ">"
    loss: str = "mean"
    surrogate: str = "triangle"
    scale: float = 0.15
    checkpoint: bool = False
    truncate: int | None = None
    precision: str = "float32"


@dataclass(frozen=True)
class Tuning:
    """What is trained, and how.

    Attributes:
        trained: names in ``TRAINABLE``.
        learning_rate, neuron_rate: Adam's rates at the start, for the weights and for the rest.
        steps: over which they fall to 0 along a cosine.
        augment: whether images are cropped and flipped at random.
    """

    trained: tuple[str, ...]
    learning_rate: float
    neuron_rate: float
    steps: int
    batch: int
    augment: bool = False


def batch_loss(
    network: Network,
    unrolling: Unrolling,
    params: dict[str, jax.Array],
    genes: Genes,
    images: jax.Array,
    labels: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of one batch, and how many images are right at the last step; ``genes`` are (L,) each.

    The logits are scores / t, which tend to the ANN's as t grows. Their loss is averaged over t = 1..T ("mean"),
    so that early answers count as well, or taken at T ("final").
    """
    scores = surrogate_scores(
        network,
        params,
        genes,
        images,
        unrolling.timesteps,
        Dynamics(unrolling.comparison, "none"),
        unrolling.surrogate,
        unrolling.scale,
        unrolling.checkpoint,
        unrolling.truncate,
        unrolling.precision,
        every_step=unrolling.loss == "mean",
    )
    if unrolling.loss == "mean":
        logits = scores / jnp.arange(1, unrolling.timesteps + 1, dtype=scores.dtype)[:, None, None]
        scores = scores[-1]
    else:
        logits = scores / unrolling.timesteps
    every = jnp.broadcast_to(labels, logits.shape[:-1])
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, every).mean()
    return loss, (scores.argmax(-1) == labels).sum()


def parts_of(snn: SNN, start: Genes) -> Parts:
    """Everything that can be trained, by the names in ``TRAINABLE``; thresholds are relative to ``start``'s."""
    layers = len(snn.network.spiking)
    return {
        "weights": to_device(snn.params),
        "thresholds": jnp.ones(layers),
        "leak": jnp.ones(layers) if start.leak is None else jnp.asarray(start.leak[0], jnp.float32),
        "v0": jnp.zeros(layers) if start.v0 is None else jnp.asarray(start.v0[0], jnp.float32),
    }


def genes_of(parts: Parts, start: jax.Array | np.ndarray) -> Genes:
    """One candidate's genes, (L,) each, of parts whose thresholds are relative to ``start`` (L,)."""
    return Genes(parts["thresholds"] * start, parts["v0"], parts["leak"])


def make_optimizer(
    trained: Iterable[str], learning_rate: float, neuron_rate: float, steps: int
) -> optax.GradientTransformation:
    """Adam for the parts called ``trained``, with a rate for the weights and one for what neurons are made of."""
    rates = {"weights": learning_rate, "neurons": neuron_rate}
    # surrogate gradients shrink from layer to layer, far below Adam's usual epsilon
    kinds: dict[Hashable, optax.GradientTransformation] = {
        kind: optax.adam(optax.cosine_decay_schedule(rate, steps), eps=1e-15) for kind, rate in rates.items()
    }
    return optax.multi_transform(kinds, {name: "weights" if name == "weights" else "neurons" for name in trained})


def make_step(
    network: Network, unrolling: Unrolling, optimizer: optax.GradientTransformation, augmented: bool = False
) -> Any:
    """One step of gradient descent, jitted.

    Returns:
        ``step(trained, fixed, state, start, images, labels, key) -> (trained, state, loss, right)``: ``trained``
        and ``fixed`` are the parts that are and those that are not, ``start`` (L,) the thresholds that they are
        relative to; ``trained`` and ``state`` are overwritten.
    """

    @functools.partial(jax.jit, donate_argnums=(0, 2))
    def step(trained, fixed, state, start, images, labels, key):
        if augmented:
            images = augment(key, images)

        def loss(trained):
            parts = fixed | trained
            return batch_loss(network, unrolling, parts["weights"], genes_of(parts, start), images, labels)

        (value, right), gradient = jax.value_and_grad(loss, has_aux=True)(trained)
        updates, state = optimizer.update(gradient, state)
        trained = dict(cast(Parts, optax.apply_updates(trained, updates)))
        trained |= {name: jnp.clip(trained[name], *BOUNDS[name]) for name in BOUNDS if name in trained}
        return trained, state, value, right

    return step


def step_bytes(compiled: jax.stages.Compiled) -> int:
    """Peak memory of a compiled function as XLA planned it: arguments, results and temporaries."""
    plan: Any = compiled.memory_analysis()
    held = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return held + plan.temp_size_in_bytes


class BpttDescent:
    """The descent of a spiking network's parts on a dataset; see ``jaxsnn.training.loop.Descent``.

    Attributes:
        compiled: the step; see ``make_step``.
        trained, fixed: the parts that are and those that are not trained.
    """

    rates = "--learning-rate or --neuron-rate"

    def __init__(
        self, snn: SNN, start: Genes, unrolling: Unrolling, tuning: Tuning, images: np.ndarray, labels: np.ndarray
    ):
        """Compile the step.

        Args:
            start: one candidate (1, L), from which the descent starts.
            images, labels: the training images, uint8 (N, H, W, C), and their classes (N,).
        """
        parts = parts_of(snn, start)
        self.trained = {name: jax.tree.map(jnp.copy, parts[name]) for name in tuning.trained}
        self.fixed = {name: part for name, part in parts.items() if name not in self.trained}
        optimizer = make_optimizer(self.trained, tuning.learning_rate, tuning.neuron_rate, tuning.steps)
        self._state = optimizer.init(self.trained)
        self._base = jnp.asarray(start.threshold[0], jnp.float32)
        self._images, self._labels = images, labels
        step = make_step(snn.network, unrolling, optimizer, tuning.augment)
        batch = (images[: tuning.batch], labels[: tuning.batch])
        key = jax.random.key(0)
        self.compiled = step.lower(self.trained, self.fixed, self._state, self._base, *batch, key).compile()

    @property
    def parts(self) -> Parts:
        """All parts, by the names in ``TRAINABLE``."""
        return self.fixed | self.trained

    def step(self, batch: np.ndarray, key: jax.Array) -> tuple[jax.Array, ...]:
        """See ``Descent``; the loss, and how many images were right."""
        images, labels = self._images[batch], self._labels[batch]
        self.trained, self._state, loss, right = self.compiled(
            self.trained, self.fixed, self._state, self._base, images, labels, key
        )
        return loss, right

    def arrays(self) -> list[jax.Array]:
        """See ``Descent``: the trained parts and Adam's state."""
        return jax.tree.leaves((self.trained, self._state))

    def restore(self, arrays: Sequence[jax.Array]) -> None:
        """See ``Descent``."""
        tree = jax.tree.structure((self.trained, self._state))
        self.trained, self._state = jax.tree.unflatten(tree, arrays)
