"""The population simulator: P candidates x B images x T timesteps, counted, in one compiled scan.

The contract (everything later stands on it): ``observe(snn, genes, images, labels, timesteps, ...)`` returns
``Observables``, counts that add up exactly over chunks of images.
"""

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn import events
from jaxsnn.errors import UserError
from jaxsnn.network import Network
from jaxsnn.plan import Plan, resolve
from jaxsnn.quantize import integer_neurons, quantize, wire_integers
from jaxsnn.quantize import pixels as integer_pixels
from jaxsnn.snn import SNN, Dynamics, Genes, Neurons, check_genes, initial_state, neurons_of, snn_step, wire
from jaxsnn.synops import fan_out


@dataclass(frozen=True)
class Observables:
    """Counts over ``images`` images: add two of them for the union of their images.

    Attributes:
        correct: (P, T) images whose class is right when the scores are read after step t = 1..T.
        spikes: (P, L) spikes of each layer. With a layer delay those are left out that can no longer reach the
            read-out within T: they would cost energy on hardware that goes on, but change no result.
        synops: (P, L) synaptic operations that these spikes cause: a spike counts once for every weight that
            it drives (padding left out). The constant input current is not spikes and is not counted.
        limit_correct: (P,) of ``limit_images`` that are right as T goes to infinity (``jaxsnn.limit``), where
            that was asked for.
    """

    correct: np.ndarray
    images: int
    spikes: np.ndarray
    synops: np.ndarray
    limit_correct: np.ndarray | None = None
    limit_images: int = 0

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
    chunks = _run_chunks(snn, genes, images, labels, timesteps, dynamics, plan, progress, per_image=False)
    return functools.reduce(Observables.__add__, (observed for observed, _ in chunks))


def observe_images(
    snn: SNN,
    genes: Genes,
    images: np.ndarray,
    labels: np.ndarray,
    timesteps: int,
    dynamics: Dynamics = Dynamics(),
    plan: Plan = Plan(),
    progress: Callable[[int], None] | None = None,
) -> tuple[Observables, np.ndarray]:
    """Like ``observe``, and whether each image is right at each step: bool (P, B, T)."""
    chunks = list(_run_chunks(snn, genes, images, labels, timesteps, dynamics, plan, progress, per_image=True))
    right = np.concatenate([right for _, right in chunks], axis=1)
    return functools.reduce(Observables.__add__, (observed for observed, _ in chunks)), right


def _run_chunks(snn, genes, images, labels, timesteps, dynamics, plan, progress, per_image):
    """Observables, and right (P, B, T) if ``per_image``, of one chunk of images after the other."""
    check_genes(snn.network, genes)
    if timesteps < 1:
        raise UserError(f"timesteps is {timesteps}, expected at least 1")
    if not len(images) or images.shape[1:] != snn.network.input_shape:
        raise UserError(f"images have shape {images.shape}, expected (N >= 1, *{snn.network.input_shape})")
    genes = Genes(*(None if part is None else np.asarray(part, np.float32) for part in genes))
    plan = resolve(plan, snn.network)
    chunks = _xla_chunks if plan.backend == "xla" else _event_chunks
    yield from chunks(
        snn, genes, images, labels, timesteps, dynamics, plan, progress or (lambda n: None), per_image
    )


