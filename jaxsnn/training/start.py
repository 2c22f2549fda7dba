"""The ANN that training begins with: drawn, or of trained weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import data
from jaxsnn.errors import UserError
from jaxsnn.networks.architectures import NORMS, architecture
from jaxsnn.networks.description import Network, Params
from jaxsnn.networks.forward import preprocess
from jaxsnn.training.ann import ANN
from jaxsnn.training.recipes import Recipe

HELD_OUT_SEED = 0
"""Of the draw of images to validate on, whatever the seed of the training: its runs stay comparable."""
LEVELS = 8
"""Steps of quantised activations where nobody says how many."""


def load_images(
    name: str, holdout: str = "none", folder: Path | None = None, **geometry: Any
) -> tuple[data.Dataset, data.Dataset | None, data.Dataset]:
    """Training images, held-out training images or None, and test images of a dataset.

    Args:
        holdout: the dataset whose training images are left out of the training, or how many are, drawn evenly over
            the classes; "none" leaves out none.
        folder: of both datasets; None is the usual one.
        geometry: ``size`` and ``resize`` of ``data.load``, for the first dataset.

    Raises:
        UserError: nothing to hold out, or nothing left to train on.
    """
    train, test = (data.load(name, split, folder, **geometry) for split in ("train", "test"))
    if holdout == "none":
        return train, None, test
    if holdout.isdecimal():
        return *_drawn(train, int(holdout)), test
    held = data.load(holdout, "train", folder)
    rest = data.split_out(train, held)
    if len(rest) == len(train):
        raise UserError(f"none of the images of {holdout} is in {name}: nothing to hold out")
    if not len(rest):
        raise UserError(f"all images of {name} are in {holdout}: nothing is left to train on")
    return rest, held, test


def _drawn(train: data.Dataset, count: int) -> tuple[data.Dataset, data.Dataset]:
    """The training images without ``count`` of them, and these."""
    if not 0 < count < len(train):
        raise UserError(
            f"--holdout is {count}, expected 1 to {len(train) - 1} of the {len(train)} training images"
        )
    taken = np.zeros(len(train), bool)
    taken[data.balanced(train.labels, count, HELD_OUT_SEED, train.name)] = True
    return train.select(~taken), train.select(taken)


def network_for(name: str, dataset: data.Dataset, norm: str | None = None, width: float = 1.0) -> Network:
    """An architecture for the images of a dataset, with their mean and standard deviation per channel.

    Args:
        norm: a key of ``NORMS``; None is the architecture's own.
        width: factor on the features of every layer but the last.

    Raises:
        UserError: no such architecture, or one that does not fit the images.
    """
    levels = np.arange(256) / 255
    counts = data.levels(dataset.images)
    mean = [float(np.average(levels, weights=count)) for count in counts]
    std = [float(np.sqrt(np.average((levels - m) ** 2, weights=count))) for m, count in zip(mean, counts)]
    chosen: dict[str, Any] = {} if norm is None else {"norm": NORMS[norm]}
    if width != 1:
        chosen["width"] = width
    return architecture(
        name,
        **chosen,
        classes=len(dataset.classes),
        input_shape=dataset.images.shape[1:],
        mean=[round(m, 4) for m in mean],
        std=[round(s, 4) for s in std],
    )


def with_activation(network: Network, activation: str | None, levels: int | None) -> Network:
    """The network with other activations.

    Args:
        activation: "relu" or "qcfs"; None keeps the network's own.
        levels: of qcfs; None keeps the network's own, or means ``LEVELS``.

    Raises:
        UserError: levels for activations that are not quantised.
    """
    own = network.spiking[0].levels if network.spiking else None
    quantised = own is not None if activation is None else activation == "qcfs"
    if levels is not None and not quantised:
        raise UserError("--levels are those of quantised activations: give --activation qcfs")
    used = (levels or own or LEVELS) if quantised else None
    spiking = tuple(replace(layer, levels=used) for layer in network.spiking)
    return replace(network, layers=(*spiking, network.layers[-1]))


def drawn_ann(network: Network, recipe: Recipe, images: np.ndarray, seed: int, half: bool = False) -> ANN:
    """An ANN with random kernels, as the recipe starts.

    Args:
        images: uint8 (N, H, W, C), a batch on which scales and ceilings are read.
        half: whether linear maps are computed in bfloat16.
    """
    ann = ANN(network, seed, recipe.start == "fan_out", half)
    if recipe.start == "lsuv":
        nnx.jit(ANN.start_scales)(ann, preprocess(network, jnp.asarray(images)), jax.random.key(seed))
    return _with_ceilings(ann, {}, images, seed)


def trained_ann(network: Network, params: Params, images: np.ndarray, seed: int, half: bool = False) -> ANN:
    """An ANN with the parameters given; ceilings that are not among them are read on ``images``."""
    ann = ANN(network, seed, half=half)
    ann.set_params({name: jnp.asarray(array) for name, array in params.items()})
    return _with_ceilings(ann, params, images, seed)


def _with_ceilings(ann: ANN, params: Params, images: np.ndarray, seed: int) -> ANN:
    if ann.ceilings and not any(name.endswith(".ceiling") for name in params):
        nnx.jit(ANN.start_ceilings)(ann, preprocess(ann.network, jnp.asarray(images)), jax.random.key(seed))
    return ann
