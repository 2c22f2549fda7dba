"""A folder tree of image files, split/class/*.jpg, as ImageNet and Tiny-ImageNet are unpacked."""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from data import draw, files, geometry, lazy, listing, pictures
from data.dataset import Dataset
from data.errors import DataError
from data.progress import Progress, silent, watched

NAME = "imagefolder"
# "test" comes before "val", but ImageNet's own test folder has no classes and is passed over.
_FOLDERS = {"train": ("train",), "test": ("test", "val", "validation")}
_ANNOTATIONS = "val_annotations.txt"  # of Tiny-ImageNet: name and class of each image, and its box
_CHECKED = 5000
"""Images whose headers are read before any work: 0.07 ms each of JPEGs of 40 kB on a local disk."""
_SAMPLED = 32
"""Images that tell whether all have one size."""


@dataclass(frozen=True)
class PictureFiles:
    """Files as a source of images.

    Attributes:
      folder: that all lie below.
      names: of the files below it.
      fit: how they are brought to one size.
      offsets: float64 (N, 2), where each is cropped.
      shape: (H, W, C) of every image.
    """

    folder: str
    names: list[str]
    fit: geometry.Geometry
    offsets: np.ndarray
    shape: tuple[int, int, int] = (0, 0, 3)

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        return os.path.join(self.folder, self.names[index])

    def name(self, index: int) -> str:
        """The path, with what is no text in it replaced."""
        return os.fsencode(self.path(index)).decode("utf-8", "replace")

    def read(self, index: int) -> np.ndarray:
        """See `lazy.Source`."""
        return pictures.decode(self.path(index), self.fit, self.offsets[index])

    def identity(self, rows: np.ndarray) -> bytes:
        """See `lazy.Source`: the geometry, and the path below the folder and the size of every file."""
        digest = hashlib.sha256(repr(self.fit).encode())
        for row in rows.tolist():
            try:
                size = os.stat(self.path(row)).st_size
            except OSError:
                size = -1
            digest.update(os.fsencode(self.names[row]) + b"\0%d\0" % size)
        digest.update(self.offsets[rows].tobytes())
        return digest.digest()


def read(
    split: str,
    data_dir: Path,
    fit: geometry.Geometry,
    limit: int | None,
    seed: int,
    progress: Progress = silent,
    keep: int = lazy.KEPT,
) -> Dataset:
    """Return images of one split, uint8 (N, size, size, 3), of which each is decoded when it is asked for.

    Classes are the sub-folders of `train` (of the split itself where there is no `train`), sorted by
    name; images may lie in folders below. Hidden files and files that are not images are passed over.
    The headers of the images are read at once, of at most 5,000 spread over all.

    Args:
      split: "train" or "test"; the latter is found under test, val or validation. Its images may also lie without
        class folders, in val/images, where val/val_annotations.txt names the class of each (Tiny-ImageNet).
      data_dir: the folder above the splits.
      fit: how images are brought to one size; see `geometry.Geometry`.
      limit: how many to draw, balanced over the classes; None for all, in the order of their paths.
      seed: of the draw and of random crops.
      progress: told the share of the headers that are read.
      keep: bytes of decoded images that are kept.

    Raises:
      DataError: no such folder, no classes, a class without images, a class that training lacks, unreadable
        images, images of different sizes (only with `size=None`), or fewer than `limit`.
    """
    folder, found = _listed(split, data_dir)
    _check_filled(folder, found)
    chosen = draw.balanced(found.labels, limit, seed, f"{folder}")
    offsets = fit.offsets(len(found.names), seed)[chosen]
    with pictures.quiet():
        if fit.natural:
            fit = fit.of(_sizes(PictureFiles(str(folder), found.names, fit, offsets)))
        source = PictureFiles(str(folder), [found.names[i] for i in chosen], fit, offsets)
        _check_headers(source, progress)
        source = replace(source, shape=_shape(source))
    return Dataset(
        images=cast(np.ndarray, lazy.LazyImages(source, keep)),
        labels=found.labels[chosen],
        classes=found.classes,
        name=NAME,
        split=split,
        source=str(folder),
    )


def _shape(source: PictureFiles) -> tuple[int, int, int]:
    """(H, W, C) of all images, if the geometry does not say it that of the first."""
    if source.fit.size is not None:
        return source.fit.size, source.fit.size, 3
    try:
        height, width, channels = source.read(0).shape
    except pictures.Unreadable as error:
        raise lazy.unreadable([(source.name(0), str(error))], 1) from error
    return height, width, channels


