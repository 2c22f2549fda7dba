"""What a simulation counts."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Observables:
    """Counts over ``images`` images: add two of them for the union of their images.

    Attributes:
        correct: (P, T) images whose class is right when the scores are read after step t = 1..T.
        spikes: (P, L) spikes of each layer. With a layer delay those are left out that can no longer reach the
            read-out within T: they would cost energy on hardware that runs to the end, but change no result.
        synops: (P, L) synaptic operations that these spikes cause: a spike counts once for every weight that
            it drives (padding left out). The constant input current is not spikes and is not counted.
        limit_correct: (P,) of ``limit_images`` that are right as T goes to infinity
            (``jaxsnn.simulation.clipped_ann``), where that was asked for.
        divergence: (P, T) int64, the divergences of the images from the ANN's class probabilities, in units of
            2^-20 nats (``jaxsnn.simulation.divergence``), where those were given.
    """

    correct: np.ndarray
    images: int
    spikes: np.ndarray
    synops: np.ndarray
    limit_correct: np.ndarray | None = None
    limit_images: int = 0
    divergence: np.ndarray | None = None

    @property
    def accuracy(self) -> np.ndarray:
        """Acc(t) in [0, 1], (P, T)."""
        return self.correct / self.images

    def __add__(self, other: "Observables") -> "Observables":
        """Counts over the images of both, those of the limit included.

        Raises:
            ValueError: only one of them counted at the limit, or the divergence.
        """
        for name in ("limit_correct", "divergence"):
            if (getattr(self, name) is None) != (getattr(other, name) is None):
                raise ValueError(f"counts with and without {name} cannot be added up")
        return Observables(
            self.correct + other.correct,
            self.images + other.images,
            self.spikes + other.spikes,
            self.synops + other.synops,
            _sum(self.limit_correct, other.limit_correct),
            self.limit_images + other.limit_images,
            _sum(self.divergence, other.divergence),
        )


def _sum(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    return None if one is None or other is None else one + other
