"""A chain of linear operations between two activations, brought into the form that an edge of a network has.

Scales and shifts are folded into the map in front of them, or into the one behind; zeros around an image into the
convolution or pool that reads them. Where that would not be exact (a norm after an activation whose shift a padded
convolution must not see in its padding), a 1x1 convolution with as many groups as channels takes their place.
"""

from dataclasses import dataclass, replace

import numpy as np

from jaxsnn.conversion.graph import NO_PADS, Affine, Convolution, Linear, Norm, Pad, Pool
from jaxsnn.errors import UserError
from jaxsnn.networks.description import AvgPool, BatchNorm, Conv, Dense, MaxPool, Op, Params, output_shape

Linears = Convolution | Linear | Norm | Affine | Pool | Pad
LARGEST_IDENTITY = 4096
"""Features up to which an identity is written out as a dense map."""


@dataclass(frozen=True, eq=False)
class Step:
    """A linear operation of a chain.

    A ``Linear`` reads its input in the order H, W, C. An ``Affine`` has one number for each channel (C,), or for
    each position (H, W, C).
    """

    name: str
    operation: Linears


def simplified(steps: tuple[Step, ...], shape: tuple[int, ...]) -> list[Step]:
    """The same function of an input (H, W, C) or (F,) without ``Affine`` and ``Pad``; norms follow a map.

    Raises:
        UserError: numbers for each position that no dense map follows.
    """
    done: list[Step] = []
    for step in steps:
        _push(done, step)
    return _written_out(done, shape)


def _push(done: list[Step], step: Step) -> None:
    """Append ``step`` to a chain, or merge the two."""
    match step.operation:
        case Affine():
            _push_affine(done, step)
        case Norm() if not isinstance(_base(done, shifts=True), Convolution | Linear):
            _push_affine(done, replace(step, operation=as_affine(step.operation)))
        case Convolution() | Linear() | Pool() if done and isinstance(done[-1].operation, Affine | Pad):
            _push_behind(done, step)
        case _:
            done.append(step)


def as_affine(norm: Norm) -> Affine:
    """The scale and shift of a norm."""
    gain = norm.scale / np.sqrt(norm.variance.astype(np.float64) + norm.epsilon)
    return Affine(gain, norm.bias - norm.mean * gain)


def _passes(pool: Pool, shifts: bool) -> bool:
    """Whether scales, and shifts too, may cross a pool."""
    if pool.kind == "max":
        return False
    return not shifts or pool.pads == NO_PADS or not pool.count_pads


def _base_index(done: list[Step], shifts: bool) -> int:
    index = len(done) - 1
    while index >= 0 and isinstance(pool := done[index].operation, Pool) and _passes(pool, shifts):
        index -= 1
    return index


def _base(done: list[Step], shifts: bool) -> Linears | None:
    """What is behind the pools at the end of a chain."""
    index = _base_index(done, shifts)
    return done[index].operation if index >= 0 else None


def _push_affine(done: list[Step], step: Step) -> None:
    affine = step.operation
    if not isinstance(affine, Affine):
        raise TypeError(f"{step.name} is not affine")
    shifts = bool(np.any(affine.shift))
    if not shifts and np.all(affine.scale == 1):
        return
    by_channel = affine.scale.ndim == 1
    index = _base_index(done, shifts) if by_channel else len(done) - 1
    base = done[index] if index >= 0 else step
    match base.operation if index >= 0 else None:
        case Affine(scale=scale, shift=shift):
            merged = Affine(scale * affine.scale, shift * affine.scale + affine.shift)
            done[index] = replace(base, operation=merged)
        case Norm() as norm if by_channel:
            bias = norm.bias * affine.scale + affine.shift
            done[index] = replace(base, operation=replace(norm, scale=norm.scale * affine.scale, bias=bias))
        case Convolution() | Linear() as linear if by_channel:
            sides = (-1,) + (1,) * (linear.weight.ndim - 1)
            bias = affine.shift + (0.0 if linear.bias is None else linear.bias * affine.scale)
            kept = bias if linear.bias is not None or shifts else None
            folded = replace(linear, weight=linear.weight * affine.scale.reshape(sides), bias=kept)
            done[index] = replace(base, operation=folded)
        case _:
            done.append(step)


