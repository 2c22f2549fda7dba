"""From the candidates a caller hands back to the unit-cube trials an engine asked with."""

import numpy as np

from evo import bounds


def told_trials(box, candidates, asked):
    """Unit-cube trials (P, D) for `candidates` (P, D), given the trials `asked` (P, D) that were sent out.

    Going to the box and back loses the last bit, so a coordinate that came back unchanged is taken from
    `asked`.

    Raises:
        ValueError: another shape, or a coordinate outside the bounds.
    """
    candidates = np.asarray(candidates)
    if candidates.shape != asked.shape:
        raise ValueError(f"candidates must have shape {asked.shape}, as asked for, got {candidates.shape}")
    unchanged = candidates == bounds.points_inside(box, asked)
    if unchanged.all():
        return asked
    bounds.check_inside("candidates", candidates, box)
    return np.where(unchanged, asked, bounds.to_unit(*box, candidates)).astype(asked.dtype)
