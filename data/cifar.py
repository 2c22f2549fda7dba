"""CIFAR-10 and CIFAR-100 in their official binary and Python (pickle) layouts, packed or not."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data import archive, safe_pickle
from data.dataset import Dataset
from data.errors import DataError
from data.progress import Progress, silent, watched

_PAGE = "www.cs.toronto.edu/~kriz/cifar.html"
_PIXELS = 3 * 32 * 32

_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR10_CLASSES = tuple(_CIFAR10.split())
# The fine classes; their index is their place in the alphabet.
_CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel
    can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
    dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion
    lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree
    pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea
    seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table
    tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman
    worm
"""
CIFAR100_CLASSES = tuple(_CIFAR100.split())


@dataclass(frozen=True)
class Layout:
    """One of the forms the authors publish a dataset in.

    Attributes:
      archive: the published file.
      folder: the folder inside it.
      members: for each split the names of its files in that folder.
      records: for each split the images in each of its files.
      label: binary layout: (bytes in front of the pixels, which of them is the label);
        Python layout: the key of the labels.
    """

    archive: archive.Archive
    folder: str
    members: Mapping[str, tuple[str, ...]]
    records: Mapping[str, int]
    label: tuple[int, int] | bytes


@dataclass(frozen=True)
class Cifar:
    """A dataset of the family: its classes and the layouts to look for, in this order."""

    name: str
    classes: tuple[str, ...]
    layouts: tuple[Layout, ...]


