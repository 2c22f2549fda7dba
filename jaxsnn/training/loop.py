"""One step of training an ANN, augmentation, evaluation, and checkpoints of it."""

from pathlib import Path

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
from jaxsnn.runtime.files import write_atomically
from jaxsnn.training.ann import ANN


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


@nnx.jit(static_argnames="smoothing")
def train_step(ann: ANN, optimizer: nnx.Optimizer, images, labels, key, smoothing: float) -> jax.Array:
    """One step of gradient descent on uint8 images (N, H, W, C); returns the mean loss."""
    key, dropout = jax.random.split(key)
    x = preprocess(ann.network, augment(key, images))
    target = optax.smooth_labels(jax.nn.one_hot(labels, ann.network.classes), smoothing)

    def loss(ann: ANN) -> jax.Array:
        return optax.softmax_cross_entropy(ann(x, dropout), target).mean()

    value, gradient = nnx.value_and_grad(loss)(ann)
    optimizer.update(ann, gradient)
    return value


@nnx.jit
def _predict(ann: ANN, images) -> jax.Array:
    return ann(preprocess(ann.network, images)).argmax(-1)


def accuracy(ann: ANN, dataset: data.Dataset, batch: int = 500) -> float:
    """Share of the dataset that the ANN classifies right, in float32, as its weights will be used."""
    ann = nnx.clone(ann)
    ann.half = False
    right = 0
    for start in range(0, len(dataset), batch):
        right += int(
            (
                np.asarray(_predict(ann, dataset.images[start : start + batch]))
                == dataset.labels[start : start + batch]
            ).sum()
        )
    return right / len(dataset)


def save_checkpoint(path: Path, ann: ANN, optimizer: nnx.Optimizer, epoch: int) -> None:
    """Everything that training needs to go on behind ``epoch`` epochs, in one file written atomically."""
    leaves = jax.tree.leaves(nnx.state((ann, optimizer)))
    arrays = {f"{index:05d}": np.asarray(leaf) for index, leaf in enumerate(leaves)}
    write_atomically(path, to_bytes(arrays | {"epoch": np.asarray([epoch])}))


def load_checkpoint(path: Path, ann: ANN, optimizer: nnx.Optimizer) -> int:
    """Put the checkpoint's arrays into ``ann`` and ``optimizer``; returns its number of epochs."""
    leaves, tree = jax.tree.flatten(nnx.state((ann, optimizer)))
    try:
        stored = load_file(path)
        new = [stored[f"{index:05d}"] for index in range(len(leaves))]
        epoch = int(stored["epoch"][0])
    except (SafetensorError, KeyError, OSError) as error:
        raise UserError(f"{path} is not a checkpoint of this run ({error}); delete it to start again") from error
    if any(a.shape != b.shape for a, b in zip(leaves, new)):
        raise UserError(f"{path} is the checkpoint of another network; delete it or choose another --out")
    nnx.update((ann, optimizer), jax.tree.unflatten(tree, [jnp.asarray(a) for a in new]))
    return epoch


def in_bfloat16(precision: str) -> bool:
    """Whether linear maps are computed in bfloat16 on this machine; ``precision`` as of ``TrainConfig``."""
    return precision == "bfloat16" or (precision == "auto" and jax.default_backend() != "cpu")
