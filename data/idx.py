"""MNIST and Fashion-MNIST in the IDX format, gzipped or plain."""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from data.dataset import Dataset
from data.errors import DataError
from data.limits import BUDGET

_PREFIX = {"train": "train", "test": "t10k"}
_SIDE = 28
# Deflate cannot shrink data by more than this, so a header that declares more is wrong.
_DEFLATE_RATIO = 1032


@dataclass(frozen=True)
class Idx:
    """A dataset of the family.

    Attributes:
      name: "mnist" or "fashion_mnist".
      classes: its class names.
      folder: the folder searched first, inside data_dir.
      system: folders searched when the user names none.
      page: where its authors publish it.
      first_labels: for each split its first ten labels. All datasets of the family use the same file
        names, and this tells one in the place of another.
    """

    name: str
    classes: tuple[str, ...]
    folder: str
    system: tuple[Path, ...]
    page: str
    first_labels: dict[str, tuple[int, ...]]


MNIST = Idx(
    "mnist",
    tuple("0123456789"),
    "mnist",
    (),
    "yann.lecun.com/exdb/mnist",
    {"train": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4), "test": (7, 2, 1, 0, 4, 1, 4, 9, 5, 9)},
)
FASHION_MNIST = Idx(
    "fashion_mnist",
    (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    "fashion-mnist",
    (Path("/usr/share/datasets/fashion-mnist"),),  # Debian's package dataset-fashion-mnist
    "github.com/zalandoresearch/fashion-mnist",
    {"train": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5), "test": (9, 2, 1, 1, 6, 1, 4, 6, 5, 7)},
)


def read(idx: Idx, split: str, data_dir: Path, *, system: bool) -> Dataset:
    """Return one split, uint8 (N, 28, 28, 1), in the order of the files.

    Args:
      idx: `MNIST` or `FASHION_MNIST`.
      split: "train" or "test".
      data_dir: a folder that holds the four files, or a folder "mnist" or "fashion-mnist" with them.
      system: look where system packages put the files as well.

    Raises:
      DataError: files missing, truncated, damaged, of another kind, or of the other dataset; images and
        labels of different numbers; a label outside the classes.
    """
    folders = (data_dir / idx.folder, data_dir, *(idx.system if system else ()))
    images_path = _find(idx, folders, f"{_PREFIX[split]}-images-idx3-ubyte")
    labels_path = _find(idx, (images_path.parent,), f"{_PREFIX[split]}-labels-idx1-ubyte")
    images = _read_array(images_path, (_SIDE, _SIDE))
    labels = _read_array(labels_path, ())
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} has {len(images)} images, but {labels_path.name} beside it has {len(labels)} labels"
        )
    outside = np.flatnonzero(labels >= len(idx.classes))
    if outside.size:
        first = int(outside[0])
        raise DataError(
            f"{labels_path}: record {first} has the label {int(labels[first])}, but {idx.name} has "
            f"the classes 0 to {len(idx.classes) - 1}"
        )
    for other in (MNIST, FASHION_MNIST):
        if other is not idx and tuple(labels[:10].tolist()) == other.first_labels[split]:
            raise DataError(
                f"{labels_path.parent} holds {other.name}, but {idx.name} was asked for; the two use the "
                f"same file names: keep them in the folders {other.folder} and {idx.folder}"
            )
    return Dataset(
        images=images[..., None],
        labels=labels.astype(np.int32),
        classes=idx.classes,
        name=idx.name,
        split=split,
        source=str(images_path.parent),
    )


def _find(idx: Idx, folders: tuple[Path, ...], name: str) -> Path:
    for folder in folders:
        for path in (folder / f"{name}.gz", folder / name):
            if path.is_file():
                return path
    searched = ", ".join(str(folder) for folder in folders)
    package = " or install Debian's package dataset-fashion-mnist" if idx.system else ""
    raise DataError(
        f"{idx.name} was not found: expected {name}.gz or {name} in {searched}; "
        f"fetch the four files from {idx.page}{package}"
    )


def _read_array(path: Path, item: tuple[int, ...]) -> np.ndarray:
    """Return uint8 (N, *item). The header's sizes are checked before anything is allocated."""
    packed = path.suffix == ".gz"
    size = path.stat().st_size
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            header = file.read(4 * (2 + len(item)))
            shape = _shape(path, header, item)
            expected = math.prod(shape)
            most = size * _DEFLATE_RATIO if packed else size - len(header)
            if expected > min(most, BUDGET.bytes):
                raise DataError(
                    f"{path} is truncated or its header is damaged: the header declares {expected} bytes "
                    f"of data, but the file has {size} bytes"
                )
            raw = np.empty(expected, np.uint8)
            got = _filled(file, raw)
            # Reading past the end also makes gzip check its checksum.
            longer = bool(file.read(1))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} is truncated, damaged or not a gzip file ({error}): it has {size} bytes"
        ) from error
    if got != expected or longer:
        follow = f"more than {expected}" if longer else str(got)
        raise DataError(f"{path}: the header declares {expected} bytes of data, but {follow} follow")
    return raw.reshape(shape)


def _filled(file: BufferedIOBase, into: np.ndarray) -> int:
    """Read into an array until it is full or the file ends, without holding its content twice; how many bytes."""
    got = 0
    while got < len(into) and (part := file.read(min(1 << 20, len(into) - got))):
        into[got : got + len(part)] = np.frombuffer(part, np.uint8)
        got += len(part)
    return got


def _shape(path: Path, header: bytes, item: tuple[int, ...]) -> tuple[int, ...]:
    expected = 0x0800 + 1 + len(item)
    if len(header) < 4 * (2 + len(item)):
        raise DataError(f"{path} is truncated: its header has {len(header)} of {4 * (2 + len(item))} bytes")
    magic, count, *rest = struct.unpack(f">{2 + len(item)}I", header)
    if magic != expected:
        raise DataError(
            f"{path} starts with the magic number {magic}, but {expected} was expected for such a file"
        )
    if tuple(rest) != item:
        raise DataError(f"{path} declares images of {rest}, but {list(item)} were expected")
    if count == 0:
        raise DataError(f"{path} declares no records")
    return (count, *item)
