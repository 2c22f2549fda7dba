"""States as plain arrays by name, for a file, and back again with everything checked: a file may be damaged."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from evo.protocol import Array, Engine, FrontEngine


def state_arrays(state: Any) -> dict[str, np.ndarray]:
    """The arrays of an engine's state by their place in it, such as ".members" or ".memory.cell"."""
    import jax  # takes seconds to import, which a search by the engine "scipy" need not wait for

    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def state_from(engine: Engine | FrontEngine, arrays: Mapping[str, np.ndarray]) -> Any:
    """The state whose `state_arrays` are `arrays`: a search resumed from it continues bit for bit.

    Raises:
        ValueError: not the arrays of a state of this engine, with the first that is wrong.

    Example:
        >>> import evo
        >>> engine = evo.make_engine("scipy", [-1.0] * 3, [2.0] * 3, population=12)
        >>> _, state = engine.ask(engine.init(seed=0))
        >>> again = state_from(engine, state_arrays(state))
        >>> bool((again.members == state.members).all())
        True
    """
    import jax

    leaves, tree = jax.tree_util.tree_flatten_with_path(engine.init(0))
    names = [jax.tree_util.keystr(path) for path, _ in leaves]
    if set(names) != set(arrays):
        name = min(set(names) ^ set(arrays))
        raise ValueError(f"{name} is {'missing' if name in names else 'not part of this state'}")
    for name, (_, leaf) in zip(names, leaves):
        if arrays[name].dtype != leaf.dtype or arrays[name].ndim != leaf.ndim:
            raise ValueError(
                f"{name} is {arrays[name].dtype} with {arrays[name].ndim} axes, expected {leaf.dtype} with "
                f"{leaf.ndim}"
            )
    state = jax.tree.unflatten(tree, [arrays[name] for name in names])
    engine.check(state)
    return state


def check_shapes(state: Any, expected: Any) -> None:
    """ValueError unless the arrays of `state` have the shapes of those of `expected`, a state like it."""
    wanted = state_arrays(expected)
    for name, array in state_arrays(state).items():
        if array.shape != wanted[name].shape:
            raise ValueError(f"{name} has shape {array.shape}, expected {wanted[name].shape}")


def check_unit(**points: Array) -> None:
    """ValueError unless all `points` lie in the unit cube."""
    for name, values in points.items():
        if not ((np.asarray(values) >= 0) & (np.asarray(values) <= 1)).all():
            raise ValueError(f"{name} are not all in [0, 1]")


def check_costs(energies: Array) -> None:
    """ValueError where a cost is NaN, which no engine keeps."""
    if np.isnan(energies).any():
        raise ValueError("energies hold NaN")
