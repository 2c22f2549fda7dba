"""Range checks of settings, in one wording: ``population is 3, expected at least 4``.

A command's options (classes with ``command_line = True``) are named as they are typed: ``--population is 3, ...``.
"""

import math
from typing import Any

from jaxsnn.errors import UserError


def named(settings: Any, name: str) -> str:
    """How a message names a setting."""
    return f"--{name.replace('_', '-')}" if getattr(settings, "command_line", False) else name.replace("_", " ")


def at_least(settings: Any, **lows: float) -> None:
    """Raise ``UserError`` where a setting (or a part of one) is below its bound or NaN; None is not checked."""
    for name, low in lows.items():
        for value in _values(settings, name):
            if not value >= low:
                raise UserError(f"{named(settings, name)} is {value}, expected at least {low}")


def at_most(settings: Any, **highs: float) -> None:
    """Raise ``UserError`` where a setting (or a part of one) is above its bound or NaN; None is not checked."""
    for name, high in highs.items():
        for value in _values(settings, name):
            if not value <= high:
                raise UserError(f"{named(settings, name)} is {value}, expected at most {high}")


def in_range(settings: Any, interval: str, *names: str) -> None:
    """Raise ``UserError`` where a setting (or one of its parts) is not in an interval such as "(0, 100]".

    An end at ``inf`` stands for "finite"; None is not checked.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    closed = interval[0] == "[", interval[-1] == "]"
    rule = f"in {interval}"
    if math.isinf(high):
        rule = f"{'at least' if closed[0] else 'above'} {low:g} and finite"
    for name in names:
        for value in _values(settings, name):
            above = value >= low if closed[0] else value > low
            below = value <= high if closed[1] else value < high
            if not (above and below):
                raise UserError(f"{named(settings, name)} is {value}, expected {rule}")


def _values(settings: Any, name: str) -> tuple:
    value = getattr(settings, name)
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)
