"""The small computations on constants that exporters write into an ONNX file, mostly around a reshape."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxsnn.errors import UserError

LARGEST = 2**16
"""Numbers that a computed constant may have; weights themselves are not computed."""
_KEPT = {1: np.float32, 6: np.int32, 7: np.int64, 10: np.float32, 11: np.float64}
"""Types of a Cast that leave numbers as they are."""


def _arrays(inputs: list[Any], name: str) -> list[np.ndarray]:
    arrays = [np.asarray(value) for value in inputs if value is not None]
    if sum(array.size for array in arrays) > LARGEST:
        raise UserError(f"{name} computes a weight from others, which is not converted: fold constants on export")
    return arrays


def _constant(inputs: list[Any], attributes: dict[str, Any], name: str) -> np.ndarray:
    for key, dtype in (("value", None), ("value_int", np.int64), ("value_ints", np.int64)):
        if key in attributes:
            return np.asarray(attributes[key], dtype)
    for key in ("value_float", "value_floats"):
        if key in attributes:
            return np.asarray(attributes[key], np.float32)
    raise UserError(f"{name} is a constant of a kind that is not read")


def _gather(inputs: list[Any], attributes: dict[str, Any], name: str) -> np.ndarray:
    array, indices = _arrays(inputs, name)
    return np.take(array, indices, attributes.get("axis", 0))


def _concat(inputs: list[Any], attributes: dict[str, Any], name: str) -> np.ndarray:
    return np.concatenate(_arrays(inputs, name), attributes.get("axis", 0))


def _slice(inputs: list[Any], attributes: dict[str, Any], name: str) -> np.ndarray:
    array, starts, ends, *rest = _arrays(inputs, name)
    axes = rest[0] if rest else np.arange(len(starts))
    steps = rest[1] if len(rest) > 1 else np.ones(len(starts), np.int64)
    cut = [slice(None)] * array.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps):
        cut[int(axis)] = slice(int(start), int(end), int(step))
    return array[tuple(cut)]


def _cast(inputs: list[Any], attributes: dict[str, Any], name: str) -> np.ndarray:
    (array,) = _arrays(inputs, name)
    if attributes.get("to") not in _KEPT:
        raise UserError(f"{name} turns constants into a type that is not read")
    return array.astype(_KEPT[attributes["to"]])


def _axes(inputs: list[Any], attributes: dict[str, Any]) -> Any:
    return inputs[1] if len(inputs) > 1 else attributes.get("axes", [])


def _unsqueeze(inputs: list[Any], attributes: dict[str, Any], name: str) -> np.ndarray:
    return np.expand_dims(_arrays(inputs[:1], name)[0], tuple(int(a) for a in np.ravel(_axes(inputs, attributes))))


def _squeeze(inputs: list[Any], attributes: dict[str, Any], name: str) -> np.ndarray:
    axes = tuple(int(a) for a in np.ravel(_axes(inputs, attributes)))
    return np.squeeze(_arrays(inputs[:1], name)[0], axes or None)


def _reshape(inputs: list[Any], attributes: dict[str, Any], name: str) -> np.ndarray:
    return np.asarray(inputs[0]).reshape([int(size) for size in np.ravel(inputs[1])])


def _transpose(inputs: list[Any], attributes: dict[str, Any], name: str) -> np.ndarray:
    return np.asarray(inputs[0]).transpose(attributes.get("perm"))


def _filled(inputs: list[Any], attributes: dict[str, Any], name: str) -> np.ndarray:
    shape = [int(size) for size in np.ravel(inputs[0])]
    if math.prod(shape) > LARGEST or min(shape, default=1) < 0:
        raise UserError(f"{name} makes a constant of shape {tuple(shape)}, which is too large")
    value = np.asarray(attributes.get("value", np.float32(0)))
    return np.full(shape, value.item(), value.dtype)


def _pairwise(compute: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    def add(inputs: list[Any], attributes: dict[str, Any], name: str) -> np.ndarray:
        one, other = _arrays(inputs, name)
        if math.prod(np.broadcast_shapes(one.shape, other.shape)) > LARGEST:
            raise UserError(f"{name} makes a constant that is too large")
        with np.errstate(all="ignore"):  # what is not finite is refused where it becomes a weight
            return compute(one, other)

    return add


def _divided(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    whole = np.issubdtype(one.dtype, np.integer) and np.issubdtype(other.dtype, np.integer)
    return one // other if whole else one / other


def _same(inputs: list[Any], attributes: dict[str, Any], name: str) -> np.ndarray:
    return np.asarray(inputs[0])


CONSTANT_OPS: dict[str, Callable[[list[Any], dict[str, Any], str], np.ndarray]] = {
    "Constant": _constant,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Cast": _cast,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "ConstantOfShape": _filled,
    "Identity": _same,
    "Add": _pairwise(np.add),
    "Sub": _pairwise(np.subtract),
    "Mul": _pairwise(np.multiply),
    "Div": _pairwise(_divided),
    "Shape": lambda inputs, attributes, name: np.array(np.shape(inputs[0]), np.int64),
}
"""Operations on constants alone."""
