"""How a caller of SciPy's function may say what to draw from: `rng`, `seed`, or by position."""

import functools
import numbers
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from evo.rng import Generator

Result = TypeVar("Result")

RNG_POSITION = 9


def with_rng(function: Callable[..., Result]) -> Callable[..., Result]:
    """`function` with a generator as its `rng`, its tenth argument, from whichever way the caller says it.

    Raises:
        TypeError: said in two ways at once.
        ValueError: something that NumPy cannot be seeded with.
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Result:
        by_position = len(args) > RNG_POSITION
        if by_position + ("rng" in kwargs) + ("seed" in kwargs) > 1:
            raise TypeError(
                f"{function.__name__}() got multiple values for argument now known as `rng`. "
                "Specify one of `rng` or `seed`."
            )
        if "rng" in kwargs:
            kwargs["rng"] = np.random.default_rng(kwargs["rng"])
        elif by_position:
            args = (*args[:RNG_POSITION], _legacy_generator(args[RNG_POSITION]), *args[RNG_POSITION + 1 :])
        else:
            kwargs["rng"] = _legacy_generator(kwargs.pop("seed", None))
        return function(*args, **kwargs)

    return wrapper


def _legacy_generator(seed: Any) -> Generator:
    if seed is None or seed is np.random:
        return np.random.mtrand._rand
    if isinstance(seed, numbers.Integral):
        return np.random.RandomState(int(seed))
    if isinstance(seed, np.random.RandomState | np.random.Generator):
        return seed
    raise ValueError(f"{seed!r} cannot be used to seed a numpy.random.RandomState instance")
