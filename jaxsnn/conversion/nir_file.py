"""A NIR file as plain data: HDF5 read with h5py, nothing allocated that it only claims, nothing else opened.

HDF5 can name other files (external links, external and virtual data sets), link a group into itself, ask for
filters that are loaded as plug-ins, and declare arrays that it does not hold. All of that is refused.
"""

import importlib
import importlib.util
import math
import os
import subprocess
import sys
import tempfile
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

MOST_SECONDS = 120
"""For the process that reads."""

Tree = dict[str, Any]
"""Groups as dicts, data sets as arrays, numbers or text."""


def read_tree(path: Path) -> Tree:
    """The group "node" of a NIR file, read in a process of its own: HDF5's library does not survive every file.

    Raises:
        UserError: not such a file, or one that claims or names what it does not hold.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file")
    if importlib.util.find_spec("h5py") is None:
        raise UserError('NIR files need h5py: pip install "jaxsnn-evo[export]"')
    places = os.pathsep.join(place for place in sys.path if place)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "tree.npz"
        try:
            run = subprocess.run(
                [sys.executable, "-m", __name__, str(path), str(out)],
                capture_output=True,
                text=True,
                errors="replace",
                env={**os.environ, "PYTHONPATH": places},
                timeout=MOST_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(f"{path} takes HDF5 more than {MOST_SECONDS} s to read") from error
        if run.returncode == 2 and run.stderr.strip():
            raise UserError(run.stderr.strip().splitlines()[-1][:600])
        if run.returncode:
            raise UserError(f"{path} is not a readable NIR file (HDF5 broke down on it)")
        with np.load(out, allow_pickle=False) as arrays:
            return _grown(dict(arrays))


def tree_of(path: Path) -> Tree:
    """``read_tree`` in this process."""
    h5py: Any = importlib.import_module("h5py")
    reader = _Reader(h5py, path)
    try:
        with h5py.File(path, "r") as file:
            return reader.group(_item(h5py, file, "node", path), 0)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, UnicodeError) as error:
        why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a readable NIR file ({why})") from error


def _flat(tree: Tree, prefix: str = "") -> dict[str, np.ndarray]:
    """A tree as arrays by their path; an empty group has no entry."""
    found: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}/")
        else:
            text = isinstance(value, np.ndarray) and value.dtype == object
            found[prefix + name] = np.asarray(value.astype(str) if text else value)
    return found


def _grown(arrays: dict[str, np.ndarray]) -> Tree:
    """The inverse of ``_flat``; single numbers and texts as such."""
    tree: Tree = {}
    for path, value in arrays.items():
        *groups, name = path.split("/")
        inner = tree
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[name] = value if value.ndim else str(value[()]) if value.dtype.kind == "U" else value[()]
    return tree


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


if __name__ == "__main__":
    try:
        np.savez(sys.argv[2], allow_pickle=False, **_flat(tree_of(Path(sys.argv[1]))))
    except UserError as refused:
        print(refused, file=sys.stderr)
        os._exit(2)
    os._exit(0)  # what HDF5 has left of the heap is not looked at again
