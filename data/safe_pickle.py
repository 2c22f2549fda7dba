"""Reading a pickle that holds dicts, lists, bytes, strings, numbers and uint8 arrays, and nothing else."""

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from data.limits import BUDGET

_MOST_DIMENSIONS = 8
# What plain data is made of, in protocols 0 to 5; no objects, sets, persistent names or shared buffers.
_PLAIN = """
    MARK STOP FLOAT INT BININT BININT1 LONG BININT2 NONE REDUCE STRING BINSTRING SHORT_BINSTRING UNICODE
    BINUNICODE APPEND BUILD GLOBAL DICT EMPTY_DICT APPENDS GET BINGET LONG_BINGET LIST EMPTY_LIST PUT BINPUT
    LONG_BINPUT SETITEM TUPLE EMPTY_TUPLE SETITEMS BINFLOAT PROTO TUPLE1 TUPLE2 TUPLE3 NEWTRUE NEWFALSE LONG1
    LONG4 BINBYTES SHORT_BINBYTES SHORT_BINUNICODE BINUNICODE8 BINBYTES8 STACK_GLOBAL MEMOIZE FRAME
"""


class RefusedPickle(Exception):
    """The pickle is malformed or asks for something that plain image data does not need."""


def loads(raw: bytes) -> object:
    """Return the object in `raw`; no code named by the pickle is looked up, imported or run.

    Python 2's strings come back as bytes. numpy arrays come back as uint8 arrays. Time and memory are bounded by
    the length of `raw` and by `data.limits.BUDGET`.

    Raises:
      RefusedPickle: anything else is asked for, or the stream is malformed.
    """
    try:
        return _finish(_Reader(raw).load())
    except RefusedPickle:
        raise
    except Exception as error:  # a damaged pickle can raise anything: the documentation gives no full list
        raise RefusedPickle(f"not a readable pickle: {type(error).__name__}: {str(error)[:200]}") from error


class _Recipe:
    """What a pickle says about an array or a dtype: kept as data, checked, and only then built."""

    __slots__ = ("arguments", "kind", "state")

    def __init__(self, kind: str, arguments: tuple) -> None:
        self.kind = kind
        self.arguments = arguments
        self.state: Any = None


def _build(reader: Any) -> None:
    """BUILD, for recipes alone: on anything else it would set attributes, of functions for example."""
    state = reader.stack.pop()
    target = reader.stack[-1]
    if not isinstance(target, _Recipe):
        raise RefusedPickle(f"it sets the state of a {type(target).__name__}, which image data does not need")
    target.state = state


def _check_keys(keys: list) -> None:
    # The hash of tuples that hold each other takes time that doubles with each of them, and cannot be interrupted.
    for key in keys:
        if not isinstance(key, (bytes, str, int)):
            raise RefusedPickle(f"it holds a dict with a {type(key).__name__} as a key")


def _dict(reader: Any) -> None:
    _check_keys(reader.stack[::2])
    pickle._Unpickler.dispatch[pickle.DICT[0]](reader)


def _setitem(reader: Any) -> None:
    _check_keys(reader.stack[-2:-1])
    pickle._Unpickler.dispatch[pickle.SETITEM[0]](reader)


def _setitems(reader: Any) -> None:
    _check_keys(reader.stack[::2])
    pickle._Unpickler.dispatch[pickle.SETITEMS[0]](reader)


def _counted(code: str) -> Callable[[Any], None]:
    """The function of an instruction, with the budget drawn upon."""
    ours = {"BUILD": _build, "DICT": _dict, "SETITEM": _setitem, "SETITEMS": _setitems}
    step = ours.get(code, pickle._Unpickler.dispatch[getattr(pickle, code)[0]])

    def run(reader: Any) -> None:
        reader.steps += 1
        if reader.steps > BUDGET.steps or len(reader.metastack) > BUDGET.depth:
            raise RefusedPickle(f"it takes more than {BUDGET.steps} steps, or nests deeper than {BUDGET.depth}")
        step(reader)

    return run


