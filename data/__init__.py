"""Datasets as plain arrays, and the CIFAR-10 subset that comes with the program.

    >>> import data
    >>> train = data.load("embedded", "train")
    >>> train.images.shape, train.images.dtype, len(train.classes)
    ((2000, 32, 32, 3), dtype('uint8'), 10)

This package knows nothing of networks. See `load` for the names, the folders searched and the options. Nothing is
printed: `load(..., progress=...)` is told how far it has come.
"""

from data.catalog import NAMES, default_data_dir, load
from data.dataset import Dataset, levels, part, split_out
from data.draw import balanced
from data.errors import DataError
from data.lazy import KEPT, LazyImages

__all__ = [
    "KEPT",
    "NAMES",
    "DataError",
    "Dataset",
    "LazyImages",
    "balanced",
    "default_data_dir",
    "levels",
    "load",
    "part",
    "split_out",
]
