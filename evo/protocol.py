"""The one seam between a search and whatever computes costs: ask for candidates, tell their costs.

A state is an immutable pytree of arrays, random generator included: it can be saved leaf by leaf
(`evo.state_arrays`, and back with `evo.state_from`), and a search resumed from a saved state continues
bit for bit. Every method is a pure function of its arguments, so an objective that raises leaves nothing half
done.

    engine = make_engine("scipy", low, high, population=25, mean=base, std=0.15)
    state = engine.init(seed=0)
    while not engine.converged(state):
        candidates, state = engine.ask(state)
        state = engine.tell(state, candidates, cost(candidates))
    x, lowest = engine.best(state)
"""

from typing import Any, Protocol, TypeAlias

Array: TypeAlias = Any
"""A NumPy or a JAX array, whichever the engine computes in."""


class Engine(Protocol):
    """An optimiser over vectors of D numbers inside a box. P candidates a generation, D dimensions."""

    def init(self, seed: int) -> Any:
        """The state before anything was evaluated; costs are +inf."""
        ...

    def ask(self, state: Any) -> tuple[Array, Any]:
        """Candidates (P, D), all inside the bounds, and the state that waits for their costs.

        The first call gives the initial population. L-SHADE gives fewer rows as its population shrinks.
        """
        ...

    def tell(self, state: Any, candidates: Array, cost: Array) -> Any:
        """The next generation's state, from the candidates (P, D) asked for and their costs (P,), NaN as
        +inf.

        Rows of `candidates` that the caller changed are taken as they are now.

        Raises:
            ValueError: costs or candidates of another shape, not real, or candidates outside the bounds.
        """
        ...

    def best(self, state: Any) -> tuple[Array, float]:
        """The candidate (D,) of lowest cost, and that cost."""
        ...

    def parents(self, state: Any) -> Array:
        """The current population (P, D)."""
        ...

    def costs(self, state: Any) -> Array:
        """The costs (P,) of `parents(state)`, +inf before the first `tell`."""
        ...

    def rescore(self, state: Any, cost: Array) -> Any:
        """The state with `cost` (P,), in the order of `parents(state)`, in place of the parents' costs.

        For an objective that changes between generations: parents and trials are then compared on the same
        images (common random numbers). May be called before `ask` or between `ask` and `tell`.
        """
        ...

    def check(self, state: Any) -> None:
        """ValueError unless the search can resume from `state`, which may come from a file (`evo.state_from`)."""
        ...

    def converged(self, state: Any) -> bool:
        """SciPy's rule: std(costs) <= atol + tol |mean(costs)|."""
        ...


class FrontEngine(Protocol):
    """An optimiser of M costs at once, with K constraints; otherwise as `Engine`.

    engine = make_front_engine(low, high, population=100, objectives=2, constraints=1)
    state = engine.init(seed=0)
    for _ in range(generations):
        candidates, state = engine.ask(state)
        state = engine.tell(state, candidates, costs(candidates), violations(candidates))
    points, their_costs = engine.front(state)
    """

    def init(self, seed: int) -> Any:
        """The state before anything was evaluated; costs are +inf."""
        ...

    def ask(self, state: Any) -> tuple[Array, Any]:
        """Candidates (P, D), all inside the bounds, and the state that waits for their costs."""
        ...

    def tell(self, state: Any, candidates: Array, costs: Array, violations: Array | None = None) -> Any:
        """The next generation's state, from the candidates asked for, their costs (P, M), NaN as +inf, and how far
        each constraint is exceeded, (P, K), where anything up to 0 says that it holds.

        Raises:
            ValueError: something of another shape, not real, or candidates outside the bounds.
        """
        ...

    def front(self, state: Any) -> tuple[Array, Array]:
        """The feasible candidates (F, D) that no other of the population dominates, and their costs (F, M)."""
        ...

    def parents(self, state: Any) -> Array:
        """The current population (P, D)."""
        ...

    def costs(self, state: Any) -> Array:
        """The costs (P, M) of `parents(state)`, +inf before the first `tell`."""
        ...

    def violations(self, state: Any) -> Array:
        """The violations (P, K) of `parents(state)`, each 0 or above."""
        ...

    def rescore(self, state: Any, costs: Array, violations: Array | None = None) -> Any:
        """The state with these in place of the parents', as `Engine.rescore`."""
        ...

    def check(self, state: Any) -> None:
        """ValueError unless the search can resume from `state`."""
        ...
