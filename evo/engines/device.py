"""The same differential evolution in jax.random: whole runs on the device, many of them side by side.

The algorithm is that of `evo.engines.scipy_like` (eq. 7-9, deferred updating, coordinates out of bounds
redrawn), with other random numbers and in JAX's default float type, so runs agree with it in distribution,
not bit for bit. It works on the candidates as they are, without the map to the unit cube: the point that
was evaluated is the point that is kept, however XLA fuses the arithmetic.

Calling a compiled function costs more than what these compute, so `tell` is one call that selects and draws the
next trials as well, and `ask` hands out what is there.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evo import bounds, costs, strategies
from evo.engines.base import DifferentialEvolution
from evo.protocol import Array
from evo.state import check_costs, check_shapes

INITS = ("normal", "latinhypercube", "random")


class Setting(NamedTuple):
    """What the compiled functions take as arrays, so that engines of one shape share one compilation."""

    low: jax.Array
    high: jax.Array
    mean: jax.Array
    std: jax.Array
    weight_low: jax.Array
    weight_high: jax.Array
    crossover: jax.Array


class Draws(NamedTuple):
    """One generation's random numbers: F (), partners (P, K), first (P,), uniform chance and fresh (P, D)."""

    weight: jax.Array
    partners: jax.Array
    first: jax.Array
    chance: jax.Array
    fresh: jax.Array


class DeviceState(NamedTuple):
    """Members and pending trials (P, D), energies (P,), the key (2,) uint32, the number of generations told."""

    members: jax.Array
    energies: jax.Array
    trials: jax.Array
    key: jax.Array
    generation: jax.Array


class DeviceRuns(NamedTuple):
    """R runs: best x (R, D) and cost (R,), lowest cost after each generation (R, G + 1), last populations."""

    x: jax.Array
    cost: jax.Array
    history: jax.Array
    population: jax.Array
    energies: jax.Array


@dataclass(frozen=True, eq=False)
class DeviceDE(DifferentialEvolution[DeviceState]):
    """The engine "jax"; see `evo.protocol.Engine`. Candidates and costs are JAX arrays.

    Args:
        search: what to search, from `make_search`; `init` is "normal", "latinhypercube", "random" or an
            array.
        evaluations, strategy, mutation, crossover: see `DifferentialEvolution`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.search.init, str) and self.search.init not in INITS:
            raise ValueError(f"engine 'jax' starts from an array, {', '.join(INITS)}; got {self.search.init!r}")

    @functools.cached_property
    def box(self) -> bounds.Box:
        """The search's box in the device's float type."""
        return bounds.Box(*bounds_inside(self.search.box))

    @functools.cached_property
    def setting(self) -> Setting:
        """What the compiled functions take."""
        low, high = self.box
        weights: Any = strategies.dither_range(self.mutation) or (self.mutation, self.mutation)
        mean = self.search.box.low if self.search.mean is None else self.search.mean
        std = 0.0 if self.search.std is None else self.search.std
        values = (low, high, mean, std, *weights, self.crossover)
        return Setting(*(jnp.asarray(value, dtype=low.dtype) for value in values))

    def init(self, seed: int) -> DeviceState:
        return _start(self.setting, jax.random.PRNGKey(seed), *self.start_arguments)

    @property
    def start_arguments(self) -> tuple[jax.Array | None, str, int]:
        """The given initial population or None, the kind of initial population, and its size."""
        init, size = self.search.init, self.search.population
        if isinstance(init, str):
            return None, init, size
        return jnp.asarray(init, dtype=float), "given", size

    def ask(self, state: DeviceState) -> tuple[jax.Array, DeviceState]:
        return state.trials, state

    def tell(self, state: DeviceState, candidates: Array, cost: Array) -> DeviceState:
        cost = costs.as_costs(cost, self.search.population)
        candidates = self._checked(np.asarray(candidates))
        return _tell(self.setting, state, candidates, cost.astype(candidates.dtype), self.strategy)

    def parents(self, state: DeviceState) -> jax.Array:
        return state.members

    def rescore(self, state: DeviceState, cost: Array) -> DeviceState:
        cost = costs.as_costs(cost, self.search.population)
        return _rescore(self.setting, state, cost.astype(self.box.low.dtype), self.strategy)

    def check(self, state: DeviceState) -> None:
        check_shapes(state, self.init(0))
        self._checked(np.asarray(state.members))
        self._checked(np.asarray(state.trials))
        check_costs(state.energies)

    def _checked(self, candidates: np.ndarray) -> np.ndarray:
        """`candidates` in the device's float type; ValueError for another shape, kind, or place."""
        expected = (self.search.population, len(self.search.box.low))
        if candidates.dtype.kind not in costs.REAL_KINDS:
            raise ValueError(f"candidates must be real numbers, got dtype {candidates.dtype}")
        if candidates.shape != expected:
            raise ValueError(f"candidates must have shape {expected}, as asked for, got {candidates.shape}")
        candidates = candidates.astype(self.box.low.dtype, copy=False)
        bounds.check_inside("candidates", candidates, self.box)
        return candidates


