"""Operations that PyTorch and ONNX share, added to a graph: pools of every kind, means, one-dimensional maps."""

from collections.abc import Sequence

import numpy as np

from jaxsnn.conversion.graph import (
    NO_PADS,
    Add,
    Affine,
    Builder,
    Convolution,
    Pool,
    Reshape,
    ValueId,
)
from jaxsnn.errors import UserError
from jaxsnn.networks.taps import Pads, Pair

Found = ValueId | np.ndarray | float
"""A value of the graph, or a constant."""


def two(values: int | Sequence[int], name: str, first: int = 1) -> Pair:
    """One number, or one or two in a list, for rows and columns; where there is one, ``first`` is the rows'."""
    if isinstance(values, int):
        return (values, values)
    if not 1 <= len(values) <= 2 or not all(isinstance(v, int) for v in values):
        raise UserError(f"{name} has sizes {values}, expected one or two whole numbers")
    return (first, values[0]) if len(values) == 1 else (values[0], values[1])


def flat_pair(values: int | Sequence[int], dimensions: int, name: str, first: int = 1) -> Pair:
    """``two`` for an operation over so many ``dimensions``: of one, the rows get ``first``."""
    if isinstance(values, int):
        return (first, values) if dimensions == 1 else (values, values)
    if len(values) == 1 and dimensions == 2:
        return (values[0], values[0])
    return two(values, name, first)


def in_two_dimensions(builder: Builder, x: ValueId, name: str) -> tuple[ValueId, int]:
    """A value (N, C, L) as (N, C, 1, L), others as they are; and the dimensions that it had, 1 or 2."""
    shape = builder.shapes[x]
    if len(shape) == 3:
        return builder.add(Reshape((*shape[:2], 1, shape[2])), x, name=name), 1
    return x, 2


def back(builder: Builder, x: ValueId, dimensions: int, name: str) -> ValueId:
    """The inverse of ``in_two_dimensions``."""
    if dimensions == 2:
        return x
    batch, channels, _, length = builder.shapes[x]
    return builder.add(Reshape((batch, channels, length)), x, name=name)


