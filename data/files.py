"""Opening what a user names as a file, and nothing that would be waited for without end."""

import os
import stat
from pathlib import Path
from typing import IO

from data.errors import DataError
from data.limits import BUDGET

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def opened(path: Path | str) -> IO[bytes]:
    """Open a plain file for reading.

    A FIFO would block, even against Ctrl-C, until somebody writes into it, and a device may never end: neither is
    opened.

    Raises:
      DataError: it is no plain file, or larger than the budget of `data.limits`.
      OSError: it is missing or not readable.
    """
    _check(os.stat(path), path)  # before it is opened, which alone can start a device
    # and after it: by then something else may lie there, for which O_NONBLOCK does not wait
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(os.fstat(descriptor), path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check(status: os.stat_result, path: Path | str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise DataError(f"{path} is {kind}, but a file was expected")
    if status.st_size > BUDGET.bytes:
        raise DataError(f"{path} has {status.st_size} bytes, more than the {BUDGET.bytes} that are read")
