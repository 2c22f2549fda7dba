"""Differential evolution with SciPy's arithmetic and SciPy's order of random draws (deferred updating).

Given the same seed the populations equal those of
`scipy.optimize.differential_evolution(updating="deferred")` bit for bit, generation by generation. The update
therefore stays in NumPy: under `jit`, XLA contracts a + F (b - c) into a fused multiply-add, which differs in
the last bit.

A generation draws, in this order: the weight F if it is dithered; for each member one shuffle of a row index
that is kept between generations, whose first entries are its partners; a first dimension for each member; a
(P, D) block for the crossover; and one number for each coordinate that left the unit cube.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from evo import bounds, rng, strategies
from evo.costs import as_costs
from evo.engines.base import DifferentialEvolution
from evo.protocol import Array
from evo.rng import Generator
from evo.trials import told_trials

MAX_PARTNERS = 5


def draw_partners(generator: Generator, index: np.ndarray, member: int) -> np.ndarray:
    """Rows of up to five partners of `member`, from a shuffle of `index` (P,) in place."""
    generator.shuffle(index)
    first = index[: MAX_PARTNERS + 1]
    return first[first != member][:MAX_PARTNERS]


def draw_weight(generator: Generator, mutation: Any) -> Any:
    """F of one generation: uniform in a pair, else the number itself."""
    return mutation if np.ndim(mutation) == 0 else generator.uniform(*sorted(mutation))


def draw_trials(
    generator: Generator, members: np.ndarray, index: np.ndarray, weight: Any, crossover: float, strategy: str
) -> np.ndarray:
    """Trials (P, D) for all `members` (P, D), eq. 7-9. Shuffles `index` (P,) in place."""
    count, dimension = members.shape
    rows = np.arange(count)
    partners = np.array([draw_partners(generator, index, row) for row in rows])
    mutants = strategies.mutants(strategy, members, rows, partners, weight)
    first = rng.draw_integers(generator, dimension, count)
    chance = generator.uniform(size=(count, dimension)) < crossover
    return np.where(strategies.crossover_mask(strategy, chance, first), mutants, members)


def draw_trial(
    generator: Generator,
    members: np.ndarray,
    member: int,
    index: np.ndarray,
    weight: Any,
    crossover: float,
    strategy: str,
) -> np.ndarray:
    """The trial (D,) of one `member`, eq. 7-9, in the order of draws of SciPy's immediate updating."""
    dimension = members.shape[1]
    first = np.asarray(rng.draw_integers(generator, dimension, None))
    partners = draw_partners(generator, index, member)
    mutant = strategies.mutants(strategy, members, member, partners, weight)
    chance = generator.uniform(size=dimension) < crossover
    return np.where(strategies.crossover_mask(strategy, chance, first), mutant, members[member])


def redraw_outside(generator: Generator, trials: np.ndarray) -> np.ndarray:
    """`trials` with every coordinate outside [0, 1] replaced by a uniform number, drawn row by row."""
    wrong = bounds.outside(trials)
    if not wrong.any():
        return trials
    repaired = trials.copy()
    repaired[wrong] = generator.uniform(size=np.count_nonzero(wrong))
    return repaired


def best_first(members: np.ndarray, energies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays with row 0 and the row of the lowest energy exchanged."""
    order = np.arange(len(energies))
    best = np.argmin(energies)
    order[[0, best]] = order[[best, 0]]
    return members[order], energies[order]


class ScipyState(NamedTuple):
    """Unit-cube population and trials (P, D), energies (P,), shuffled row index (P,), generator (6,)."""

    members: np.ndarray
    energies: np.ndarray
    trials: np.ndarray
    # The name hides tuple.index, which nothing here needs; saved states know the array by it.
    index: np.ndarray  # pyright: ignore[reportIncompatibleMethodOverride]
    generator: np.ndarray
    generation: np.ndarray


@dataclass(frozen=True, eq=False)
class ScipyLike(DifferentialEvolution[ScipyState]):
    """The engine "scipy"; see `evo.protocol.Engine`, and `DifferentialEvolution` for its options."""

    def init(self, seed: int) -> ScipyState:
        generator = np.random.default_rng(seed)
        members = self.search.draw(generator)
        count = self.search.population
        return ScipyState(
            members=members,
            energies=np.full(count, np.inf),
            trials=members,
            index=np.arange(count),
            generator=rng.pack(generator),
            generation=np.array(0),
        )

    def ask(self, state: ScipyState) -> tuple[np.ndarray, ScipyState]:
        if state.generation == 0:
            return self.parents(state), state
        # After `rescore` the best member may no longer stand in row 0.
        members, energies = best_first(state.members, state.energies)
        generator, index = rng.unpack(state.generator), state.index.copy()
        weight = draw_weight(generator, self.mutation)
        trials = draw_trials(generator, members, index, weight, self.crossover, self.strategy)
        trials = redraw_outside(generator, trials)
        state = state._replace(
            members=members, energies=energies, trials=trials, index=index, generator=rng.pack(generator)
        )
        return bounds.points_inside(self.search.box, trials), state

    def tell(self, state: ScipyState, candidates: Array, cost: Array) -> ScipyState:
        cost = as_costs(cost, self.search.population)
        trials = told_trials(self.search.box, candidates, state.trials)
        better = cost <= state.energies
        members = np.where(better[:, None], trials, state.members)
        members, energies = best_first(members, np.where(better, cost, state.energies))
        return state._replace(members=members, energies=energies, trials=members, generation=state.generation + 1)

    def check(self, state: ScipyState) -> None:
        super().check(state)
        rng.check(state.generator)
        if not np.array_equal(np.sort(state.index), np.arange(self.search.population)):
            raise ValueError("index is not a permutation of the population's rows")
