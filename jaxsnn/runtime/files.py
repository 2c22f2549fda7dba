"""Files that are written whole or not at all, and JSON as people hand it over."""

import csv
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from jaxsnn.errors import UserError


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN and infinity are refused, which JSON does not have."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def check_file(path: Path) -> None:
    """Raise ``UserError`` unless there is a plain file: a FIFO or a device would be waited for, without end."""
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file")


def read_json(path: Path) -> dict:
    """The JSON object in ``path``; raises ``UserError`` where there is none."""
    check_file(path)
    try:
        value = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {type(value).__name__}, expected a JSON object")
    return value


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """A table as comma-separated values, atomically; None becomes an empty field."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def plain(value: Any) -> Any:
    """The value as it comes back from JSON, so that what is written equals what is read."""
    return json.loads(json.dumps(value, allow_nan=False))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file or leave what was there: a temporary neighbour, flushed, then renamed."""
    try:
        _write(path, content)
    except OSError as error:  # which names the temporary, or no file at all
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
