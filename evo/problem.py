"""What every engine is told of a search: the box, the size and start of the population, when to stop."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from evo import convergence
from evo.bounds import Box, check_inside, make_box, to_unit
from evo.population import INITS, SAMPLERS, normal


class Search(NamedTuple):
    """Checked settings common to all engines; build one with `make_search`."""

    box: Box
    population: int
    init: str | np.ndarray
    mean: np.ndarray | None
    std: np.ndarray | None
    tol: float
    atol: float

    def converged(self, energies: ArrayLike) -> bool:
        """Whether costs (P,) agree within `atol` + `tol` times their mean."""
        return convergence.converged(np.asarray(energies, dtype=np.float64), self.tol, self.atol)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The initial population (P, D) in the unit cube."""
        if not isinstance(self.init, str):
            return to_unit(*self.box, self.init)
        if self.init == "normal" and self.mean is not None and self.std is not None:
            return normal(rng, self.population, self.box, self.mean, self.std)
        return SAMPLERS[self.init](rng, self.population, len(self.box.low))


def make_search(
    low: ArrayLike,
    high: ArrayLike,
    population: int,
    *,
    init: str | ArrayLike | None = None,
    mean: ArrayLike | None = None,
    std: ArrayLike | None = None,
    tol: float = 0.01,
    atol: float = 0.0,
) -> Search:
    """A `Search` over the box [low, high], (D,) each, with `population` candidates.

    Args:
        init: "normal" (needs `mean` and `std`; the default where `mean` is given), "latinhypercube" (the
            default otherwise), "sobol", "halton", "random", or an array (P, D) inside the box.
        mean, std: (D,) or one number, in the box's units (Algorithm 1: the base thresholds and their spread).
        tol, atol: the search has converged when std(costs) <= atol + tol |mean(costs)|.

    Raises:
        ValueError: anything of the wrong shape, not finite, or outside the box, with the numbers.
    """
    box = make_box(low, high)
    dimension = len(box.low)
    if int(population) != population or population < 4:
        raise ValueError(f"population must be a whole number of at least 4, got {population!r}")
    if not (np.isfinite(tol) and np.isfinite(atol) and tol >= 0 and atol >= 0):
        raise ValueError(f"tol and atol must be finite and not negative, got {tol!r} and {atol!r}")
    middle = None if mean is None else _per_dimension("mean", mean, dimension)
    spread = None if std is None else _per_dimension("std", std, dimension)
    if middle is not None:
        check_inside("mean", middle, box)
    if spread is not None and (spread < 0).any():
        raise ValueError(f"std must not be negative, got {spread.min()}")
    if init is None:
        init = "latinhypercube" if mean is None else "normal"
    if not isinstance(init, str):
        init = _check_population(init, int(population), box)
    elif init not in INITS:
        raise ValueError(f"init must be an array or one of {', '.join(INITS)}; got {init!r}")
    elif init == "normal" and (mean is None or std is None):
        raise ValueError("init='normal' needs both mean and std")
    return Search(box, int(population), init, middle, spread, float(tol), float(atol))


def _per_dimension(name: str, value: ArrayLike, dimension: int) -> np.ndarray:
    array = np.asarray(value, dtype=np.float64)
    if array.shape not in ((), (dimension,)) or not np.isfinite(array).all():
        raise ValueError(f"{name} must be one finite number or ({dimension},) of them, got {value!r}")
    return np.broadcast_to(array, (dimension,))


def _check_population(init: ArrayLike, size: int, box: Box) -> np.ndarray:
    points = np.array(init, dtype=np.float64)
    if points.shape != (size, len(box.low)):
        raise ValueError(f"an initial population must have shape ({size}, {len(box.low)}), got {points.shape}")
    check_inside("init", points, box)
    return points
