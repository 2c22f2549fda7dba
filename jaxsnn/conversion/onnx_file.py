"""ONNX files as plain data: a reader of the few protobuf messages that a model needs.

A protobuf message is a row of fields, each a number, a type of encoding and a value; nothing in it can run.
Lengths are checked against what is left of the file before anything is taken, and arrays against their bytes.
Field numbers are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxsnn.errors import UserError

Fields = dict[int, list[Any]]
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TYPES: dict[int, Any] = {
    1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_,
    10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64, 16: ml_dtypes.bfloat16,
}  # fmt: skip
"""NumPy's types by ONNX's numbers."""
_FLOAT_DATA, _INT32_DATA, _INT64_DATA, _DOUBLE_DATA = 4, 5, 7, 10
_EXTERNAL = 1


@dataclass(frozen=True, eq=False)
class OnnxNode:
    """One operation; ``attributes`` by name, an array where it is a tensor."""

    kind: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """The graph of a file.

    Attributes:
        opset: version of the standard operations.
        inputs: shapes by name, None for a size that is left open; without those that have an initial value.
        constants: the file's arrays by name.
    """

    opset: int
    nodes: tuple[OnnxNode, ...]
    inputs: dict[str, tuple[int | None, ...]]
    outputs: tuple[str, ...]
    constants: dict[str, np.ndarray]


def read_onnx(path: Path) -> OnnxModel:
    """The model in a file; raises ``UserError`` or ``ValueError`` where it is none, or its sizes are not true."""
    model = _fields(memoryview(path.read_bytes()))
    opsets = {_text(_first(o, 1, b"")): _first(o, 2, 0) for o in map(_fields, model.get(8, []))}
    graphs = model.get(7, [])
    if len(graphs) != 1 or not opsets:
        raise ValueError("it holds no graph")
    graph = _fields(graphs[0])
    if 15 in graph:
        raise UserError(f"{path} holds sparse weights, which are not read: make them dense")
    constants = {}
    for message in graph.get(5, []):
        name, array = _tensor(message, path)
        constants[name] = array
    inputs = dict(map(_input, graph.get(11, [])))
    return OnnxModel(
        opsets.get("", opsets.get("ai.onnx", 0)),
        tuple(_node(message, path) for message in graph.get(1, [])),
        {name: shape for name, shape in inputs.items() if name not in constants},
        tuple(_text(_first(_fields(message), 1, b"")) for message in graph.get(12, [])),
        constants,
    )


def _fields(data: memoryview) -> Fields:
    """A message's fields by number, in their order."""
    found: Fields = {}
    for number, value in _each_field(data):
        found.setdefault(number, []).append(value)
    return found


def _each_field(data: memoryview) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
        elif kind in (_FIXED32, _FIXED64, _BYTES):
            size = 4 if kind == _FIXED32 else 8
            if kind == _BYTES:
                size, at = _varint(data, at)
            if not 0 <= size <= len(data) - at:
                raise ValueError("it is cut short")
            value, at = data[at : at + size], at + size
        else:
            raise ValueError("it is no row of protobuf fields")
        yield number, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A whole number of up to 64 bits, least significant seven bits first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            value &= 2**64 - 1
            return (value - 2**64 if value >= 2**63 else value), at
    raise ValueError("a number in it has more than 64 bits")


def _first(fields: Fields, number: int, usual: Any) -> Any:
    return fields[number][-1] if number in fields else usual


def _text(value: Any) -> str:
    if not isinstance(value, memoryview | bytes):
        raise ValueError("a name in it is a number")
    return bytes(value).decode()


def _numbers(values: list[Any]) -> list[int]:
    """Whole numbers, one a field or several packed into one."""
    found = []
    for value in values:
        if isinstance(value, int):
            found.append(value)
            continue
        at = 0
        while at < len(value):
            number, at = _varint(value, at)
            found.append(number)
    return found


def _packed(values: list[Any], dtype: Any) -> np.ndarray:
    """Numbers of a fixed size, one a field or several packed into one."""
    return np.frombuffer(b"".join(bytes(value) for value in values), dtype)


def _input(message: memoryview) -> tuple[str, tuple[int | None, ...]]:
    fields = _fields(message)
    tensor = _first(_fields(_first(fields, 2, memoryview(b""))), 1, memoryview(b""))
    shape = _first(_fields(tensor), 2, memoryview(b""))
    sizes = [_first(_fields(dim), 1, None) for dim in _fields(shape).get(1, [])]
    return _text(_first(fields, 1, b"")), tuple(size if size and size > 0 else None for size in sizes)


