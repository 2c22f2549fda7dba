"""The integrate-and-fire neuron: one step of one layer.

    v += I ;  s = (v > theta) ;  v -= theta * s

This post-update form gives the spike train of the paper's eq. 1-2, in which the spike is read from the membrane
before the update, one step earlier; the paper's form is this one plus a delay of one step per layer.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Fire = Callable[[jax.Array, jax.Array], jax.Array]
"""Spikes, 0.0 or 1.0, of membranes at a threshold; differentiable with ``jaxsnn.simulation.surrogate``."""


def if_step(
    v: jax.Array,
    drive: jax.Array,
    theta: jax.Array,
    leak: jax.Array | None = None,
    comparison: str = ">",
    fire: Fire | None = None,
) -> tuple[jax.Array, jax.Array]:
    """One step of subtractive integrate-and-fire neurons (eq. 1-2), leaky if ``leak`` is given.

    Args:
        v: membranes, any shape, in the units of the ANN's activations.
        drive: input of this step, same shape.
        theta: threshold, broadcast to ``v``.
        leak: factor on the old membrane, in (0, 1]; None is 1.
        comparison: ">" (the paper's) or ">=".
        fire: in place of the comparison.

    Returns:
        membranes after the reset, and the spikes (bool, or what ``fire`` returns).
    """
    v = (v if leak is None else v * leak) + drive
    if fire is not None:
        spikes = fire(v, theta)
        return v - theta * spikes, spikes
    spikes = v >= theta if comparison == ">=" else v > theta
    return v - jnp.where(spikes, theta, 0), spikes
