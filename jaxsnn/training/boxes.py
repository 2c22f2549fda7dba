"""Boxes in training images: greyed (cutout), or filled from another image whose label counts in part (CutMix)."""

import jax
import jax.numpy as jnp


def boxes(key: jax.Array, shape: tuple[int, ...], sides: jax.Array | int) -> jax.Array:
    """One box an image around a random pixel, cut off at the border: bool (N, H, W, 1), True within.

    Args:
        shape: (N, H, W, C) of the images.
        sides: height and width in pixels, one for all or (N, 2); an odd box has the pixel in its middle.
    """
    n, height, width = shape[:3]
    middle = jax.random.randint(key, (n, 2), 0, jnp.array([height, width]))
    low = (middle - sides // 2)[:, :, None]
    high = low + jnp.broadcast_to(sides, (n, 2))[:, :, None]
    rows, columns = (jnp.arange(length) for length in (height, width))
    down = (low[:, 0] <= rows) & (rows < high[:, 0])
    across = (low[:, 1] <= columns) & (columns < high[:, 1])
    return (down[:, :, None] & across[:, None, :])[..., None]


def cutout(key: jax.Array, x: jax.Array, side: int) -> jax.Array:
    """Normalised images (N, H, W, C) with a square of 0, the mean colour, in each (DeVries and Taylor 2017)."""
    return jnp.where(boxes(key, x.shape, side), 0, x)


def cutmix(key: jax.Array, x: jax.Array, target: jax.Array, share: float) -> tuple[jax.Array, jax.Array]:
    """A box of the next image in ``share`` of the images, and of its target by area (CutMix, Yun et al. 2019).

    The area is uniform over (0, 1) before the box is cut off at the border; batches are in random order, so that
    the next image is a random one.

    Args:
        x: (N, H, W, C).
        target: class probabilities (N, K).
    """
    where, size, chosen = jax.random.split(key, 3)
    n, height, width = x.shape[:3]
    length = jnp.sqrt(jax.random.uniform(size, (n, 1))) * jax.random.bernoulli(chosen, share, (n, 1))
    sides = jnp.round(length * jnp.array([height, width])).astype(int)
    inside = boxes(where, x.shape, sides)
    area = inside.mean((1, 2))
    mixed = jnp.where(inside, jnp.roll(x, -1, 0), x)
    return mixed, target * (1 - area) + jnp.roll(target, -1, 0) * area
