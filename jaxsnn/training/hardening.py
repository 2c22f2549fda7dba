"""Adversarial images to train on: one step of the gradient's sign from a random start.

E. Wong, L. Rice, J. Z. Kolter: Fast is better than free: revisiting adversarial training, ICLR 2020: the start is
uniform within epsilon of the image, the step 1.25 epsilon, and what leaves epsilon or the range of pixels is cut
off. Epsilon counts in pixels, as in ``jaxsnn.attack``.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxsnn.networks.description import Network

STEP = 1.25
"""Of epsilon."""


def hardened(
    network: Network, loss: Callable[[jax.Array], jax.Array], x: jax.Array, grey_levels: float, key: jax.Array
) -> jax.Array:
    """Normalised images (N, H, W, C) that raise ``loss``, within ``grey_levels`` / 255 of ``x`` in every pixel."""
    mean, std = (jnp.asarray(part, jnp.float32) for part in (network.mean, network.std))
    reach = grey_levels / 255 / std
    low, high = jnp.maximum(x - reach, -mean / std), jnp.minimum(x + reach, (1 - mean) / std)
    start = jnp.clip(x + reach * jax.random.uniform(key, x.shape, minval=-1.0), low, high)
    return jnp.clip(start + STEP * reach * jnp.sign(jax.grad(loss)(start)), low, high)
