"""Which input positions each output position of a convolution or pool reads."""

from typing import NamedTuple

from jaxsnn.errors import UserError

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
"""Zeros in front of and behind the rows, then the columns."""


class Taps(NamedTuple):
    """A window over (H, W): tap k of output o reads input o * stride - (padding in front) + k * dilation.

    Attributes:
        sides: taps along rows and columns.
        strides, pads, dilation: along rows and columns.
    """

    sides: Pair
    strides: Pair = (1, 1)
    pads: Pads = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)

    @property
    def spans(self) -> Pair:
        """Rows and columns from the first tap to the last."""
        height, width = ((side - 1) * apart + 1 for side, apart in zip(self.sides, self.dilation))
        return height, width

    def target(self, sides: Pair) -> Pair:
        """Output positions on an input of ``sides``, incomplete windows at the end left out; may be below 1."""
        high, wide = (
            (side + sum(pad) - span) // stride + 1
            for side, pad, span, stride in zip(sides, self.pads, self.spans, self.strides)
        )
        return high, wide


def pair(value: int | Pair) -> Pair:
    """One number for rows and columns, or two."""
    return (value, value) if isinstance(value, int) else value


def short(value: int | Pair) -> int | Pair:
    """Two equal numbers as one, so that equal ops compare equal however they were written."""
    return value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value


def pads_of(value: int | Pads) -> Pads:
    """One number for all four sides, or two pairs."""
    return ((value, value), (value, value)) if isinstance(value, int) else value


def short_pads(value: int | Pads) -> int | Pads:
    """Four equal numbers as one."""
    return value[0][0] if isinstance(value, tuple) and len({n for pair in value for n in pair}) == 1 else value


def check_sizes(what: str, least: int, **values: int | Pair) -> None:
    """Raise ``UserError`` where a value is neither a whole number from ``least`` nor two of them."""
    for name, value in values.items():
        if not _whole(value, least) and not _two(value, least):
            raise UserError(
                f"{name} of {what} is {value!r}, expected a whole number from {least}, or two for rows and columns"
            )


def check_pads(what: str, value: int | Pads) -> None:
    """Raise ``UserError`` where a padding is neither a whole number nor ((top, bottom), (left, right))."""
    if not _whole(value, 0) and not (
        isinstance(value, tuple) and len(value) == 2 and all(_two(part, 0) for part in value)
    ):
        raise UserError(
            f"padding of {what} is {value!r}, expected a whole number or ((top, bottom), (left, right))"
        )


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _two(value: object, least: int) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_whole(part, least) for part in value)
