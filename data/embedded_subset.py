"""The default dataset: 2,000 + 2,000 images of CIFAR-10 that come with the package."""

import io
from importlib import resources

import numpy as np

from data.cifar import CIFAR10_CLASSES
from data.dataset import Dataset
from data.errors import DataError

NAME = "embedded"
FILES = {"train": "cifar10_train.npz", "test": "cifar10_test.npz"}
# Of the decoded images and labels (`Dataset.content_hash`).
CONTENT = {
    "train": "735c6b0128303791bcf3f674e8f2bc5a688e69abe06e89f364bc1fbf44c7cc45",
    "test": "6f3977860006cd2084e7d0049cb074909dfbec69cf112912d202435f532ec821",
}


def read(split: str) -> Dataset:
    """Return one split: 2,000 images, uint8 (2000, 32, 32, 3), 200 of each of the ten classes.

    Each image is one of the same split of CIFAR-10; embedded/README.md says which.

    Args:
      split: "train" or "test".

    Raises:
      DataError: the file is missing or its decoded content is not what was published with the package.
    """
    path = resources.files("data") / "embedded" / FILES[split]
    try:
        dataset = decode(path.read_bytes(), split)
    except Exception as error:  # zip, npy and WebP can each fail in their own ways
        raise DataError(f"{path} is missing or damaged ({error}): install the package again") from error
    if dataset.content_hash() != CONTENT[split]:
        raise DataError(
            f"{path} decodes to the content sha256 {dataset.content_hash()}, but {CONTENT[split]} was "
            f"expected: install the package again"
        )
    return dataset


def encode(dataset: Dataset, strip: int = 100) -> bytes:
    """Return the file's bytes: labels, and lossless WebP of strips of `strip` images one above the other.

    A strip is 10 % smaller than its images one by one, and there is less to decode.
    """
    from PIL import Image

    blobs = []
    for start in range(0, len(dataset), strip):
        tall = dataset.images[start : start + strip].reshape(-1, *dataset.images.shape[2:])
        buffer = io.BytesIO()
        Image.fromarray(tall).save(buffer, "WEBP", lossless=True, quality=100, method=6)
        blobs.append(buffer.getvalue())
    out = io.BytesIO()
    np.savez(
        out,
        label=dataset.labels.astype(np.uint8),
        length=np.array([len(blob) for blob in blobs], np.uint32),
        webp=np.frombuffer(b"".join(blobs), np.uint8),
    )
    return out.getvalue()


def decode(raw: bytes, split: str) -> Dataset:
    """Return the dataset in a file written by `encode`; what fails in a damaged one is left to the caller."""
    from PIL import Image

    with np.load(io.BytesIO(raw), allow_pickle=False) as file:
        labels, lengths, webp = file["label"], file["length"], file["webp"].tobytes()
    ends = np.cumsum(lengths.astype(np.int64))
    strips = [
        np.asarray(Image.open(io.BytesIO(webp[end - length : end])).convert("RGB"))
        for end, length in zip(ends, lengths, strict=True)
    ]
    return Dataset(
        images=np.concatenate(strips).reshape(-1, 32, 32, 3),
        labels=labels.astype(np.int32),
        classes=CIFAR10_CLASSES,
        name=NAME,
        split=split,
        source="CIFAR-10 subset that comes with the package",
    )
