"""Reading members of an official .tar.gz into memory, with its damage told apart from its absence."""

import gzip
import hashlib
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from data.errors import DataError


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
        with gzip.open(path) as stream:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                for member in tar:
                    if member.name in limits:
                        found[member.name] = _contents(tar, member, limits[member.name], path)
                    if size == archive.size and len(found) == len(limits):
                        return found
            while stream.read(1 << 20):
                pass
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


def _contents(tar: tarfile.TarFile, member: tarfile.TarInfo, limit: int, path: Path) -> bytes:
    content = tar.extractfile(member) if member.isreg() else None
    if content is None:
        raise DataError(f"{member.name} in {path} is not a plain file, as it is in the official archive")
    if member.size > limit:
        raise DataError(f"{member.name} in {path} has {member.size} bytes, but at most {limit} were expected")
    return content.read()


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
