"""What the ANN's layers do to their sums: a ReLU, with a cap or without, or the quantised clip-floor-shift of Bu
et al. (2022).

T. Bu, W. Fang, J. Ding, P. Dai, Z. Yu, T. Huang: Optimal ANN-SNN conversion for high-accuracy and
ultra-low-latency spiking neural networks, ICLR 2022; their shift is 1/2.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxsnn.networks.description import Arrays, Layer, Network

SHIFT = 0.5
"""Initial membrane, as a fraction of the threshold, of the spiking neurons that such an activation stands for."""


LEAST_CEILING = 1e-3


@jax.custom_jvp
def _floor(x: jax.Array) -> jax.Array:
    return jnp.floor(x)


@_floor.defjvp
def _straight_through(primals, tangents):
    return _floor(*primals), tangents[0]


def ceiling(layer: Layer, params: Arrays) -> float:
    """The value that a layer's activation cannot exceed, infinite for a ReLU."""
    if layer.levels:
        return max(float(params[f"{layer.name}.ceiling"][0]), LEAST_CEILING)
    return float("inf") if layer.cap is None else layer.cap


def rectified(z: jax.Array, layer: Layer) -> jax.Array:
    """The ReLU of a layer, up to its cap."""
    active = jax.nn.relu(z)
    return active if layer.cap is None else jnp.minimum(active, layer.cap)


def quantised(z: jax.Array, ceiling: jax.Array, levels: int) -> jax.Array:
    """ceiling * clip(floor(z * levels / ceiling + 1/2) / levels, 0, 1), the floor's gradient being 1.

    Spiking neurons with threshold ``ceiling`` and an initial membrane of half of it pass on exactly this, averaged
    over ``levels`` steps, if their current is constant.
    """
    share = jnp.clip(z / ceiling, 0, 1)
    return ceiling * (_floor(share * levels + SHIFT) / levels)


def activations(network: Network, params: Arrays) -> Callable[[jax.Array], jax.Array]:
    """A function that applies the activation of the first layer when it is first called, then of the second, ...

    It is what ``jaxsnn.networks.description.run`` takes, for one pass.
    """
    layers = iter(network.layers)

    def activate(z: jax.Array) -> jax.Array:
        layer = next(layers)
        if layer.levels is None:
            return rectified(z, layer)
        return quantised(z, jnp.maximum(params[f"{layer.name}.ceiling"], LEAST_CEILING), layer.levels)

    return activate
