"""A NumPy generator as six words of an array, so that it can live in an engine's state."""

from typing import Any, TypeAlias

import numpy as np

Generator: TypeAlias = np.random.Generator | np.random.RandomState
"""What SciPy's function draws from; the engines draw from the first kind only."""

MASK = (1 << 64) - 1


def pack(generator: np.random.Generator) -> np.ndarray:
    """A PCG64 generator's state as (6,) uint64: state and increment, high and low each; the spare half."""
    state = generator.bit_generator.state
    value, increment = state["state"]["state"], state["state"]["inc"]
    halves = (value >> 64, value & MASK, increment >> 64, increment & MASK)
    return np.array([*halves, state["has_uint32"], state["uinteger"]], dtype=np.uint64)


def draw_integers(generator: Generator, bound: int, size: Any, dtype: Any = np.int64) -> Any:
    """Whole numbers below `bound` from a `Generator` or a legacy `RandomState`."""
    draw = generator.integers if isinstance(generator, np.random.Generator) else generator.randint
    return draw(bound, size=size, dtype=dtype)


def draw_others(generator: np.random.Generator, below: int, *taken: np.ndarray) -> np.ndarray:
    """(P,) whole numbers below `below`, uniform among those that differ from each of `taken`, (P,) each."""
    drawn = generator.integers(below - len(taken), size=len(taken[0]))
    # Stepping over the taken numbers in ascending order maps the draw onto what is left.
    for skipped in np.sort(taken, axis=0):
        drawn += drawn >= skipped
    return drawn


def unpack(words: np.ndarray) -> np.random.Generator:
    """The generator whose state `pack` wrote into `words` (6,)."""
    value_high, value_low, increment_high, increment_low, has_spare, spare = (int(word) for word in words)
    generator = np.random.Generator(np.random.PCG64(0))
    generator.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": value_high << 64 | value_low, "inc": increment_high << 64 | increment_low},
        "has_uint32": has_spare,
        "uinteger": spare,
    }
    return generator


def check(words: np.ndarray) -> None:
    """ValueError unless `pack` can have written `words`: the last two are a flag and half a number."""
    if words.shape != (6,) or words[4] > 1 or words[5] > MASK >> 32:
        raise ValueError("generator is not the state of one")
