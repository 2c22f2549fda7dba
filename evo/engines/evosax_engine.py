"""evosax under the ask/tell protocol: its differential evolution, and its other strategies by name.

Only differential evolution is the paper's method. The other strategies come as evosax ships them, with its
defaults and the search's spread as their first step size; nothing is claimed for them here.

evosax knows no bounds: a trial outside the box is repaired *before* it is evaluated, and the repaired trial
is what `tell` gets, so that a cost always belongs to the point that is kept. The default repair is
reflection: clipping piles candidates up on a bound until their differences vanish there, and a redraw over
the whole range, as SciPy does, undoes a narrow start (Algorithm 1) whenever a step is a little too long.
"""

import functools
import inspect
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from evosax.algorithms import distribution_based_algorithms, population_based_algorithms

from evo import bounds, strategies
from evo.costs import as_costs
from evo.engines.base import PopulationEngine, check_options
from evo.names import unknown
from evo.problem import Search
from evo.protocol import Array
from evo.state import check_unit
from evo.trials import told_trials

DIFFERENTIAL_EVOLUTION = "DifferentialEvolution"

ELITISM = {"best1bin": True, "rand1bin": False}

DEFAULT_MUTATION, DEFAULT_CROSSOVER = (0.5, 1.5), 0.7

DEFAULT_SPREAD = 0.3


class EvosaxState(NamedTuple):
    """evosax's own state; what it was last told, (P, D) and (P,); pending trials; the best so far."""

    inner: Any
    members: jax.Array
    energies: np.ndarray
    trials: jax.Array
    best_member: jax.Array
    best_energy: np.ndarray
    key: jax.Array
    generation: np.ndarray


@dataclass(frozen=True, eq=False)
class EvosaxEngine(PopulationEngine[EvosaxState]):
    """The engines "evosax" and "evosax:NAME"; see `evo.protocol.Engine`. Costs and state are float32.

    Args:
        search: what to search, from `make_search`.
        name: an evosax algorithm. Population-based ones start from the search's initial population; the
            others draw their own around `search.mean` (or the middle of the box) with `search.std` (or 0.3 of
            the range).
        strategy: of differential evolution, "best1bin" (evosax's default) or "rand1bin" (eq. 7).
        mutation, crossover: M and C of eq. 7-9, of differential evolution only; a pair M is drawn each
            generation.
        repair: what is done with a coordinate out of bounds: "reflect", "redraw" or "clip".

    `parents` and `costs` of a strategy that keeps no population are its last generation, and `best` is then
    the best candidate ever told, since the last `rescore`.
    """

    name: str = DIFFERENTIAL_EVOLUTION
    strategy: str | None = None
    mutation: float | tuple[float, float] | None = None
    crossover: float | None = None
    repair: str = "reflect"
    algorithm: Any = field(init=False)
    params: Any = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds.check_repair(self.repair)
        algorithm, params = _build(self)
        object.__setattr__(self, "algorithm", algorithm)
        object.__setattr__(self, "params", params)

    @property
    def keeps_population(self) -> bool:
        """Whether the algorithm is one of those that start from a population."""
        return self.name in population_based_algorithms

    def init(self, seed: int) -> EvosaxState:
        key, first = jax.random.split(jax.random.PRNGKey(seed))
        count = self.search.population
        energies = np.full(count, np.inf)
        if self.keeps_population:
            members = jnp.asarray(self.search.draw(np.random.default_rng(seed)), dtype=float)
            inner = self._begin(first, members, jnp.asarray(energies, dtype=float))
        else:
            mean = jnp.asarray(_unit_mean(self.search), dtype=float)
            members = jnp.tile(mean, (count, 1))
            inner = self._begin(first, mean)
        return EvosaxState(
            inner=inner,
            members=members,
            energies=energies,
            trials=members,
            best_member=members[0],
            best_energy=np.array(np.inf),
            key=key,
            generation=np.array(0),
        )

    def ask(self, state: EvosaxState) -> tuple[np.ndarray, EvosaxState]:
        if self.keeps_population and state.generation == 0:
            return self.parents(state), state
        key, ask_key, fresh_key = jax.random.split(state.key, 3)
        trials, inner = self.algorithm.ask(ask_key, state.inner, self.params)
        trials = bounds.repair(trials, self.repair, jax.random.uniform(fresh_key, trials.shape))
        if not np.isfinite(trials).all():
            raise FloatingPointError(f"evosax:{self.name} made candidates that are not finite")
        return self._in_box(trials), state._replace(inner=inner, trials=trials, key=key)

    def tell(self, state: EvosaxState, candidates: Array, cost: Array) -> EvosaxState:
        cost = as_costs(cost, self.search.population)
        trials = jnp.asarray(
            told_trials(self.search.box, candidates, np.asarray(state.trials, dtype=np.float64)), dtype=float
        )
        key, tell_key = jax.random.split(state.key)
        told = jnp.asarray(cost if self.name == DIFFERENTIAL_EVOLUTION else _finite(cost), dtype=float)
        if self.keeps_population and state.generation == 0:
            inner = self._begin(tell_key, trials, told)
        else:
            inner, _ = self.algorithm.tell(tell_key, trials, told, state.inner, self.params)
        members, energies = trials, cost
        if self.name == DIFFERENTIAL_EVOLUTION:
            members, energies = inner.population, np.asarray(inner.fitness, dtype=np.float64)
        row = np.argmin(energies)
        improved = energies[row] <= state.best_energy
        return EvosaxState(
            inner=inner,
            members=members,
            energies=energies,
            trials=members,
            best_member=members[row] if improved else state.best_member,
            best_energy=np.array(energies[row]) if improved else state.best_energy,
            key=key,
            generation=np.asarray(state.generation + 1),
        )

    def best(self, state: EvosaxState) -> tuple[np.ndarray, float]:
        return self._in_box(state.best_member), float(state.best_energy)

    def parents(self, state: EvosaxState) -> np.ndarray:
        return self._in_box(state.members)

    def rescore(self, state: EvosaxState, cost: Array) -> EvosaxState:
        cost = as_costs(cost, self.search.population)
        inner = state.inner
        if self.name == DIFFERENTIAL_EVOLUTION:
            inner = inner.replace(fitness=jnp.asarray(cost, dtype=float))
        row = np.argmin(cost)
        return state._replace(
            inner=inner, energies=cost, best_member=state.members[row], best_energy=np.array(cost[row])
        )

    def check(self, state: EvosaxState) -> None:
        super().check(state)
        check_unit(best_member=state.best_member)

    def _begin(self, *arguments: jax.Array) -> Any:
        """evosax's first state, without weak types: a state that was saved and loaded has none, and would compile
        anew."""
        return jax.tree.map(
            lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype),
            self.algorithm.init(*arguments, self.params),
        )

    def _in_box(self, unit: Array) -> np.ndarray:
        return bounds.points_inside(self.search.box, np.asarray(unit, dtype=np.float64))


