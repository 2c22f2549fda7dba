"""What edges read in a spiking network: layers, and max pools of layers, which pass some of their spikes on.

The ANN's max pool takes the largest activation of a window. In the spiking network a gate stands there: the input
of the window that has fired most often passes its spikes, those of the others are lost (Rueckauer et al.,
Conversion of continuous-valued deep networks to efficient event-driven networks for image classification,
Frontiers in Neuroscience 2017). A tie stays with the input that led before. So a spike passes where it raises the
largest count,

    out(t) = max_i n_i(t) - max_i n_i(t - 1),    n_i(t) = spikes of input i in the steps 1..t,

which is 0 or 1, and what has passed after t steps is the largest count itself. (Were ties given to the first
input, two that fire in turn would pass both trains.) Spikes of one channel are worth the same, so that the largest
count is the largest estimate of an activation.

Senders are counted in the order of evaluation: a layer, then its gates, then the next layer. Without max pools a
sender's number is that of its layer.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsnn.networks.description import IMAGE, Edge, MaxPool, Network, layer_shapes, output_shape
from jaxsnn.networks.linear_maps import max_pool


class Sender(NamedTuple):
    """Spikes that edges read: those of ``layer``, or those that ``pool`` passes on; ``shape`` is without batch."""

    layer: int
    pool: MaxPool | None
    shape: tuple[int, ...]


def gates(network: Network) -> tuple[tuple[MaxPool, ...], ...]:
    """The max pools that read each spiking layer, each once."""
    found: list[dict[MaxPool, None]] = [{} for _ in network.spiking]
    for layer in network.layers:
        for edge in layer.edges:
            if edge.max_pool is not None:
                found[edge.source][edge.max_pool] = None
    return tuple(map(tuple, found))


def has_gates(network: Network) -> bool:
    """Whether there is a max pool."""
    return any(gates(network))


def senders(network: Network) -> tuple[Sender, ...]:
    """All senders of a network."""
    found = []
    for index, (shape, pools) in enumerate(zip(layer_shapes(network), gates(network))):
        found.append(Sender(index, None, shape))
        found += (Sender(index, pool, output_shape(pool, shape)) for pool in pools)
    return tuple(found)


def heard(network: Network) -> list[list[tuple[Edge, int, tuple[int, ...]]]]:
    """Per layer its edges, each with the number of the sender (or ``IMAGE``) and the shape of what is linear in it
    reads."""
    every = {(sender.layer, sender.pool): (k, sender.shape) for k, sender in enumerate(senders(network))}
    image = IMAGE, network.input_shape

    def reads(edge: Edge) -> tuple[int, tuple[int, ...]]:
        return image if edge.source == IMAGE else every[edge.source, edge.max_pool]

    return [[(edge, *reads(edge)) for edge in layer.edges] for layer in network.layers]


def own(network: Network) -> list[int]:
    """The number of each spiking layer among the senders."""
    return [number for number, sender in enumerate(senders(network)) if sender.pool is None]


def from_start(edge: Edge, spikes: jax.Array) -> jax.Array:
    """What the linear ops of an edge read in T steps from the first, of its layer's spikes (T, B, *shape)."""
    if edge.max_pool is None:
        return spikes
    return all_passed(edge.max_pool, jnp.zeros(spikes.shape[1:]), jnp.asarray(spikes, jnp.float32))[1]


def passed(pool: MaxPool, counts: jax.Array, spikes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One step of a gate: the inputs' spike counts (B, H, W, C) after it, and the spikes that pass (B, H', W', C).

    Args:
        counts: before the step.
        spikes: of the step, 0 or 1.
    """
    after = counts + spikes
    return after, max_pool(after, pool) - max_pool(counts, pool)


def all_passed(pool: MaxPool, counts: jax.Array, spikes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``passed`` for the spikes (T, B, H, W, C) of T steps at once."""
    steps = len(spikes)
    every = jnp.concatenate([counts[None], counts + spikes.cumsum(0)])
    most = max_pool(every.reshape(-1, *every.shape[2:]), pool)
    most = most.reshape(steps + 1, -1, *most.shape[1:])
    return every[-1], most[1:] - most[:-1]
