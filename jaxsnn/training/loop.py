"""The loop of gradient descent, an ANN's step in it, and the checkpoints from which it is resumed."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes

import data
from jaxsnn.errors import UserError
from jaxsnn.networks.forward import preprocess
from jaxsnn.runtime.files import check_file, write_atomically
from jaxsnn.training.ann import ANN
from jaxsnn.training.boxes import cutmix, cutout
from jaxsnn.training.hardening import hardened
from jaxsnn.training.recipes import Recipe

ABSURD = 10
"""A learning rate that is so many times the usual one is doubted."""


class Descent(Protocol):
    """What the loop moves: something that is trained step by step, and can be put back to where it was."""

    rates: str
    """The options to lower where the loss is not finite."""

    def step(self, batch: np.ndarray, key: jax.Array) -> tuple[jax.Array, ...]:
        """One step on the images at the indices ``batch`` (B,): the loss, and other scalars to keep."""
        ...

    def arrays(self) -> list[jax.Array]:
        """Everything that a step changes."""
        ...

    def restore(self, arrays: Sequence[jax.Array]) -> None:
        """Put back what ``arrays`` gave."""
        ...


@dataclass(frozen=True)
class Batches:
    """The batches of every epoch; they follow from the seed alone, so an epoch can be resumed within."""

    images: int
    batch: int
    seed: int

    @property
    def steps(self) -> int:
        """Steps of one epoch; images that fill no batch are left out of it."""
        return self.images // self.batch

    def of_epoch(self, epoch: int) -> Iterator[tuple[np.ndarray, jax.Array]]:
        """Indices (batch,) and a random key for each step of an epoch, counted from 0."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.images)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(self.seed), epoch), self.steps)
        for index, key in enumerate(keys):
            yield order[index * self.batch : (index + 1) * self.batch], key


@dataclass(frozen=True, eq=False)
class Place:
    """Where a descent stands.

    Attributes:
        epoch: the one it is in, from 1; 0 before the first step.
        scalars: (steps, K) what each step of that epoch gave; the first column is the loss.
        seconds: that the epoch has taken so far.
        whole: whether the epoch is complete.
    """

    epoch: int = 0
    scalars: np.ndarray = field(default_factory=lambda: np.zeros((0, 1)))
    seconds: float = 0.0
    whole: bool = True

    @property
    def epochs(self) -> int:
        """Complete ones."""
        return self.epoch if self.whole else self.epoch - 1

    @property
    def loss(self) -> float:
        """Mean over the epoch's steps."""
        return float(np.mean(self.scalars[:, 0].copy()))

    def steps(self, batches: Batches) -> int:
        """All steps so far."""
        return self.epochs * batches.steps + (0 if self.whole else len(self.scalars))


def descend(
    descent: Descent,
    batches: Batches,
    epochs: int,
    start: Place = Place(),
    *,
    wait: int = 1,
    asked: Callable[[], bool] = lambda: False,
    progress: Callable[[Place], None] = lambda place: None,
) -> Iterator[Place]:
    """Gradient descent up to ``epochs`` epochs; yields the place after each, and where it was asked to stop.

    Args:
        start: the place at which ``descent`` stands.
        wait: steps after which the loss is looked at. A device whose loss is waited for after every step idles in
            between.
        asked: whether to stop after this step.
        progress: called each time that the loss is looked at.

    Raises:
        UserError: the loss is not finite any more.
    """
    for epoch in range(start.epochs, epochs):
        done = Place(epoch + 1, whole=False) if start.whole else start
        began = time.perf_counter() - done.seconds
        pending: list[tuple[jax.Array, ...]] = []
        stop = False
        for index, key in islice(batches.of_epoch(epoch), len(done.scalars), None):
            pending.append(descent.step(index, key))
            stop = asked()
            steps = len(done.scalars) + len(pending)
            if not stop and steps % wait and steps < batches.steps:
                continue
            done = _looked_at(done, pending, batches.steps, time.perf_counter() - began, descent.rates)
            pending = []
            progress(done)
            if stop:
                break
        start = done
        yield done
        if stop:
            return


