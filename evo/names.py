"""What is said of a name that nothing is called by."""

import difflib
from collections.abc import Iterable

MOST = 5
"""Names that a message lists."""


def unknown(what: str, name: object, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A message that ``what`` ``name`` is unknown, with the nearest of the `known` names, and all if they are few.

    >>> unknown("engine", "scypy", ("jax", "scipy"))
    "unknown engine 'scypy'; did you mean 'scipy'? Known: jax, scipy"
    """
    known = tuple(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=cutoff)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    if len(known) <= MOST:
        return f"unknown {what} {name!r}{hint} Known: {', '.join(known)}"
    closest = difflib.get_close_matches(str(name), known, n=MOST, cutoff=0)
    return f"unknown {what} {name!r}{hint} Known: {', '.join(closest)} and {len(known) - MOST} more"