def convolution(
    builder: Builder,
    x: ValueId,
    weight: np.ndarray,
    bias: np.ndarray | None,
    name: str,
    stride: int | Sequence[int] = 1,
    pads: Pads | str = NO_PADS,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> ValueId:
    """A convolution over one or two dimensions; ``pads`` are zeros, or "same" or "valid" or "same_lower"."""
    x, dimensions = in_two_dimensions(builder, x, name)
    if weight.ndim != dimensions + 2:
        raise UserError(f"{name} has a kernel of shape {weight.shape} for {dimensions} dimensions")
    weight = weight[:, :, None] if dimensions == 1 else weight
    strides = flat_pair(stride, dimensions, name)
    dilations = flat_pair(dilation, dimensions, name)
    if isinstance(pads, str):
        sides = builder.shapes[x][2:]
        spans = [(size - 1) * apart + 1 for size, apart in zip(weight.shape[2:], dilations)]
        pads = same_pads((sides[0], sides[1]), (spans[0], spans[1]), strides, pads)
    made = builder.add(Convolution(weight, bias, strides, pads, dilations, groups), x, name=name)
    return back(builder, made, dimensions, name)


def same_pads(sides: Pair, spans: Pair, strides: Pair, kind: str) -> Pads:
    """Zeros that "valid", "same" (more at the end) or "same_lower" (more in front) put around an input."""
    if kind == "valid":
        return NO_PADS
    found = []
    for side, span, stride in zip(sides, spans, strides):
        total = max(0, (-(-side // stride) - 1) * stride + span - side)
        less, more = total // 2, total - total // 2
        found.append((more, less) if kind == "same_lower" else (less, more))
    return found[0], found[1]


def pool(
    builder: Builder,
    x: ValueId,
    kind: str,
    name: str,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    pads: Pads | str = NO_PADS,
    ceil: bool = False,
    count_pads: bool = True,
) -> ValueId:
    """A pool over one or two dimensions; ``stride`` is the window where it is None or empty."""
    x, dimensions = in_two_dimensions(builder, x, name)
    sides = flat_pair(window, dimensions, name)
    strides = sides if stride is None or stride == [] or stride == () else flat_pair(stride, dimensions, name)
    height, width = builder.shapes[x][2:]
    if isinstance(pads, str):
        pads = same_pads((height, width), sides, strides, pads)
    if ceil and kind == "max":  # what the last windows read beyond the image is never the largest
        bottom, right = map(_reached, (height, width), pads, sides, strides)
        pads, ceil = ((pads[0][0], bottom), (pads[1][0], right)), False
    operation = Pool(kind, sides, strides, pads, count_pads or pads == NO_PADS)
    if any(max(pad) >= side for pad, side in zip(pads, sides)):
        raise UserError(f"{name} pads its pool by {pads}, expected less than its window {sides}")
    if ceil:
        last = [
            (side + sum(pad) - span) % step for side, pad, span, step in zip((height, width), pads, sides, strides)
        ]
        if any(last):
            raise UserError(
                f"{name} pools with ceil_mode, whose last windows reach beyond the image: set ceil_mode=False"
            )
    return back(builder, builder.add(operation, x, name=name), dimensions, name)


def _reached(side: int, pad: Pair, span: int, step: int) -> int:
    """Padding behind an axis with which every window that begins on the input is whole."""
    front, behind = pad
    windows = -(-(side + front + behind - span) // step) + 1
    if (windows - 1) * step >= side + front:
        windows -= 1
    return max(behind, (windows - 1) * step + span - side - front)


def adaptive_pool(builder: Builder, x: ValueId, kind: str, name: str, target: Sequence[int | None]) -> ValueId:
    """A pool to ``target`` positions, which must divide what is there; None leaves an axis as it is."""
    shape = builder.shapes[x]
    sides = shape[2:]
    goal = [side if size is None else size for side, size in zip(sides, target)]
    if len(goal) != len(sides) or any(size < 1 or side % size for side, size in zip(sides, goal)):
        raise UserError(
            f"{name} pools {sides} positions to {tuple(target)}, which does not divide: pool to sizes that do, "
            "(1, 1) for instance"
        )
    window = [side // size for side, size in zip(sides, goal)]
    if all(size == 1 for size in window):
        return x
    return pool(builder, x, kind, name, window)


def spatial_mean(builder: Builder, x: ValueId, axes: Sequence[int], keep: bool, name: str) -> ValueId:
    """The mean over the axes behind the channels."""
    shape = builder.shapes[x]
    found = {axis % len(shape) for axis in axes if -len(shape) <= axis < len(shape)}
    if len(found) != len(axes) or not found or min(found) < 2:
        raise UserError(f"{name} is a mean over the axes {tuple(axes)} of {shape}: only H and W can be averaged")
    window = [size if axis in found else 1 for axis, size in enumerate(shape[2:], start=2)]
    made = pool(builder, x, "average", name, window)
    if keep:
        return made
    kept = tuple(size for axis, size in enumerate(shape) if axis not in found)
    return builder.add(Reshape(kept), made, name=name)


def arithmetic(builder: Builder, kind: str, one: Found, other: Found, name: str, factor: float = 1.0) -> Found:
    """add, sub, mul or div of two values or constants; ``factor`` multiplies the second."""
    if not isinstance(one, ValueId) and not isinstance(other, ValueId):
        compute = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}[kind]
        with np.errstate(all="ignore"):  # what is not finite is refused where it becomes a weight
            return compute(one, np.multiply(other, factor))
    zero = np.array(0.0)
    if isinstance(one, ValueId) and isinstance(other, ValueId):
        if kind in ("mul", "div"):
            raise UserError(f"{name} multiplies or divides two activations, which is not converted: no weight can")
        sign = factor * (-1 if kind == "sub" else 1)
        if sign != 1:
            other = builder.add(Affine(np.array(sign), zero), other, name=name)
        return builder.add(Add(), one, other, name=name)
    if isinstance(one, ValueId):
        constant = np.asarray(other, np.float64) * factor
        if kind == "div" and not constant.all():
            raise UserError(f"{name} divides by zero")
        scale = constant if kind == "mul" else 1 / constant if kind == "div" else np.array(1.0)
        shift = constant if kind == "add" else -constant if kind == "sub" else zero
        return builder.add(Affine(scale, shift), one, name=name)
    if not isinstance(other, ValueId):
        raise TypeError(f"{name} has no activation among its inputs")
    if kind == "div":
        raise UserError(f"{name} divides by an activation, which is not converted")
    constant = np.asarray(one, np.float64)
    sign = np.array(factor * (-1 if kind == "sub" else 1))
    scale, shift = (constant * factor, zero) if kind == "mul" else (sign, constant)
    return builder.add(Affine(scale, shift), other, name=name)
