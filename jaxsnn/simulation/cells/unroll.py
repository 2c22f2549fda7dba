"""A network of any cells, step by step: the dense back-end for neurons that are not the package's own.

Float32, one candidate after the other in a vmap, no layer delay inside: a run with a delay of one step per layer
is this one, shifted.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.description import IMAGE, Arrays, Network, layer_shapes
from jaxsnn.networks.forward import preprocess
from jaxsnn.networks.linear_maps import LinearMap, linear_map
from jaxsnn.networks.senders import has_gates
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.simulation.cells.cell import Cell
from jaxsnn.simulation.dense import Chunk, chunk_shape, cpu_rows
from jaxsnn.simulation.plan import Plan
from jaxsnn.simulation.step import neurons_of, wire, without_biases

Cells = tuple[Cell, ...]
GPU_ROWS = 500
"""Candidates x images at once where there is no CPU's own number."""


def per_layer(network: Network, cell: Cell | Sequence[Cell]) -> Cells:
    """A cell for each spiking layer; raises ``UserError`` for max pools, or where there are more or fewer."""
    if has_gates(network):
        raise UserError(
            "max pools choose among single spikes of the package's own neurons: leave cell (or most) out"
        )
    cells = (cell,) * len(network.spiking) if isinstance(cell, Cell) else tuple(cell)
    if len(cells) != len(network.spiking):
        raise UserError(f"there are {len(cells)} cells, expected one or {len(network.spiking)}: one per layer")
    return cells


def check(plan: Plan, dynamics: Dynamics) -> None:
    """Raise ``UserError`` where a plan cannot simulate cells."""
    if plan.backend == "events":
        raise UserError("the event-driven back-end has no neurons but its own: use --backend xla or auto")
    if plan.precision != "float32" or plan.mesh is not None:
        raise UserError(
            "neurons of another kind, such as those that send several spikes in a step, are simulated in float32 "
            "on one device: use --precision float32, and leave --mesh out"
        )
    if dynamics.comparison != ">":
        raise UserError("a cell says itself when it fires: leave comparison out")


def _coded(network: Network, params: Arrays, cells: Cells, images: jax.Array) -> Callable | None:
    """What the image drives layers with at a step, ``drive(t, keys) -> [(B, *shape) or 0]``; None: constant."""
    coding = cells[0].coding
    if coding is None:
        return None
    x, kernels = preprocess(network, images), without_biases(params)
    maps: list[list[LinearMap]] = [
        [linear_map(edge.ops, kernels, network.input_shape) for edge in layer.edges if edge.source == IMAGE]
        for layer in network.layers
    ]

    def drive(t: jax.Array, keys: jax.Array) -> list:
        here = jax.vmap(lambda image, key: coding(image, t, jax.random.fold_in(key, t)))(x, keys)
        return [sum(each(here) for each in some) if some else 0.0 for some in maps]

    return drive


def unrolled(
    network: Network,
    params: Arrays,
    cells: Cells,
    genes: Genes,
    images: jax.Array,
    timesteps: int,
    keys: jax.Array,
    counted: Callable[[jax.Array], jax.Array] | None = None,
    starts: Sequence[jax.Array] | None = None,
) -> tuple[jax.Array, list[jax.Array], list]:
    """One candidate's scores, counts and states; differentiable, traced as it stands.

    Args:
        genes: (L,) each.
        keys: a random key for each image, for codings that draw.
        counted: of the spikes of a layer (B, *shape) at a step, what is returned of each step and layer.
        starts: initial membranes (B, *shape) of each layer in place of the genes'.

    Returns:
        class scores after each step, summed over time, (T, B, classes); what was counted of each layer, (T, ...),
        empty where nothing was; and the cells' states after the last step.
    """
    wiring, neurons = wire(network, params, images), neurons_of(network, genes, params)
    coded = _coded(network, params, cells, images)
    scheduled = coded is not None or any(type(cell).bias is not Cell.bias for cell in cells)
    # of an image that is normalised to zeros, so that biases are left
    black = jnp.broadcast_to(jnp.asarray(network.mean, jnp.float32), (1, *network.input_shape))
    biases = wire(network, params, black).constant if scheduled else []
    shapes, count = layer_shapes(network), len(images)
    begin = [
        jnp.broadcast_to(jnp.asarray(v, jnp.float32), (count, *shape))
        for v, shape in zip(neurons.starts if starts is None else starts, shapes)
    ]
    states = [cell.init(v, theta) for cell, v, theta in zip(cells, begin, neurons.thresholds)]

    def fixed(t: jax.Array) -> list:
        if not scheduled:
            return wiring.constant
        seen = coded(t, keys) if coded else [c - b for c, b in zip(wiring.constant, biases)]
        # the read-out goes by the last layer's clock
        return [s + cell.bias(t) * b for s, cell, b in zip(seen, (*cells, cells[-1]), biases)]

    def step(carry, t):
        states, scores = carry
        after, sent, spikes = [], [], []
        for index, (drive, maps) in enumerate(zip(fixed(t), wiring.synapses)):
            for source, linear in maps:
                drive = drive + linear(sent[source])
            if index == len(cells):
                scores = scores + drive
                break
            drive = jnp.broadcast_to(drive, (count, *shapes[index]))
            leak = None if neurons.leaks is None else neurons.leaks[index]
            fired = cells[index].step(states[index], drive, neurons.thresholds[index], leak, t)
            after.append(fired.state)
            spikes.append(fired.spikes)
            sent.append(jnp.asarray(fired.spikes, jnp.float32) * fired.worth)
        counts = [] if counted is None else [counted(s) for s in spikes]
        return (after, scores), (scores, counts)

    first = (states, jnp.zeros((count, network.classes)))
    (states, _), (curve, counts) = jax.lax.scan(step, first, jnp.arange(timesteps))
    return curve, counts, states


