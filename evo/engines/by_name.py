"""Engines by name."""

import difflib

from evo.engines.scipy_like import ScipyLike
from evo.problem import make_search
from evo.protocol import Engine

ENGINES = ("scipy", "evosax", "jax", "lshade")


def make_engine(
    name, low, high, population, *, init=None, mean=None, std=None, tol=0.01, atol=0.0, **options
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
        options: what the engine itself takes: strategy, mutation, crossover (scipy, jax, evosax), repair
            (evosax), evaluations (lshade; required). One that is None counts as not given.

    Raises:
        ValueError: an unknown name, with the nearest known one, or a setting out of its range.
        TypeError: an option that the engine does not have.
    """
    search = make_search(low, high, population, init=init, mean=mean, std=std, tol=tol, atol=atol)
    options = {key: value for key, value in options.items() if value is not None}
    kind, _, algorithm = name.partition(":")
    if kind not in ENGINES or (algorithm and kind != "evosax"):
        near = difflib.get_close_matches(name, ENGINES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown engine {name!r}{hint} Known: {', '.join(ENGINES)}, evosax:NAME")
    return _engine_class(kind)(search, **options, **({"name": algorithm} if algorithm else {}))


def _engine_class(kind):
    """JAX and evosax take seconds to import: only the engine that needs them does."""
    if kind == "scipy":
        return ScipyLike
    if kind == "lshade":
        from evo.engines.lshade import LShade

        return LShade
    if kind == "evosax":
        from evo.engines.evosax_engine import EvosaxEngine

        return EvosaxEngine
    from evo.engines.device import DeviceDE

    return DeviceDE
