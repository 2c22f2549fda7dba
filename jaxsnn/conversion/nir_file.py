"""A NIR file as plain data: HDF5 read with h5py, nothing allocated that it only claims, nothing else opened.

HDF5 can name other files (external links, external and virtual data sets), link a group into itself, ask for
filters that are loaded as plug-ins, and declare arrays that it does not hold. All of that is refused.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn.errors import UserError

DEFLATE, SHUFFLE, CHECKSUM = 1, 2, 3
"""HDF5's numbers of the filters that are its own and that nir's writer may use."""
MOST_RATIO = 1100
"""Deflate makes data at most 1,032 times smaller: an array that is larger than that is only claimed."""
SMALL = 4096
"""Bytes that an array may have without being held: constants of a few numbers."""
DEEPEST, MOST_ITEMS, MOST_TEXT = 6, 100_000, 100_000

Tree = dict[str, Any]
"""Groups as dicts, data sets as arrays, numbers or text."""


def read_tree(path: Path) -> Tree:
    """The group "node" of a NIR file.

    Raises:
        UserError: not such a file, or one that claims or names what it does not hold.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file")
    try:
        import h5py
    except ImportError as error:
        raise UserError('NIR files need h5py: pip install "jaxsnn-evo[export]"') from error
    reader = _Reader(h5py, path)
    try:
        with h5py.File(path, "r") as file:
            return reader.group(_item(h5py, file, "node", path), 0)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, UnicodeError) as error:
        why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a readable NIR file ({why})") from error


def _item(h5py: Any, group: Any, name: str, path: Path) -> Any:
    """A member of a group, through a hard link alone."""
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise UserError(f"{path}: {name!r} is missing or a link out of its place, which is not followed")
    return group[name]


class _Reader:
    """Reads one file, counting what it has read."""

    def __init__(self, h5py: Any, path: Path):
        self.h5py, self.path, self.items = h5py, path, 0

    def group(self, group: Any, depth: int) -> Tree:
        if not isinstance(group, self.h5py.Group) or depth > DEEPEST:
            raise UserError(f"{self.path} is not a NIR file, or is nested too deeply")
        found: Tree = {}
        for name in self._names(group):
            item = _item(self.h5py, group, name, self.path)
            inner = isinstance(item, self.h5py.Group)
            found[name] = self.group(item, depth + 1) if inner else self.data(item, name)
        return found

    def _names(self, group: Any) -> Iterator[str]:
        for name in group:
            self.items += 1
            if self.items > MOST_ITEMS:
                raise UserError(f"{self.path} has more than {MOST_ITEMS:,} entries")
            yield name

    def data(self, item: Any, name: str) -> Any:
        """The value of a data set, once it is clear that the file holds it."""
        if not isinstance(item, self.h5py.Dataset):
            raise UserError(f"{self.path}: {name!r} is neither a group nor data")
        plan, text = item.id.get_create_plist(), self.h5py.check_string_dtype(item.dtype) is not None
        if item.is_virtual or plan.get_external_count():
            raise UserError(f"{self.path}: the data of {name!r} are in another file, which is not opened")
        filters = {plan.get_filter(number)[0] for number in range(plan.get_nfilters())}
        if not filters <= {DEFLATE, SHUFFLE, CHECKSUM}:
            raise UserError(f"{self.path}: {name!r} needs a filter that HDF5 would load: write it with gzip")
        if not text and item.dtype.kind not in "fiub":
            raise UserError(f"{self.path}: {name!r} holds {item.dtype}, expected numbers or text")
        size = math.prod(item.shape) * item.dtype.itemsize
        if size > SMALL and size > MOST_RATIO * item.id.get_storage_size():
            raise UserError(f"{self.path}: {name!r} claims {size:,} bytes, which the file does not hold")
        value = item[()]
        return self._text(value, name) if text else value

    def _text(self, value: Any, name: str) -> Any:
        def one(part: Any) -> str:
            text = part.decode("utf8") if isinstance(part, bytes) else str(part)
            if len(text) > MOST_TEXT:
                raise UserError(f"{self.path}: {name!r} is a text of {len(text):,} characters")
            return text

        if isinstance(value, np.ndarray):
            return np.array([one(part) for part in value.ravel()], dtype=object).reshape(value.shape)
        return one(value)