CIFAR10 = Cifar(
    "cifar10",
    CIFAR10_CLASSES,
    (
        Layout(
            archive.Archive("cifar-10-binary.tar.gz", 170052171, "c32a1d4ab5d03f1284b67883e8d87530", _PAGE),
            "cifar-10-batches-bin",
            {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
            {"train": 10000, "test": 10000},
            (1, 0),
        ),
        Layout(
            archive.Archive("cifar-10-python.tar.gz", 170498071, "c58f30108f718f92721af3b95e74349a", _PAGE),
            "cifar-10-batches-py",
            {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
            {"train": 10000, "test": 10000},
            b"labels",
        ),
    ),
)

CIFAR100 = Cifar(
    "cifar100",
    CIFAR100_CLASSES,
    (
        Layout(
            archive.Archive("cifar-100-binary.tar.gz", 168513733, "03b5dce01913d631647c71ecec9e9cb8", _PAGE),
            "cifar-100-binary",
            {"train": ("train.bin",), "test": ("test.bin",)},
            {"train": 50000, "test": 10000},
            (2, 1),
        ),
        Layout(
            archive.Archive("cifar-100-python.tar.gz", 169001437, "eb9058c3a382ffc7106e4002c42a8d85", _PAGE),
            "cifar-100-python",
            {"train": ("train",), "test": ("test",)},
            {"train": 50000, "test": 10000},
            b"fine_labels",
        ),
    ),
)


def read(cifar: Cifar, split: str, data_dir: Path, progress: Progress = silent) -> Dataset:
    """Return one split, uint8 (N, 32, 32, 3), in the order of the files.

    An unpacked folder is preferred to an archive, and the binary layout to the Python one.

    Args:
      cifar: `CIFAR10` or `CIFAR100`.
      split: "train" or "test".
      data_dir: a folder that holds an archive or an unpacked folder under its official name, or that
        unpacked folder itself.
      progress: told the share of the files that are decoded.

    Raises:
      DataError: nothing of that found; a file missing, truncated or damaged; a label outside the classes.
    """
    for layout in cifar.layouts:
        folder = _unpacked(layout, data_dir)
        if folder is not None:
            return _decode(cifar, layout, split, _read_folder(layout, split, folder), str(folder), progress)
    for layout in cifar.layouts:
        path = data_dir / layout.archive.name
        if path.is_file():
            limits = {f"{layout.folder}/{name}": _most_bytes(layout, split) for name in layout.members[split]}
            contents = archive.read_members(path, layout.archive, limits)
            return _decode(cifar, layout, split, [contents[name] for name in limits], str(path), progress)
    archives = " or ".join(layout.archive.describe() for layout in cifar.layouts)
    folders = " or ".join(layout.folder for layout in cifar.layouts)
    raise DataError(
        f"{cifar.name} was not found in {data_dir}: expected {archives}, or one of them unpacked as "
        f"{folders}; put one there or give the folder that has it"
    )


def _unpacked(layout: Layout, data_dir: Path) -> Path | None:
    if data_dir.name == layout.folder or (data_dir / layout.members["train"][0]).is_file():
        return data_dir
    folder = data_dir / layout.folder
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file, but the folder unpacked from {layout.archive.name} was expected")
    return folder if folder.is_dir() else None


def _read_folder(layout: Layout, split: str, folder: Path) -> list[bytes]:
    contents = []
    for name in layout.members[split]:
        path = folder / name
        if not path.is_file():
            raise DataError(f"{folder} has no file {name}: unpack {layout.archive.describe()} again")
        size, most = path.stat().st_size, _most_bytes(layout, split)
        if size > most:
            raise DataError(f"{path} has {size} bytes, but at most {most} were expected")
        contents.append(path.read_bytes())
    return contents


def _most_bytes(layout: Layout, split: str) -> int:
    records = layout.records[split]
    if isinstance(layout.label, tuple):
        return records * (layout.label[0] + _PIXELS)
    # Besides its pixels a record has two labels and a file name, of some 40 bytes in the official files;
    # pickled again by Python 3 in protocol 2, pixels above 127 take two bytes each.
    return (records + 1) * (2 * _PIXELS + 1024)


def _decode(
    cifar: Cifar, layout: Layout, split: str, contents: list[bytes], source: str, progress: Progress
) -> Dataset:
    label = layout.label
    planes, labels = [], []
    files = list(zip(layout.members[split], contents, strict=True))
    for name, raw in watched(files, len(files), progress):
        where = f"{name} in {source}"
        if isinstance(label, tuple):
            file_planes, file_labels = _decode_binary(layout, label, layout.records[split], raw, where)
        else:
            file_planes, file_labels = _decode_pickle(layout, label, layout.records[split], raw, where)
        outside = np.flatnonzero((file_labels < 0) | (file_labels >= len(cifar.classes)))
        if outside.size:
            first = int(outside[0])
            raise DataError(
                f"{where}: record {first} has the label {int(file_labels[first])}, but {cifar.name} has "
                f"the classes 0 to {len(cifar.classes) - 1}; fetch {layout.archive.describe()} again"
            )
        planes.append(file_planes)
        labels.append(file_labels)
    images = np.concatenate(planes).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Dataset(
        images=np.ascontiguousarray(images),
        labels=np.concatenate(labels).astype(np.int32),
        classes=cifar.classes,
        name=cifar.name,
        split=split,
        source=source,
    )


def _decode_binary(
    layout: Layout, label: tuple[int, int], records: int, raw: bytes, where: str
) -> tuple[np.ndarray, np.ndarray]:
    before, place = label
    expected = records * (before + _PIXELS)
    if len(raw) != expected:
        state = "truncated" if len(raw) < expected else "too long"
        raise DataError(
            f"{where} is {state}: it has {len(raw)} bytes, but {records} records of "
            f"{before + _PIXELS} bytes, {expected} bytes in all, were expected; "
            f"fetch {layout.archive.describe()} again"
        )
    table = np.frombuffer(raw, np.uint8).reshape(records, before + _PIXELS)
    return table[:, before:], table[:, place].astype(np.int64)


def _decode_pickle(
    layout: Layout, label: bytes, records: int, raw: bytes, where: str
) -> tuple[np.ndarray, np.ndarray]:
    again = f"fetch {layout.archive.describe()} again"
    try:
        batch = safe_pickle.loads(raw)
    except safe_pickle.RefusedPickle as error:
        raise DataError(f"{where} ({len(raw)} bytes) was refused: {error}; {again}") from error
    if not isinstance(batch, dict):
        raise DataError(f"{where} holds a {type(batch).__name__} where a dict was expected; {again}")
    planes = _entry(batch, b"data")
    labels = _entry(batch, label)
    if not isinstance(planes, np.ndarray) or planes.shape != (records, _PIXELS):
        shape = planes.shape if isinstance(planes, np.ndarray) else type(planes).__name__
        raise DataError(
            f"{where}: 'data' is {shape}, but a uint8 array ({records}, {_PIXELS}) was expected; {again}"
        )
    key = label.decode()
    if not isinstance(labels, list) or not all(type(entry) is int for entry in labels):
        raise DataError(f"{where}: '{key}' is not a list of integers; {again}")
    if len(labels) != records:
        raise DataError(f"{where}: '{key}' has {len(labels)} entries, but {records} were expected; {again}")
    try:
        return planes, np.array(labels, np.int64)
    except OverflowError as error:
        raise DataError(f"{where}: '{key}' has a number too large for a label; {again}") from error


def _entry(batch: dict, key: bytes) -> Any:
    """Return the entry under `key`, bytes in the official files, str in copies written by Python 3."""
    return batch.get(key, batch.get(key.decode()))
