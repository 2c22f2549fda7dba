"""A run's folder: everything needed to repeat, redraw or check it."""

import fcntl
import json
import os
import platform
import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.runtime.files import read_json, write_atomically, write_json

FILES = (
    "config.json",
    "history.jsonl",
    "thresholds.json",
    "results.json",
    "curves.npz",
    "report.html",
    "calibrated.safetensors",
    "frontier.json",
)


FOLDERS = ("checkpoints", "figures", "tensorboard")


LOCK = ".lock"


TRIES = 10


def check_folder(folder: Path) -> None:
    """Raise ``UserError`` where ``folder`` is neither a run's, nor empty, nor still to be made.

    What a process that was killed left of files it had just begun to write does not count.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} exists and is not a run folder: choose another --out")
    for name in (*FOLDERS, LOCK):
        if (folder / name).is_symlink():  # what is written there would be outside of the run's folder
            raise UserError(f"{folder / name} is a link, which a run's folder does not have: remove it")
    inside = folder.iterdir() if folder.exists() and not (folder / "config.json").exists() else ()
    if any(path.name not in (LOCK, *FOLDERS) and not _unfinished(path) for path in inside):
        raise UserError(f"{folder} exists and is not a run folder: choose another --out")


def _unfinished(path: Path) -> bool:
    """Whether it is a temporary of ``write_atomically`` for one of a run's files."""
    match = re.fullmatch(r"\.(.+)\.[a-z0-9_]{8}", path.name)
    return bool(match) and (
        match[1] in FILES or match[1].endswith((".png", ".checkpoint", ".safetensors", "-thresholds.json"))
    )


def sweep(folder: Path) -> None:
    """Remove what killed processes left of files they had just begun to write; only with the folder's lock."""
    for path in leftovers(folder):
        if path.name != LOCK:
            path.unlink()


def leftovers(folder: Path) -> list[Path]:
    """What killed processes left in a run's folder: their lock, and files that they had just begun to write."""
    places = [place for place in (folder, *(folder / name for name in FOLDERS)) if place.is_dir()]
    inside = [path for place in places for path in place.iterdir() if _unfinished(path)]
    return [*inside, *([folder / LOCK] if (folder / LOCK).exists() else [])]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run's folder, which is made if need be, for this process alone; the system lets go at its death.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    descriptor = _lock(path)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(path: Path) -> int:
    """A descriptor that holds the lock on the file that ``path`` names, which the last holder may just remove."""
    holder = ""
    for _ in range(TRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BlockingIOError:
            time.sleep(0.05)  # someone may only be asking whether it is held
        except BaseException:
            os.close(descriptor)
            raise
        holder = os.pread(descriptor, 200, 0).decode(errors="replace")
        os.close(descriptor)
    raise UserError(f"{path.parent} is being worked on by {holder or 'another process'}: wait for it or stop it")


def is_locked(folder: Path) -> bool:
    """Whether a process holds the run's folder; takes nothing from it."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def open_run(folder: Path, config: dict, free: Collection[str] = ()) -> None:
    """Create the folder and record the configuration, but not again for a run that is being resumed.

    Args:
        free: keys whose values may differ from those of the run that the folder holds.

    Raises:
        UserError: the folder holds a run with another configuration, or other files.
    """
    check_folder(folder)
    record = folder / "config.json"
    if record.exists():
        held = read_json(record)
        keys = (held.keys() | config.keys()) - {"versions", "device", *free}
        different = sorted(key for key in keys if held.get(key) != config.get(key))
        if not different and (folder / "results.json").exists():
            raise UserError(f"{folder} already holds this run with its results: choose another --out")
        if different:
            key = different[0]
            if key not in held:
                raise UserError(
                    f"{folder} holds a run that another version of this program began (without {key}): finish it "
                    "with that one, or choose another --out"
                )
            raise UserError(
                f"{folder} already holds a run with another configuration ({key} is {held.get(key)} there, "
                f"{config.get(key)} here): choose another --out"
            )
    if not any((folder / "checkpoints").glob("*")):
        write_json(record, config)


def write_history(folder: Path, rows: Sequence[dict]) -> None:
    """history.jsonl: a line per generation, rewritten as a whole so that no line is ever half there."""
    lines = [json.dumps(row, allow_nan=False) for row in rows]
    write_atomically(folder / "history.jsonl", ("\n".join(lines) + "\n").encode())


def read_history(path: Path) -> list[dict]:
    """The lines of history.jsonl; raises ``UserError`` where they are not JSON objects."""
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a JSON object a line: {error}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path} is not a JSON object a line")
    return rows


def write_curves(folder: Path, **arrays: np.ndarray) -> None:
    """curves.npz: arrays by name."""
    buffer = BytesIO()
    content: dict[str, Any] = dict(arrays)
    np.savez_compressed(buffer, **content)
    write_atomically(folder / "curves.npz", buffer.getvalue())