def _looked_at(
    place: Place, pending: list[tuple[jax.Array, ...]], steps: int, seconds: float, rates: str
) -> Place:
    """The place after the ``pending`` steps, once their losses are known and finite."""
    recent = np.array([[float(scalar) for scalar in row] for row in pending])
    if not np.isfinite(recent[:, 0]).all():
        kept = f"; the run's folder holds what epoch {place.epoch - 1} ended with" if place.epoch > 1 else ""
        raise UserError(f"the loss is {recent[-1, 0]} in epoch {place.epoch}: lower {rates}{kept}")
    scalars = np.concatenate([place.scalars, recent]) if len(place.scalars) else recent
    return Place(place.epoch, scalars, seconds, len(scalars) == steps)


def augment(key: jax.Array, images: jax.Array) -> jax.Array:
    """Random crops after reflecting 4 pixels at each side, and random horizontal flips; uint8 (N, H, W, C)."""
    crop, flip = jax.random.split(key)
    n, h, w, c = images.shape
    padded = jnp.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
    corners = jax.random.randint(crop, (n, 2), 0, 9)
    images = jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), (h, w, c)))(
        padded, corners
    )
    return jnp.where(jax.random.bernoulli(flip, 0.5, (n, 1, 1, 1)), images[:, :, ::-1], images)


def make_optimizer(ann: ANN, recipe: Recipe, steps: int) -> nnx.Optimizer:
    """The recipe's gradient descent over ``steps`` steps; weights decay in kernels only."""
    transform = optax.chain(
        optax.identity() if recipe.clip is None else optax.clip_by_global_norm(recipe.clip),
        optax.add_decayed_weights(recipe.weight_decay, mask=lambda p: jax.tree.map(lambda a: a.ndim > 1, p)),
        optax.sgd(recipe.schedule(recipe.learning_rate, steps), momentum=0.9, nesterov=recipe.nesterov),
    )
    return nnx.Optimizer(ann, transform, wrt=nnx.Param)


@nnx.jit(static_argnames=("smoothing", "greyed", "mixed", "attacked"))
def train_step(
    ann: ANN,
    optimizer: nnx.Optimizer,
    images: jax.Array,
    labels: jax.Array,
    key: jax.Array,
    smoothing: float,
    greyed: int = 0,
    mixed: float = 0.0,
    attacked: float = 0.0,
) -> jax.Array:
    """One step of gradient descent on uint8 images (N, H, W, C); returns the mean loss.

    Args:
        smoothing, greyed, mixed, attacked: ``label_smoothing``, ``cutout``, ``cutmix`` and ``adversarial`` of a
            ``Recipe``.
    """
    key, dropout, grey, mix = jax.random.split(key, 4)
    x = preprocess(ann.network, augment(key, images))
    target = optax.smooth_labels(jax.nn.one_hot(labels, ann.network.classes), smoothing)
    if greyed:
        x = cutout(grey, x, greyed)
    if mixed:
        x, target = cutmix(mix, x, target, mixed)
    if attacked:

        def raised(x: jax.Array) -> jax.Array:
            # statistics of the batch are those of the step itself, not of this pass
            return optax.softmax_cross_entropy(nnx.clone(ann)(x, dropout), target).mean()

        x = hardened(ann.network, raised, x, attacked, jax.random.fold_in(key, 1))

    def loss(ann: ANN) -> jax.Array:
        return optax.softmax_cross_entropy(ann(x, dropout), target).mean()

    value, gradient = nnx.value_and_grad(loss)(ann)
    optimizer.update(ann, gradient)
    return value


