"""Between the search's vectors and the simulator's genes."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from jaxsnn.conversion.calibration import Calibration
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import Genes

SEARCHABLE = ("threshold", "v0", "leak")


class Decoder(Protocol):
    """What ``jaxsnn.search.evolve`` needs to know of search vectors."""

    def decode(self, vectors: np.ndarray) -> Genes:
        """Genes of the candidates (P, D)."""
        ...

    def baseline_vector(self) -> np.ndarray:
        """The baseline as a search vector (D,)."""
        ...


@dataclass(frozen=True)
class Block:
    """One kind of gene in the search vector: L neighbouring entries."""

    low: float
    high: float
    mean: float
    std: float


@dataclass(frozen=True)
class Codec:
    """Search vectors (P, D) <-> genes.

    A threshold is searched as x = theta / lambda(base percentile) (``space="normalised"``: the base is all
    ones, the reading of Table I's std) or as the percentile itself (``space="percentile"``). The entries of
    v0 (fraction of the threshold) and leak (factor per step), when searched, follow.

    Attributes:
        base: percentile of the baseline, 99.7 in the paper.
        v0, leak: values of these genes where they are not searched (0 and 1 in the paper).
    """

    calibration: Calibration
    space: str = "normalised"
    base: float = 99.7
    std: float = 0.15
    low: float = 0.2
    high: float = 2.0
    search: tuple[str, ...] = ("threshold",)
    v0: float = 0.0
    leak: float = 1.0

    def __post_init__(self):
        if self.space not in ("normalised", "percentile"):
            raise UserError(f"the search space is {self.space!r}, expected normalised or percentile")
        unknown = [name for name in self.search if name not in SEARCHABLE]
        if unknown or not self.search:
            raise UserError(f"cannot search {unknown or 'nothing'}; choose from {', '.join(SEARCHABLE)}")
        if "leak" in self.search and not 0.8 <= self.leak <= 1:
            raise UserError(f"the leak is {self.leak}, expected in [0.8, 1] where leaks are searched")
        if not 0 < self.base <= 100:
            raise UserError(f"the base percentile is {self.base}, expected in (0, 100]")

    @property
    def layers(self) -> int:
        """Spiking layers L."""
        return len(self.calibration.maxima)

    @property
    def blocks(self) -> list[Block]:
        """What is searched, in the order of the vector."""
        if self.space == "normalised":
            threshold = Block(self.low, self.high, 1.0, self.std)
        else:
            threshold = Block(max(self.base - 10, 50.0), 100.0, self.base, self.std)
        every = {"threshold": threshold, "v0": Block(0, 1, 0.5, 0.15), "leak": Block(0.8, 1, 0.98, 0.02)}
        return [every[name] for name in SEARCHABLE if name in self.search]

    def spread(self, name: str) -> np.ndarray:
        """``low``, ``high``, ``mean`` or ``std`` of every entry of the search vector, (D,)."""
        return np.repeat([getattr(block, name) for block in self.blocks], self.layers).astype(np.float64)

    def decode(self, vectors: np.ndarray) -> Genes:
        """Genes of the candidates (P, D); a threshold stays below its layer's cap, which it would lose above."""
        vectors = np.asarray(vectors, np.float64)
        pieces = iter(np.split(vectors, len(self.blocks), axis=1))
        genes = {name: next(pieces) for name in SEARCHABLE if name in self.search}
        scale = self.calibration.threshold(self.base)
        threshold = genes.get("threshold")
        if threshold is None:
            threshold = np.broadcast_to(scale, (len(vectors), self.layers))
        elif self.space == "normalised":
            threshold = threshold * scale
        else:
            threshold = self.calibration.threshold(threshold)
        threshold = np.minimum(threshold, self.calibration.caps)
        constant = np.ones((len(vectors), self.layers))
        v0 = genes.get("v0", self.v0 * constant if self.v0 else None)
        leak = genes.get("leak", self.leak * constant if self.leak != 1 else None)
        return Genes(threshold, v0, leak)

    def baseline_vector(self) -> np.ndarray:
        """The baseline as a search vector (D,)."""
        every = {"threshold": 1.0 if self.space == "normalised" else self.base, "v0": self.v0, "leak": self.leak}
        return np.repeat([every[name] for name in SEARCHABLE if name in self.search], self.layers).astype(
            np.float64
        )

    def baseline(self) -> Genes:
        """One candidate: every threshold at the base percentile, v0 and leak at their fixed values."""
        return self.decode(self.baseline_vector()[None])
