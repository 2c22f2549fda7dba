"""A ``.pt2`` archive of ``torch.export.save`` as a graph, without PyTorch and without unpickling anything.

Such an archive is a zip file with the program as JSON and every weight as raw numbers. The pickled example input
in it is not read.
"""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxsnn.conversion.aten import Call, Ref, Translator
from jaxsnn.conversion.bounded_archive import Archive
from jaxsnn.conversion.graph import Graph
from jaxsnn.conversion.refusals import reading
from jaxsnn.errors import UserError

WHAT = "an archive of torch.export.save"
BATCH = 2
"""Images in the graph's batch where the program takes any number."""
_TYPES: dict[int, Any] = {
    1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 6: np.float16, 7: np.float32, 8: np.float64,
    12: np.bool_, 13: ml_dtypes.bfloat16,
}  # fmt: skip
"""PyTorch's numbers for its types."""


def graph_of_pt2(path: Path) -> Graph:
    """The graph of an exported program.

    Raises:
        UserError: no such archive, one whose sizes are not true, or a program that is not converted.
    """
    with reading(path, WHAT), Archive(path, WHAT) as archive:
        program = archive.named("/models/model.json")
        if program is None:
            raise UserError(
                f"{path} holds no models/model.json: write it with torch.export.save(torch.export.export(model, "
                "(example,)), path) of PyTorch 2.9 or later"
            )
        module = json.loads(archive.read(program))["graph_module"]
        root = program.removesuffix("models/model.json")
        return _graph(module, _Weights(archive, root))


class _Weights:
    """The arrays of an archive by their names in the module."""

    def __init__(self, archive: Archive, root: str):
        self.archive, self.root = archive, root
        self.config = {}
        for folder, name in (("weights", "model_weights"), ("constants", "model_constants")):
            listed = f"{root}data/{folder}/{name}_config.json"
            if listed in archive.members:
                for key, entry in json.loads(archive.read(listed))["config"].items():
                    self.config[key] = (f"{root}data/{folder}/{entry['path_name']}", entry)

    def array(self, name: str) -> np.ndarray:
        if not self.config and any(name.endswith(".pt") for name in self.archive.members):
            raise UserError(
                f"{self.archive.path} holds its weights in a pickle, as PyTorch before 2.9 writes them, which is "
                "not read because it could run code: export it with PyTorch 2.9 or later, or to ONNX"
            )
        if name not in self.config:
            raise UserError(f"{self.archive.path} holds no {name}: export it again")
        member, entry = self.config[name]
        meta = entry["tensor_meta"]
        if entry.get("use_pickle"):
            raise UserError(f"{self.archive.path} pickles {name}, which could run code: make it a plain tensor")
        if meta["dtype"] not in _TYPES or meta.get("layout", 7) != 7:
            raise UserError(f"{self.archive.path}: {name} is sparse or of a type that is not read")
        stored = np.frombuffer(self.archive.read(member), _TYPES[meta["dtype"]])
        sizes, strides = ([int(n["as_int"]) for n in meta[key]] for key in ("sizes", "strides"))
        offset = int(meta["storage_offset"]["as_int"])
        last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides))
        if len(sizes) != len(strides) or min([offset, *strides, *sizes]) < 0 or last >= len(stored):
            raise UserError(
                f"{self.archive.path} says that {name} has shape {tuple(sizes)}, but holds too few numbers for it"
            )
        if 0 in strides and np.prod(sizes, dtype=object) > len(stored):
            raise UserError(f"{self.archive.path}: {name} repeats its numbers, which PyTorch does not write")
        steps = [stride * stored.itemsize for stride in strides]
        view = np.lib.stride_tricks.as_strided(stored[offset:], sizes, steps, writeable=False)
        floating = np.issubdtype(view.dtype, np.floating) or view.dtype.name == "bfloat16"
        return view.astype(np.float32) if floating and view.dtype != np.float64 else np.array(view)


def _graph(module: dict[str, Any], weights: _Weights) -> Graph:
    graph, signature = module["graph"], module["signature"]
    constants: dict[str, tuple[str, np.ndarray]] = {}
    inputs = []
    for spec in signature["input_specs"]:
        ((kind, value),) = spec.items()
        if kind == "user_input":
            inputs.append(value["arg"]["as_tensor"]["name"])
        else:
            owner = next((value[key] for key in _OWNERS if key in value), None)
            if owner is None:
                raise UserError(f"the model takes {kind}, which is not converted")
            constants[value["arg"]["name"]] = (owner, weights.array(owner))
    if len(inputs) != 1:
        raise UserError(f"the model takes {len(inputs)} inputs, expected one: the image")
    outputs = [spec["user_output"]["arg"] for spec in signature["output_specs"] if "user_output" in spec]
    if len(outputs) != 1 or len(signature["output_specs"]) != 1 or "as_tensor" not in outputs[0]:
        raise UserError(f"the model returns {len(signature['output_specs'])} values, expected one: the logits")
    sizes = graph["tensor_values"][inputs[0]]["sizes"]
    if any("as_int" not in size for size in sizes[1:]):
        raise UserError("the model takes images of any size: export it with an example of the size that you use")
    shape = (sizes[0].get("as_int", BATCH), *(size["as_int"] for size in sizes[1:]))
    if not all(type(size) is int and size > 0 for size in shape):
        raise UserError(f"the model takes images of the shape {shape!r:.200}, expected whole numbers above 0")
    calls = [_call(node) for node in graph["nodes"]]
    return Translator(shape, inputs[0], constants).run(calls, outputs[0]["as_tensor"]["name"])


_OWNERS = ("parameter_name", "buffer_name", "tensor_constant_name")


def _call(node: dict[str, Any]) -> Call:
    target = str(node["target"]).rpartition("torch.ops.aten.")[2].removeprefix("_operator.")
    arguments = {entry["name"]: _argument(entry["arg"]) for entry in node["inputs"]}
    results = []
    for output in node["outputs"]:
        ((kind, value),) = output.items()
        results.append(value["as_name"] if kind == "as_sym_int" else value["name"] if kind == "as_tensor" else "")
    stack = str(node.get("metadata", {}).get("nn_module_stack", "")).split(";")[-1].split(",")
    return Call(target, arguments, tuple(results), stack[1] if len(stack) > 2 else "")


def _argument(argument: dict[str, Any]) -> Any:
    ((kind, value),) = argument.items()
    match kind:
        case "as_none":
            return None
        case "as_tensor":
            return Ref(value["name"])
        case "as_tensors":
            return [Ref(item["name"]) for item in value]
        case "as_optional_tensor":
            return _argument(value)
        case "as_sym_int":
            return _size(value)
        case "as_sym_ints":
            return [_size(item) for item in value]
        case "as_int" | "as_ints" | "as_float" | "as_floats" | "as_bool" | "as_string":
            return value
    return f"an argument of type {kind.removeprefix('as_')}"


def _size(value: dict[str, Any]) -> Any:
    return Ref(value["as_name"]) if "as_name" in value else value["as_int"]