def keys_of(first: int, count: int, seed: int = 0) -> jax.Array:
    """Random keys of the images from number ``first`` on, the same in whatever chunks they come."""
    return jax.vmap(lambda n: jax.random.fold_in(jax.random.key(seed), n))(jnp.arange(first, first + count))


def pixel_counts(spikes: jax.Array) -> jax.Array:
    """How many spikes (B, H, W, C) or (B, C) there are at each position, int32 (B, H, W) or (B, 1, 1)."""
    many = jnp.abs(jnp.asarray(spikes, jnp.float32))
    many = many.reshape(len(many), *(many.shape[1:3] if many.ndim == 4 else (1, 1)), -1)
    return many.sum(-1).astype(jnp.int32)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _simulate(network: Network, cells: Cells, timesteps: int, params, genes: Genes, images, keys, real):
    def counted(spikes: jax.Array) -> jax.Array:
        return (pixel_counts(spikes) * real[:, None, None]).sum(0)

    def one(genes: Genes) -> tuple[jax.Array, Any]:
        return unrolled(network, params, cells, genes, images, timesteps, keys, counted)[:2]

    with jax.default_matmul_precision("highest"):
        return jax.vmap(one)(genes)


def runs(
    cells: Cells, snn: SNN, genes: Genes, images: np.ndarray, timesteps: int, rows: int | None = None
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Chunk of images after chunk, without delay: scores (P, T, B, classes), and the spikes of each layer at each
    step and position, summed over the chunk's images, (P, T, H, W)."""
    usual = cpu_rows(snn.network) if jax.default_backend() == "cpu" else GPU_ROWS
    size = chunk_shape(len(genes.threshold), len(images), rows or usual, None, 1, 1)[1]
    for start in range(0, len(images), size):
        part = images[start : start + size]
        count = len(part)
        padded = np.pad(part, ((0, size - count), (0, 0), (0, 0), (0, 0)))
        real, keys = np.arange(size) < count, keys_of(start, size)
        scores, counts = _simulate(snn.network, cells, timesteps, snn.params, genes, padded, keys, real)
        yield np.asarray(scores)[:, :, :count], [np.asarray(layer) for layer in counts]


def chunks(
    cells: Cells,
    snn: SNN,
    genes: Genes,
    images: np.ndarray,
    labels: np.ndarray,
    timesteps: int,
    dynamics: Dynamics,
    plan: Plan,
    progress: Callable[[int], None],
    per_image: bool,
    scored: bool = False,
) -> Iterator[Chunk]:
    """``jaxsnn.simulation.dense.chunks`` with ``cells`` in place of the package's neurons."""
    candidates, start = len(genes.threshold), 0
    silent = min(timesteps, dynamics.silent_steps(snn.network))
    for scores, counts in runs(cells, snn, genes, images, timesteps - silent, plan.rows):
        count = scores.shape[2]
        classes = labels[start : start + count]
        right = (scores.argmax(-1) == classes).swapaxes(1, 2)
        # before anything reaches the read-out all scores are zero and the first class wins
        first = np.broadcast_to((classes == 0)[:, None], (candidates, count, silent))
        right = np.concatenate([first, right], -1)
        progress(candidates * count)
        kept = scores.swapaxes(1, 2).astype(np.float64) if scored else None
        yield right.sum(1), right, [layer.sum(1) for layer in counts], count, kept
        start += count
