"""Initial populations in the unit cube, (P, D) each."""

import numpy as np

from evo import bounds, low_discrepancy
from evo.bounds import Box
from evo.rng import Generator


def uniform(rng: Generator, size: int, dimension: int) -> np.ndarray:
    """Independent uniform points."""
    return rng.uniform(size=(size, dimension))


def latin_hypercube(rng: Generator, size: int, dimension: int) -> np.ndarray:
    """One point in each of `size` equal slices of every coordinate, the slices shuffled per coordinate."""
    slices = np.linspace(0.0, 1.0, size, endpoint=False)[:, None]
    points = (1.0 / size) * rng.uniform(size=(size, dimension)) + slices
    orders = [rng.permutation(size) for _ in range(dimension)]
    return np.take_along_axis(points, np.stack(orders, axis=1), axis=0)


def normal(rng: Generator, size: int, box: Box, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """N(mean, std²) in each coordinate (Algorithm 1, line 10), reflected at the bounds.

    mean and std are in the box's own units, (D,) each.
    """
    points = rng.normal(mean, std, size=(size, len(mean)))
    return bounds.repair(bounds.to_unit(*box, points), "reflect")


SAMPLERS = {
    "random": uniform,
    "latinhypercube": latin_hypercube,
    "sobol": low_discrepancy.sobol,
    "halton": low_discrepancy.halton,
}

INITS = ("normal", *SAMPLERS)
