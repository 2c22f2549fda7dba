"""Telling the caller how far a reader has come."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias, TypeVar

Progress: TypeAlias = Callable[[float], object]
"""Called with the share that is done, from 0 to 1, never less than before."""

Item = TypeVar("Item")


def silent(share: float) -> None:
    """Tell nobody."""


def watched(
    items: Iterable[Item], total: int, progress: Progress, start: float = 0.0, end: float = 1.0
) -> Iterator[Item]:
    """Yield the `items`, and tell `progress` at each whole percent of their `total`.

    Args:
      items: what is worked through; an item counts as done when the next one is asked for.
      total: how many there are, at least one.
      progress: what is told.
      start, end: the shares of the whole before the first and after the last of them.
    """
    told = 0
    for done, item in enumerate(items, start=1):
        yield item
        if done * 100 // total > told:
            told = done * 100 // total
            progress(start + (end - start) * done / total)
