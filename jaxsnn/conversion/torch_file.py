"""PyTorch's files (.pt, .pth) without PyTorch: the container, and its tensors as arrays.

Since PyTorch 1.6 a file is a zip archive, packed by nothing: one pickle (``data.pkl``) says which tensors there
are, and every storage is a record of raw numbers. Before, it was a row of pickles and then the storages. Either is
mapped into memory, and every size that it declares is compared with the file's before anything is allocated.
"""

import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxsnn.conversion.torch_pickle import Damaged, ForeignObject, Interpreter, Tensor
from jaxsnn.errors import UserError

EXPORT = "torch.save(model.state_dict(), path)"
"""What makes a file that can be read."""


MAGIC = 0x1950A86A20F9469CFC6C
"""The first number of a file from before PyTorch 1.6."""


_ARCHIVE, _PICKLE = b"PK\x03\x04", b"\x80"


_KINDS = {"bfloat16": np.dtype(ml_dtypes.bfloat16)} | {
    kind: np.dtype(kind)
    for kind in (
        *("float16", "float32", "float64", "bool", "complex64", "complex128"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
}


_SIZES = {"bytes": 1, "qint8": 1, "quint8": 1, "qint32": 4}
"""Bytes of a number of which no arrays are made."""


@dataclass(frozen=True)
class TorchFile:
    """What a file holds: ``content`` as ``jaxsnn.conversion.torch_pickle`` describes it, and its storages.

    Attributes:
        raw: the bytes of a storage by its key; raises ``Damaged`` where there are none, or others than written.
        swapped: numbers are in the byte order that this machine does not have.
    """

    path: Path
    content: Any
    raw: Callable[[str], memoryview]
    swapped: bool

    def array(self, key: str, tensor: Tensor) -> np.ndarray:
        """A tensor of the file, which is called ``key``, copied.

        Raises:
            UserError: of a layout or type that has no arrays, or it reaches beyond what its storage holds.
        """
        kind = _KINDS.get(tensor.kind)
        if tensor.layout != "strided" or tensor.storage is None or kind is None:
            what = f"{tensor.layout} tensor" if tensor.layout != "strided" else f"tensor of {tensor.kind}"
            raise UserError(f"{self.path}: {key:.100} is a {what}, expected plain floating-point numbers")
        try:
            raw = self.raw(tensor.storage.key)
        except Damaged as error:
            raise UserError(damaged(self.path)) from error
        held = len(raw) // kind.itemsize
        count = math.prod(tensor.size)
        last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride)) if count else 0
        # a stride of 0 repeats numbers, so that few bytes would stand for any number of them
        if count > held or last >= max(held, 1) or math.prod(n or 1 for n in tensor.size) >> 48:
            raise UserError(
                f"{self.path}: {key:.100} has the shape {tensor.size}, but its storage holds {held} numbers"
            )
        if not count:
            return np.empty(tensor.size, kind)
        words = np.frombuffer(raw, kind if kind.kind == "c" else f"u{kind.itemsize}", held)
        words = words.byteswap() if self.swapped else words
        strides = [step * kind.itemsize for step in tensor.stride]
        return np.ndarray(tensor.size, kind, words, tensor.offset * kind.itemsize, strides).copy()


def read_torch_file(path: Path) -> TorchFile:
    """Read what a PyTorch file says; its tensors are read with ``TorchFile.array``.

    Raises:
        UserError: not a PyTorch file, a damaged one, or one that holds Python objects.
    """
    with path.open("rb") as file:
        start = file.read(4)
        if start != _ARCHIVE and start[:1] != _PICKLE:
            raise UserError(no_torch_file(path))
        held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return _read_archive(path, held) if start == _ARCHIVE else _read_row(path, held)
    except ForeignObject as error:
        raise UserError(
            f"{path} holds a pickled module or other Python objects ({error}), which could run code and are not "
            f"read: in PyTorch, save tensors only, {EXPORT}, or the module as a program, "
            'torch.export.save(torch.export.export(model.eval(), (example,)), "model.pt2")'
        ) from error
    except Damaged as error:
        raise UserError(damaged(path)) from error


