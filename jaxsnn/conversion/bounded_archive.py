"""Zip archives that are read without trusting what they say of themselves."""

import zipfile
from pathlib import Path

from jaxsnn.errors import UserError


class Archive:
    """Members of an uncompressed zip file, each checked against the file's size before it is read."""

    def __init__(self, path: Path, what: str):
        """Raises ``UserError`` where ``path`` is not such a file; ``what`` says in messages what it should be."""
        self.path, self.what = path, what
        try:
            self.zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not {what}, or is cut short: copy or export it again") from error
        self.members = {info.filename: info for info in self.zip.infolist()}

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self.zip.close()

    def named(self, ending: str) -> str | None:
        """The one member whose path ends so, if there is one."""
        found = [name for name in self.members if f"/{name}".endswith(ending)]
        return found[0] if len(found) == 1 else None

    def read(self, name: str) -> bytes:
        """The member's bytes; raises ``UserError`` where it is missing, packed or not as long as it says."""
        info = self.members.get(name)
        if info is None:
            raise UserError(f"{self.path} is {self.what} without {name}: export it again")
        size = self.path.stat().st_size
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > size or info.flag_bits & 1:
            raise UserError(
                f"{self.path} packs {name} or says that it has {info.file_size} bytes, the whole file having "
                f"{size}: PyTorch wrote no such file"
            )
        try:
            content = self.zip.read(info)
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
            raise UserError(f"{self.path}: {name} is damaged: copy or export the file again") from error
        return content