def _refuse(code: int) -> Callable[[Any], None]:
    def refuse(reader: Any) -> None:
        raise RefusedPickle(f"it holds the instruction {bytes([code])!r}, which image data does not need")

    return refuse


# The unpickler in C allocates whatever size a (damaged) memo index asks for; the one in Python does not.
class _Reader(pickle._Unpickler):
    dispatch = {code: _refuse(code) for code in range(256)} | {
        getattr(pickle, code)[0]: _counted(code) for code in _PLAIN.split()
    }

    def __init__(self, raw: bytes) -> None:
        super().__init__(io.BytesIO(raw), encoding="bytes")
        self.steps = 0
        self._encoded, self._most = 0, len(raw)

    def find_class(self, module: str, name: str) -> Any:
        """Return a harmless stand-in; made anew each time, so that no pickle can change it for the next."""
        match (module, name):
            case ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct"):
                return lambda *arguments: _Recipe("array", arguments)
            case ("numpy", "ndarray"):
                return _Recipe("ndarray", ())
            case ("numpy", "dtype"):
                return lambda *arguments: _Recipe("dtype", arguments)
            case ("_codecs", "encode"):  # how protocol 2 spells Python 3's bytes
                return lambda text, encoding: self._latin1(text, encoding)
            case ("builtins" | "__builtin__", "bytes"):  # and b""
                return lambda: b""
        raise RefusedPickle(f"it asks for {_brief(module)}.{_brief(name)}, which image data does not need")

    def _latin1(self, text: str, encoding: str | bytes) -> bytes:
        if encoding not in ("latin1", b"latin1"):
            raise RefusedPickle(f"it asks for the encoding {_brief(encoding)}")
        self._encoded += len(text)
        if self._encoded > self._most:  # one text in the file, encoded again and again
            raise RefusedPickle(f"it makes more bytes than its own {self._most}")
        return text.encode("latin1")


def _brief(value: object) -> str:
    """A value in a message, in one line; tuples that hold each other would print without end."""
    if not isinstance(value, str):
        return f"of type {type(value).__name__}"
    return value[:60] if value[:60].isprintable() else repr(value[:60])[1:-1]


def _finish(value: object) -> object:
    """Build the arrays at the top level and in the values of a top-level dict; there are none further in."""
    if isinstance(value, dict):
        value = {key: _array(entry) if isinstance(entry, _Recipe) else entry for key, entry in value.items()}
    elif isinstance(value, _Recipe):
        value = _array(value)
    _check_plain(value)
    return value


def _check_plain(value: object) -> None:
    """Raise RefusedPickle where a stand-in is left, which would pass for what the pickle asked for."""
    waiting, seen = [value], set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, _Recipe) or callable(part):
            raise RefusedPickle("it holds a function, a type or an array in a place where image data has none")
        if isinstance(part, (dict, list, tuple)) and id(part) not in seen:
            seen.add(id(part))
            waiting.extend(part.values() if isinstance(part, dict) else part)


def _array(recipe: _Recipe) -> np.ndarray:
    match recipe:
        case _Recipe(
            kind="array",
            state=(int(), tuple(shape), _Recipe(kind="dtype", arguments=(code, *_)), fortran, bytes(raw)),
        ):
            if code not in ("u1", b"u1"):
                found = code.decode("latin1") if isinstance(code, bytes) else code
                raise RefusedPickle(f"it holds an array of type {_brief(found)!r}; only uint8 is expected")
            # a length above that of the bytes is wrong, and a product of thousands of such takes minutes
            if len(shape) > _MOST_DIMENSIONS or not all(
                isinstance(length, int) and 0 <= length <= len(raw) for length in shape
            ):
                raise RefusedPickle(f"it holds an array of {len(shape)} dimensions whose shape fits no image")
            size = 1
            for length in shape:
                size *= length
            if size != len(raw):
                raise RefusedPickle(f"it holds an array of the shape {shape} with {len(raw)} bytes")
            return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")
    raise RefusedPickle("it holds an array in a form that the official files do not use")