def damaged(path: Path) -> str:
    """The sentence for a file whose content is not what was written."""
    return f"{path} is a PyTorch file that is cut short or damaged: copy it again"


def no_torch_file(path: Path) -> str:
    """The sentence for another file."""
    return f"{path} is not a PyTorch file: save one with {EXPORT}"


def _read_archive(path: Path, held: mmap.mmap) -> TorchFile:
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, EOFError, struct.error) as error:
        raise Damaged(str(error)) from error
    # a TorchScript archive packs its source code, which is not read
    declared = sum(record.file_size for record in records if "/code/" not in record.filename)
    if declared > len(held):
        raise UserError(f"{path} declares {declared} bytes, but has {len(held)}: PyTorch wrote no such file")
    by_name = {record.filename: record for record in records}
    top = next(
        (name.removesuffix("data.pkl") for name in by_name if name.count("/") < 2 and _is_pickle(name)), None
    )
    if top is None:
        raise UserError(no_torch_file(path))
    order = bytes(_record(held, by_name[f"{top}byteorder"])) if f"{top}byteorder" in by_name else b"little"
    interpreter = Interpreter()
    content = interpreter.load(BytesIO(_record(held, by_name[f"{top}data.pkl"])))

    def raw(key: str) -> memoryview:
        if f"{top}data/{key}" not in by_name:
            raise Damaged(f"no storage {key:.40}")
        return _record(held, by_name[f"{top}data/{key}"])

    return TorchFile(path, content, raw, _swapped(order == b"little"))


def _is_pickle(name: str) -> bool:
    return name == "data.pkl" or name.endswith("/data.pkl")


def _record(held: mmap.mmap, record: zipfile.ZipInfo) -> memoryview:
    """The bytes of an unpacked record, whose checksum is compared where there is one."""
    head = held[record.header_offset : record.header_offset + 30]
    if len(head) < 30 or head[:4] != _ARCHIVE or record.compress_type != zipfile.ZIP_STORED:
        raise Damaged("a record that PyTorch does not write")
    start = record.header_offset + 30 + sum(struct.unpack("<HH", head[26:]))
    content = memoryview(held)[start : start + record.file_size]
    if len(content) < record.file_size:
        raise Damaged("a record that is cut short")
    # torch.serialization.set_crc32_options(False) writes zeros
    if record.CRC and zlib.crc32(content) != record.CRC:
        raise Damaged("a record with another checksum")
    return content


def _read_row(path: Path, held: mmap.mmap) -> TorchFile:
    """A file from before PyTorch 1.6: five pickles, then for each storage its count and its numbers."""
    interpreter = Interpreter()
    if interpreter.load(held) != MAGIC:
        raise UserError(no_torch_file(path))
    interpreter.load(held)  # the version of the format
    machine = interpreter.load(held)
    content, keys = interpreter.load(held), interpreter.load(held)
    little = not isinstance(machine, dict) or machine.get("little_endian") is not False
    places: dict[str, slice] = {}
    at = held.tell()
    for key in keys if isinstance(keys, list) else ():
        storage = interpreter.storages.get(key) if isinstance(key, str) else None
        count = int.from_bytes(held[at : at + 8], "little" if little else "big")
        if storage is None or count != storage.count:
            raise Damaged("a storage that nothing needs")
        end = at + 8 + count * (_SIZES[storage.kind] if storage.kind in _SIZES else _KINDS[storage.kind].itemsize)
        places[key], at = slice(at + 8, end), end
    if at > len(held):
        raise Damaged("a storage that is cut short")

    def raw(key: str) -> memoryview:
        if key not in places:
            raise Damaged(f"no storage {key:.40}")
        return memoryview(held)[places[key]]

    return TorchFile(path, content, raw, _swapped(little))


def _swapped(little: bool) -> bool:
    return little != (np.dtype("<i4") == np.dtype("=i4"))
