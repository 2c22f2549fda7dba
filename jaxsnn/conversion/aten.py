"""PyTorch's operators (ATen) as nodes of a graph: what ``torch.export`` writes, live or in a file.

An operator that writes into its input (``relu_``) gives that input its new value. A view of the input that was
made before and is used after is refused, because it would see the new value in PyTorch and the old one here.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.conversion.aten_ops import HANDLERS
from jaxsnn.conversion.common_ops import Found
from jaxsnn.conversion.graph import Builder, Graph, ValueId
from jaxsnn.conversion.refusals import refuse
from jaxsnn.errors import UserError

_NOTHING = {"_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range_for_size", "_assert_async"}
"""Checks, which compute nothing."""
_VIEWS = {
    "view", "flatten", "reshape", "squeeze", "unsqueeze", "permute", "transpose", "t", "alias", "detach",
    "contiguous", "dropout", "to", "unflatten",
}  # fmt: skip
"""Operators whose result may share memory with their input."""


@dataclass(frozen=True)
class Ref:
    """A value of the program by its name."""

    name: str


@dataclass(frozen=True)
class Call:
    """One operator, "conv2d.default" for instance.

    Attributes:
        arguments: by the names of its schema, defaults left out.
        results: names of what it makes; only the first is followed.
        module: name of the module that it stands in.
    """

    target: str
    arguments: dict[str, Any]
    results: tuple[str, ...]
    module: str


class Translator:
    """Runs through the calls of a program and builds its graph."""

    def __init__(self, shape: tuple[int, ...], input_name: str, constants: dict[str, tuple[str, np.ndarray]]):
        """``constants`` are the arrays by the name that calls use, each with its name in the module."""
        self.builder = Builder(shape)
        self.values: dict[str, Any] = {input_name: ValueId(0)} | {
            key: array for key, (_, array) in constants.items()
        }
        self.owners = {key: owner for key, (owner, _) in constants.items()}
        self.storage: dict[str, str] = {}
        self.stale: dict[str, str] = {}

    def run(self, calls: list[Call], output: str) -> Graph:
        for call in calls:
            self.call(call)
        found = self.value(Ref(output), "the output")
        if not isinstance(found, ValueId):
            raise UserError("the model's output does not depend on its input")
        return self.builder.graph(found)

    def call(self, call: Call) -> None:
        base = call.target.split(".")[0]
        name = self.name_of(call)
        if base in _NOTHING:
            return
        writes = base.endswith("_") and not base.startswith("__")
        handler = HANDLERS.get(base.rstrip("_") if writes else base)
        if handler is None:
            raise refuse(base.rstrip("_"), name)
        arguments = {key: self.resolve(value, name) for key, value in call.arguments.items()}
        found = handler(self.builder, arguments, name)
        for result in call.results[:1]:
            self.values[result] = found
            self.note_storage(call, base, result, found, writes)

    def name_of(self, call: Call) -> str:
        """The module that owns the call's weight, else the one that it stands in, else the value's own name."""
        for key in ("weight", "running_mean", "other", "mat2"):
            value = call.arguments.get(key)
            if isinstance(value, Ref) and value.name in self.owners:
                return self.owners[value.name].rpartition(".")[0] or self.owners[value.name]
        return call.module or (call.results[0] if call.results else call.target)

    def note_storage(self, call: Call, base: str, result: str, found: Found, writes: bool) -> None:
        first = next((v.name for v in call.arguments.values() if isinstance(v, Ref)), None)
        if first is None or not (writes or base in _VIEWS):
            return
        root = self.storage.get(first, first)
        self.storage[result] = root
        if writes:
            sharing = [name for name in (*self.storage, root) if self.storage.get(name, name) == root]
            self.stale |= {name: base for name in sharing if name not in (first, result)}
            self.values[first] = found

    def resolve(self, value: Any, name: str) -> Any:
        if isinstance(value, Ref):
            return self.value(value, name)
        if isinstance(value, list | tuple):
            return [self.resolve(item, name) for item in value]
        return value

    def value(self, ref: Ref, name: str) -> Any:
        if ref.name not in self.values:
            raise UserError(f"{name} uses {ref.name}, which nothing before it makes")
        if ref.name in self.stale:
            raise UserError(
                f"{name} uses a value that {self.stale[ref.name]} has written over: make that operation one that "
                "is not in place"
            )
        return self.values[ref.name]
