"""A spiking network layer by layer on a batch of images: all T steps of a layer before the next layer begins.

What calibration needs, and what the package's simulator has no place for: a bias for every step and an initial
membrane for every neuron. Written apart from ``jaxsnn.conversion``, in float32, with XLA.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.conversion.channels import Channels
from jaxsnn.conversion.few_timesteps import drive, packed
from jaxsnn.networks.description import IMAGE
from jaxsnn.networks.fan_out import fan_out
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.spiking import SNN

CHUNK = 64
"""Images at once, filled up, so that one compiled shape serves all."""
BLOCK = 256
"""Test images whose spikes are held at once."""


@dataclass(frozen=True, eq=False)
class Neurons:
    """One layer's neurons, in the units of the ANN's activations.

    Attributes:
        threshold: (C,), what a membrane must exceed, and what a spike takes away.
        amplitude: (C,), what a spike is worth to the layers that it drives.
        bias: (C,) a constant current beside the network's own, or (T, C) one for every step.
        start: (C,) or (*shape) the membrane before the first step.
        most: spikes that one may send in a step, floor(v / threshold) of them where that is more than one.
    """

    threshold: np.ndarray
    amplitude: np.ndarray
    bias: np.ndarray
    start: np.ndarray
    most: int = 1


def neurons_of(channels: Channels) -> tuple[Neurons, ...]:
    """The spiking layers of ``channels``."""
    parts = zip(channels.thresholds, channels.amplitudes, channels.biases, channels.starts)
    return tuple(Neurons(theta, worth, bias, start * theta) for theta, worth, bias, start in parts)


def chunks(count: int, size: int = CHUNK) -> list[slice]:
    """Slices of ``size``, the last one of what is left."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def padded(part: np.ndarray, axis: int = 0) -> np.ndarray:
    """Filled up with zeros to a whole chunk."""
    missing = CHUNK - part.shape[axis]
    return np.pad(part, [(0, missing if k == axis else 0) for k in range(part.ndim)]) if missing else part


def ann_sums(snn: SNN, images: np.ndarray) -> Iterator[list[np.ndarray]]:
    """The ANN's sums in front of every layer's activation, (n, *shape) each, chunk of images after chunk."""
    forward = jax.jit(ann_forward, static_argnums=0)
    for part in chunks(len(images)):
        sums = forward(snn.network, snn.params, padded(images[part]))
        yield [np.asarray(layer)[: part.stop - part.start] for layer in sums]


def ann_means(snn: SNN, images: np.ndarray) -> list[np.ndarray]:
    """The mean over images of every spiking layer's activations, float64 (*shape)."""
    totals: list = [0.0] * len(snn.network.spiking)
    for sums in ann_sums(snn, images):
        totals = [total + np.maximum(s, 0).sum(0, dtype=np.float64) for total, s in zip(totals, sums)]
    return [total / len(images) for total in totals]


