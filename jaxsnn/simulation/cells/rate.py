"""The image as evenly spaced spikes."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Rate:
    """Spikes with the sign of the normalised pixel, worth ``largest``, as evenly over time as they go.

    After t steps a pixel x has sent floor(t r + 1/2) of them, with r = |x| / ``largest`` and at most one a step:
    the nearest that whole spikes come to the constant current t x, half a spike at most from it. No number is
    drawn: each run is the same.
    """

    largest: float = 1.0

    def __call__(self, x: jax.Array, t: jax.Array, key: jax.Array) -> jax.Array:
        rate = jnp.minimum(jnp.abs(x) / self.largest, 1)
        sent, before = (jnp.floor(steps * rate + 0.5) for steps in (t + 1.0, t + 0.0))
        return jnp.sign(x) * (sent - before) * self.largest
