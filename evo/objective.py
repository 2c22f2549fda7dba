"""The user's function as SciPy calls it: point by point, all at once, or through a map of processes."""

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from evo.costs import nan_to_inf


@contextlib.contextmanager
def mapper(workers: Any, vectorized: bool) -> Iterator[Callable[..., Any]]:
    """A function like `map` that evaluates rows of points.

    Raises:
        RuntimeError: `workers` are neither a number of processes nor callable.
    """
    if vectorized:
        yield lambda function, points: np.atleast_1d(function(points.T))
    elif callable(workers):
        yield workers
    elif int(workers) == 1:
        yield map
    elif int(workers) == -1 or int(workers) > 1:
        method = multiprocessing.get_start_method(allow_none=True)
        if method is None and os.name == "posix" and sys.version_info < (3, 14):
            # A fork of a process with threads, such as JAX's, can hang.
            method = "forkserver"
        processes = None if int(workers) == -1 else int(workers)
        with multiprocessing.get_context(method).Pool(processes) as pool:
            yield pool.map
    else:
        raise RuntimeError("Number of workers specified must be -1, an int >= 1, or an object with a 'map' method")


class _BoundFunction:
    """`func` with its further arguments; a class, so that it can be sent to other processes."""

    def __init__(self, func: Callable[..., Any], args: tuple | None) -> None:
        self.func, self.args = func, () if args is None else args

    def __call__(self, x: np.ndarray) -> Any:
        return self.func(x, *self.args)


class Objective:
    """Energies of points, counted."""

    def __init__(self, func: Any, args: Any, mapper: Callable[..., Any], vectorized: bool) -> None:
        self.function = _BoundFunction(func, args)
        self.mapper, self.vectorized, self.count = mapper, vectorized, 0

    def of_one(self, point: np.ndarray) -> Any:
        """The energy of a point (D,)."""
        energy = self.function(point)
        self.count += 1
        return np.inf if np.isnan(energy) else np.squeeze(energy)

    def of_all(self, points: np.ndarray) -> np.ndarray:
        """The energies (P,) of points (P, D).

        Raises:
            RuntimeError: the function or the map gives something of another shape.
        """
        try:
            values = np.squeeze(list(self.mapper(self.function, points)))
        except (TypeError, ValueError) as error:
            raise RuntimeError(
                "The map-like callable must be of the form f(func, iterable), "
                "returning a sequence of numbers the same length as 'iterable'"
            ) from error
        if values.size != len(points):
            if self.vectorized:
                raise RuntimeError(
                    "The vectorized function must return an array of shape (S,) when given an array"
                    " of shape (len(x), S)"
                )
            raise RuntimeError("func(x, *args) must return a scalar value")
        self.count += 1 if self.vectorized else len(points)
        energies = np.empty(len(points))
        energies[:] = values
        return nan_to_inf(energies)

    def uncounted(self, point: np.ndarray) -> Any:
        """The function at a point (D,), through the same map, for whoever counts the evaluations himself."""
        return next(iter(self.mapper(self.function, np.atleast_2d(point))))
