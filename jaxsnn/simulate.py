"""The population simulator: P candidates x B images x T timesteps, counted, in one compiled scan.

The contract (everything later stands on it): ``observe(snn, genes, images, labels, timesteps, plan)`` returns
``Observables``, counts that add up exactly over chunks of images.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.convert import preprocess
from jaxsnn.errors import UserError
from jaxsnn.linear import LinearMap, linear_map
from jaxsnn.network import IMAGE, AvgPool, Conv, Dense, Edge, Network, layer_shapes, output_shape
from jaxsnn.neuron import if_step


@dataclass(frozen=True)
class SNN:
    """A converted network: a folded description and its float32 parameters."""

    network: Network
    params: dict[str, np.ndarray]


class Genes(NamedTuple):
    """What a candidate sets, per spiking layer; leading axis P (candidates), then L (layers).

    ``threshold`` is in the units of the ANN's activations, ``v0`` the initial membrane as a fraction of the
    threshold (None: 0), ``leak`` the factor on the membrane at each step (None: 1).
    """

    threshold: np.ndarray
    v0: np.ndarray | None = None
    leak: np.ndarray | None = None


@dataclass(frozen=True)
class Dynamics:
    """What the neuron does: ``comparison`` is ">" or ">=", ``delay`` is "layer" (the paper's) or "none"."""

    comparison: str = ">"
    delay: str = "layer"

    def __post_init__(self):
        if self.comparison not in (">", ">="):
            raise UserError(f"comparison is {self.comparison!r}, expected '>' or '>='")
        if self.delay not in ("layer", "none"):
            raise UserError(f"delay is {self.delay!r}, expected 'layer' or 'none'")

    def silent_steps(self, network: Network) -> int:
        """Steps before the first input can reach the read-out."""
        return network.delay if self.delay == "layer" else 0


@dataclass(frozen=True)
class Plan:
    """How to simulate, never what: at most ``rows`` candidates x images go through the device at once."""

    rows: int = 512


@dataclass(frozen=True)
class Observables:
    """Counts over ``images`` images: add two of them for the union of their images.

    Attributes:
        correct: (P, T) images whose class is right when the scores are read after step t = 1..T.
        spikes: (P, L) spikes of each layer over all T steps.
        synops: (P, L) synaptic operations that these spikes cause: a spike counts once for every weight that
            it drives (padding left out). The constant input current is not spikes and is not counted.
    """

    correct: np.ndarray
    images: int
    spikes: np.ndarray
    synops: np.ndarray

    @property
    def accuracy(self) -> np.ndarray:
        """Acc(t) in [0, 1], (P, T)."""
        return self.correct / self.images

    def __add__(self, other: "Observables") -> "Observables":
        return Observables(
            self.correct + other.correct,
            self.images + other.images,
            self.spikes + other.spikes,
            self.synops + other.synops,
        )


def observe(
    snn: SNN,
    genes: Genes,
    images: np.ndarray,
    labels: np.ndarray,
    timesteps: int,
    dynamics: Dynamics = Dynamics(),
    plan: Plan = Plan(),
    progress: Callable[[int], None] | None = None,
) -> Observables:
    """Simulate every candidate on every image.

    Args:
        images: uint8 (B, H, W, C).
        labels: int (B,).
        timesteps: T, counted in the convention of ``dynamics.delay``.
        progress: called with the number of candidates x images that have just been finished.

    Raises:
        UserError: thresholds that are not positive, wrong shapes, no images or no timesteps.
    """
    check_genes(snn.network, genes)
    if timesteps < 1:
        raise UserError(f"timesteps is {timesteps}, expected at least 1")
    if not len(images) or images.shape[1:] != snn.network.input_shape:
        raise UserError(f"images have shape {images.shape}, expected (N >= 1, *{snn.network.input_shape})")
    genes = Genes(*(None if part is None else np.asarray(part, np.float32) for part in genes))
    candidates = len(genes.threshold)
    total = None
    chunks = _chunks(len(images), max(1, plan.rows // candidates))
    size = chunks[0].stop
    for rows in chunks:
        correct, maps = _observe_chunk(
            snn.network, dynamics, timesteps, snn.params, genes, *_padded(images[rows], labels[rows], size)
        )
        part = _count(snn.network, np.asarray(correct), [np.asarray(m) for m in maps], rows.stop - rows.start)
        total = part if total is None else total + part
        if progress is not None:
            progress(candidates * (rows.stop - rows.start))
    return total


def check_genes(network: Network, genes: Genes) -> None:
    """Raise ``UserError`` where genes do not fit the network or the neuron."""
    layers = len(network.spiking)
    for name, part in zip(Genes._fields, genes):
        if part is None:
            continue
        part = np.asarray(part)
        if part.ndim != 2 or part.shape[1] != layers:
            raise UserError(
                f"{name} has shape {part.shape}, expected (candidates, {layers}): one per spiking layer"
            )
        if name == "threshold":
            good, rule = part > 0, "positive"
        elif name == "leak":
            good, rule = (part > 0) & (part <= 1), "in (0, 1]"
        else:
            good, rule = (part >= 0) & (part <= 1), "in [0, 1]"
        if not (good & np.isfinite(part)).all():
            row, layer = np.argwhere(~(good & np.isfinite(part)))[0]
            raise UserError(
                f"{name} of layer {network.layers[layer].name} is {part[row, layer]}, expected finite and {rule}"
            )


def _chunks(count: int, size: int) -> list[slice]:
    """Equal chunks of at most ``size`` (the last may be shorter), so that one compiled shape serves them all."""
    size = math.ceil(count / math.ceil(count / size))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _padded(images: np.ndarray, labels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images and labels filled up to ``size`` rows, and which rows are real."""
    missing = size - len(images)
    real = np.arange(size) < len(images)
    return np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))), np.pad(labels, (0, missing)), real


def _edge_parts(
    edge: Edge, params: dict[str, jax.Array], shape: tuple[int, ...]
) -> tuple[LinearMap, jax.Array]:
    """An edge as a linear map and the constant that its biases add, (1, *output)."""
    without_bias = {name: value for name, value in params.items() if name.endswith(".kernel")}
    linear = linear_map(edge.ops, without_bias, shape)
    constant = linear_map(edge.ops, params, shape)(jnp.zeros((1, *shape)))
    return linear, constant


@functools.partial(jax.jit, static_argnames=("network", "dynamics", "timesteps"))
def _observe_chunk(network, dynamics, timesteps, params, genes, images, labels, real):
    """Correct counts (P, T) and spikes summed over images, steps and channels: per layer (P, H, W) or (P, 1, 1)."""
    steps = max(0, timesteps - dynamics.silent_steps(network))
    shapes = layer_shapes(network)
    x = preprocess(network, images)

    # The drive that does not change over time: the image's, computed once for all steps and candidates, and the
    # biases. A layer wakes with its first input step (bias, leak and v0 included), so that the layer delay stays
    # a pure shift of the delay-free run.
    constant, synapses = [], []
    for layer in network.layers:
        fixed, maps = 0.0, []
        for edge in layer.edges:
            shape = network.input_shape if edge.source == IMAGE else shapes[edge.source]
            linear, bias = _edge_parts(edge, params, shape)
            fixed = fixed + bias
            if edge.source == IMAGE:
                fixed = fixed + linear(x)
            else:
                maps.append((edge.source, linear))
        constant.append(fixed)
        synapses.append(maps)

    def one(genes: Genes):
        def step(carry, _):
            membranes, scores, counts = carry
            spikes, new_membranes, new_counts = [], [], []
            for index, (fixed, maps) in enumerate(zip(constant, synapses)):
                drive = fixed
                for source, linear in maps:
                    drive = drive + genes.threshold[source] * linear(spikes[source])
                if index == len(network.spiking):
                    scores = scores + drive
                    break
                leak = None if genes.leak is None else genes.leak[index]
                v, fired = if_step(membranes[index], drive, genes.threshold[index], leak, dynamics.comparison)
                spikes.append(fired.astype(x.dtype))
                new_membranes.append(v)
                new_counts.append(counts[index] + _pixel_sum(spikes[-1], real))
            correct = jnp.sum((scores.argmax(-1) == labels) & real, dtype=jnp.int32)
            return (new_membranes, scores, new_counts), correct

        initial = [
            0.0 if genes.v0 is None else genes.v0[i] * genes.threshold[i] for i in range(len(network.spiking))
        ]
        membranes = [jnp.full((len(x), *shape), v) for shape, v in zip(shapes, initial)]
        counts = [jnp.zeros(shape[:2] if len(shape) == 3 else (1, 1), jnp.int32) for shape in shapes[:-1]]
        scores = jnp.zeros((len(x), network.classes))
        (_, _, counts), correct = jax.lax.scan(step, (membranes, scores, counts), length=steps)
        return correct, counts

    correct, counts = jax.vmap(one)(genes)
    # before anything reaches the read-out all scores are zero and the first class wins
    silent = jnp.sum((labels == 0) & real, dtype=jnp.int32)
    silent = jnp.full((len(correct), timesteps - steps), silent)
    return jnp.concatenate([silent, correct], 1), counts


def _pixel_sum(spikes: jax.Array, real: jax.Array) -> jax.Array:
    """Spikes (B, H, W, C) or (B, C) of the real images summed to int32 (H, W) or (1, 1).

    Exact in float32: B * C stays far below 2^24.
    """
    spikes = spikes.reshape(len(spikes), *(spikes.shape[1:] if spikes.ndim == 4 else (1, 1, -1)))
    return jnp.einsum("bhwc,b->hw", spikes, real.astype(spikes.dtype)).astype(jnp.int32)


def fan_out(network: Network) -> list[np.ndarray]:
    """How many weights one spike drives, per spiking layer: int64 (H, W), or (1, 1) behind a dense layer."""
    shapes = layer_shapes(network)
    totals = [np.zeros(shape[:2] if len(shape) == 3 else (1, 1), np.int64) for shape in shapes[:-1]]
    for layer in network.layers:
        for edge in layer.edges:
            if edge.source != IMAGE:
                totals[edge.source] += _reach(edge.ops, shapes[edge.source])
    return totals


def _reach(ops: tuple, shape: tuple[int, ...]) -> np.ndarray:
    """Weights driven by one unit at each position of an input of ``shape``; an edge without weights drives 1."""
    if not ops:
        return np.ones(shape[:2] if len(shape) == 3 else (1, 1), np.int64)
    op, *rest = ops
    behind = _reach(tuple(rest), output_shape(op, shape))
    match op:
        case Dense():
            positions = shape[:2] if len(shape) == 3 else (1, 1)
            return np.full(positions, op.features * behind.item())
        case AvgPool():
            return behind.repeat(op.window, 0).repeat(op.window, 1)
        case Conv():
            pad = op.kernel // 2
            total = np.zeros((shape[0] + 2 * pad, shape[1] + 2 * pad), np.int64)
            for i in range(op.kernel):
                for j in range(op.kernel):
                    rows = slice(i, i + op.stride * (behind.shape[0] - 1) + 1, op.stride)
                    columns = slice(j, j + op.stride * (behind.shape[1] - 1) + 1, op.stride)
                    total[rows, columns] += op.features * behind
            return total[pad : pad + shape[0], pad : pad + shape[1]]
    return behind


def _count(network: Network, correct: np.ndarray, maps: list[np.ndarray], images: int) -> Observables:
    """The counts of one chunk in int64, where they cannot overflow."""
    maps = [m.astype(np.int64) for m in maps]
    spikes = np.stack([m.sum((1, 2)) for m in maps], 1)
    synops = np.stack([(m * reach).sum((1, 2)) for m, reach in zip(maps, fan_out(network))], 1)
    return Observables(correct.astype(np.int64), images, spikes, synops)
