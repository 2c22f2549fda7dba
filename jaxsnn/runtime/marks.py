"""Marks on the fields of a run's configuration, which say what a field may do to the run.

data_dir: Where[Path | None] = None     # may change when a run is resumed
debug: Unrecorded[bool] = False         # is not part of the configuration
"""

from typing import Annotated, TypeVar, get_type_hints

T = TypeVar("T")

Where = Annotated[T, "where"]
"""Where and how to compute, never what: may change when a run is resumed."""
Unrecorded = Annotated[T, "unrecorded"]
"""Not part of a run's configuration."""


def marked(kind: type, mark: str) -> tuple[str, ...]:
    """Names of the fields of a dataclass that carry the mark "where" or "unrecorded"."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple(name for name, hint in hints.items() if mark in getattr(hint, "__metadata__", ()))
