"""Datasets that TensorFlow Datasets has prepared on disk, read without TensorFlow."""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from data import draw, geometry, lazy
from data.dataset import Dataset
from data.errors import DataError
from data.pictures import Unreadable
from data.progress import Progress, silent, watched

PREFIX = "tfds:"
_SPLITS = {"train": ("train",), "test": ("test", "validation")}


def read(
    name: str,
    split: str,
    data_dir: Path,
    fit: geometry.Geometry,
    limit: int | None,
    seed: int,
    progress: Progress = silent,
    keep: int = lazy.KEPT,
) -> Dataset:
    """Return one split of the prepared dataset `name`, uint8 (N, H, W, C), each decoded when it is asked for.

    Its features must be an "image" and a "label" with class names. Images of one size stay as they are;
    others are resized and cropped.

    Args:
      name: as TFDS knows it, such as "cifar10" or "cifar10:3.0.2", without the prefix "tfds:".
      split: "train" or "test"; the latter falls back to TFDS's "validation" where there is no "test".
      data_dir: the folder that the dataset was prepared in.
      fit: how images of different sizes are brought to one.
      limit: how many to draw, balanced over the classes; None for all, in their order.
      seed: of the draw and of random crops.
      progress: told the share of the records whose labels are read.
      keep: bytes of decoded images that are kept.

    Raises:
      DataError: not prepared there as ArrayRecord (the message says how to), no such split, other
        features, damaged files, or fewer than `limit` images.
    """
    builder = _builder(name, data_dir)
    source = f"TFDS {builder.info.full_name} in {data_dir}"
    found = [candidate for candidate in _SPLITS[split] if candidate in builder.info.splits]
    if not found:
        raise DataError(
            f"{source} has no split {' or '.join(_SPLITS[split])}; it has {', '.join(builder.info.splits)}"
        )
    classes, fixed = _features(builder, source)
    import tensorflow_datasets

    try:
        undecoded: Any = tensorflow_datasets.data_source(
            name,
            split=found[0],
            data_dir=data_dir,
            download=False,
            decoders={"image": tensorflow_datasets.decode.SkipDecoding()},
            builder_kwargs={"file_format": "array_record"},
        )
        count = len(undecoded)
    except Exception as error:  # TFDS and ArrayRecord do not say what they raise on damaged files
        raise _unreadable(source, error) from error
    if count == 0:
        raise DataError(f"{source}, split {found[0]}, has no images; prepare it again")
    where = f"{source}, split {found[0]},"
    labels = _labels(undecoded, count, source, progress)
    chosen = draw.balanced(labels, limit, seed, where)
    feature: Any = builder.info.features["image"]
    records = Records(undecoded, feature, chosen, None if fixed else fit, fit.offsets(count, seed), source)
    return Dataset(
        images=cast(np.ndarray, lazy.LazyImages(replace(records, shape=_shape(records)), keep)),
        labels=labels[chosen],
        classes=classes,
        name=PREFIX + name,
        split=split,
        source=source,
    )


@dataclass(frozen=True)
class Records:
    """Records of TFDS as a source of images.

    Attributes:
      undecoded: the records of the split.
      feature: what decodes an image.
      chosen: int64 (N,), the records that are used.
      fit: how they are brought to one size; None where they have one.
      offsets: where each record of the split is cropped.
      source: what the split is called in messages.
      shape: (H, W, C) of every image.
    """

    undecoded: Sequence
    feature: Any
    chosen: np.ndarray
    fit: geometry.Geometry | None
    offsets: np.ndarray
    source: str
    shape: tuple[int, int, int] = (0, 0, 0)
    # nothing says that its readers may be used by several threads
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        return len(self.chosen)

    def name(self, index: int) -> str:
        """See `lazy.Source`."""
        return f"{self.source}: image {self.chosen[index]}"

    def read(self, index: int) -> np.ndarray:
        """See `lazy.Source`."""
        record = int(self.chosen[index])
        try:
            with self.lock:
                encoded = self.undecoded[record]["image"]
            pixels = self.feature.decode_example_np(encoded)
        except Exception as error:  # TFDS and ArrayRecord do not say what they raise on damaged files
            raise Unreadable(_first_line(error)) from error
        return pixels if self.fit is None else _fit(pixels, self.fit, self.offsets[record])

    def identity(self, rows: np.ndarray) -> bytes:
        """See `lazy.Source`: version and split, the geometry, and the records used."""
        digest = hashlib.sha256(f"{self.source} {len(self.undecoded)} {self.fit!r}".encode())
        digest.update(self.chosen[rows].astype("<i8").tobytes())
        digest.update(self.offsets[self.chosen[rows]].tobytes())
        return digest.digest()


def _shape(records: Records) -> tuple[int, int, int]:
    """(H, W, C) of all images: that of the first."""
    try:
        height, width, channels = records.read(0).shape
    except Unreadable as error:
        raise lazy.unreadable([(records.name(0), str(error))], 1) from error
    return height, width, channels


def _labels(undecoded: Sequence, count: int, source: str, progress: Progress) -> np.ndarray:
    """The labels of all records, int32 (count,)."""

    def label(index: int) -> int:
        try:
            return undecoded[index]["label"]
        except Exception as error:  # as above
            raise _unreadable(source, error) from error

    return np.array([label(index) for index in watched(range(count), count, progress)], np.int32)


def _unreadable(source: str, error: Exception) -> DataError:
    return DataError(f"{source} cannot be read: {_first_line(error)}; prepare it again")


def _fit(pixels: np.ndarray, fit: geometry.Geometry, offset: np.ndarray) -> np.ndarray:
    from PIL import Image

    return fit.fit(Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels), offset)


def _builder(name: str, data_dir: Path) -> Any:
    import tensorflow_datasets

    try:
        builder = tensorflow_datasets.builder(name, data_dir=data_dir, file_format="array_record")
        prepared = builder.is_prepared()
    except Exception as error:  # an unknown name, broken metadata: TFDS raises a different type for each
        raise DataError(f"TFDS dataset {name} was not found: {_how_to_prepare(name, data_dir)}") from error
    if not prepared:
        raise DataError(f"TFDS dataset {name} is not prepared: {_how_to_prepare(name, data_dir)}")
    return builder


def _how_to_prepare(name: str, data_dir: Path) -> str:
    return (
        f"expected ArrayRecord files under {data_dir / name.split(':')[0]}; to prepare them, run pip "
        f"install 'jaxsnn-evo[prepare]' (it has TensorFlow) and python -c "
        f'"import tensorflow_datasets as tfds; '
        f"tfds.builder('{name}', data_dir='{data_dir}', file_format='array_record').download_and_prepare()\" "
        f"(archives you already have are taken from {data_dir / 'downloads' / 'manual'})"
    )


def _features(builder: Any, source: str) -> tuple[tuple[str, ...], bool]:
    """Return the class names and whether all images have one size."""
    items = getattr(builder.info.features, "items", tuple)  # absent where a dataset is a single feature
    features = dict(items())
    image, label = features.get("image"), features.get("label")
    names = getattr(label, "names", None)
    if image is None or len(image.shape or ()) != 3 or names is None:
        raise DataError(
            f"{source} has the features {', '.join(sorted(features))}, but an image 'image' and a "
            f"class 'label' were expected"
        )
    return tuple(names), None not in image.shape


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