class AnnDescent:
    """The descent of an ANN on a dataset, whose images lie on the device, or are decoded batch by batch."""

    rates = "--learning-rate"

    def __init__(self, ann: ANN, optimizer: nnx.Optimizer, dataset: data.Dataset, recipe: Recipe):
        self.ann = ann
        self.optimizer = optimizer
        # a call of train_step walks both graphs: 7 ms on the host for VGG15, more than a GPU takes for the step
        self._step = nnx.cached_partial(train_step, ann, optimizer)
        streamed = isinstance(dataset.images, data.LazyImages) and dataset.images.nbytes > data.KEPT
        self._images = dataset.images if streamed else jnp.asarray(dataset.images)
        self._labels = jnp.asarray(dataset.labels)
        self._how = recipe.label_smoothing, recipe.cutout, recipe.cutmix, recipe.adversarial

    def step(self, batch: np.ndarray, key: jax.Array) -> tuple[jax.Array, ...]:
        """See ``Descent``; the loss alone."""
        images, labels = jnp.asarray(self._images[batch]), self._labels[batch]
        return (self._step(images, labels, key, *self._how),)

    def arrays(self) -> list[jax.Array]:
        """See ``Descent``: parameters, statistics, momenta and the count of steps."""
        return jax.tree.leaves(nnx.state((self.ann, self.optimizer)))

    def restore(self, arrays: Sequence[jax.Array]) -> None:
        """See ``Descent``."""
        tree = jax.tree.structure(nnx.state((self.ann, self.optimizer)))
        nnx.update((self.ann, self.optimizer), jax.tree.unflatten(tree, arrays))


@nnx.jit
def _predict(ann: ANN, images: jax.Array) -> jax.Array:
    return ann(preprocess(ann.network, images)).argmax(-1)


def accuracy(ann: ANN, dataset: data.Dataset, batch: int = 500) -> float:
    """Share of the dataset that the ANN classifies right, in float32, as its weights will be used."""
    ann = nnx.clone(ann)
    ann.half = False
    right = 0
    for start in range(0, len(dataset), batch):
        found = np.asarray(_predict(ann, jnp.asarray(dataset.images[start : start + batch])))
        right += int((found == dataset.labels[start : start + batch]).sum())
    return right / len(dataset)


def save_checkpoint(path: Path, descent: Descent, place: Place) -> None:
    """Everything that training needs to be resumed at ``place``, in one file written atomically."""
    arrays = {f"{index:05d}": np.asarray(array) for index, array in enumerate(descent.arrays())}
    numbers = np.array([place.epoch, place.whole, place.seconds], np.float64)
    write_atomically(path, to_bytes(arrays | {"place": numbers, "scalars": np.ascontiguousarray(place.scalars)}))


def load_checkpoint(path: Path, descent: Descent) -> Place:
    """Put the checkpoint's arrays into ``descent``; returns the place at which it was saved.

    Raises:
        UserError: the file is damaged, or of another network.
    """
    check_file(path)
    now = descent.arrays()
    try:
        stored = load_file(path)
        new = [stored[f"{index:05d}"] for index in range(len(now))]
        epoch, whole, seconds = stored["place"].tolist()
        place = Place(int(epoch), stored["scalars"], seconds, bool(whole))
        if not (
            place.epoch == epoch
            and 0 <= epoch < 1 << 53
            and whole in (0, 1)
            and 0 <= seconds < 1e12
            and (place.scalars.ndim, place.scalars.dtype.kind) == (2, "f")
        ):
            raise ValueError("it stands at no place of a training")
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, OverflowError, OSError) as error:
        raise UserError(f"{path} is not a checkpoint of this run ({error}); delete it to start again") from error
    if any((a.shape, a.dtype) != (b.shape, b.dtype) for a, b in zip(now, new)):
        raise UserError(f"{path} is the checkpoint of another network; delete it or choose another --out")
    descent.restore([jnp.asarray(array) for array in new])
    return place


def in_bfloat16(precision: str) -> bool:
    """Whether linear maps are computed in bfloat16 on this machine.

    Args:
        precision: "float32", "bfloat16", or "auto": bfloat16 on a GPU or TPU.
    """
    return precision == "bfloat16" or (precision == "auto" and jax.default_backend() != "cpu")


def doubts(precision: str, **rates: tuple[float, float]) -> list[str]:
    """A sentence for each setting that is allowed, but hardly meant.

    Args:
        rates: learning rates by their names as typed, without dashes in front; each with the usual one.
    """
    found = [
        f"--{name.replace('_', '-')} is {rate:g}, more than {ABSURD} times the usual {usual:g}: training may well "
        "diverge"
        for name, (rate, usual) in rates.items()
        if rate > ABSURD * usual
    ]
    if precision == "bfloat16" and jax.default_backend() == "cpu":
        found.append("bfloat16 is slower than float32 on a CPU: leave --precision out")
    return found
