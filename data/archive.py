"""Reading members of an official .tar.gz into memory, with its damage told apart from its absence."""

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

from data.errors import DataError
from data.limits import BUDGET

_BLOCK = tarfile.BLOCKSIZE
_PLAIN = {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE}
_EXTENSIONS = {tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}
_MOST_TOLD = 1 << 16  # bytes of an extension that are looked at
_EMPTY = {tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE}
"""Kinds of members without content, whatever their size says."""


@dataclass(frozen=True)
class Archive:
    """An archive as its authors publish it: file name, size in bytes, md5, and the page it is on."""

    name: str
    size: int
    md5: str
    page: str

    def describe(self) -> str:
        return f"{self.name} ({self.size} bytes, from {self.page})"


def read_members(path: Path, archive: Archive, limits: dict[str, int]) -> dict[str, bytes]:
    """Return the contents of the members named in `limits`, without extracting anything to disk.

    An archive of the official size must have the official md5. One of another size (packed again by
    somebody) is read to its end, so that gzip's own checksum covers what is returned.

    Args:
      path: the .tar.gz.
      archive: what it should be.
      limits: for each exact member name the most bytes it may have.

    Raises:
      DataError: not readable, truncated, damaged, a member missing, not a plain file, or too large.
    """
    size = path.stat().st_size
    expected = f"the official one has {archive.size} bytes and the md5 {archive.md5}"
    again = f"fetch it again from {archive.page}"
    if size == archive.size:
        md5 = _md5(path)
        if md5 != archive.md5:
            raise DataError(
                f"{path} has the official size but the md5 {md5} where {archive.md5} was expected: {again}"
            )
    found: dict[str, bytes] = {}
    try:
        with gzip.open(path) as packed:
            stream = _Bounded(packed, path)
            for name, content in _members(stream, limits, path):
                if name in found:
                    raise DataError(f"{path} has {name} more than once: pack it again")
                found[name] = content
                if size == archive.size and len(found) == len(limits):
                    return found
            stream.skip(BUDGET.bytes)
    except DataError:
        raise
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, OverflowError) as error:
        state = "truncated" if size < archive.size else "damaged"
        raise DataError(
            f"{path} is {state} or not a .tar.gz ({error}): it has {size} bytes, {expected}; {again}"
        ) from error
    missing = sorted(set(limits) - set(found))
    if missing:
        raise DataError(
            f"{path} has no member {missing[0]}: it has {size} bytes, {expected}; "
            f"it may be another archive under this name; {again}"
        )
    return found


class _Bounded:
    """A stream that unpacks no more than the budget has."""

    def __init__(self, stream: BufferedIOBase, path: Path) -> None:
        self._stream, self._path, self._left = stream, path, BUDGET.bytes

    def read(self, size: int) -> bytes:
        """So many bytes; fewer at the end."""
        content = self._stream.read(min(size, self._left + 1))
        self._left -= len(content)
        if self._left < 0:
            raise DataError(f"{self._path} unpacks to more than {BUDGET.bytes} bytes: no official archive does")
        return content

    def skip(self, size: int) -> None:
        """Pass over so many bytes; fewer at the end."""
        while size > 0 and (content := self.read(min(size, 1 << 16))):
            size -= len(content)


def _members(stream: _Bounded, limits: dict[str, int], path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the members in `limits`.

    What stands in front of a member to lengthen its name or add to its properties is passed over, as the official
    names are short and `tarfile` would read whatever length is declared there into memory. Where it would make a
    member another one, the archive is refused.
    """
    renamed = False
    for number in range(BUDGET.members):
        header = stream.read(_BLOCK)
        if not header and not number:
            raise EOFError("nothing is in it")
        if not header.strip(b"\0"):  # the end, or that of a file cut short, which gzip tells
            return
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        if member.size < 0:
            raise ValueError(f"a member has {member.size} bytes")
        size = rest = 0 if member.type in _EMPTY else member.size
        if member.type in _EXTENSIONS:
            told = stream.read(min(size, _MOST_TOLD))
            rest -= len(told)
            renamed |= member.type == tarfile.GNUTYPE_LONGNAME or b" path=" in told
            if any(mark in told for mark in (b" size=", b" GNU.sparse.")):
                raise DataError(
                    f"{path} gives members other sizes than their own: pack it again in the ustar format"
                )
        elif member.name in limits:
            if renamed:
                raise DataError(
                    f"{member.name} in {path} has another name as well: pack it again in the ustar format"
                )
            if member.type not in _PLAIN:
                raise DataError(f"{member.name} in {path} is not a plain file, as it is in the official archive")
            if size > limits[member.name]:
                raise DataError(
                    f"{member.name} in {path} has {size} bytes, but at most {limits[member.name]} were expected"
                )
            content = stream.read(size)
            if len(content) < size:
                raise EOFError(f"{member.name} ends after {len(content)} of {size} bytes")
            yield member.name, content
            rest = 0
        renamed = renamed and member.type in _EXTENSIONS
        stream.skip(rest + -size % _BLOCK)
    raise ValueError(f"it has more than {BUDGET.members} members")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
