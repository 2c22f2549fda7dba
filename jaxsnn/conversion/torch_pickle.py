"""The pickle in a PyTorch file, by an interpreter of our own that can build plain data and nothing else.

A pickle is a program. Here, no name in it is looked up or imported and nothing is called: the few names that a
``state_dict`` needs stand for values of this module, and any other one is refused. What a tensor is made of is
kept as it is declared (``Tensor``), to be compared with what the file holds before anything is allocated.
"""

import pickletools
from dataclasses import dataclass
from typing import Any

from data.limits import BUDGET

MOST_OPERATIONS = BUDGET.steps
"""Of one pickle; a tensor takes about 35. A million take a second or two, and at most 200 MB."""


MOST_DIMENSIONS = 16


LONGEST_NAME = 100
"""Characters of a refused name that a message repeats."""


_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "UntypedStorage": "bytes",
}


_DTYPES = {*_STORAGES.values(), "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"}


_OTHER_LAYOUTS = {
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_qtensor": "quantised",
    "_rebuild_meta_tensor_no_storage": "meta",
    "_rebuild_nested_tensor": "nested",
}


_DENSE = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")


_PARAMETERS = ("_rebuild_parameter", "_rebuild_parameter_with_state")


_INERT = {
    ("torch", "device"),
    ("torch", "Size"),
    ("torch", "Tensor"),
    ("torch.nn.parameter", "Parameter"),
    ("torch.serialization", "_get_layout"),
    ("_codecs", "encode"),
    ("builtins", "set"),
    ("__builtin__", "set"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
}
"""What stands beside a state_dict in a checkpoint: its results are not needed, so that nothing is made of them."""


_PLAIN = {
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class Damaged(Exception):
    """The pickle is cut short, malformed, or none that PyTorch writes."""


class ForeignObject(Exception):
    """The pickle asks for something beside tensors and plain data; the message is its name."""


@dataclass(frozen=True)
class Name:
    """A name that the pickle says; ``kind`` is the type of numbers where it names one."""

    text: str
    kind: str | None = None


@dataclass(frozen=True)
class Inert:
    """The result of a call that was not made."""

    name: str


@dataclass(frozen=True)
class Storage:
    """A row of ``count`` numbers of type ``kind``, which the file holds elsewhere under ``key``."""

    key: str
    kind: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A tensor as it is declared: nothing in it has been compared with its storage.

    Attributes:
        kind: of its numbers, PyTorch's name.
        layout: "strided" has the other fields; of the rest ("sparse", "quantised", ...) nothing else is read.
        offset, size, stride: in numbers, none of them negative.
    """

    kind: str
    layout: str = "strided"
    storage: Storage | None = None
    offset: int = 0
    size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()


class Interpreter:
    """Interprets pickles; ``storages`` are those that they spoke of, by key."""

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def load(self, stream: Any) -> Any:
        """The value of the pickle that begins where ``stream`` stands, which is left behind the pickle's end.

        Args:
            stream: a file of bytes, or mapped memory.

        Returns:
            dicts (with their entries of textual keys), lists, tuples, numbers, strings, bytes, None, ``Tensor``,
            ``Storage``, ``Name`` and ``Inert``.

        Raises:
            Damaged, ForeignObject: see there.
        """
        self._stack, self._marked, self._memo = [], [], {}
        try:
            for number, (operation, argument, _) in enumerate(pickletools.genops(stream)):
                if number == MOST_OPERATIONS:
                    raise Damaged(f"it has more than {MOST_OPERATIONS} operations")
                if operation.name == "STOP":
                    return self._stack.pop()
                self._do(operation.name, argument)
        except (ValueError, LookupError, TypeError, AttributeError, EOFError) as error:
            raise Damaged(str(error)) from error
        raise Damaged("it does not end")

    def _do(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _PLAIN:
            stack.append(_CONSTANTS.get(name, argument))
            return
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self._marked.append(stack)
                self._stack = []
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                items = self._since_mark()
                self._stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = self._pop(int(name[-1]))
                stack.append(tuple(items))
            case "APPEND":
                (item,) = self._pop(1)
                _extend(stack[-1], [item])
            case "APPENDS":
                items = self._since_mark()
                _extend(self._stack[-1], items)
            case "SETITEM":
                items = self._pop(2)
                _set(stack[-1], items)
            case "SETITEMS":
                items = self._since_mark()
                _set(self._stack[-1], items)
            case "GLOBAL":
                stack.append(_named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(_named(*self._pop(2)))
            case "REDUCE":
                stack.append(_call(*self._pop(2)))
            case "BUILD":  # the metadata of a state_dict, which says nothing about its tensors
                self._pop(1)
                if not isinstance(stack[-1], dict | Inert):
                    raise Damaged(f"{type(stack[-1]).__name__} with a state")
            case "BINPERSID":
                storage = _storage(stack.pop())
                if self.storages.setdefault(storage.key, storage) != storage:
                    raise Damaged(f"two storages have the key {storage.key!r:.40}")
                stack.append(storage)
            case _:
                raise Damaged(f"an operation {name}")

    def _pop(self, count: int) -> list[Any]:
        items = self._stack[-count:]
        if len(items) < count:
            raise Damaged("an operation without operands")
        del self._stack[-count:]
        return items

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items


def _extend(target: Any, items: list[Any]) -> None:
    if not isinstance(target, list):
        raise Damaged("something is put into what is no list")
    target.extend(items)


def _set(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        raise Damaged("something is put into what is no dict")
    for key, value in zip(items[::2], items[1::2]):
        # no tensor that is looked for has another key; nested tuples, or numbers that collide, take hours to hash
        if isinstance(key, str):
            target[key] = value


def _named(module: Any, name: Any) -> Name:
    """What a name of the pickle stands for; raises ``ForeignObject`` where it is none of those that are known."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise Damaged("a name that is no text")
    text = f"{module}.{name}"
    if module in ("torch", "torch.storage") and name in _STORAGES:
        return Name(text, _STORAGES[name])
    if module == "torch" and name in _DTYPES:
        return Name(text, name)
    rebuilt = module == "torch._utils" and name in (*_DENSE, *_PARAMETERS, *_OTHER_LAYOUTS)
    known = (module, name) in _INERT or text in ("collections.OrderedDict", "torch._tensor._rebuild_from_type_v2")
    if not rebuilt and not known:
        raise ForeignObject(text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}...")
    return Name(text)


def _call(function: Any, arguments: Any) -> Any:
    """What stands for the result of a call."""
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        raise Damaged("a call of what is no function")
    name = function.text.rpartition(".")[2]
    if name == "OrderedDict":
        made: dict[str, Any] = {}
        for key, value in arguments[0] if arguments else ():
            _set(made, [key, value])
        return made
    if name == "_rebuild_from_type_v2":  # a tensor that had attributes of its own
        return _call(arguments[0], arguments[2])
    if name in _PARAMETERS:
        return arguments[0]
    if name in _DENSE:
        storage, offset, size, stride = arguments[:4]
        kind = arguments[6].kind if name == "_rebuild_tensor_v3" else storage.kind
        if len(size) > MOST_DIMENSIONS:
            raise Damaged("a tensor of too many dimensions")
        for value in (offset, *size, *stride):
            if type(value) is not int or not 0 <= value < 1 << 62:
                raise Damaged("a tensor of no size")
        if not isinstance(storage, Storage) or type(size) is not tuple or len(size) != len(stride):
            raise Damaged("a tensor without a storage")
        return Tensor(kind, "strided", storage, offset, size, tuple(stride))
    if name in _OTHER_LAYOUTS:
        return Tensor("numbers", _OTHER_LAYOUTS[name])
    return Inert(function.text)


def _storage(told: Any) -> Storage:
    """The storage that a persistent id of the pickle names: ("storage", class, key, device, count, ...)."""
    _, name, key, _, count = told[:5]
    good = told[0] == "storage" and isinstance(key, str) and type(count) is int and 0 <= count < 1 << 62
    if not good or any(part is not None for part in told[5:]):
        raise Damaged("a storage that is none")
    if not isinstance(name, Name) or name.kind is None:
        raise Damaged("a storage of no type")
    return Storage(key, name.kind, count)
