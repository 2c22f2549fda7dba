"""Values of a graph while it is lowered: sums of chains, and which axis of a tensor holds what.

A value between two activations is a sum of chains (``Term``), each a row of linear operations of one layer's
output or of the image. Concatenated channels stay apart (``Part``).

Axes are followed by letters: C, H and W of the layer below, N for the batch; "CHW" is a flattened axis. Axes of
size 1 have no letter. So flatten, view, squeeze and transpose cost nothing, and a dense map learns in which order
its inputs come.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from jaxsnn.conversion.chains import Linears, Step, as_affine
from jaxsnn.conversion.graph import Affine, Norm, Shape
from jaxsnn.errors import UserError


@dataclass(frozen=True)
class Term:
    """Linear steps, in order, of the output of layer ``source``."""

    source: int
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Part:
    """Some of the channels of a value: the sum of ``terms``."""

    channels: int
    terms: tuple[Term, ...]

    def then(self, name: str, operation: Linears, rest: Linears | None = None) -> tuple[Term, ...]:
        """The terms with one more step: ``operation`` on the first, ``rest`` (without what is added) on others."""
        first, *others = self.terms
        grown = [replace(first, steps=(*first.steps, Step(name, operation)))]
        other = operation if rest is None else rest
        return tuple(grown + [replace(term, steps=(*term.steps, Step(name, other))) for term in others])


@dataclass(frozen=True)
class Value:
    """A value of the graph.

    Attributes:
        sides: H and W, None where a dense map made it.
        axes: the letters of each axis.
    """

    parts: tuple[Part, ...]
    sides: tuple[int, int] | None
    axes: tuple[str, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes of the axes below, by letter."""
        height, width = self.sides or (1, 1)
        return {"C": sum(part.channels for part in self.parts), "H": height, "W": width}


def image_shape(shape: Shape, axes: str = "") -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """(H, W, C) of a graph's input with its batch, and the letters of its axes.

    (N, C, H, W) is an image, (N, C, W) a signal of C channels, (N, W) one of a single channel: the last two are
    images of height 1. ``axes`` says otherwise, "NHWC" for instance.
    """
    order = axes or {2: "NW", 3: "NCW", 4: "NCHW"}.get(len(shape))
    if order is None:
        raise UserError(f"the model's input has shape {shape}, expected (N, C, H, W), (N, C, L) or (N, F)")
    sizes = dict(zip(order, shape))
    found = tuple("" if size == 1 else letter for letter, size in zip(order, shape))
    return (sizes.get("H", 1), sizes.get("W", 1), sizes.get("C", 1)), found


def letters(channels: int, sides: tuple[int, int]) -> tuple[str, str, str]:
    """The letters of the axes behind the batch of (N, C, H, W)."""
    c, h, w = ("" if size == 1 else letter for letter, size in zip("CHW", (channels, *sides)))
    return c, h, w


def each(x: Value, grow: Callable[[Part], tuple[Term, ...]]) -> tuple[Part, ...]:
    """The parts with terms that ``grow`` makes of them."""
    return tuple(Part(part.channels, grow(part)) for part in x.parts)


def in_words(x: Value) -> str:
    """The axes for a message."""
    return "(" + ", ".join(axis or "1" for axis in x.axes) + ")"


def expect_image(x: Value, name: str, what: str) -> None:
    """Raise ``UserError`` where a value does not lie as (N, C, H, W)."""
    if x.sides is None:
        raise UserError(
            f"{name} is {what} after a dense map, which is not converted: neurons have lost their places"
        )
    expected = letters(x.sizes["C"], x.sides)
    if x.axes[1:] != expected or x.axes[0] not in ("N", ""):
        raise UserError(f"{name} is {what} over {in_words(x)}, expected (N, C, H, W)")


def normalised(norm: Norm, x: Value, name: str) -> Value:
    """The value behind a norm, which stays one where the value is a single chain."""
    if len(x.parts) == 1 and len(x.parts[0].terms) == 1 and x.axes[1] in ("C", ""):
        return replace(x, parts=each(x, lambda part: part.then(name, norm)))
    affine = as_affine(norm)
    sides = (1, -1) + (1,) * (len(x.axes) - 2)
    return scaled(affine.scale.reshape(sides), affine.shift.reshape(sides), x, name)


def scaled(scale: np.ndarray, shift: np.ndarray, x: Value, name: str) -> Value:
    """Constants that broadcast against the tensor, as numbers for each channel or each position."""
    spread = [_by_position(constant, x, name) for constant in (scale, shift)]
    whole = all((c == c[:1, :1]).all() for c in spread)
    if whole:
        spread = [c[0, 0] for c in spread]
    elif x.sides is None:
        raise UserError(f"{name} scales or shifts {in_words(x)} in a way that is not converted")
    parts, start = [], 0
    for part in x.parts:
        own = [c[..., start : start + part.channels] for c in spread]
        still = Affine(own[0], np.zeros_like(own[1]))
        parts.append(Part(part.channels, part.then(name, Affine(*own), still)))
        start += part.channels
    return replace(x, parts=tuple(parts))


def _by_position(constant: np.ndarray, x: Value, name: str) -> np.ndarray:
    """A constant that broadcasts against the tensor as (H, W, C), sides of 1 where it does not vary."""
    constant = np.asarray(constant, np.float64)
    constant = constant.reshape((1,) * (len(x.axes) - constant.ndim) + constant.shape)
    sizes, letters, shape = x.sizes, "", []
    for axis, size in zip(x.axes, constant.shape):
        if size == 1:
            continue
        if "N" in axis:
            raise UserError(f"{name} treats the images of a batch differently")
        letters += axis
        shape += [sizes[letter] for letter in axis]
    order = letters + "".join(letter for letter in "HWC" if letter not in letters)
    full = constant.reshape(*shape, *(1 for _ in order[len(letters) :]))
    full = full.transpose([order.index(letter) for letter in "HWC"])
    sides = (1, 1) if full.shape[:2] == (1, 1) else (sizes["H"], sizes["W"])
    return np.broadcast_to(full, (*sides, sizes["C"]))


def joined(inputs: list[Value], axis: int, name: str) -> Value:
    """Values one after the other along their channels."""
    first = inputs[0]
    apart = [(x.axes[:axis], x.axes[axis + 1 :], x.sides) for x in inputs]
    if any(x.axes[axis] not in ("C", "") or other != apart[0] for x, other in zip(inputs, apart)) or (
        "C" in "".join(first.axes[:axis] + first.axes[axis + 1 :])
    ):
        raise UserError(f"{name} concatenates {' and '.join(map(in_words, inputs))}: only channels can be joined")
    axes = (*first.axes[:axis], "C", *first.axes[axis + 1 :])
    return Value(tuple(part for x in inputs for part in x.parts), first.sides, axes)


def reshaped(x: Value, shape: Shape, batch: int, name: str) -> tuple[str, ...]:
    """The letters of the axes of ``shape``; an axis may be joined with others, but not cut."""
    sizes = x.sizes | {"N": batch}
    rest = list("".join(x.axes))
    axes = []
    for size in shape:
        axis, held = "", 1
        while rest and held < size:
            axis += rest[0]
            held *= sizes[rest.pop(0)]
        if held != size:
            raise UserError(
                f"{name} cuts an axis of {in_words(x)} into parts, which is not converted (a channel shuffle?)"
            )
        axes.append(axis)
    if any("N" in axis and axis != "N" for axis in axes):
        raise UserError(f"{name} mixes the images of a batch with one another")
    return tuple(axes)
