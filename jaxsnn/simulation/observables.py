"""What a simulation counts."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Observables:
    """Counts over ``images`` images: add two of them for the union of their images.

    Attributes:
        correct: (P, T) images whose class is right when the scores are read after step t = 1..T.
        spikes: (P, L) spikes of each layer. With a layer delay those are left out that can no longer reach the
            read-out within T: they would cost energy on hardware that goes on, but change no result.
        synops: (P, L) synaptic operations that these spikes cause: a spike counts once for every weight that
            it drives (padding left out). The constant input current is not spikes and is not counted.
        limit_correct: (P,) of ``limit_images`` that are right as T goes to infinity
            (``jaxsnn.simulation.clipped_ann``), where that was asked for.
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
        """Counts over the images of both, those of the limit included.

        Raises:
            ValueError: only one of them counted at the limit.
        """
        limits = [part.limit_correct for part in (self, other)]
        if (limits[0] is None) != (limits[1] is None):
            raise ValueError("counts with and without those at the limit cannot be added up")
        return Observables(
            self.correct + other.correct,
            self.images + other.images,
            self.spikes + other.spikes,
            self.synops + other.synops,
            None if limits[0] is None else limits[0] + limits[1],
            self.limit_images + other.limit_images,
        )
