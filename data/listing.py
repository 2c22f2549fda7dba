"""Which image files lie below a folder, class by class, listed once and then remembered."""

import hashlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.lazy import unreadable
from data.limits import BUDGET
from data.pictures import SUFFIXES

_REMEMBERED = 10_000
"""Files from which on a listing is kept: 100,000 in 1,000 folders take 0.2 s of processor time, kept 0.02 s."""
_SETTLED = 2.0
"""Seconds after a folder's last change in which another may leave its time as it is."""


@dataclass(frozen=True)
class Listing:
    """Image files of a folder with a folder for each class.

    Attributes:
      classes: names of the class folders, sorted.
      names: paths of the files below the folder; class by class, sorted within each.
      labels: int32 (N,), indices into `classes`.
    """

    classes: tuple[str, ...]
    names: list[str]
    labels: np.ndarray


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the folders directly in this one, sorted; hidden ones are passed over."""
    with os.scandir(folder) as items:
        return tuple(sorted(item.name for item in items if not item.name.startswith(".") and item.is_dir()))


def of_classes(folder: Path) -> Listing:
    """List the images of all classes; a listing of many is remembered until a folder's time of change differs.

    Raises:
      DataError: names of images that are no files, or folders that lie too deep.
      OSError: a folder cannot be listed.
    """
    known = _recall(folder)
    if known is not None:
        return known
    began = time.time()
    classes = class_folders(folder)
    changed = {"": os.stat(folder).st_mtime_ns}
    names: list[str] = []
    counts: list[int] = []
    bad: list[tuple[str, str]] = []
    for name in classes:
        found = sorted(_images(folder, name, changed, bad))
        names += found
        counts.append(len(found))
    if bad:
        raise unreadable(bad, len(names) + len(bad))
    listing = Listing(classes, names, np.repeat(np.arange(len(classes), dtype=np.int32), counts))
    if len(names) >= _REMEMBERED and max(changed.values()) < (began - _SETTLED) * 1e9:
        _remember(folder, listing, changed)
    return listing


def flat(folder: Path) -> list[str]:
    """Names of the images directly in a folder, sorted."""
    bad: list[tuple[str, str]] = []
    with os.scandir(folder) as items:
        names = sorted(item.name for item in items if _is_image(item, bad))
    if bad:
        raise unreadable(bad, len(names) + len(bad))
    return names


def _images(folder: Path, inner: str, changed: dict[str, int], bad: list[tuple[str, str]]) -> Iterable[str]:
    """Paths below `folder` of the images in its folder `inner` and those below; notes when each was changed."""
    waiting = [inner]
    while waiting:
        place = waiting.pop()
        if place.count(os.sep) > BUDGET.depth:
            raise DataError(f"{folder / place} lies more than {BUDGET.depth} folders below its class")
        changed[place] = os.stat(folder / place).st_mtime_ns
        with os.scandir(folder / place) as items:
            for item in items:
                if item.is_dir(follow_symlinks=False):
                    waiting.append(f"{place}/{item.name}")
                elif _is_image(item, bad):
                    yield f"{place}/{item.name}"


def _is_image(item: os.DirEntry, bad: list[tuple[str, str]]) -> bool:
    """Whether an entry is a file named as an image; one that is named so and is no file is added to `bad`."""
    if item.name.startswith(".") or not item.name.lower().endswith(SUFFIXES):
        return False
    if item.is_file(follow_symlinks=False):
        return True
    if item.is_symlink():
        if os.path.isfile(item.path):  # an entry's own is_file raises where links lead in a circle
            return True
        if not os.path.exists(item.path):
            bad.append((item.path, "it is a link to a file that does not exist"))
            return False
    if not item.is_dir():
        bad.append((item.path, "it is no file"))
    return False


def _place(folder: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()
    return Path.home() / ".cache" / "jaxsnn" / "listings" / f"{digest[:32]}.npz"


def _packed(names: Iterable[str]) -> np.ndarray:
    return np.frombuffer(os.fsencode("\0".join(names)), np.uint8)


def _unpacked(packed: np.ndarray) -> list[str]:
    return os.fsdecode(packed.tobytes()).split("\0")


def _remember(folder: Path, listing: Listing, changed: dict[str, int]) -> None:
    path = _place(folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{os.getpid()}-{path.name}")
        np.savez(
            temporary,
            classes=_packed(listing.classes),
            names=_packed(listing.names),
            labels=listing.labels,
            folders=_packed(changed),
            changed=np.array(list(changed.values()), np.int64),
        )
        os.replace(temporary, path)
    except OSError:  # nowhere to keep it: then it is listed again
        return


def _recall(folder: Path) -> Listing | None:
    """The listing that was remembered, if no folder has changed since."""
    try:
        with open(_place(folder), "rb") as file, np.load(file, allow_pickle=False) as held:
            for name, changed in zip(_unpacked(held["folders"]), held["changed"].tolist(), strict=True):
                if os.stat(folder / name).st_mtime_ns != changed:
                    return None
            listing = Listing(tuple(_unpacked(held["classes"])), _unpacked(held["names"]), held["labels"])
    except Exception:  # none, or a damaged one: zip and npy fail in their own ways, and it is only listed again
        return None
    return listing if len(listing.names) == len(listing.labels) else None
