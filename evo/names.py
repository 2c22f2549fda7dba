"""What is said of a name that nothing is called by."""

import difflib
from collections.abc import Iterable


def unknown(what: str, name: object, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A message that ``what`` ``name`` is unknown, with the nearest of the `known` names and all of them."""
    known = tuple(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=cutoff)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {what} {name!r}{hint} Known: {', '.join(known)}"
