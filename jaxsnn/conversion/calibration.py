"""Thresholds and percentiles of the ANN's activations, one for the other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.activations import ceiling
from jaxsnn.networks.description import Arrays, Network
from jaxsnn.networks.forward import ann_forward, check_images
from jaxsnn.networks.spiking import SNN, Genes, caps

BINS = 1 << 16


@dataclass(frozen=True)
class Calibration:
    """Distribution of each spiking layer's activations over a calibration batch, zeros included.

    A histogram, so that its size does not grow with the network; a percentile is off by at most one bin,
    1 / 65536 of the layer's largest activation.

    Attributes:
        maxima: (L,) largest activation of each layer.
        cumulative: (L, BINS + 1) share of the activations up to each bin edge; the edges are evenly spaced from
            0 to the maximum, and the first is 0 by definition.
        images: number of calibration images.
        caps: (L,) the value at which the ANN clips each layer, infinite where it does not. No threshold should be
            above it: neurons that pass on more than the ANN lose the clip.
    """

    maxima: np.ndarray
    cumulative: np.ndarray
    images: int
    caps: np.ndarray | float = np.inf

    def threshold(self, percentile: float | np.ndarray) -> np.ndarray:
        """λ(p): the percentile (a number, or one per layer (..., L)) of each layer's activations, (..., L)."""
        share = np.asarray(percentile, np.float64) / 100
        share = np.broadcast_to(share, np.broadcast_shapes(share.shape, self.maxima.shape))
        edges = np.linspace(0, 1, BINS + 1)
        columns = [
            np.interp(share[..., l], self.cumulative[l], edges) * self.maxima[l] for l in range(len(self.maxima))
        ]
        return np.stack(columns, -1)

    def genes(self, percentile: float, v0: float = 0.0) -> Genes:
        """One candidate with every threshold at this percentile and membranes that start at ``v0`` of it."""
        threshold = self.threshold(percentile)[None]
        return Genes(threshold, np.full_like(threshold, v0) if v0 else None)

    def percentile(self, threshold: np.ndarray) -> np.ndarray:
        """Percentile of each threshold (..., L) among its layer's activations; 100 from the maximum on."""
        edges = np.linspace(0, 1, BINS + 1)
        columns = [
            100 * np.interp(threshold[..., l] / self.maxima[l], edges, self.cumulative[l])
            for l in range(len(self.maxima))
        ]
        return np.stack(columns, -1)


def percentiles(snn: SNN, images: np.ndarray, progress: Callable[[int], None] | None = None) -> Calibration:
    """Percentiles of a converted network's activations over uint8 ``images`` (N, H, W, C).

    ``percentiles(snn, images).genes(99.7)`` is the usual start: every threshold at the 99.7 percentile.

    Raises:
        UserError: a layer is never active, so that no threshold can be read from it.

    >>> import data, jaxsnn
    >>> snn = jaxsnn.load()
    >>> jaxsnn.percentiles(snn, data.load("embedded", "train").images[:20]).genes(99.7, v0=0.5).threshold.shape
    (1, 7)
    """
    check_images(snn.network, images)
    return calibrate(snn.network, snn.params, images, progress=progress)


def calibrate(
    network: Network,
    params: Arrays,
    images: np.ndarray,
    batch: int = 100,
    progress: Callable[[int], None] | None = None,
    most: int = 1,
) -> Calibration:
    """Histogram every spiking layer's activations over uint8 ``images`` (N, H, W, C); the network is folded.

    Activations are those of the ReLU. Quantised ones are counted up to their ceiling but not rounded, so that the
    100th percentile is that ceiling, where any reaches it, and neighbouring percentiles differ.

    Args:
        most: spikes that a neuron may send in one step, for the layers' caps.

    Raises:
        UserError: a layer is never active, so that no threshold can be read from it.
    """
    forward = jax.jit(ann_forward, static_argnums=0)
    tops = [ceiling(layer, params) for layer in network.spiking]

    def activations() -> Iterator[list[np.ndarray]]:
        for start in range(0, len(images), batch):
            with jax.default_matmul_precision("highest"):  # a GPU would take TF32, 3e-4 away
                sums = forward(network, params, images[start : start + batch])[:-1]
            yield [np.clip(np.asarray(s), 0, top).ravel() for s, top in zip(sums, tops)]
            if progress is not None:
                progress(len(images[start : start + batch]))

    maxima = np.max([[layer.max() for layer in layers] for layers in activations()], axis=0).astype(np.float64)
    for layer, maximum in zip(network.spiking, maxima):
        if not np.isfinite(maximum) or maximum <= 0:
            raise UserError(
                f"layer {layer.name} has a largest activation of {maximum} on {len(images)} calibration images, "
                "so it has no threshold: check the weights and the images' normalisation"
            )
    counts = np.zeros((len(maxima), BINS), np.int64)
    for layers in activations():
        for index, values in enumerate(layers):
            counts[index] += np.histogram(values, BINS, (0, maxima[index]))[0]
    cumulative = np.concatenate([np.zeros((len(maxima), 1)), counts.cumsum(1) / counts.sum(1, keepdims=True)], 1)
    return Calibration(maxima, cumulative, len(images), caps(network, most))