def _finite(cost: np.ndarray) -> np.ndarray:
    """Infinite costs (P,) as the worst finite one: strategies that average costs would make NaN of inf."""
    finite = cost[np.isfinite(cost)]
    return np.where(np.isfinite(cost), cost, finite.max() if finite.size else 0.0)


def _unit_mean(search: Search) -> np.ndarray:
    if search.mean is None:
        return np.full(len(search.box.low), 0.5)
    return bounds.to_unit(*search.box, search.mean)


def _unit_spread(search: Search) -> float:
    """One step size in the unit cube: the mean of std / range over the dimensions that are not fixed."""
    width = search.box.high - search.box.low
    if search.std is None or not (width > 0).any():
        return DEFAULT_SPREAD
    return float(np.mean(search.std[width > 0] / width[width > 0]))


def _build(engine: EvosaxEngine) -> tuple[Any, Any]:
    """evosax's algorithm and parameters; ValueError where evosax has an `assert` or wants more arguments."""
    known = population_based_algorithms | distribution_based_algorithms
    if engine.name not in known:
        raise ValueError(unknown("strategy of evosax", engine.name, sorted(known), cutoff=0.4))
    if engine.name != DIFFERENTIAL_EVOLUTION:
        given = {name: getattr(engine, name) for name in ("strategy", "mutation", "crossover")}
        given = {name: value for name, value in given.items() if value is not None}
        check_options(f"evosax:{engine.name}", given, ("evaluations", "repair"))
        if not engine.keeps_population and not isinstance(engine.search.init, str):
            raise ValueError(
                f"evosax:{engine.name} draws its own population around a mean; init cannot be an array"
            )
    spread = _unit_spread(engine.search)
    known_class = known[engine.name]
    scheduled = "std_schedule" in inspect.signature(known_class).parameters
    size, dimension = engine.search.population, len(engine.search.box.low)
    algorithm = _algorithm(known_class, size, dimension, spread if scheduled else None)
    params = algorithm.default_params
    if engine.name == DIFFERENTIAL_EVOLUTION:
        return algorithm, _differential_evolution_params(engine, params)
    return algorithm, params.replace(std_init=spread) if hasattr(params, "std_init") else params


@functools.lru_cache(maxsize=32)
def _algorithm(algorithm_class: Any, size: int, dimension: int, spread: float | None) -> Any:
    """evosax compiles per object: engines of one shape, and one spread where it is built in, share theirs."""
    schedule = {} if spread is None else {"std_schedule": optax.constant_schedule(spread)}
    try:
        return algorithm_class(population_size=size, solution=jnp.zeros(dimension), **schedule)
    except (AssertionError, TypeError) as error:
        name = algorithm_class.__name__
        raise ValueError(f"evosax:{name} cannot be built for {size} candidates: {error}") from error


def _differential_evolution_params(engine: EvosaxEngine, params: Any) -> Any:
    strategy = "best1bin" if engine.strategy is None else engine.strategy
    mutation = DEFAULT_MUTATION if engine.mutation is None else engine.mutation
    crossover = DEFAULT_CROSSOVER if engine.crossover is None else engine.crossover
    strategies.check_strategy(strategy, engine.search.population, tuple(ELITISM))
    strategies.check_crossover(crossover)
    # evosax dithers only where min < max; equal bounds make it use `differential_weight`.
    low, high = strategies.dither_range(mutation) or (mutation, mutation)
    return params.replace(
        elitism=ELITISM[strategy],
        crossover_rate=crossover,
        differential_weight=high,
        differential_weight_min=low,
        differential_weight_max=high,
    )
