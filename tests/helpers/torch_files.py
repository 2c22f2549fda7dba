"""PyTorch's files, written by hand and without PyTorch: right ones, and those that nobody should believe."""

import struct
import zipfile
from dataclasses import dataclass
from itertools import count
from typing import Any

import ml_dtypes  # noqa: F401 (names bfloat16)
import numpy as np

from jaxsnn.networks.description import BatchNorm, Conv, ScaleNorm, walk

STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int8": "CharStorage",
    "complex64": "ComplexFloatStorage",
}


MAGIC = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True)
class Named:
    """A global name: "collections OrderedDict"."""

    text: str


@dataclass(frozen=True)
class Called:
    """A call of a global name."""

    name: str
    arguments: tuple


@dataclass(frozen=True)
class Stored:
    """A storage, spoken of by its key."""

    kind: str
    key: str
    count: int
    row: bool = False  # of the format before PyTorch 1.6


def tensor(stored, offset, size, stride):
    """A tensor as it is declared; nothing of it need be true."""
    arguments = (stored, offset, size, stride, False, Called("collections OrderedDict", ()))
    return Called("torch._utils _rebuild_tensor_v2", arguments)


def pickled(value) -> bytes:
    """A value as the operations of a pickle of protocol 2, without its head and its end."""
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if -(1 << 31) <= value < 1 << 31:
            return b"J" + struct.pack("<i", value)
        case int():
            raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(raw)]) + raw
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(pickled, value)) + b"t"
        case list():
            return b"](" + b"".join(map(pickled, value)) + b"e"
        case dict():
            return b"}(" + b"".join(pickled(part) for pair in value.items() for part in pair) + b"u"
        case Named():
            return b"c" + value.text.replace(" ", "\n").encode() + b"\n"
        case Called():
            return pickled(Named(value.name)) + pickled(value.arguments) + b"R"
        case Stored():
            told = ("storage", Named(f"torch {value.kind}"), value.key, "cpu", value.count)
            return pickled((*told, None) if value.row else told) + b"Q"
    raise TypeError(f"no pickle of {type(value).__name__}")


def whole(value) -> bytes:
    """The same with head and end."""
    return b"\x80\x02" + pickled(value) + b"."


def with_tensors(value, raw: dict[str, np.ndarray], numbers, row: bool = False) -> Any:
    """The value with tensors in the place of arrays, whose numbers are put into ``raw``."""
    if isinstance(value, dict):
        return {key: with_tensors(part, raw, numbers, row) for key, part in value.items()}
    if not isinstance(value, np.ndarray):
        return value
    key = str(next(numbers))
    raw[key] = np.ascontiguousarray(value)
    stride = tuple(step // value.itemsize for step in raw[key].reshape(value.shape).strides)
    return tensor(Stored(STORAGES[value.dtype.name], key, value.size, row), 0, value.shape, stride)


def ordered(array: np.ndarray, order: str) -> bytes:
    """The numbers of an array in a byte order."""
    words = array.reshape(-1).view(f"u{min(array.itemsize, 8)}")
    return words.astype(words.dtype.newbyteorder("<" if order == "little" else ">")).tobytes()


def save(path, content, order="little", storages=None):
    """Write ``content`` (dicts with arrays, and what ``pickled`` takes) as torch.save does; returns the path.

    Args:
        storages: further records, bytes by key.
    """
    raw: dict[str, np.ndarray] = {}
    value = with_tensors(content, raw, count())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", whole(value))
        archive.writestr("archive/byteorder", order)
        for key, array in raw.items():
            archive.writestr(f"archive/data/{key}", ordered(array, order))
        for key, held in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", held)
        archive.writestr("archive/version", "3\n")
    return path


def save_row(path, content, order="little"):
    """Write ``content`` as torch.save did before PyTorch 1.6; returns the path."""
    raw: dict[str, np.ndarray] = {}
    value = with_tensors(content, raw, count(), row=True)
    machine = {"protocol_version": 1001, "little_endian": order == "little", "type_sizes": {"int": 4}}
    parts = [whole(part) for part in (MAGIC, 1001, machine, value, list(raw))]
    for array in raw.values():
        parts += [array.size.to_bytes(8, order), ordered(array, order)]
    path.write_bytes(b"".join(parts))
    return path


PARTS = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


def state_dict(network, params, names=None):
    """Parameters as PyTorch has them; ``names`` of modules by op, else their numbers in order of evaluation."""
    tensors = {}
    for index, (op, shape) in enumerate((op, s) for _, _, op, s in walk(network) if hasattr(op, "name")):
        name = str(index) if names is None else names[op.name]
        if isinstance(op, BatchNorm | ScaleNorm):
            zeros = np.zeros(shape[-1], np.float32)
            tensors |= {f"{name}.{part}": params.get(f"{op.name}.{ours}", zeros) for part, ours in PARTS.items()}
            continue
        kernel = params[f"{op.name}.kernel"]
        if not isinstance(op, Conv):
            kernel = kernel.reshape(*(shape if len(shape) == 3 else (1, 1, *shape)), -1)
        weight = np.einsum("hwio->oihw", kernel)
        tensors[f"{name}.weight"] = weight if isinstance(op, Conv) else weight.reshape(op.features, -1)
        if op.bias:
            tensors[f"{name}.bias"] = params[f"{op.name}.bias"]
    return {key: np.ascontiguousarray(value) for key, value in tensors.items()}
