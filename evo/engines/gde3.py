"""GDE3: differential evolution towards a whole front of several costs, with constraints.

S. Kukkonen and J. Lampinen, "GDE3: The third evolution step of generalized differential evolution", IEEE Congress
on Evolutionary Computation, 2005. A trial (eq. 7-9) that is no worse than its parent in any cost takes its place;
one that is better in none is dropped; where neither holds both stay, and at the end of a generation the population
is cut back to its size by fronts and, on the last of them, by crowding (`evo.pareto`). Feasibility comes first.

What differs from the publication: a pair of weights F is drawn from for each trial, coordinates outside the box
stop at its bounds, and crowding is measured by the M nearest neighbours, which the same first author proposed a
year later, because the distance along each objective says little where there are more than two.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from evo import bounds, pareto, rng, strategies
from evo.constraints import is_accepted, is_feasible
from evo.costs import as_table
from evo.problem import Search
from evo.protocol import Array
from evo.state import check_shapes, check_unit
from evo.trials import told_trials

STRATEGIES = ("rand1bin", "rand1exp", "rand2bin", "rand2exp")
"""Those that ask for no best member, which a front does not have."""


class Gde3State(NamedTuple):
    """Unit-cube members and trials (P, D), costs (P, M), violations (P, K), generator (6,)."""

    members: np.ndarray
    costs: np.ndarray
    violations: np.ndarray
    trials: np.ndarray
    generator: np.ndarray
    generation: np.ndarray


@dataclass(frozen=True, eq=False)
class Gde3:
    """The engine for several costs; see `evo.protocol.FrontEngine`.

    Args:
        search: what to search, from `make_search`.
        objectives: M, how many costs a candidate has.
        constraints: K, how many constraints; 0 for none.
        strategy: one of `STRATEGIES`.
        mutation: the weight F of eq. 7 in [0, 2], or a pair from which it is drawn for each trial.
        repair: what becomes of coordinates outside the box, of `evo.bounds.repair`: "clip" or "reflect". Clipping
            covered more on all four problems of `benchmarks.optimizers_fronts` (seeds 0 to 2), by far where fronts
            lie on bounds (ZDT2 0.534 instead of 0.486), by little where they do not (DTLZ2 0.747, 0.746).
        crossover: C of eq. 9, in [0, 1]. Both defaults are the best of 16 pairs over ZDT1 to 3 and DTLZ2 together
            (`python -m benchmarks.optimizers_fronts`, its options --mutation and --crossover).

    Raises:
        ValueError: a setting out of its range, with the numbers.
    """

    search: Search
    objectives: int
    constraints: int = 0
    strategy: str = "rand1bin"
    mutation: float | tuple[float, float] = (0.0, 0.5)
    crossover: float = 0.3
    repair: str = "clip"

    def __post_init__(self) -> None:
        for name, lowest in (("objectives", 1), ("constraints", 0)):
            value = getattr(self, name)
            if int(value) != value or value < lowest:
                raise ValueError(f"{name} must be a whole number of at least {lowest}, got {value!r}")
        strategies.check_strategy(self.strategy, self.search.population, STRATEGIES)
        strategies.dither_range(self.mutation)
        strategies.check_crossover(self.crossover)
        if self.repair not in ("clip", "reflect"):
            raise ValueError(f"repair must be clip or reflect, got {self.repair!r}")

    def init(self, seed: int) -> Gde3State:
        generator = np.random.default_rng(seed)
        members, count = self.search.draw(generator), self.search.population
        return Gde3State(
            members=members,
            costs=np.full((count, self.objectives), np.inf),
            violations=np.zeros((count, self.constraints)),
            trials=members,
            generator=rng.pack(generator),
            generation=np.array(0),
        )

    def ask(self, state: Gde3State) -> tuple[np.ndarray, Gde3State]:
        if state.generation == 0:
            return self.parents(state), state
        generator = rng.unpack(state.generator)
        trials = self._draw_trials(generator, state.members)
        state = state._replace(trials=trials, generator=rng.pack(generator))
        return bounds.points_inside(self.search.box, trials), state

    def tell(
        self, state: Gde3State, candidates: Array, costs: Array, violations: Array | None = None
    ) -> Gde3State:
        trials = told_trials(self.search.box, candidates, state.trials)
        costs, violations = self._checked(costs, violations)
        if state.generation == 0:
            return state._replace(members=trials, costs=costs, violations=violations, generation=np.array(1))
        replaces, joins = challenge(state.costs, state.violations, costs, violations)
        old, new = (state.members, state.costs, state.violations), (trials, costs, violations)
        merged = [
            np.concatenate([np.where(replaces[:, None], trial, member), trial[joins]])
            for member, trial in zip(old, new)
        ]
        stay = pareto.survivors(merged[1], merged[2], self.search.population)
        members, costs, violations = (array[stay] for array in merged)
        return state._replace(
            members=members,
            costs=costs,
            violations=violations,
            trials=members,
            generation=state.generation + 1,
        )

    def front(self, state: Gde3State) -> tuple[np.ndarray, np.ndarray]:
        rows = pareto.front_rows(state.costs, state.violations)
        return self.parents(state)[rows], state.costs[rows]

    def parents(self, state: Gde3State) -> np.ndarray:
        return bounds.points_inside(self.search.box, state.members)

    def costs(self, state: Gde3State) -> np.ndarray:
        return state.costs

    def violations(self, state: Gde3State) -> np.ndarray:
        return state.violations

    def rescore(self, state: Gde3State, costs: Array, violations: Array | None = None) -> Gde3State:
        costs, violations = self._checked(costs, violations)
        return state._replace(costs=costs, violations=violations)

    def check(self, state: Gde3State) -> None:
        check_shapes(state, self.init(0))
        check_unit(members=state.members, trials=state.trials)
        rng.check(state.generator)
        if np.isnan(state.costs).any() or not (state.violations >= 0).all():
            raise ValueError("costs hold NaN, or violations are not all 0 or above")

    def _checked(self, costs: Array, violations: Array | None) -> tuple[np.ndarray, np.ndarray]:
        count = self.search.population
        if violations is None:
            violations = np.zeros((count, 0))
        costs = as_table("costs", costs, (count, self.objectives))
        return costs, np.maximum(as_table("violations", violations, (count, self.constraints)), 0.0)

    def _draw_trials(self, generator: np.random.Generator, members: np.ndarray) -> np.ndarray:
        """Trials (P, D) by eq. 7-9."""
        count, dimension = members.shape
        rows = np.arange(count)
        partners: list[np.ndarray] = []
        for _ in range(strategies.partners_needed(self.strategy)):
            partners.append(rng.draw_others(generator, count, rows, *partners))
        dither = strategies.dither_range(self.mutation)
        weight = self.mutation if dither is None else generator.uniform(*dither, size=(count, 1))
        mutants = strategies.mutants(self.strategy, members, rows, np.stack(partners, axis=-1), weight)
        first = generator.integers(dimension, size=count)
        chance = generator.uniform(size=(count, dimension)) < self.crossover
        mask = strategies.crossover_mask(self.strategy, chance, first)
        return bounds.repair(np.where(mask, mutants, members), self.repair)


def challenge(
    costs: np.ndarray, violations: np.ndarray, trial_costs: np.ndarray, trial_violations: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which trials take their parent's place, (P,) bool, and which stay beside it, (P,) bool."""
    no_worse, no_better = (trial_costs <= costs).all(axis=1), (costs <= trial_costs).all(axis=1)
    both = is_feasible(violations) & is_feasible(trial_violations)
    return is_accepted(no_worse, trial_violations, violations), both & ~no_worse & ~no_better
