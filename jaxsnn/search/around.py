"""Search around a calibrated network: a factor on each layer's threshold and a shift of its initial membranes.

The calibrated network is the vector of ones and zeros, which competes in generation 0, so that nothing worse comes
back. The cost is the divergence from the ANN (``jaxsnn.search.cost.Divergence``), without labels.
"""

from dataclasses import dataclass

import numpy as np

from jaxsnn.conversion.start import Start
from jaxsnn.networks.spiking import Genes, caps
from jaxsnn.search.space import Block

MOST_V0 = 0.99
"""Genes hold v0 below 1."""
FACTOR = Block(0.5, 2.0, 1.0, 0.06)
SHIFT = Block(-0.5, 0.5, 0.0, 0.06)
"""Box and spread of the initial population: its mean cost was 0.50, the start's 0.39 (embedded, T = 4)."""


@dataclass(frozen=True, eq=False)
class Around:
    """Search vectors (P, 2 L), factors on thresholds and then shifts of v0, to genes: a codec for ``evolve``.

    Attributes:
        start: the calibrated genes (1, L).
        caps: (L,) what no threshold goes beyond, where the start's does not (``jaxsnn.networks.spiking.caps``).
    """

    start: Genes
    caps: np.ndarray | float = np.inf

    @classmethod
    def of(cls, start: Start) -> "Around":
        """Around a calibrated network, whose layers keep their caps."""
        return cls(start.genes, caps(start.snn.network, start.most))

    @property
    def layers(self) -> int:
        return self.start.threshold.shape[1]

    @property
    def blocks(self) -> list[Block]:
        return [FACTOR, SHIFT]

    def spread(self, name: str) -> np.ndarray:
        """``low``, ``high``, ``mean`` or ``std`` of every entry of the search vector, (D,)."""
        return np.repeat([getattr(block, name) for block in self.blocks], self.layers).astype(np.float64)

    def decode(self, vectors: np.ndarray) -> Genes:
        """Genes of the candidates (P, D)."""
        factors, shifts = np.split(np.asarray(vectors, np.float64), 2, axis=1)
        v0 = np.zeros((1, self.layers)) if self.start.v0 is None else self.start.v0
        leak = None if self.start.leak is None else np.repeat(self.start.leak, len(factors), 0)
        theta = np.minimum(self.start.threshold * factors, np.maximum(self.start.threshold, self.caps))
        return Genes(theta, np.clip(v0 + shifts, 0, MOST_V0), leak)

    def baseline_vector(self) -> np.ndarray:
        """The start as a search vector (D,)."""
        return np.repeat([1.0, 0.0], self.layers)

    def baseline(self) -> Genes:
        """The start, one candidate."""
        return self.decode(self.baseline_vector()[None])


MOST_FACTOR = 1.6
"""Where the initial population reaches, should few spikes count: all thresholds at so many times the start's."""


def spread_out(around: Around, rng: np.random.Generator, count: int) -> np.ndarray:
    """Search vectors (count, 2 L) whose thresholds are higher together by factors from 1 to ``MOST_FACTOR``.

    Higher thresholds in all layers mean fewer spikes, which a population around the start alone would have to find
    layer by layer.
    """
    low, high, mean, std = (around.spread(name) for name in ("low", "high", "mean", "std"))
    vectors = mean + std * rng.standard_normal((count, len(mean)))
    vectors[:, : around.layers] *= rng.uniform(1, MOST_FACTOR, (count, 1))
    return vectors.clip(low, high)