def _node(message: memoryview, path: Path) -> OnnxNode:
    fields = _fields(message)
    inputs, outputs = (tuple(_text(value) for value in fields.get(number, [])) for number in (1, 2))
    kind, name, domain = (_text(_first(fields, number, b"")) for number in (4, 3, 7))
    attributes = dict(_attribute(value, path) for value in fields.get(5, []))
    return OnnxNode(kind, domain, name, inputs, outputs, attributes)


def _attribute(message: memoryview, path: Path) -> tuple[str, Any]:
    fields = _fields(message)
    name = _text(_first(fields, 1, b""))
    if 5 in fields:
        return name, _tensor(fields[5][-1], path)[1]
    if 7 in fields:
        return name, _packed(fields[7], "<f4").tolist()
    if 8 in fields:
        return name, _numbers(fields[8])
    if 9 in fields:
        return name, [_text(value) for value in fields[9]]
    if 2 in fields:
        return name, struct.unpack("<f", fields[2][-1])[0]
    if 4 in fields:
        return name, _text(fields[4][-1])
    if 6 in fields:
        return name, "a graph of its own"
    # a number, or an empty list, which AttributeProto.type (20) tells apart: 6 and 7 are lists
    return name, [] if _first(fields, 20, 0) in (6, 7, 8) else _first(fields, 3, 0)


def _tensor(message: memoryview, path: Path) -> tuple[str, np.ndarray]:
    fields = _fields(message)
    name = _text(_first(fields, 8, b""))
    shape = tuple(_numbers(fields.get(1, [])))
    number = _first(fields, 2, 0)
    if number not in _TYPES or any(size < 0 for size in shape):
        raise UserError(f"{path}: {name or 'a constant'} is of a type or shape that is not read")
    dtype = np.dtype(_TYPES[number])
    if _first(fields, 14, 0) == _EXTERNAL:
        content: Any = _external(fields, name, math.prod(shape) * dtype.itemsize, path)
        values = np.frombuffer(content, dtype.newbyteorder("<") if dtype.kind in "iuf" else dtype)
    elif 9 in fields:
        content = fields[9][-1]
        if len(content) % dtype.itemsize:
            raise ValueError(f"{name} is cut short")
        values = np.frombuffer(content, dtype)
    else:
        values = _typed(fields, dtype)
    if values.size != math.prod(shape):
        raise UserError(f"{path} says that {name} has shape {shape}, but holds {values.size} numbers for it")
    return name, values.reshape(shape)


def _typed(fields: Fields, dtype: np.dtype) -> np.ndarray:
    """Numbers that stand in the fields of their type."""
    if dtype == np.float32:
        return _packed(fields.get(_FLOAT_DATA, []), "<f4")
    if dtype == np.float64:
        return _packed(fields.get(_DOUBLE_DATA, []), "<f8")
    if dtype == np.int64:
        return np.array(_numbers(fields.get(_INT64_DATA, [])), np.int64)
    whole = np.array(_numbers(fields.get(_INT32_DATA, [])), np.int64)
    if dtype.itemsize == 2 and dtype.kind not in "iu":  # half precision is stored as its bits
        return whole.astype(np.uint16).view(dtype)
    return whole.astype(dtype)


def _external(fields: Fields, name: str, size: int, path: Path) -> bytes:
    """The bytes of an array that lie in a file of their own, in the model's folder or below."""
    entries = [_fields(entry) for entry in fields.get(13, [])]
    found = {_text(_first(entry, 1, b"")): _text(_first(entry, 2, b"")) for entry in entries}
    location, folder = found.get("location", ""), path.resolve().parent
    file = (folder / location).resolve()
    if not location or not file.is_relative_to(folder) or not file.is_file():
        raise UserError(
            f"{path} says that {name} lies in {location!r}, which is no file in its own folder: put the two "
            "side by side"
        )
    start, length = int(found.get("offset", 0)), int(found.get("length", size))
    if length != size or start < 0 or start + size > file.stat().st_size:
        raise UserError(f"{path} says that {name} has {size} bytes in {location}, which holds fewer")
    with file.open("rb") as stream:
        stream.seek(start)
        return stream.read(size)
