"""From the candidates a caller hands back to the unit-cube trials an engine asked with."""

import numpy as np

from evo import bounds
from evo.bounds import Box
from evo.costs import REAL_KINDS
from evo.protocol import Array


def told_trials(box: Box, candidates: Array, asked: np.ndarray) -> np.ndarray:
    """Unit-cube trials (P, D) for `candidates` (P, D), given the trials `asked` (P, D) that were sent out.

    Going to the box and back loses the last bit, so a coordinate that came back unchanged, or merely rounded
    to the float type that the caller computes in, is taken from `asked`.

    Raises:
        ValueError: another shape, values that are not real numbers, or a coordinate outside the bounds.
    """
    candidates = np.asarray(candidates)
    if candidates.dtype.kind not in REAL_KINDS:
        raise ValueError(f"candidates must be real numbers, got dtype {candidates.dtype}")
    if candidates.shape != asked.shape:
        raise ValueError(f"candidates must have shape {asked.shape}, as asked for, got {candidates.shape}")
    sent = bounds.points_inside(box, asked)
    if candidates.dtype.kind == "f":
        sent = sent.astype(candidates.dtype)
    unchanged = candidates == sent
    if unchanged.all():
        return asked
    bounds.check_inside("candidates", np.where(unchanged, box.low, candidates), box)
    return np.where(unchanged, asked, bounds.to_unit(*box, candidates))