def bounds_inside(box: bounds.Box) -> tuple[np.ndarray, np.ndarray]:
    """The box in JAX's default float type, rounded inwards; a fixed dimension takes the nearest value."""
    dtype = jnp.result_type(float)
    low, high = (np.asarray(bound, dtype=dtype) for bound in box)
    inner_low = np.where(low < box.low, np.nextafter(low, np.inf, dtype=dtype), low)
    inner_high = np.where(high > box.high, np.nextafter(high, -np.inf, dtype=dtype), high)
    crossed = inner_low > inner_high
    return np.where(crossed, low, inner_low), np.where(crossed, low, inner_high)


def minimize_on_device(
    cost_fn: Callable[[jax.Array], jax.Array], engine: DeviceDE, keys: jax.Array, generations: int
) -> DeviceRuns:
    """`generations` generations from each of R keys, in one compiled call.

    Args:
        cost_fn: traceable function of candidates (P, D) that returns costs (P,); NaN counts as +inf.
        engine: an engine "jax".
        keys: (R,) keys or (R, 2) raw ones, as `jax.random.split` makes them.
        generations: G; each run evaluates (G + 1) P candidates. Convergence does not end a run.

    Returns:
        `DeviceRuns`.

    Raises:
        ValueError: costs of another shape than (P,) or not real; a negative number of generations.

    Example:
        >>> import jax, evo
        >>> engine = evo.make_engine("jax", [-1.0] * 3, [2.0] * 3, population=20)
        >>> keys = jax.random.split(jax.random.key(0), 5)
        >>> runs = evo.minimize_on_device(lambda x: (x**2).sum(-1), engine, keys, generations=60)
        >>> runs.x.shape, bool((runs.cost < 1e-2).all())
        ((5, 3), True)
    """
    if generations < 0:
        raise ValueError(f"generations must not be negative, got {generations}")
    size, dimension = engine.search.population, len(engine.search.box.low)
    shape = jax.ShapeDtypeStruct((size, dimension), engine.setting.low.dtype)
    found = jax.eval_shape(cost_fn, shape)
    real = jnp.issubdtype(found.dtype, jnp.floating) or jnp.issubdtype(found.dtype, jnp.integer)
    if found.shape != (size,) or not real:
        raise ValueError(
            f"cost_fn must map {shape.shape} to ({size},) real costs, got {found.shape} {found.dtype}"
        )
    given, kind, size = engine.start_arguments
    return _runs(engine.setting, keys, given, cost_fn, kind, size, engine.strategy, generations)


@functools.partial(jax.jit, static_argnames=("cost_fn", "kind", "size", "strategy", "generations"))
def _runs(setting, keys, given, cost_fn, kind, size, strategy, generations):
    def generation(state, _):
        cost = cost_fn(state.trials).astype(state.energies.dtype)
        state = _tell(setting, state, state.trials, cost, strategy)
        return state, state.energies.min()

    def run(key):
        state = _start(setting, key, given, kind, size)
        state, history = jax.lax.scan(generation, state, length=generations + 1)
        best = jnp.argmin(state.energies)
        return DeviceRuns(state.members[best], state.energies[best], history, state.members, state.energies)

    return jax.vmap(run)(keys)


@functools.partial(jax.jit, static_argnames=("kind", "size"))
def _start(setting, key, given, kind, size):
    key, draw_key = jax.random.split(key)
    members = given if kind == "given" else _initial_members(setting, draw_key, kind, size)
    energies = jnp.full(size, jnp.inf, members.dtype)
    return DeviceState(members, energies, members, key, jnp.zeros((), jnp.int32))


