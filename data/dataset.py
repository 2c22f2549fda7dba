"""Images with labels, and what can be done with them without knowing where they came from."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data.errors import DataError
from data.lazy import LazyImages


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images of one size.

    Attributes:
      images: uint8 (N, H, W, C), channels last, C = 1 or 3, values as stored (0 to 255). Of folder trees and TFDS
        it is a `data.LazyImages`, which is indexed like an array and decodes what is asked for.
      labels: int32 (N,), indices into `classes`.
      classes: names of the classes.
      name: the name it was loaded by, such as "cifar10".
      split: "train" or "test".
      source: where it came from, for people to read.

    Raises:
      DataError: shapes or dtypes other than these, or a label outside the classes.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str
    split: str
    source: str

    def __post_init__(self) -> None:
        where = f"{self.name}, split {self.split}, from {self.source}"
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise DataError(
                f"images must be uint8 (N, H, W, C), but are {self.images.dtype} {self.images.shape} ({where})"
            )
        if self.labels.dtype != np.int32 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"labels must be int32 ({len(self.images)},), but are {self.labels.dtype} "
                f"{self.labels.shape} ({where})"
            )
        outside = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.classes)))
        if outside.size:
            first = int(outside[0])
            raise DataError(
                f"record {first} has the label {int(self.labels[first])}, but there are "
                f"{len(self.classes)} classes, 0 to {len(self.classes) - 1} ({where})"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: np.ndarray) -> "Dataset":
        """Return the images at `indices` (integers or a boolean mask, (N,)), in that order."""
        return replace(self, images=part(self.images, indices), labels=self.labels[indices])

    def content_hash(self) -> str:
        """Return the sha256, in hex, of the shape, the pixels and the labels, in their order.

        Names and source do not enter it: the same images from two layouts have the same hash. Images that are not
        decoded yet enter it with the names and sizes of their files, and how they are resized and cropped.
        """
        digest = hashlib.sha256(repr(self.images.shape).encode())
        if isinstance(self.images, LazyImages):
            digest.update(self.images.identity())
        else:
            digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels, dtype="<i4").data)
        return digest.hexdigest()


def part(images: Any, index: Any) -> Any:
    """Some of the images, (M, H, W, C): an array, or, of images that are not decoded yet, such images again.

    Args:
      images: an array or anything that makes one, or `LazyImages`.
      index: integers, a slice or a mask.
    """
    if isinstance(images, LazyImages):
        return images.part(index)
    return images[index] if hasattr(images, "shape") else np.asarray(images)[index]


def levels(images: Any, most: int = 5000) -> np.ndarray:
    """How many pixels of each channel have each value, int64 (C, 256).

    Of images that are not decoded yet, so many are looked at, evenly over all; of others all.
    """
    if isinstance(images, LazyImages):
        images = images[np.unique(np.linspace(0, len(images) - 1, min(len(images), most)).astype(int))]
    return np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])])


def split_out(dataset: Dataset, other: Dataset) -> Dataset:
    """Return `dataset` without the images whose pixels occur in `other`; the order stays.

    Labels are not compared. Use it to train on what a smaller set, drawn from the same images, left over.

    Raises:
      DataError: the images of the two have different sizes.

    Example:
      >>> import data
      >>> train = data.load("embedded", "train")
      >>> len(data.split_out(train, train.select(np.arange(500)))) <= 1500
      True
    """
    if dataset.images.shape[1:] != other.images.shape[1:]:
        raise DataError(
            f"images of {dataset.name} are {dataset.images.shape[1:]} and those of {other.name} "
            f"{other.images.shape[1:]} (H, W, C): they cannot be compared"
        )
    taken = {_digest(image) for image in other.images}
    return dataset.select(np.array([_digest(image) not in taken for image in dataset.images], dtype=bool))


def _digest(image: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()
