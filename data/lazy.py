"""Images that are decoded when they are asked for, in threads, and kept as far as a bound on memory allows."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Protocol

import numpy as np

from data import pictures
from data.errors import DataError

KEPT = 1 << 29
"""Bytes of decoded images that are kept: 3,500 of 224 x 224, or 43,000 of 64 x 64."""
THREADS = min(8, os.cpu_count() or 1)
_TOLD = 5
# Images whose decoding is asked of the threads at once, so that little waits where the user stops the program.
_BLOCK = 256


class Source(Protocol):
    """Where images come from."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> np.ndarray:
        """Decode one image, uint8; raises `Unreadable`. Called from several threads."""
        ...

    def name(self, index: int) -> str:
        """What the image is called in messages."""
        ...

    def identity(self, rows: np.ndarray) -> bytes:
        """What changes where the images at `rows` do, without decoding them."""
        ...


class LazyImages:
    """Images as an array of uint8 (N, H, W, C) that holds none: what is indexed is decoded.

    Indexed by an integer, a slice, integers or a mask, it gives NumPy arrays; `part` gives the same images
    undecoded. Where slices follow each other, the next one is decoded while the last is worked on. What has been
    decoded is kept until `keep` bytes are full.

    Raises, when indexed:
      DataError: images that cannot be read, the first few by name and how many there are; or more than fits into
        memory.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self, source: Source, keep: int = KEPT, *, rows: np.ndarray | None = None, kept: "_Kept | None" = None
    ) -> None:
        self._source = source
        self._rows = np.arange(len(source)) if rows is None else rows
        self._kept = _Kept(keep) if kept is None else kept
        self._ahead: tuple[tuple[int, int], Future] | None = None
        self._last_stop = -1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self._rows), *self._source.shape)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self), _BLOCK):
            yield from self[start : start + _BLOCK]

    def __getitem__(self, index: Any) -> np.ndarray:
        if isinstance(index, tuple):
            return self._within(index)
        if isinstance(index, slice) and index.step in (None, 1):
            return self._in_turn(*index.indices(len(self))[:2])
        rows = self._rows[index]
        if np.ndim(rows) > 1:
            raise IndexError(f"images are indexed by numbers of one dimension, not of {np.ndim(rows)}")
        return self._decoded(np.atleast_1d(rows))[0] if np.ndim(rows) == 0 else self._decoded(rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._decoded(self._rows).astype(dtype or np.uint8, copy=False)

    def _within(self, index: tuple) -> np.ndarray:
        """Pixels of some images; of all where the index of the images is not apart from that of the pixels."""
        first, *rest = index
        if first is Ellipsis or not all(isinstance(inner, int | slice) for inner in rest):
            return np.asarray(self)[index]
        found = self[first]
        return found[(slice(None), *rest) if found.ndim == self.ndim else tuple(rest)]

    def part(self, index: Any) -> "LazyImages":
        """The images at `index`, undecoded; what is kept is shared."""
        return LazyImages(self._source, rows=self._rows[index], kept=self._kept)

    def identity(self) -> bytes:
        """What changes where the files do: names and sizes, not pixels."""
        return self._source.identity(self._rows)

    def _in_turn(self, start: int, stop: int) -> np.ndarray:
        """A slice, which has been decoded ahead where it follows the last one."""
        stop = max(start, stop)
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == (start, stop):
            found = ahead[1].result()
        else:
            found = self._decoded(self._rows[start:stop])
        follows, self._last_stop = 0 < start == self._last_stop, stop
        end = min(len(self), 2 * stop - start)
        if follows and stop < end:
            self._ahead = (stop, end), _looking_ahead().submit(self._decoded, self._rows[stop:end])
        return found

    def _decoded(self, rows: np.ndarray) -> np.ndarray:
        out = _room((len(rows), *self._source.shape))
        places: dict[int, list[int]] = {}
        for place, row in enumerate(rows.tolist()):
            places.setdefault(row, []).append(place)
        bad: list[tuple[str, str]] = []

        def fill(row: int) -> None:
            image = self._kept.get(row)
            if image is None:
                try:
                    image = self._source.read(row)
                except pictures.Unreadable as error:
                    bad.append((self._source.name(row), str(error)))
                    return
                if image.shape != self._source.shape:
                    bad.append((self._source.name(row), _other_shape(image.shape, self._source.shape)))
                    return
                self._kept.put(row, image)
            out[places[row]] = image

        waiting = iter(places)
        with pictures.quiet():
            while block := list(islice(waiting, _BLOCK)):
                for _ in _threads().map(fill, block) if len(block) > 1 else map(fill, block):
                    pass
        if bad:
            raise unreadable(bad, len(places))
        return out


class _Kept:
    """Decoded images by number, until their bytes are full; those that were first stay."""

    def __init__(self, most: int) -> None:
        self._images: dict[int, np.ndarray] = {}
        self._left = most
        self._lock = threading.Lock()

    def get(self, row: int) -> np.ndarray | None:
        return self._images.get(row)

    def put(self, row: int, image: np.ndarray) -> None:
        with self._lock:
            if image.nbytes <= self._left and row not in self._images:
                self._images[row] = image
                self._left -= image.nbytes


def unreadable(bad: list[tuple[str, str]], total: int) -> DataError:
    """The error that names images, each with its reason: the first few, and how many there are."""
    bad = sorted(bad)
    if len(bad) == 1:
        name, why = bad[0]
        return DataError(f"{name} cannot be read as an image ({why}): replace or remove it")
    told = ", ".join(f"{name} ({why})" for name, why in bad[:_TOLD])
    more = f" and {len(bad) - _TOLD} more" if len(bad) > _TOLD else ""
    return DataError(f"{len(bad)} of {total} images cannot be read: {told}{more}; replace or remove them")


def _other_shape(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    return f"images have different sizes, it is {found} and others {expected} (H, W, C): give a size to resize to"


def _room(shape: tuple[int, ...]) -> np.ndarray:
    """An array of this shape; raises DataError where it does not fit into memory."""
    size = int(np.prod(shape, dtype=np.int64))
    free = _free_memory()
    try:
        if free is not None and size > free:
            raise MemoryError
        return np.empty(shape, np.uint8)
    except MemoryError as error:
        raise DataError(
            f"{shape[0]} images of {shape[1:]} do not fit into memory ({size / 1e9:.1f} GB): take fewer at once, "
            "or a smaller size"
        ) from error


def _free_memory() -> int | None:
    """Bytes that the system can still give, where it says so: it promises more, and then ends the program."""
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


_pools: dict[tuple[int, str], ThreadPoolExecutor] = {}


def _pool(name: str, threads: int) -> ThreadPoolExecutor:
    """Threads that stay; in a process that was forked, new ones."""
    key = os.getpid(), name
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(threads, thread_name_prefix=f"data-{name}")
    return _pools[key]


def _threads() -> ThreadPoolExecutor:
    return _pool("decode", THREADS)


def _looking_ahead() -> ThreadPoolExecutor:
    return _pool("ahead", 1)
