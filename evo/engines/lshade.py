"""L-SHADE: differential evolution that adapts its own weight and crossover and lets its population shrink.

R. Tanabe and A. S. Fukunaga, "Improving the Search Performance of SHADE Using Linear Population Size
Reduction", IEEE Congress on Evolutionary Computation, 2014; SHADE and current-to-pbest/1 with an archive go
back to JADE (Zhang and Sanderson, 2009). It was designed for thousands of evaluations per dimension; nothing
is claimed for a few hundred noisy ones.

The constants are those published: H = 6, archive 2.6 P, p = 0.11, at least four members, memories that start at
0.5. Each step was checked against the programs of the paper's first author (version 1.0.1, C++ and MATLAB). What
differs:

* the initial population, 18 D there, is the caller's, and so is how it is drawn;
* winners join the archive together, and members drawn at random then leave until it fits the population that has
  shrunk already. So do the MATLAB program's; the C++ one lets each winner overwrite one member, and cuts the
  archive's end off when the population shrinks. Duplicates, which the MATLAB program removes, stay;
* of equally bad members the last leaves when the population shrinks (C++: the first), and a size that ends in .5
  is rounded to the even number;
* the p-best are at least two members from the start (there from the first shrinking on), which matters for initial
  populations below 14;
* a gain over an infinite cost, which the competition's functions do not have, outweighs every finite one;
* a run ends with a whole generation, up to three evaluations early, instead of in the middle of one.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from evo import bounds, rng, strategies
from evo.costs import as_costs
from evo.engines.base import PopulationEngine
from evo.protocol import Array
from evo.state import check_costs, check_shapes, check_unit
from evo.trials import told_trials

MINIMUM_POPULATION = 4

SPREAD = 0.1


class Memory(NamedTuple):
    """Means of what succeeded, (H,) each: F, and CR (NaN: closed, always 0); and the next cell to write."""

    weight: np.ndarray
    crossover: np.ndarray
    cell: np.ndarray


class LShadeState(NamedTuple):
    """Unit-cube members and trials (P, D), energies (P,), what each trial was made with (P,), archive (A, D).

    P and A change from one generation to the next.
    """

    members: np.ndarray
    energies: np.ndarray
    trials: np.ndarray
    weight: np.ndarray
    crossover: np.ndarray
    memory: Memory
    archive: np.ndarray
    evaluations: np.ndarray
    generator: np.ndarray
    generation: np.ndarray


@dataclass(frozen=True, eq=False)
class LShade(PopulationEngine[LShadeState]):
    """The engine "lshade"; see `evo.protocol.Engine`. `ask` gives fewer rows as the population shrinks.

    Args:
        search: what to search, from `make_search`; its population is the first generation's.
        evaluations: all evaluations of the run, after which the population has shrunk to four. The engine does not
            stop there: the caller does.
        memory: H, the number of remembered means.
        archive: the archive's size as a multiple of the population's.
        elite: the share p of the population that the p-best is drawn from, at least two members.

    Raises:
        ValueError: a setting out of its range, with the numbers.
    """

    memory: int = 6
    archive: float = 2.6
    elite: float = 0.11

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.evaluations is None:
            raise ValueError("engine 'lshade' needs evaluations, the length of the run; got None")
        if self.memory < 1 or self.archive < 0 or not 0 < self.elite <= 1:
            raise ValueError(
                "lshade needs memory >= 1, archive >= 0 and elite in (0, 1]; "
                f"got {self.memory}, {self.archive}, {self.elite}"
            )

    def init(self, seed: int) -> LShadeState:
        generator = np.random.default_rng(seed)
        members = self.search.draw(generator)
        count, dimension = members.shape
        return LShadeState(
            members=members,
            energies=np.full(count, np.inf),
            trials=members,
            weight=np.zeros(count),
            crossover=np.zeros(count),
            memory=Memory(np.full(self.memory, 0.5), np.full(self.memory, 0.5), np.array(0)),
            archive=np.empty((0, dimension)),
            evaluations=np.array(0),
            generator=rng.pack(generator),
            generation=np.array(0),
        )

    def ask(self, state: LShadeState) -> tuple[np.ndarray, LShadeState]:
        if state.generation == 0:
            return self.parents(state), state
        generator = rng.unpack(state.generator)
        weight, crossover = draw_parameters(generator, state.memory, len(state.members))
        trials = draw_trials(generator, state, weight, crossover, self.elite)
        state = state._replace(trials=trials, weight=weight, crossover=crossover, generator=rng.pack(generator))
        return bounds.points_inside(self.search.box, trials), state

    def tell(self, state: LShadeState, candidates: Array, cost: Array) -> LShadeState:
        cost = as_costs(cost, len(state.members))
        trials = told_trials(self.search.box, candidates, state.trials)
        accepted, improved = cost <= state.energies, cost < state.energies
        memory, archive = state.memory, state.archive
        generator = rng.unpack(state.generator)
        if state.generation > 0:
            gain = state.energies[improved] - cost[improved]
            memory = remember(memory, state.weight[improved], state.crossover[improved], gain)
            archive = np.concatenate([archive, state.members[improved]])
        members = np.where(accepted[:, None], trials, state.members)
        energies = np.where(accepted, cost, state.energies)
        evaluations = state.evaluations + len(cost)
        count = len(members)
        if state.generation > 0 and self.evaluations is not None:  # never None: see __post_init__
            count = reduced_size(self.search.population, int(evaluations), self.evaluations)
        keep = np.sort(np.argsort(energies, kind="stable")[:count])
        members, energies = members[keep], energies[keep]
        room = round(self.archive * len(members))
        if len(archive) > room:
            archive = archive[np.sort(generator.permutation(len(archive))[:room])]
        return LShadeState(
            members=members,
            energies=energies,
            trials=members,
            weight=np.zeros(len(members)),
            crossover=np.zeros(len(members)),
            memory=memory,
            archive=archive,
            evaluations=evaluations,
            generator=rng.pack(generator),
            generation=state.generation + 1,
        )

    def check(self, state: LShadeState) -> None:
        start, count = self.init(0), len(state.members)
        if not MINIMUM_POPULATION <= count <= self.search.population:
            raise ValueError(
                f"members has {count} rows, expected {MINIMUM_POPULATION} to {self.search.population}"
            )
        # the population and the archive change, so only their other axis is as at the start
        shrunk = {
            name: getattr(start, name)[:count] for name in ("members", "energies", "trials", "weight", "crossover")
        }
        rows = len(state.archive)
        check_shapes(state, start._replace(**shrunk, archive=np.empty((rows, start.members.shape[1]))))
        check_unit(members=state.members, trials=state.trials, archive=state.archive)
        check_costs(state.energies)
        rng.check(state.generator)
        if not 0 <= state.memory.cell < self.memory or rows > round(self.archive * self.search.population):
            raise ValueError(f"memory.cell is {state.memory.cell} of {self.memory}, the archive has {rows} rows")
        if not (np.isfinite(state.memory.weight) & (state.memory.weight > 0)).all():
            raise ValueError("memory.weight holds values that are not finite and above 0")


def draw_parameters(generator: np.random.Generator, memory: Memory, count: int) -> tuple[np.ndarray, np.ndarray]:
    """F and CR of `count` trials, (count,) each, around means remembered in cells drawn at random.

    CR ~ N(M_CR, 0.1²) clipped to [0, 1], or 0 where the cell is closed. F ~ Cauchy(M_F, 0.1), drawn again
    while it is not positive, and cut at 1.
    """
    cells = generator.integers(len(memory.weight), size=count)
    means = memory.crossover[cells]
    crossover = np.clip(generator.normal(np.nan_to_num(means), SPREAD), 0.0, 1.0)
    crossover = np.where(np.isnan(means), 0.0, crossover)
    weight = np.zeros(count)
    while (again := weight <= 0).any():
        weight[again] = memory.weight[cells[again]] + SPREAD * generator.standard_cauchy(again.sum())
    return np.minimum(weight, 1.0), crossover


def draw_trials(
    generator: np.random.Generator, state: LShadeState, weight: np.ndarray, crossover: np.ndarray, elite: float
) -> np.ndarray:
    """Trials (P, D): current-to-pbest/1 with archive, binomial crossover, half way back to a bound
    overstepped.

    v_i = x_i + F_i (x_pbest - x_i) + F_i (x_r1 - x_r2): x_pbest from the best members, x_r1 another member,
    x_r2 another member or one from the archive.
    """
    members, archive = state.members, state.archive
    count, dimension = members.shape
    rows = np.arange(count)
    best = np.argsort(state.energies, kind="stable")[: max(2, round(elite * count))]
    pbest = members[best[generator.integers(len(best), size=count)]]
    first = rng.draw_others(generator, count, rows)
    second = rng.draw_others(generator, count + len(archive), rows, first)
    pool = np.concatenate([members, archive])
    factor = weight[:, None]
    mutants = members + factor * (pbest - members) + factor * (members[first] - pool[second])
    mutants = np.where(mutants < 0, members / 2, np.where(mutants > 1, (1 + members) / 2, mutants))
    always = generator.integers(dimension, size=count)
    chance = generator.uniform(size=(count, dimension)) < crossover[:, None]
    return np.where(strategies.crossover_mask("bin", chance, always), mutants, members)


def remember(memory: Memory, weight: np.ndarray, crossover: np.ndarray, gain: np.ndarray) -> Memory:
    """The memory after a generation whose successful trials used `weight` and `crossover` and gained `gain`,
    (S,).

    Means are Lehmer means weighted by the gain. A cell whose successes all had CR = 0 is closed for good
    (NaN). Nothing changes where there was no success.
    """
    if not len(gain):
        return memory
    # An infinite gain outweighs every other: that is the limit of the shares.
    share = np.isinf(gain).astype(float) if np.isinf(gain).any() else gain / gain.max()
    share /= share.sum()
    cell = int(memory.cell)
    new_weight, new_crossover = memory.weight.copy(), memory.crossover.copy()
    new_weight[cell] = lehmer_mean(share, weight)
    closed = np.isnan(memory.crossover[cell]) or crossover[share > 0].max() == 0
    new_crossover[cell] = np.nan if closed else lehmer_mean(share, crossover)
    return Memory(new_weight, new_crossover, np.array((cell + 1) % len(new_weight)))


def lehmer_mean(share: np.ndarray, values: np.ndarray) -> float:
    """Sum of share · values² over sum of share · values."""
    return np.sum(share * values**2) / np.sum(share * values)


def reduced_size(initial: int, used: int, evaluations: int) -> int:
    """The population after `used` of `evaluations`: a straight line from `initial` down to four."""
    size = round((MINIMUM_POPULATION - initial) / evaluations * used + initial)
    return max(MINIMUM_POPULATION, size)
