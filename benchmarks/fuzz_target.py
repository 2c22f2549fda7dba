"""What the fuzzer knows of a reader of files: how it is called, files that it takes, and when its answer is right.

Nothing of this program may be imported before Atheris can instrument it, so that imports stand in functions.
"""

import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Check = Callable[[Any, bytes], object]
"""Raises ``Finding`` where what a reader made of a file is not what the file says."""


class Finding(Exception):
    """Something that a reader must not do."""


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        read: of a file's content; whether it was read, or refused in a sentence. Raises anything else.
        examples: files that it takes.
        kind: of file, by which it is damaged (``benchmarks.fuzz_formats.KINDS``).
        share: of all files, relative to the other readers; less where one takes long.
    """

    read: Callable[[bytes], bool]
    examples: list[bytes]
    kind: str = "bytes"
    share: float = 1.0


def right(value: Any, content: bytes) -> None:
    """The check where there is nothing to compare with."""


def refusals() -> tuple[type[BaseException], ...]:
    """What the commands show as one sentence."""
    from data import safe_pickle
    from data.errors import DataError
    from data.pictures import Unreadable
    from jaxsnn.errors import UserError

    return UserError, DataError, OSError, Unreadable, safe_pickle.RefusedPickle


def attempt(read: Callable[[], Any], content: bytes, check: Check) -> bool:
    """Whether ``read`` takes the file; False where it refuses it in a sentence.

    Raises:
        Finding: no sentence, or what was read is not ``right``.
        Exception: whatever else it raises.
    """
    from jaxsnn.cli.sentences import sentence_of

    try:
        value = read()
    except refusals() as error:
        said = sentence_of(error) or str(error)
        # a size that was only declared must not be asked of the system, even where that ends well
        if not said.strip() or "\n" in said.strip() or "MemoryError" in said or len(said) > 4000:
            raise Finding(f"this is no sentence: {said[:300]!r}") from error
        return False
    check(value, content)
    return True


def of_path(read: Callable[[Path], Any], path: Path, check: Check = right) -> Callable[[bytes], bool]:
    """A reader that wants a path: its files are written to this one."""

    def reader(content: bytes) -> bool:
        path.write_bytes(content)
        return attempt(lambda: read(path), content, check)

    return reader


def of_bytes(read: Callable[[bytes], Any], check: Check = right) -> Callable[[bytes], bool]:
    """A reader that wants bytes."""
    return lambda content: attempt(lambda: read(content), content, check)


def of_text(read: Callable[[str], Any], check: Check = right) -> Callable[[bytes], bool]:
    """A reader that wants text."""
    return lambda content: attempt(lambda: read(content.decode("utf-8", "replace")), content, check)


def same(found: Any, expected: Any, what: str) -> None:
    """Raise ``Finding`` unless both are the same, NaNs and types included."""
    import numpy as np

    if isinstance(expected, np.ndarray):
        equal = (
            isinstance(found, np.ndarray)
            and (found.dtype, found.shape) == (expected.dtype, expected.shape)
            and found.tobytes() == expected.tobytes()
        )
    elif isinstance(expected, dict) and isinstance(found, dict):
        equal = list(found) == list(expected)
        for key in expected if equal else ():
            same(found[key], expected[key], what)
    elif isinstance(expected, list | tuple) and isinstance(found, list | tuple):
        equal = type(found) is type(expected) and len(found) == len(expected)
        for one, other in zip(found, expected):
            same(one, other, what)
    else:  # Python's two unpicklers do not agree on the text I 1, which one takes for True
        alike = type(found) is type(expected) or {type(found), type(expected)} == {bool, int}
        equal = alike and (found == expected or (found != found and expected != expected))
    if not equal:
        raise Finding(f"{what}: {found!r:.200} is not {expected!r:.200}")


def limit_memory(megabytes: int) -> None:
    """Let this process have so much more address space than it has now: what asks for more gets a MemoryError."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    most = held + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
