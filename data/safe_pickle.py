"""Reading a pickle that holds dicts, lists, bytes, strings, numbers and uint8 arrays, and nothing else."""

import io
import pickle
from typing import Any

import numpy as np


class RefusedPickle(Exception):
    """The pickle is malformed or asks for something that plain image data does not need."""


def loads(raw: bytes) -> object:
    """Return the object in `raw`; no code named by the pickle is looked up, imported or run.

    Python 2's strings come back as bytes. numpy arrays come back as uint8 arrays.

    Raises:
      RefusedPickle: anything else is asked for, or the stream is malformed.
    """
    try:
        return _finish(_Reader(io.BytesIO(raw), encoding="bytes").load())
    except RefusedPickle:
        raise
    except Exception as error:  # a damaged pickle can raise anything: the documentation gives no full list
        raise RefusedPickle(f"not a readable pickle: {type(error).__name__}: {error}") from error


class _Recipe:
    """What a pickle says about an array or a dtype: kept as data, checked, and only then built."""

    __slots__ = ("arguments", "kind", "state")

    def __init__(self, kind: str, arguments: tuple) -> None:
        self.kind = kind
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _refuse_bytearray(reader: Any) -> None:
    raise RefusedPickle("it holds a bytearray, which image data does not need")


# The unpickler in C allocates whatever size a (damaged) memo index asks for; the one in Python does not.
class _Reader(pickle._Unpickler):
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
                return _latin1
            case ("builtins" | "__builtin__", "bytes"):  # and b""
                return lambda: b""
        raise RefusedPickle(f"it asks for {module}.{name}, which image data does not need")

    # the library makes a bytearray of any declared length before it looks at what is there
    dispatch = pickle._Unpickler.dispatch | {pickle.BYTEARRAY8[0]: _refuse_bytearray}


def _latin1(text: str, encoding: str | bytes) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise RefusedPickle(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


def _finish(value: object) -> object:
    """Build the arrays at the top level and in the values of a top-level dict."""
    if isinstance(value, dict):
        return {key: _array(entry) if isinstance(entry, _Recipe) else entry for key, entry in value.items()}
    return _array(value) if isinstance(value, _Recipe) else value


def _array(recipe: _Recipe) -> np.ndarray:
    match recipe:
        case _Recipe(
            kind="array",
            state=(int(), tuple(shape), _Recipe(kind="dtype", arguments=(code, *_)), fortran, bytes(raw)),
        ):
            if code not in ("u1", b"u1"):
                raise RefusedPickle(f"it holds an array of type {code!r}; only uint8 is expected")
            if not all(isinstance(length, int) and length >= 0 for length in shape):
                raise RefusedPickle(f"it holds an array of the shape {shape}")
            size = 1
            for length in shape:
                size *= length
            if size != len(raw):
                raise RefusedPickle(f"it holds an array of the shape {shape} with {len(raw)} bytes")
            return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")
    raise RefusedPickle("it holds an array in a form that the official files do not use")