def _initial_members(setting, key, kind, size):
    low, high = setting.low, setting.high
    dimension, dtype = len(low), low.dtype
    if kind == "normal":
        points = setting.mean + setting.std * jax.random.normal(key, (size * dimension,), dtype).reshape(
            size, dimension
        )
        width = jnp.where(high > low, high - low, 1)
        return jnp.clip(low + bounds.repair((points - low) / width, "reflect") * width, low, high)
    # Drawn flat: under `vmap`, XLA took 8 s to compile the same draw of shape (2, P, D) for a CPU, and 1 s
    # like this.
    unit, shuffle = jax.random.uniform(key, (2 * size * dimension,), dtype).reshape(2, size, dimension)
    if kind == "latinhypercube":
        unit = (jnp.argsort(shuffle, axis=0).astype(dtype) + unit) / size
    return jnp.clip(low + unit * (high - low), low, high)


@functools.partial(jax.jit, static_argnames=("strategy",))
def _tell(setting, state, candidates, cost, strategy):
    cost = costs.nan_to_inf(cost)
    better = cost <= state.energies
    members = jnp.where(better[:, None], candidates, state.members)
    energies = jnp.where(better, cost, state.energies)
    trials, key = _propose(setting, members, energies, state.key, strategy)
    return DeviceState(members, energies, trials, key, state.generation + 1)


@functools.partial(jax.jit, static_argnames=("strategy",))
def _rescore(setting, state, cost, strategy):
    """The state with new energies, and trials drawn again, for another member may be the best now."""
    trials, key = _propose(setting, state.members, cost, state.key, strategy)
    trials = jnp.where(state.generation == 0, state.trials, trials)
    return state._replace(energies=cost, trials=trials, key=key)


def _propose(setting, members, energies, key, strategy):
    """Trials (P, D) and the next key."""
    key, draw_key = jax.random.split(key)
    size, dimension = members.shape
    draws = draw(setting, draw_key, size, dimension, strategies.partners_needed(strategy))
    return trials_from(setting, members, jnp.argmin(energies), draws, strategy), key


def draw(setting: Setting, key: jax.Array, size: int, dimension: int, partners: int) -> Draws:
    """The `Draws` of one generation. Partners are uniform without replacement, the member itself left out.

    All come from one flat call of the generator, because each call takes XLA long to compile and to run.
    """
    numbers = jax.random.uniform(key, (size * (partners + 1 + 2 * dimension) + 1,), setting.low.dtype)
    ranks, first, chance, fresh = jnp.split(
        numbers[:-1].reshape(size, -1), (partners, partners + 1, partners + 1 + dimension), axis=1
    )
    return Draws(
        weight=setting.weight_low + numbers[-1] * (setting.weight_high - setting.weight_low),
        partners=_partners(ranks),
        first=_below(first[:, 0], dimension),
        chance=chance,
        fresh=fresh,
    )


def _below(number, bound):
    """Whole numbers below `bound` from uniform ones in [0, 1)."""
    return jnp.minimum((number * bound).astype(int), bound - 1)


def _partners(numbers):
    """(P, K) rows, all different in a row and none its own, from uniform numbers (P, K)."""
    size, count = numbers.shape
    taken, partners = [jnp.arange(size)], []
    for k in range(count):
        row = _below(numbers[:, k], size - 1 - k)
        # Stepping over the taken rows in ascending order maps the draw onto what is left; inserting the new
        # row on the way keeps them in that order.
        for skipped in taken:
            row = row + (row >= skipped)
        partners.append(row)
        ordered = []
        for other in taken:
            ordered.append(jnp.minimum(row, other))
            row = jnp.maximum(row, other)
        taken = [*ordered, row]
    return jnp.stack(partners, axis=1)


def trials_from(setting: Setting, members: Array, best: Any, draws: Draws, strategy: str) -> Array:
    """Trials (P, D) by eq. 7-9 from members (P, D), `best` the row of the best; out of bounds: drawn afresh."""
    xp = members.__array_namespace__()
    rows = xp.arange(len(members))
    mutants = strategies.mutants(strategy, members, rows, draws.partners, draws.weight, best)
    mask = strategies.crossover_mask(strategy, draws.chance < setting.crossover, draws.first)
    trials = xp.where(mask, mutants, members)
    fresh = xp.clip(setting.low + draws.fresh * (setting.high - setting.low), setting.low, setting.high)
    return xp.where((trials < setting.low) | (trials > setting.high), fresh, trials)