def _spread(count: int, most: int) -> list[int]:
    """So many of `count` indices, evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int)).tolist()


def _sizes(source: PictureFiles) -> list[tuple[int, int]]:
    """Width and height of some of the images; those that cannot be read are left out."""
    found = []
    for index in _spread(len(source), _SAMPLED):
        with suppress(pictures.Unreadable):
            found.append(pictures.size(source.path(index), source.fit))
    return found


def _check_headers(source: PictureFiles, progress: Progress) -> None:
    """Raise DataError where images cannot be read, as far as their headers tell."""
    checked = _spread(len(source), _CHECKED)

    def reason(index: int) -> str | None:
        try:
            pictures.size(source.path(index), source.fit)
        except pictures.Unreadable as error:
            return str(error)
        return None

    reasons = watched(map(reason, checked), len(checked), progress)
    bad = [(source.name(index), why) for index, why in zip(checked, reasons) if why is not None]
    if bad:
        raise lazy.unreadable(bad, len(checked))


def _listed(split: str, data_dir: Path) -> tuple[Path, listing.Listing]:
    """The folder of a split, and its images with the classes of training."""
    folder, annotations = _split_folder(split, data_dir)
    trained = data_dir / "train"
    if annotations is not None:
        return folder, _annotated(
            folder, annotations, listing.class_folders(trained) if trained.is_dir() else None
        )
    found = listing.of_classes(folder)
    if split != "train" and trained.is_dir():
        classes = listing.class_folders(trained)
        unknown = sorted(set(found.classes) - set(classes))
        if unknown:
            raise DataError(
                f"{folder / unknown[0]} is a class that {trained} does not have; both must have the same "
                "class folders"
            )
        places = np.searchsorted(np.array(classes), np.array(found.classes)).astype(np.int32)
        found = replace(found, classes=classes, labels=places[found.labels])
    return folder, found


def _check_filled(folder: Path, found: listing.Listing) -> None:
    """Raise DataError unless there are classes, and images of each."""
    if not found.classes:
        raise DataError(f"{folder} has no class folders: expected {folder}/CLASS/IMAGE.jpg")
    counts = np.bincount(found.labels, minlength=len(found.classes))
    empty = [found.classes[label] for label in np.flatnonzero(counts == 0)]
    if empty:
        more = f" (and {len(empty) - 1} classes more)" if len(empty) > 1 else ""
        raise DataError(
            f"class {empty[0]}{more} has no images in {folder / empty[0]}: expected files ending in "
            f"{', '.join(pictures.SUFFIXES)}; add some or remove the class from every split"
        )


def _split_folder(split: str, data_dir: Path) -> tuple[Path, Path | None]:
    """The folder with a split's images, and where they have no class folders the file that names their classes."""
    folders = [data_dir / name for name in _FOLDERS[split]]
    for folder in folders:
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{folder} is a file, but a folder with a folder for each class was expected")
    present = [folder for folder in folders if folder.is_dir()]
    if not present:
        raise DataError(
            f"{data_dir} has no folder {' or '.join(_FOLDERS[split])}: expected "
            f"{data_dir}/{_FOLDERS[split][0]}/CLASS/IMAGE.jpg"
        )
    for folder in present:
        if (folder / _ANNOTATIONS).is_file():
            images = folder / "images"
            return images if images.is_dir() else folder, folder / _ANNOTATIONS
    with_classes = [folder for folder in present if listing.class_folders(folder)]
    if not with_classes:
        with_images = [folder for folder in present if listing.flat(folder)]
        for folder in with_images[-1:]:  # ImageNet's val, rather than its test without labels
            raise DataError(
                f"{folder} has images, but no class folders: move them to {folder}/CLASS/, or write "
                f"{folder / _ANNOTATIONS} with a line FILE<TAB>CLASS for each (docs/getting-started.md has the "
                "lines of Python that make it from ImageNet's development kit)"
            )
    return (with_classes or present)[0], None


def _annotated(folder: Path, path: Path, classes: tuple[str, ...] | None) -> listing.Listing:
    """The images directly in `folder`, whose classes a file names."""
    with files.opened(path) as file:
        lines = file.read().decode("utf-8", "replace").splitlines()
    named = dict(parts[:2] for line in lines if len(parts := line.split()) >= 2)
    if classes is None:
        classes = tuple(sorted(set(named.values())))
    names = listing.flat(folder)
    if not names:
        raise DataError(f"{folder} has no images, but {path} names {len(named)}")
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers.get(named.get(name, ""), -1) for name in names], np.int32)
    unknown = np.flatnonzero(labels < 0)
    if unknown.size:
        name = names[int(unknown[0])]
        why = f"a class {named[name]!r}, which training does not have" if name in named else "no class"
        raise DataError(f"{path} gives {name} {why} ({unknown.size} of {len(names)} images are without)")
    order = np.argsort(labels, kind="stable")
    return listing.Listing(classes, [names[i] for i in order], labels[order])
