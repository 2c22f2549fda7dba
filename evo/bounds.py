"""The search box, its map to the unit cube, and what is done with a coordinate that left it.

Every engine works in the unit cube, u = (x - middle) / width + 1/2: differential evolution does not notice
the change of scale, strategies with one common step size need it, and 0 and 1 are exact in every float type.
The order of the operations below is SciPy's, so that populations compare bit for bit.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from evo.protocol import Array

REPAIRS = ("reflect", "redraw", "clip")


class Box(NamedTuple):
    """Lower and upper bounds, (D,) float64 each. Where they are equal the dimension is fixed."""

    low: np.ndarray
    high: np.ndarray


def make_box(low: ArrayLike, high: ArrayLike) -> Box:
    """A checked `Box` from two (D,) sequences.

    Raises:
        ValueError: other shapes than (D,), D = 0, a NaN or infinite bound, or a lower bound above the upper
            one.
    """
    low, high = np.array(low, dtype=np.float64), np.array(high, dtype=np.float64)
    if low.ndim != 1 or low.shape != high.shape or low.size == 0:
        raise ValueError(f"bounds must be two arrays of one shape (D,), D > 0; got {low.shape} and {high.shape}")
    for wrong, what in (
        (~np.isfinite(low) | ~np.isfinite(high), "not finite"),
        (low > high, "reversed (lower bound above the upper one)"),
    ):
        if wrong.any():
            at = int(np.argmax(wrong))
            raise ValueError(f"bounds of dimension {at} are {what}: low {low[at]}, high {high[at]}")
    low.flags.writeable = high.flags.writeable = False
    return Box(low, high)


def check_inside(name: str, points: np.ndarray, box: Box) -> None:
    """ValueError naming the first entry of `points` (..., D) outside the box; NaN is outside."""
    wrong = ~((points >= box.low) & (points <= box.high))
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        low, high = box.low[at[-1]], box.high[at[-1]]
        raise ValueError(f"{name}{list(at)} is {points[at]}, outside the bounds [{low}, {high}]")


def middle_and_width(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middles and widths, (D,) each, of the box [low, high]."""
    return 0.5 * (low + high), np.fabs(low - high)


def from_unit(low: np.ndarray, high: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Points (..., D) of the box at the unit-cube points `unit` (..., D)."""
    middle, width = middle_and_width(low, high)
    return middle + (unit - 0.5) * width


def to_unit(low: np.ndarray, high: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Unit-cube points (..., D) of `points` (..., D); a fixed dimension maps to 1/2."""
    middle, width = middle_and_width(low, high)
    inverse = np.divide(1.0, width, out=np.zeros_like(width), where=width > 0)
    return (points - middle) * inverse + 0.5


def points_inside(box: Box, unit: np.ndarray) -> np.ndarray:
    """`from_unit`, held inside the box where rounding would step over its edge by one ulp."""
    return np.clip(from_unit(*box, unit), *box)


def outside(unit: Array) -> Array:
    """(..., D) bool: coordinates that left the unit cube."""
    return (unit < 0) | (unit > 1)


def repair(unit: Array, how: str, fresh: Array | None = None) -> Array:
    """`unit` (..., D) with every coordinate back in [0, 1]; NumPy and JAX arrays alike.

    `reflect` folds the coordinate at the bound it crossed, which keeps the length of the step; `redraw` takes
    the value at the same place of `fresh` (uniform numbers in [0, 1), as SciPy does); `clip` stops at the
    bound, which piles candidates up there and makes their differences zero. Coordinates inside are returned
    as they are.
    """
    xp = unit.__array_namespace__()
    if how == "clip":
        return xp.clip(unit, 0, 1)
    inside = fresh if how == "redraw" else 1 - xp.abs(unit % 2 - 1)
    return xp.where(outside(unit), inside, unit)


def check_repair(how: str) -> None:
    """ValueError unless `how` is one of `REPAIRS`."""
    if how not in REPAIRS:
        raise ValueError(f"repair must be one of {', '.join(REPAIRS)}, got {how!r}")
