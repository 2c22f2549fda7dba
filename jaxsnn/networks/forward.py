"""The ANN's forward pass on a network description."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsnn.errors import UserError
from jaxsnn.networks.activations import activations
from jaxsnn.networks.description import Arrays, Edge, Network, run
from jaxsnn.networks.linear_maps import linear_map


def preprocess(network: Network, images: jax.Array) -> jax.Array:
    """Images (N, H, W, C) as the network's normalised input: (x / 255 - mean) / std, or for float pixels in
    [0, 1], (x - mean) / std. Raises ``UserError`` where float images are not (normalised already, say)."""
    floating = jnp.issubdtype(images.dtype, jnp.floating)
    if floating and not isinstance(images, Tracer):
        _check_pixels(images)
    pixels = images if floating else jnp.asarray(images, jnp.float32) / 255
    return (pixels - jnp.asarray(network.mean)) / jnp.asarray(network.std)


def _check_pixels(images: Any) -> None:
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        raise UserError(
            f"float images must be pixels in [0, 1], but these go from {low:.3g} to {high:.3g}: they are "
            "normalised here, so hand over the pixels, or uint8 images"
        )


def check_images(network: Network, images: Any) -> None:
    """Refuse what are no images of this network; ``UserError`` says what was expected."""
    if not hasattr(images, "shape"):
        given = "a Dataset, whose array is its .images" if hasattr(images, "images") else type(images).__name__
        raise UserError(f"images are {given}: expected an array (N >= 1, *{network.input_shape})")
    if not len(images) or images.shape[1:] != network.input_shape:
        raise UserError(f"images have shape {images.shape}, expected (N >= 1, *{network.input_shape})")
    if isinstance(images, np.ndarray) and images.dtype.kind == "f":  # what is traced later cannot be looked at
        _check_pixels(images)


def ann_forward(network: Network, params: Arrays, images: jax.Array) -> list[jax.Array]:
    """Sums in front of every layer's activation, the last being the logits, for images (N, H, W, C).

    The images are uint8 or float pixels in [0, 1]; the network is folded: no norms.
    """

    def apply(edge: Edge, x: jax.Array) -> jax.Array:
        return linear_map(edge.ops, params, x.shape[1:])(x)

    return run(network, preprocess(network, images), apply, activations(network, params))