def _push_behind(done: list[Step], step: Step) -> None:
    """Append a map or a pool to a chain that ends in an ``Affine`` or a ``Pad``."""
    last = done.pop()
    match last.operation, step.operation:
        case Pad(pads=pads), Convolution() as conv:
            _push(done, replace(step, operation=replace(conv, pads=_sum(pads, conv.pads))))
        case Affine() as affine, Linear() as linear:
            _push(done, replace(step, operation=_behind_affine(linear, affine)))
        case Affine(scale=scale) as affine, Convolution() as conv if scale.ndim == 1 and (
            conv.pads == NO_PADS or not np.any(affine.shift)
        ):
            _push(done, replace(step, operation=_behind_affine(conv, affine)))
        case Affine(scale=scale, shift=shift), Pool() as pool if scale.ndim == 1 and _passes(
            pool, bool(np.any(shift))
        ):
            _push(done, step)
            _push(done, last)
        case _:
            done.extend([last, step])


def _sum(one: tuple, other: tuple) -> tuple:
    return tuple((a + c, b + d) for (a, b), (c, d) in zip(one, other))


def _behind_affine(linear: Convolution | Linear, affine: Affine) -> Convolution | Linear:
    """The map of ``x * scale + shift`` as a map of x, where it pads nothing or nothing is shifted."""
    if isinstance(linear, Linear):
        rows = linear.weight.reshape(len(linear.weight), -1, affine.scale.size)
        weight = (rows * affine.scale.reshape(-1)).reshape(linear.weight.shape)
        bias = (rows * affine.shift.reshape(-1)).sum((1, 2))
    else:
        per_group = linear.weight.reshape(linear.groups, -1, *linear.weight.shape[1:])
        sides = (linear.groups, 1, -1, 1, 1)
        weight = (per_group * affine.scale.reshape(sides)).reshape(linear.weight.shape)
        bias = (per_group * affine.shift.reshape(sides)).sum((2, 3, 4)).reshape(-1)
    if linear.bias is not None:
        bias = bias + linear.bias
    return replace(linear, weight=weight, bias=bias if linear.bias is not None or np.any(affine.shift) else None)


def _written_out(done: list[Step], shape: tuple[int, ...]) -> list[Step]:
    """Each ``Affine`` and ``Pad`` that is left as a map of its own."""
    steps = []
    for step in done:
        operation = step.operation
        if isinstance(operation, Affine):
            if operation.scale.ndim != 1:
                raise UserError(
                    f"{step.name} scales or shifts each position by a number of its own, which only a dense map "
                    "right behind it can take in: use numbers for each channel"
                )
            shift = operation.shift if np.any(operation.shift) else None
            step = Step(step.name, diagonal(operation.scale, shift, len(shape) == 3, step.name))
        elif isinstance(operation, Pad):
            identity = diagonal(np.ones(shape[-1]), None, True, step.name)
            if not isinstance(identity, Convolution):
                raise TypeError(f"{step.name} pads what has no height and width")
            step = Step(step.name, replace(identity, pads=operation.pads))
        steps.append(step)
        shape = output_shape(op_of(step), shape)
    return steps


def diagonal(scale: np.ndarray, shift: np.ndarray | None, spatial: bool, name: str) -> Convolution | Linear:
    """Every channel times its number, as a map; raises ``UserError`` where that would be a huge dense one."""
    if spatial:
        return Convolution(scale.reshape(-1, 1, 1, 1), shift, groups=len(scale))
    if len(scale) > LARGEST_IDENTITY:
        raise UserError(f"{name} is a map of {len(scale)} features without weights of its own, which is too large")
    return Linear(np.diag(scale), shift)


def op_of(step: Step) -> Op:
    """The step as an op of a network, under the step's own name."""
    match step.operation:
        case Convolution(weight=weight, bias=bias) as conv:
            high, wide = weight.shape[2:]
            options = {"padding": conv.pads, "dilation": conv.dilation, "groups": conv.groups}
            return Conv(step.name, len(weight), (high, wide), conv.stride, bias is not None, **options)
        case Linear(weight=weight, bias=bias):
            return Dense(step.name, len(weight), bias is not None)
        case Pool(kind="max") as pool:
            return MaxPool(pool.window, pool.stride, pool.pads)
        case Pool() as pool:
            return AvgPool(pool.window, pool.stride, pool.pads, pool.count_pads)
        case Norm(epsilon=epsilon):
            return BatchNorm(step.name, epsilon)
    raise TypeError(f"{step.name} is {step.operation}, which no op stands for")


def params_of(step: Step) -> Params:
    """The step's parameters by their last name, in the layout of networks."""
    match step.operation:
        case Convolution(weight=weight, bias=bias):
            parts = {"kernel": weight.transpose(2, 3, 1, 0), "bias": bias}
        case Linear(weight=weight, bias=bias):
            parts = {"kernel": weight.T, "bias": bias}
        case Norm() as norm:
            parts = {"scale": norm.scale, "bias": norm.bias, "mean": norm.mean, "var": norm.variance}
        case _:
            parts = {}
    return {name: np.ascontiguousarray(v, np.float32) for name, v in parts.items() if v is not None}
