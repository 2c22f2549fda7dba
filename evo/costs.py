"""Costs as every engine takes them in: one real number a candidate, smaller is better."""

import numpy as np

from evo.protocol import Array

REAL_KINDS = "biuf"


def as_costs(cost: Array, count: int) -> np.ndarray:
    """`cost` (count,) as a new float64 array in which NaN has become +inf.

    A NaN compares false with everything, so a member that once got one would never be replaced; +inf says the
    same ("worst of all") and loses to any number.

    Raises:
        ValueError: another shape than (count,), or values that are not real numbers.
    """
    array = np.asarray(cost)
    if array.dtype.kind not in REAL_KINDS:
        raise ValueError(f"costs must be real numbers, got dtype {array.dtype}")
    if array.shape != (count,):
        raise ValueError(f"costs must have shape ({count},), one per candidate, got {array.shape}")
    return nan_to_inf(array.astype(np.float64))


def nan_to_inf(costs: Array) -> Array:
    """`costs` (...,) with +inf in place of NaN, for NumPy and JAX arrays alike."""
    xp = costs.__array_namespace__()
    return xp.where(xp.isnan(costs), xp.inf, costs)
