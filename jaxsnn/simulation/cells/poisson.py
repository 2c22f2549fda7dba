"""The image as random spikes."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Poisson:
    """Spikes with the sign of the normalised pixel and the probability |x| / ``largest``, worth ``largest``.

    On average they are the pixel, up to ``largest`` (Diehl et al. 2015; with signs, Sengupta et al. 2019).
    """

    largest: float = 1.0

    def __call__(self, x: jax.Array, t: jax.Array, key: jax.Array) -> jax.Array:
        fires = jax.random.uniform(key, x.shape) * self.largest < jnp.abs(x)
        return jnp.sign(x) * fires * self.largest