def _xla_chunks(snn, genes, images, labels, timesteps, dynamics, plan, progress, per_image):
    candidates = len(genes.threshold)
    silent = min(timesteps, dynamics.silent_steps(snn.network))
    group = min(plan.group or candidates, plan.rows)
    groups = [np.arange(start, start + group).clip(max=candidates - 1) for start in range(0, candidates, group)]
    size, chunks = _chunks(len(images), max(1, plan.rows // group))
    params, each = snn.params, genes
    if plan.precision == "int8":
        integers = quantize(snn)
        params, each = integers.kernels, integer_neurons(integers, genes, timesteps - silent)
    for rows in chunks:
        count = len(images[rows])
        pixels, *marks = _padded(images[rows], labels[rows], size)
        if plan.precision == "int8":
            pixels = integer_pixels(integers, pixels)
        parts = []
        for members in groups:
            part = jax.tree.map(operator.itemgetter(members), each)
            parts.append(
                _simulate(
                    snn.network, dynamics, timesteps, per_image, plan.precision, params, part, pixels, *marks
                )
            )
            jax.block_until_ready(parts[-1])
            progress(len(set(members)) * count)
        right = np.concatenate([np.asarray(part[0]) for part in parts])[:candidates]
        maps = [np.concatenate(layer)[:candidates] for layer in zip(*(part[1] for part in parts))]
        correct = right.sum(1) if per_image else right
        yield _count(snn.network, correct, maps, count), right[:, :count]


def _event_chunks(snn, genes, images, labels, timesteps, dynamics, plan, progress, per_image):
    silent = min(timesteps, dynamics.silent_steps(snn.network))
    _, chunks = _chunks(len(images), events.images_at_once(snn.network, plan.rows))
    for rows in chunks:
        answers, maps = events.run(
            snn, genes, images[rows], timesteps - silent, dynamics, plan.precision, plan.threads, progress
        )
        right = answers == labels[rows, None]
        # before anything reaches the read-out all scores are zero and the first class wins
        first = np.broadcast_to((labels[rows, None] == 0), (*right.shape[:2], silent))
        right = np.concatenate([first, right], -1)
        yield _count(snn.network, right.sum(1), maps, len(images[rows])), right


def _chunks(count: int, size: int) -> tuple[int, list[slice]]:
    """Equal chunks of at most ``size`` (the last may be shorter), so that one compiled shape serves them all."""
    size = math.ceil(count / math.ceil(count / size))
    return size, [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _padded(images: np.ndarray, labels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images and labels filled up to ``size`` rows, and which rows are real."""
    missing = size - len(images)
    real = np.arange(size) < len(images)
    return np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))), np.pad(labels, (0, missing)), real


@functools.partial(jax.jit, static_argnames=("network", "dynamics", "timesteps", "per_image", "precision"))
def _simulate(network, dynamics, timesteps, per_image, precision, params, each, images, labels, real):
    """One chunk of images, of which those marked ``real`` count.

    ``each`` are the genes of P candidates; in int8 their neurons, and the images are the integers of
    ``jaxsnn.quantize.pixels``.

    Returns:
        images that are right (P, T) int32, or if ``per_image`` which ones, bool (P, B, T); and the spikes of each
        layer, summed over images, steps and channels: int32 (P, H, W), or (P, 1, 1) behind a dense layer.
    """
    steps = max(0, timesteps - dynamics.silent_steps(network))
    integer = precision == "int8"
    wiring = wire_integers(network, params, images) if integer else wire(network, params, images, precision)

    def one(mine: Genes | Neurons):
        neurons = mine if integer else neurons_of(network, mine)

        def step(carry, _):
            state, counts = carry
            state, spikes = snn_step(network, dynamics, wiring, neurons, state)
            counts = [count + _pixel_sum(s, real) for count, s in zip(counts, spikes)]
            right = (state.scores.argmax(-1) == labels) & real
            return (state, counts), right if per_image else right.sum(dtype=jnp.int32)

        state = initial_state(network, neurons, len(images), jnp.int32 if integer else jnp.float32)
        counts = [jnp.zeros(v.shape[1:3] if v.ndim == 4 else (1, 1), jnp.int32) for v in state.membranes]
        (_, counts), right = jax.lax.scan(step, (state, counts), length=steps)
        return right, counts

    right, counts = jax.vmap(one)(each)  # (P, steps) or (P, steps, B)
    # before anything reaches the read-out all scores are zero and the first class wins
    first = (labels == 0) & real
    silent = first if per_image else first.sum(dtype=jnp.int32)
    silent = jnp.broadcast_to(silent, (len(right), timesteps - steps, *silent.shape))
    right = jnp.concatenate([silent, right], 1)
    return right.swapaxes(1, 2) if per_image else right, counts


def _pixel_sum(spikes: jax.Array, real: jax.Array) -> jax.Array:
    """Spikes (B, H, W, C) or (B, C) of the real images summed to int32 (H, W) or (1, 1).

    Exact in float32: B * C stays far below 2^24.
    """
    spikes = spikes.reshape(len(spikes), *(spikes.shape[1:] if spikes.ndim == 4 else (1, 1, -1)))
    return jnp.einsum("bhwc,b->hw", spikes, real.astype(spikes.dtype)).astype(jnp.int32)


def _count(network: Network, correct: np.ndarray, maps: list[np.ndarray], images: int) -> Observables:
    """The counts of one chunk in int64, where they cannot overflow."""
    maps = [m.astype(np.int64) for m in maps]
    spikes = np.stack([m.sum((1, 2)) for m in maps], 1)
    synops = np.stack([(m * reach).sum((1, 2)) for m, reach in zip(maps, fan_out(network))], 1)
    return Observables(correct.astype(np.int64), images, spikes, synops)


def record(
    snn: SNN, genes: Genes, images: np.ndarray, timesteps: int, dynamics: Dynamics = Dynamics(delay="none")
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Everything that happens, for explanation and tests; memory grows with T.

    Delay-free steps: with a delay of one step per layer, layer l (1-based on the longest path) does the same l
    steps later.

    Returns:
        per spiking layer the membranes after the reset (P, T, B, *shape) float32 and the spikes (P, T, B, *shape)
        bool; and the scores (P, T, B, classes).
    """
    check_genes(snn.network, genes)
    genes = Genes(*(None if part is None else np.asarray(part, np.float32) for part in genes))
    states, spikes = _record(snn.network, dynamics, timesteps, snn.params, genes, images)
    membranes = [np.asarray(v) for v in states.membranes]
    return membranes, [np.asarray(s) > 0 for s in spikes], np.asarray(states.scores)


@functools.partial(jax.jit, static_argnames=("network", "dynamics", "timesteps"))
def _record(network, dynamics, timesteps, params, genes, images):
    wiring = wire(network, params, images, jnp.float32)

    def one(genes: Genes):
        neurons = neurons_of(network, genes)

        def step(state, _):
            state, spikes = snn_step(network, dynamics, wiring, neurons, state)
            return state, (state, spikes)

        return jax.lax.scan(step, initial_state(network, neurons, len(images)), length=timesteps)[1]

    return jax.vmap(one)(genes)