class Walk:
    """A way through a network's layers: the spikes of those that have fired, until their last reader has.

    ``most`` spikes a neuron sends in a step at most.
    """

    def __init__(self, snn: SNN, images: np.ndarray, timesteps: int, comparison: str = ">=", most: int = 1):
        self.network, self.timesteps, self.comparison = snn.network, timesteps, comparison
        self.most = most
        self.images, self.params = images, dict(snn.params)
        self._trains: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def currents(self, index: int, part: slice) -> jax.Array:
        """What drives a layer on a chunk of images, (T, CHUNK, *shape); (1, ...) where all steps are alike.

        The layers that it reads have fired before.
        """
        sources = [
            None
            if edge.source == IMAGE
            else (padded(self._trains[edge.source][0][:, part], 1), self._trains[edge.source][1])
            for edge in self.network.layers[index].edges
        ]
        images = padded(self.images[part])
        return drive(self.network, index, self.params, images, sources, most=self.most)

    def output(self, index: int, neurons: Neurons) -> np.ndarray:
        """The mean over images of amplitude * spikes / T, float64 (*shape), if a layer had these neurons."""
        return self._run(index, neurons, False)

    def fire(self, index: int, neurons: Neurons) -> np.ndarray:
        """``output``, and the layers behind this one see its spikes from now on."""
        return self._run(index, neurons, True)

    def _run(self, index: int, neurons: Neurons, keep: bool) -> np.ndarray:
        total, trains = 0.0, []
        theta, bias, start = (
            np.asarray(part, np.float32) for part in (neurons.threshold, neurons.bias, neurons.start)
        )
        for part in chunks(len(self.images)):
            count = part.stop - part.start
            drive = self.currents(index, part)
            how = (self.timesteps, self.comparison, neurons.most)
            spikes = np.asarray(simulate(drive, theta, bias, start, *how))
            total = total + spikes[:, :count].sum((0, 1), dtype=np.float64)
            if keep:
                trains.append(np.asarray(packed(spikes[:, :count], self.most)))
        if keep:
            self._trains[index] = (np.concatenate(trains, 1), np.asarray(neurons.amplitude, np.float32))
            self._forget(index)
        return neurons.amplitude * total / (len(self.images) * self.timesteps)

    def _forget(self, fired: int) -> None:
        """Drop the spikes of layers that only layers up to ``fired`` read."""
        for source in list(self._trains):
            readers = [
                i for i, layer in enumerate(self.network.layers) if any(e.source == source for e in layer.edges)
            ]
            if readers and max(readers) <= fired:
                del self._trains[source]

    def scores(self, bias: np.ndarray) -> np.ndarray:
        """The read-out's sums at every step, not yet added up, (T, N, classes); ``bias`` is (classes,)."""
        last = len(self.network.spiking)
        parts = []
        for part in chunks(len(self.images)):
            drive = np.asarray(self.currents(last, part))[:, : part.stop - part.start]
            parts.append(np.broadcast_to(drive, (self.timesteps, *drive.shape[1:])))
        return np.concatenate(parts, 1) + bias


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def simulate(currents, threshold, bias, start, timesteps: int, comparison: str, most: int = 1):
    """Spikes (T, B, *shape) of neurons under ``currents`` (T or 1, B, *shape); ``bias`` is (C,) or (T, C)."""
    bias = bias.reshape(-1, bias.shape[-1])
    v = jnp.broadcast_to(start, currents.shape[1:])
    spikes = []
    for t in range(timesteps):
        v = v + (currents[t % len(currents)] + bias[t % len(bias)])
        if most > 1:
            fired = jnp.clip(jnp.floor(v / threshold), 0, most)
        else:
            fired = v >= threshold if comparison == ">=" else v > threshold
        v = v - threshold * fired
        spikes.append(fired)
    return jnp.stack(spikes)


def right_answers(
    snn: SNN,
    neurons: Sequence[Neurons],
    bias: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    timesteps: int,
    comparison: str,
    skip: int = 0,
) -> tuple[np.ndarray, tuple[float, ...], tuple[float, ...]]:
    """Which images are right after each step, (N, T); spikes and synaptic operations of an image by layer.

    Args:
        bias: of the read-out, (classes,).
        skip: steps at the beginning that the read-out leaves out, from the step after them on.
    """
    right, reach = [], [part[..., None] for part in fan_out(snn.network)]
    counts = np.zeros((2, len(neurons)))
    for part in chunks(len(images), BLOCK):
        walk = Walk(snn, images[part], timesteps, comparison)
        for index, layer in enumerate(neurons):
            sent = walk.fire(index, layer) / layer.amplitude * (timesteps * len(images[part]))
            counts[:, index] += sent.sum(), (sent.reshape(*reach[index].shape[:2], -1) * reach[index]).sum()
        scores = walk.scores(bias).cumsum(0)
        if skip:
            scores[skip:] -= scores[skip - 1].copy()
        right.append((scores.argmax(-1) == labels[part]).T)
    spikes, synops = (tuple(part) for part in (counts / len(images)).tolist())
    return np.concatenate(right), spikes, synops
