"""Engines by name."""

from typing import Any

from numpy.typing import ArrayLike

from evo.engines.base import check_options
from evo.names import unknown
from evo.problem import make_search
from evo.protocol import Engine, FrontEngine

ENGINES = ("scipy", "evosax", "jax", "lshade")


def make_engine(
    name: str,
    low: ArrayLike,
    high: ArrayLike,
    population: int,
    *,
    init: str | ArrayLike | None = None,
    mean: ArrayLike | None = None,
    std: ArrayLike | None = None,
    tol: float = 0.01,
    atol: float = 0.0,
    **options: Any,
) -> Engine:
    """The engine called `name`, over the box [low, high] with `population` candidates a generation.

    Names:
        scipy: SciPy's differential evolution, bit for bit (deferred updating), in NumPy.
        evosax, evosax:NAME: evosax's differential evolution, or any other of its strategies.
        jax: the same algorithm in jax.random, for whole runs on the device (`evo.minimize_on_device`).
        lshade: success-history adaptation with a shrinking population.

    Args:
        low, high: (D,) bounds; equal ones fix a dimension.
        init, mean, std, tol, atol: see `evo.problem.make_search`.
        options: one that is None counts as not given.

            evaluations: the budget of the run, for every engine. lshade needs it, for its population shrinks
                along it; the others check only that it covers their first generation. No engine counts or
                stops at it: the caller does.
            strategy, mutation, crossover: of scipy, jax and evosax.
            repair: of evosax and evosax:NAME.
            memory, archive, elite: of lshade.

    Raises:
        ValueError: an unknown name, with the nearest known one; an option that the engine does not have, with
            those it takes; or a setting out of its range.

    Example:
        >>> engine = make_engine("scipy", [-1.0] * 3, [2.0] * 3, population=12, evaluations=120)
        >>> candidates, state = engine.ask(engine.init(seed=0))
        >>> state = engine.tell(state, candidates, (candidates**2).sum(-1))
        >>> engine.best(state)[0].shape
        (3,)
        >>> make_engine("lshade", [-1.0] * 3, [2.0] * 3, population=12, evaluations=120, mutation=0.5)
        Traceback (most recent call last):
        ValueError: engine 'lshade' has no option 'mutation'; it takes evaluations, memory, archive, elite
    """
    search = make_search(low, high, population, init=init, mean=mean, std=std, tol=tol, atol=atol)
    given = {key: value for key, value in options.items() if value is not None}
    kind, _, algorithm = name.partition(":")
    if kind not in ENGINES or (algorithm and kind != "evosax"):
        raise ValueError(unknown("engine", name, (*ENGINES, "evosax:NAME")))
    engine = _engine_class(kind)
    check_options(name, given, tuple(option for option in engine.options() if option != "name"))
    return engine(search, **given, **({"name": algorithm} if algorithm else {}))


def make_front_engine(
    low: ArrayLike,
    high: ArrayLike,
    population: int,
    objectives: int,
    *,
    constraints: int = 0,
    init: str | ArrayLike | None = None,
    mean: ArrayLike | None = None,
    std: ArrayLike | None = None,
    **options: Any,
) -> FrontEngine:
    """GDE3 over the box [low, high]: `population` candidates a generation towards the front of `objectives` costs.

    Args:
        low, high: (D,) bounds; equal ones fix a dimension.
        constraints: K, how many violations a candidate is told with.
        init, mean, std: see `evo.problem.make_search`.
        options: strategy, mutation, crossover and repair, see `evo.engines.gde3.Gde3`; None counts as not given.

    Raises:
        ValueError: an option that it does not have, or a setting out of its range.

    Example:
        >>> import numpy as np
        >>> engine = make_front_engine([-2.0], [4.0], population=20, objectives=2)
        >>> state = engine.init(seed=0)
        >>> for _ in range(30):
        ...     x, state = engine.ask(state)
        ...     state = engine.tell(state, x, np.concatenate([x**2, (x - 2) ** 2], axis=1))
        >>> points, costs = engine.front(state)
        >>> len(points), bool(points.min() > -0.01), bool(points.max() < 2.01)
        (20, True, True)
    """
    from evo.engines.gde3 import Gde3

    search = make_search(low, high, population, init=init, mean=mean, std=std)
    given = {key: value for key, value in options.items() if value is not None}
    check_options("gde3", given, ("strategy", "mutation", "crossover", "repair"))
    return Gde3(search, objectives, constraints, **given)


def _engine_class(kind: str) -> Any:
    """JAX and evosax take seconds to import: only the engine that needs them does."""
    if kind == "scipy":
        from evo.engines.scipy_like import ScipyLike

        return ScipyLike
    if kind == "lshade":
        from evo.engines.lshade import LShade

        return LShade
    if kind == "evosax":
        from evo.engines.evosax_engine import EvosaxEngine

        return EvosaxEngine
    from evo.engines.device import DeviceDE

    return DeviceDE
