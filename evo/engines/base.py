"""What the engines share: a population with one cost a member, its checks, and the options they take."""

import dataclasses
import difflib
import numbers
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np

from evo import bounds
from evo.costs import as_costs
from evo.problem import Search
from evo.protocol import Array
from evo.state import check_costs, check_shapes, check_unit
from evo.strategies import check_crossover, check_strategy, dither_range


class PopulationState(Protocol):
    """What the base reads of a state: members (P, D), their energies (P,), and the pending trials (P, D)."""

    @property
    def members(self) -> Array: ...
    @property
    def energies(self) -> Array: ...
    @property
    def trials(self) -> Array: ...
    def _replace(self, **changes: Any) -> Self: ...


State = TypeVar("State", bound=PopulationState)


@dataclass(frozen=True, eq=False)
class PopulationEngine(Generic[State]):
    """An engine whose members live in the unit cube; see `evo.protocol.Engine`.

    Args:
        search: what to search, from `make_search`.
        evaluations: the budget of the run, at least the population. No engine counts it: the caller stops.

    Raises:
        ValueError: `evaluations` that are not a whole number or do not cover the first generation.
    """

    search: Search
    evaluations: int | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.evaluations is None:
            return
        whole = isinstance(self.evaluations, numbers.Real) and self.evaluations % 1 == 0
        if not whole or self.evaluations < self.search.population:
            raise ValueError(
                "evaluations, the length of the run, must be a whole number of at least the population of "
                f"{self.search.population}; got {self.evaluations}"
            )

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """The names of the options that the engine takes besides its search."""
        return tuple(field.name for field in dataclasses.fields(cls) if field.init and field.name != "search")

    def init(self, seed: int) -> State:
        raise NotImplementedError

    def parents(self, state: State) -> Array:
        return bounds.points_inside(self.search.box, state.members)

    def costs(self, state: State) -> Array:
        return state.energies

    def best(self, state: State) -> tuple[Array, float]:
        row = int(np.argmin(state.energies))
        return self.parents(state)[row], float(state.energies[row])

    def rescore(self, state: State, cost: Array) -> State:
        return state._replace(energies=as_costs(cost, len(state.members)))

    def converged(self, state: State) -> bool:
        return self.search.converged(state.energies)

    def check(self, state: State) -> None:
        check_shapes(state, self.init(0))
        check_unit(members=state.members, trials=state.trials)
        check_costs(state.energies)


@dataclass(frozen=True, eq=False)
class DifferentialEvolution(PopulationEngine[State]):
    """An engine that makes its trials by eq. 7-9.

    Args:
        strategy: one of the twelve in `evo.strategies`. The default is SciPy's, best1bin; eq. 7 is rand1bin.
        mutation: the weight M of eq. 7 in [0, 2], or a pair from which it is drawn each generation.
        crossover: C of eq. 9, in [0, 1].
    """

    strategy: str = "best1bin"
    mutation: float | tuple[float, float] = (0.5, 1.5)
    crossover: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        check_strategy(self.strategy, self.search.population)
        dither_range(self.mutation)
        check_crossover(self.crossover)


def check_options(engine: str, given: dict[str, Any], taken: tuple[str, ...]) -> None:
    """ValueError naming the first of the `given` options that is not among those `taken` by `engine`."""
    for name in given:
        if name not in taken:
            near = difflib.get_close_matches(name, taken, n=1, cutoff=0.8)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"engine {engine!r} has no option {name!r}{hint}; it takes {', '.join(taken)}")
