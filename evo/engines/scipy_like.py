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
from typing import NamedTuple

import numpy as np

from evo import bounds, population, rng, strategies
from evo.costs import as_costs
from evo.problem import Search
from evo.state import check_costs, check_shapes, check_unit
from evo.trials import told_trials

MAX_PARTNERS = 5


def draw_partners(generator, index, member):
    """Rows of up to five partners of `member`, from a shuffle of `index` (P,) in place."""
    generator.shuffle(index)
    first = index[: MAX_PARTNERS + 1]
    return first[first != member][:MAX_PARTNERS]


def draw_weight(generator, mutation):
    """F of one generation: uniform in a pair, else the number itself."""
    return mutation if np.ndim(mutation) == 0 else generator.uniform(*sorted(mutation))


def draw_trials(generator, members, index, weight, crossover, strategy):
    """Trials (P, D) for all `members` (P, D), eq. 7-9. Shuffles `index` (P,) in place."""
    count, dimension = members.shape
    rows = np.arange(count)
    partners = np.array([draw_partners(generator, index, row) for row in rows])
    mutants = strategies.mutants(strategy, members, rows, partners, weight)
    first = rng.draw_integers(generator, dimension, count)
    chance = generator.uniform(size=(count, dimension)) < crossover
    return np.where(strategies.crossover_mask(strategy, chance, first), mutants, members)


def draw_trial(generator, members, member, index, weight, crossover, strategy):
    """The trial (D,) of one `member`, eq. 7-9, in the order of draws of SciPy's immediate updating."""
    dimension = members.shape[1]
    first = np.asarray(rng.draw_integers(generator, dimension, None))
    partners = draw_partners(generator, index, member)
    mutant = strategies.mutants(strategy, members, member, partners, weight)
    chance = generator.uniform(size=dimension) < crossover
    return np.where(strategies.crossover_mask(strategy, chance, first), mutant, members[member])


def redraw_outside(generator, trials):
    """`trials` with every coordinate outside [0, 1] replaced by a uniform number, drawn row by row."""
    wrong = bounds.outside(trials)
    if not wrong.any():
        return trials
    repaired = trials.copy()
    repaired[wrong] = generator.uniform(size=np.count_nonzero(wrong))
    return repaired


def best_first(members, energies):
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
    index: np.ndarray
    generator: np.ndarray
    generation: np.ndarray


@dataclass(frozen=True, eq=False)
class ScipyLike:
    """The engine "scipy"; see `evo.protocol.Engine`.

    Args:
        search: what to search, from `make_search`.
        strategy: one of the twelve in `evo.strategies`. The default is SciPy's, best1bin; eq. 7 is rand1bin.
        mutation: the weight M of eq. 7 in [0, 2], or a pair from which it is drawn each generation.
        crossover: C of eq. 9, in [0, 1].
    """

    search: Search
    strategy: str = "best1bin"
    mutation: float | tuple[float, float] = (0.5, 1.5)
    crossover: float = 0.7

    def __post_init__(self):
        strategies.check_strategy(self.strategy, self.search.population)
        strategies.dither_range(self.mutation)
        strategies.check_crossover(self.crossover)

    def init(self, seed):
        generator = np.random.default_rng(seed)
        members = population.draw(generator, self.search)
        count = self.search.population
        return ScipyState(
            members=members,
            energies=np.full(count, np.inf),
            trials=members,
            index=np.arange(count),
            generator=rng.pack(generator),
            generation=np.array(0),
        )

    def ask(self, state):
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

    def tell(self, state, candidates, cost):
        cost = as_costs(cost, self.search.population)
        trials = told_trials(self.search.box, candidates, state.trials)
        better = cost <= state.energies
        members = np.where(better[:, None], trials, state.members)
        members, energies = best_first(members, np.where(better, cost, state.energies))
        return state._replace(members=members, energies=energies, trials=members, generation=state.generation + 1)

    def best(self, state):
        row = np.argmin(state.energies)
        return self.parents(state)[row], float(state.energies[row])

    def parents(self, state):
        return bounds.points_inside(self.search.box, state.members)

    def costs(self, state):
        return state.energies

    def rescore(self, state, cost):
        return state._replace(energies=as_costs(cost, self.search.population))

    def check(self, state):
        check_shapes(state, self.init(0))
        check_unit(members=state.members, trials=state.trials)
        check_costs(state.energies)
        rng.check(state.generator)
        if not np.array_equal(np.sort(state.index), np.arange(self.search.population)):
            raise ValueError("index is not a permutation of the population's rows")

    def converged(self, state):
        return self.search.converged(state.energies)
