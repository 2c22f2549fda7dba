"""Mutation (eq. 7 and its relatives) and crossover (eq. 8-9) as arithmetic on arrays, no random draws.

Everything here works on NumPy and on JAX arrays: the random numbers come in as arguments.

x_i is the member to be challenged, x_0 the best, x_a, x_b, ... its partners in the order drawn, F the weight:

    rand1           x_a + F (x_b - x_c)                          eq. 7
    rand2           x_a + F (x_b + x_c - x_d - x_e)
    best1           x_0 + F (x_a - x_b)
    best2           x_0 + F (x_a + x_b - x_c - x_d)
    currenttobest1  x_i + F (x_0 - x_i + x_a - x_b)
    randtobest1     x_a + F (x_0 - x_a), to which F (x_b - x_c) is added

each with binomial ("bin", eq. 9) or exponential ("exp") crossover. Sums run from left to right, as in SciPy.
"""

from typing import Any

import numpy as np

from evo.names import unknown
from evo.protocol import Array


def _rand1(best, member, a, b, c, weight):
    return a + weight * (b - c)


def _rand2(best, member, a, b, c, d, e, weight):
    return a + weight * (b + c - d - e)


def _best1(best, member, a, b, weight):
    return best + weight * (a - b)


def _best2(best, member, a, b, c, d, weight):
    return best + weight * (a + b - c - d)


def _current_to_best1(best, member, a, b, weight):
    return member + weight * (best - member + a - b)


def _rand_to_best1(best, member, a, b, c, weight):
    return (a + weight * (best - a)) + weight * (b - c)


MUTATIONS = {
    "rand1": (_rand1, 3),
    "rand2": (_rand2, 5),
    "best1": (_best1, 2),
    "best2": (_best2, 4),
    "currenttobest1": (_current_to_best1, 2),
    "randtobest1": (_rand_to_best1, 3),
}

CROSSOVERS = ("bin", "exp")

STRATEGIES = tuple(mutation + crossover for mutation in MUTATIONS for crossover in CROSSOVERS)


def partners_needed(strategy: str) -> int:
    """How many partners, all different and none of them the member itself, `strategy` mixes."""
    return MUTATIONS[strategy[:-3]][1]


def mutants(
    strategy: str, population: Array, members: Array, partners: Array, weight: Any, best: Any = 0
) -> Array:
    """Mutants v (eq. 7) of a population (P, D).

    Row numbers: members (...,), partners (..., K >= needed), and `best`, the first row where it is kept there.
    """
    formula, needed = MUTATIONS[strategy[:-3]]
    mixed = (population[partners[..., k]] for k in range(needed))
    return formula(population[best], population[members], *mixed, weight)


def crossover_mask(strategy: str, chance: Array, first: Array) -> Array:
    """(..., D) bool, true where the trial takes the mutant's value (eq. 9).

    chance (..., D) bool is `rand <= C`; first (...,) is the dimension always taken. Binomial: `first` and
    wherever `chance` is true. Exponential: a run that starts at `first`, wraps around, and continues
    while `chance`, read from its second column, stays true.
    """
    xp = chance.__array_namespace__()
    dimension = chance.shape[-1]
    steps = (xp.arange(dimension) - first[..., None]) % dimension
    if strategy.endswith("bin"):
        return chance | (steps == 0)
    run = 1 + xp.sum(xp.cumprod(chance[..., 1:].astype(int), axis=-1), axis=-1)
    return steps < run[..., None]


def check_strategy(strategy: str, population: int, known: tuple[str, ...] = STRATEGIES) -> None:
    """ValueError for an unknown name or a `population` that cannot supply the partners."""
    if strategy not in known:
        raise ValueError(unknown("strategy", strategy, known))
    minimum = max(4, partners_needed(strategy) + 1)
    if population < minimum:
        raise ValueError(f"strategy {strategy!r} needs a population of at least {minimum}, got {population}")


def dither_range(mutation: Any) -> tuple[float, float] | None:
    """(low, high) of the weight F, drawn anew each generation, or None where `mutation` is one number.

    Raises:
        ValueError: a value outside [0, 2] (eq. 7), or a sequence that is not a pair.
    """
    values = np.asarray(mutation, dtype=np.float64)
    if values.shape not in ((), (2,)):
        raise ValueError(f"mutation must be one number or a pair (low, high), got {mutation!r}")
    if not ((values >= 0) & (values <= 2)).all():
        raise ValueError(f"mutation must lie in [0, 2], got {mutation!r}")
    return None if values.ndim == 0 else (float(values.min()), float(values.max()))


def check_crossover(crossover: float) -> None:
    """ValueError unless C of eq. 9 lies in [0, 1]."""
    if not 0 <= crossover <= 1:
        raise ValueError(f"crossover must lie in [0, 1], got {crossover!r}")
