"""A folder tree of image files, split/class/*.jpg, as ImageNet is unpacked."""

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from data import draw, geometry
from data.dataset import Dataset
from data.errors import DataError
from data.progress import Progress, silent, watched

NAME = "imagefolder"
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
# 200 MB as RGB; the largest image of ImageNet has 61 million. A file of a few bytes can declare any number.
_MOST_PIXELS = 1 << 26
# "test" comes before "val", but ImageNet's own test folder has no classes and is passed over.
_FOLDERS = {"train": ("train",), "test": ("test", "val", "validation")}


def read(
    split: str,
    data_dir: Path,
    fit: geometry.Geometry,
    limit: int | None,
    seed: int,
    progress: Progress = silent,
) -> Dataset:
    """Return images of one split, uint8 (N, size, size, 3); only those drawn are opened.

    Classes are the sub-folders of `train` (of the split itself where there is no `train`), sorted by
    name; images may lie in folders below. Hidden files and files that are not images are passed over.

    Args:
      split: "train" or "test"; the latter is found under test, val or validation.
      data_dir: the folder above the splits.
      fit: how images are brought to one size.
      limit: how many to draw, balanced over the classes; None for all, in the order of their paths.
      seed: of the draw and of random crops.
      progress: told the share of the images that are decoded.

    Raises:
      DataError: no such folder, no classes, a class without images, a class that training lacks, an
        unreadable image, images of different sizes (only with `size=None`), or fewer than `limit`.
    """
    folder = _split_folder(split, data_dir)
    classes = _classes(folder)
    if split != "train" and (data_dir / "train").is_dir():
        trained = _classes(data_dir / "train")
        unknown = sorted(set(classes) - set(trained))
        if unknown:
            raise DataError(
                f"{folder / unknown[0]} is a class that {data_dir / 'train'} does not have; "
                f"both must have the same class folders"
            )
        classes = trained
    if not classes:
        raise DataError(f"{folder} has no class folders: expected {folder}/CLASS/IMAGE.jpg")
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(_images(folder / name))
        if not found:
            raise DataError(
                f"class {name} has no images in {folder / name}: expected files ending in "
                f"{', '.join(_SUFFIXES)}; add some or remove the class from every split"
            )
        paths += found
        labels += [label] * len(found)
    every = np.array(labels, np.int32)
    chosen = draw.balanced(every, limit, seed, f"{folder}")
    offsets = fit.offsets(len(paths), seed)[chosen]
    names = [paths[i] for i in chosen]
    with ThreadPoolExecutor() as pool:
        opened = pool.map(lambda name, offset: _open(name, fit, offset), names, offsets)
        images = geometry.stack(watched(opened, len(names), progress), names)
    return Dataset(
        images=images, labels=every[chosen], classes=classes, name=NAME, split=split, source=str(folder)
    )


def _split_folder(split: str, data_dir: Path) -> Path:
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
    with_classes = [folder for folder in present if _classes(folder)]
    return (with_classes or present)[0]


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(
        sorted(item.name for item in os.scandir(folder) if item.is_dir() and not item.name.startswith("."))
    )


def _images(folder: Path) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.lower().endswith(_SUFFIXES) and not name.startswith("."):
                yield os.path.join(parent, name)


def _open(path: str, fit: geometry.Geometry, offset: np.ndarray) -> np.ndarray:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own of large or odd files: what counts is said below
            opened = Image.open(path)  # which reads no further than the size
        with opened as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError(f"it declares {image.width} x {image.height} pixels, more than {_MOST_PIXELS}")
            return fit.fit(image, offset)
    except Exception as error:  # Pillow's decoders raise many kinds, from OSError to SyntaxError
        raise DataError(
            f"{path} cannot be read as an image ({type(error).__name__}: {error}): replace or remove it"
        ) from error
