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
    return as_table("costs", cost, (count,))


def as_table(what: str, values: Array, shape: tuple[int, ...]) -> np.ndarray:
    """`values` as a new float64 array of this shape, its first axis the candidates, NaN as +inf.

    Raises:
        ValueError: another shape, or values that are not real numbers; `what` names them.
    """
    array = np.asarray(values)
    if array.dtype.kind not in REAL_KINDS:
        raise ValueError(f"{what} must be real numbers, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{what} must have shape {shape}, one row per candidate, got {array.shape}")
    return nan_to_inf(array.astype(np.float64))


def nan_to_inf(costs: Array) -> Array:
    """`costs` (...,) with +inf in place of NaN, for NumPy and JAX arrays alike."""
    xp = costs.__array_namespace__()
    return xp.where(xp.isnan(costs), xp.inf, costs)
