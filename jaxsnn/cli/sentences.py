"""The sentence that a command ends with, from whatever has ended it."""

from types import TracebackType

from data import DataError
from jaxsnn.errors import UserError
from jaxsnn.runtime.memory import out_of_memory

_SHORT_OF_MEMORY = {
    "jaxsnn.training": "out of memory while training: lower --batch",
    "jaxsnn.simulation": "out of memory while simulating: lower --rows, or --batch in training",
    "data": "out of memory while images are loaded: load fewer of them, or use a machine with more memory",
    "jaxsnn.conversion": "out of memory while weights are loaded: use a machine with more memory",
}
"""By the part of the program in which memory was short; the first that was at work decides."""


def sentence_of(error: BaseException) -> str | None:
    """What the user can do about an error, in a line; None for a fault of the program: its traceback is wanted.

    What cannot be printed is escaped: names of files, and those that files hold, may move a terminal's cursor.
    """
    said = _said(error)
    return None if said is None else printable(said.strip())


def printable(text: str, keep: str = "") -> str:
    """The text with every character escaped that is neither printable nor among those to ``keep``."""
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def _said(error: BaseException) -> str | None:
    if isinstance(error, UserError | DataError | FloatingPointError):
        return str(error)
    if out_of_memory(error):
        working = _at_work(error.__traceback__)
        for part, sentence in _SHORT_OF_MEMORY.items():
            if any(name == part or name.startswith(f"{part}.") for name in working):
                return sentence
        return "out of memory: use a machine with more, or raise the limit that is set (ulimit -v)"
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}" if error.strerror else str(error)
    return None


def _at_work(trace: TracebackType | None) -> set[str]:
    """The modules whose functions an error went through."""
    names = set()
    while trace is not None:
        names.add(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    return names
