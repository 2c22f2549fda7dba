"""Finding a dataset by its name."""

import difflib
import os
from functools import partial
from pathlib import Path
from typing import Literal

from data import cifar, draw, embedded_subset, folder, idx, tfds
from data.dataset import Dataset
from data.errors import DataError
from data.geometry import Geometry
from data.lazy import KEPT
from data.progress import Progress, silent

NAMES = ("embedded", "cifar10", "cifar100", "fashion_mnist", "mnist", "imagefolder")
_VALIDATION = ("val", "validation")


def default_data_dir() -> Path:
    """Return the folder searched when none is given: $JAXSNN_DATA, or else ~/.cache/jaxsnn/data."""
    named = os.environ.get("JAXSNN_DATA")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "jaxsnn" / "data"


def load(
    name: str = "embedded",
    split: str = "train",
    data_dir: str | os.PathLike | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    crop: str = "center",
    size: int | Literal["auto"] | None = "auto",
    resize: int | None = None,
    keep: int = KEPT,
    progress: Progress | None = None,
) -> Dataset:
    """Load labelled images by name.

    | name | what | where in `data_dir` |
    | --- | --- | --- |
    | `embedded` | 2,000 + 2,000 images of CIFAR-10 | in the package |
    | `cifar10`, `cifar100` | all of it; the 100 fine classes | official archive, or unpacked folder |
    | `fashion_mnist`, `mnist` | all of it | the four IDX files, .gz or not |
    | `imagefolder` | any folder tree of images | `train/CLASS/*.jpg`, `val/CLASS/*.jpg` |
    | `tfds:NAME` | any image classes of TFDS | prepared as ArrayRecord |

    Args:
      name: one of these.
      split: "train" or "test"; for folder trees and TFDS also "val" or "validation", which mean "test".
      data_dir: where to look; None is `default_data_dir()` (and, for Fashion-MNIST, Debian's package).
      limit: draw so many images, as evenly over the classes as they allow, in random order in which every
        start is balanced too; None is all, in the order of the files.
      seed: of that draw and of random crops; the same seed always gives the same images.
      crop: "center" or "random"; this and the next two are for images of different sizes, that is for folder
        trees and some of TFDS. Other datasets keep their own size.
      size: side of the square cut out. "auto" is 224, unless all images of a folder tree are squares of one
        smaller size: those stay as they are. None keeps any images as they are, which must then be of one size.
      resize: length that the shorter side gets before; None is `size` · 256 / 224.
      keep: bytes of decoded images that are kept, of folder trees and TFDS, whose images are decoded when they are
        asked for.
      progress: called with the share that is done, from 0.0 at the start to 1.0 at the end and never less
        than before, at most about a hundred times; in the caller's thread. What it raises ends the loading.

    Returns:
      A `Dataset`: uint8 images (N, H, W, C) and int32 labels (N,).

    Raises:
      DataError: a ValueError whose message says what is wrong, where, and what to do. What only shows when an
        image is decoded is raised where it is asked for.

    Example:
      >>> import data
      >>> data.load("embedded", "test", limit=100).images.shape
      (100, 32, 32, 3)
      >>> shares = []
      >>> _ = data.load("embedded", progress=shares.append)
      >>> shares
      [0.0, 1.0]
    """
    progress = progress or silent
    draw.check(limit, seed)
    fit = Geometry(crop, 224 if size == "auto" else size, resize, natural=size == "auto" and resize is None)
    is_tfds = name.startswith(tfds.PREFIX) and name != tfds.PREFIX
    if not is_tfds and name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise DataError(f"unknown dataset {name!r}: {hint}the names are {', '.join(NAMES)} and tfds:NAME")
    if split in _VALIDATION and (is_tfds or name == folder.NAME):
        split = "test"
    if split not in ("train", "test"):
        raise DataError(f"unknown split {split!r} of {name}: the splits are train and test")
    if not is_tfds and name != folder.NAME and (resize is not None or size not in ("auto", None)):
        raise DataError(
            f"the images of {name} keep their own size: a size to resize to is for {folder.NAME} and tfds:NAME"
        )
    progress(0.0)
    if name == "embedded":
        dataset = _part(embedded_subset.read(split), limit, seed)
    else:
        dataset = _from_folder(name, split, data_dir, fit, limit, seed, progress, keep)
    progress(1.0)
    return dataset


def _from_folder(
    name: str,
    split: str,
    data_dir: str | os.PathLike | None,
    fit: Geometry,
    limit: int | None,
    seed: int,
    progress: Progress,
    keep: int,
) -> Dataset:
    root = default_data_dir() if data_dir is None else Path(data_dir).expanduser()
    try:
        if root.exists() and not root.is_dir():
            raise DataError(f"the data folder {root} is a file, but the folder with {name} was expected")
        if data_dir is not None and not root.exists():
            raise DataError(f"the data folder {root} does not exist: give the folder with {name}")
        return _read(name, split, root, data_dir is None, fit, limit, seed, progress, keep)
    except OSError as error:
        raise DataError(f"{name} cannot be read from {root}: {error}") from error


def _read(
    name: str,
    split: str,
    root: Path,
    is_default: bool,
    fit: Geometry,
    limit: int | None,
    seed: int,
    progress: Progress,
    keep: int,
) -> Dataset:
    if name.startswith(tfds.PREFIX):
        return tfds.read(name.removeprefix(tfds.PREFIX), split, root, fit, limit, seed, progress, keep)
    if name == folder.NAME:
        return folder.read(split, root, fit, limit, seed, progress, keep)
    read = {
        "cifar10": partial(cifar.read, cifar.CIFAR10, progress=progress),
        "cifar100": partial(cifar.read, cifar.CIFAR100, progress=progress),
        "fashion_mnist": partial(idx.read, idx.FASHION_MNIST, system=is_default),
        "mnist": partial(idx.read, idx.MNIST, system=is_default),
    }[name]
    return _part(read(split, root), limit, seed)


def _part(dataset: Dataset, limit: int | None, seed: int) -> Dataset:
    if limit is None:
        return dataset
    where = f"{dataset.name}, split {dataset.split}, from {dataset.source},"
    return dataset.select(draw.balanced(dataset.labels, limit, seed, where))
