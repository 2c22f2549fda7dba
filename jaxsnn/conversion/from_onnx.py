"""An ONNX file as a graph, read without ONNX's own package.

Constants are followed through the small computations that exporters write around a reshape (Shape, Gather,
Concat); whatever depends on the image has to be one of the operations below.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn.conversion.common_ops import Found, arithmetic, convolution, pool, spatial_mean
from jaxsnn.conversion.graph import (
    NO_PADS,
    Affine,
    Builder,
    Concat,
    Graph,
    Linear,
    Norm,
    Pad,
    Relu,
    Reshape,
    Transpose,
    ValueId,
    sizes_after,
)
from jaxsnn.conversion.onnx_constants import CONSTANT_OPS
from jaxsnn.conversion.onnx_file import OnnxModel, OnnxNode, read_onnx
from jaxsnn.conversion.refusals import reading, refuse
from jaxsnn.errors import UserError
from jaxsnn.networks.taps import Pads

BATCH = 2
"""Images in the graph's batch where the file takes any number."""
OPSETS = (7, 27)
"""Versions of the standard operations that are known: before 7 several mean something else."""


def graph_of_onnx(path: Path, input_shape: Sequence[int] | None = None) -> Graph:
    """The graph of an ONNX file.

    Args:
        input_shape: of one input without the batch, for a file that leaves sizes open.

    Raises:
        UserError: no ONNX file, one whose sizes are not true or whose weights lie elsewhere, or an operation that
            is not converted.
    """
    with reading(path, "an ONNX file"):
        model = read_onnx(path)
        if not OPSETS[0] <= model.opset <= OPSETS[1]:
            raise UserError(
                f"{path} is written in opset {model.opset} of ONNX, expected {OPSETS[0]} to {OPSETS[1]}: export "
                "it with opset_version=17"
            )
        return _Translator(model, path, input_shape).run()


class _Translator:
    """Runs through the nodes of a model and builds its graph."""

    def __init__(self, model: OnnxModel, path: Path, input_shape: Sequence[int] | None):
        self.model, self.opset = model, model.opset
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise UserError(
                f"{path} takes {len(model.inputs)} inputs and gives {len(model.outputs)} outputs, expected an "
                "image and its logits"
            )
        ((self.input, shape),) = model.inputs.items()
        if input_shape is not None and len(shape) in (0, len(input_shape) + 1):
            said = shape[1:] or (None,) * len(input_shape)
            sizes = (given if size is None else size for size, given in zip(said, input_shape))
            shape = (next(iter(shape), None), *sizes)
        sizes = [size for size in shape[1:] if size is not None]
        if not shape or len(sizes) != len(shape) - 1:
            raise UserError(f"{path} leaves the size of its images open: say it with --input-shape (input_shape=)")
        self.builder = Builder((shape[0] or BATCH, *sizes))
        self.values: dict[str, Found] = {name: _widened(array) for name, array in model.constants.items()}
        self.values[self.input] = ValueId(0)

    def run(self) -> Graph:
        for node in self.model.nodes:
            found = self.node(node)
            if not node.outputs or node.outputs[0] in self.values:
                raise UserError(f"{name_of(node)} writes a value that is there already: export the model again")
            self.values[node.outputs[0]] = found
        output = self.values.get(self.model.outputs[0])
        if not isinstance(output, ValueId):
            raise UserError("the model's output does not depend on its input")
        readers = [node for node in self.model.nodes if self.input in node.inputs]
        order = readers[0].attributes.get("perm") if len(readers) == 1 and readers[0].kind == "Transpose" else None
        return self.builder.graph(output, "NHWC" if order == [0, 3, 1, 2] else "")

    def node(self, node: OnnxNode) -> Found:
        name = name_of(node)
        if node.domain not in ("", "ai.onnx"):
            raise refuse(f"{node.domain}.{node.kind}", name)
        if node.kind not in _HANDLERS and node.kind not in CONSTANT_OPS:
            raise refuse(node.kind, name)
        inputs = []
        for given in node.inputs:
            if given and given not in self.values:
                raise UserError(f"{name} reads {given}, which nothing before it makes: the nodes go in a circle")
            inputs.append(self.values[given] if given else None)
        call = Call(self.builder, node, inputs, name, self.opset)
        if node.kind in CONSTANT_OPS and not any(isinstance(value, ValueId) for value in inputs):
            return CONSTANT_OPS[node.kind](inputs, node.attributes, name)
        if node.kind == "Shape":
            return np.array(self.builder.shapes[call.x()][slice(*_ends(node))], np.int64)
        if node.kind not in _HANDLERS:
            raise refuse(node.kind, name)
        return _HANDLERS[node.kind](call)


def _ends(node: OnnxNode) -> tuple[int | None, int | None]:
    return node.attributes.get("start"), node.attributes.get("end")


def name_of(node: OnnxNode) -> str:
    """The module that a node's weight belongs to, where its name says so, else the node's own name."""
    weight = next((given for given in node.inputs[1:] if given.endswith(".weight")), "")
    if weight:
        return weight.removesuffix(".weight")
    plain = node.name.removeprefix("/").removesuffix(f"/{node.kind}").replace("/", ".")
    return plain or next(iter(node.outputs), "") or node.kind


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array


class Call:
    """A node with the values of its inputs."""

    def __init__(self, builder: Builder, node: OnnxNode, inputs: list[Found | None], name: str, opset: int):
        self.builder, self.inputs, self.name, self.opset = builder, inputs, name, opset
        self.attributes, self.kind = node.attributes, node.kind

    def attribute(self, key: str, usual: Any) -> Any:
        """The attribute, which must be of the type of ``usual`` unless that is None."""
        found = self.attributes.get(key, usual)
        if usual is not None and not isinstance(found, type(usual)):
            raise UserError(f"{self.name} has {key} {found!r}, expected a {type(usual).__name__}")
        return found

    def x(self, index: int = 0) -> ValueId:
        value = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(value, ValueId):
            raise UserError(f"{self.name} works on constants, which is not converted: fold constants on export")
        return value

    def array(self, index: int, what: str) -> np.ndarray:
        value = self.optional(index, what)
        if value is None:
            raise UserError(f"{self.name} has no {what}")
        return value

    def optional(self, index: int, what: str) -> np.ndarray | None:
        value = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(value, ValueId):
            raise UserError(f"{self.name} takes its {what} from an activation, which no weight can")
        return None if value is None else np.asarray(value)

    def whole_numbers(self, key: str, index: int, since: int) -> list[int] | None:
        """A list that is an attribute before opset ``since``, and an input from then on."""
        if self.opset < since:
            return self.attribute(key, None)
        value = self.optional(index, key)
        return None if value is None else [int(number) for number in value.reshape(-1)]

    def shape(self) -> tuple[int, ...]:
        return self.builder.shapes[self.x()]

    def add(self, operation: Any, *inputs: ValueId) -> ValueId:
        return self.builder.add(operation, *(inputs or (self.x(),)), name=self.name)

    def reshape(self, shape: Sequence[int]) -> ValueId:
        return self.add(Reshape(sizes_after(self.shape(), tuple(shape), self.name)))

    def pads(self) -> Pads | str:
        kind = self.attribute("auto_pad", "NOTSET")
        if kind != "NOTSET":
            return {"VALID": "valid", "SAME_UPPER": "same", "SAME_LOWER": "same_lower"}[kind]
        pads = self.attribute("pads", [])
        if not pads:
            return NO_PADS
        if len(pads) == 2:
            return (0, 0), (pads[0], pads[1])
        rows, columns, rows_end, columns_end = pads
        return (rows, rows_end), (columns, columns_end)


def _conv(call: Call) -> ValueId:
    weight, bias = call.array(1, "weight"), call.optional(2, "bias")
    stride, dilation = call.attribute("strides", [1]), call.attribute("dilations", [1])
    groups = call.attribute("group", 1)
    return convolution(call.builder, call.x(), weight, bias, call.name, stride, call.pads(), dilation, groups)


def _pool(kind: str) -> Callable[[Call], ValueId]:
    def add(call: Call) -> ValueId:
        if set(call.attribute("dilations", [1])) != {1}:
            raise UserError(f"{call.name} is a pool with a dilation, which is not converted")
        window = call.attribute("kernel_shape", [])
        stride = call.attribute("strides", [1] * len(window))
        counted = bool(call.attribute("count_include_pad", 0))
        ceil = bool(call.attribute("ceil_mode", 0))
        return pool(call.builder, call.x(), kind, call.name, window, stride, call.pads(), ceil, counted)

    return add


def _global(kind: str) -> Callable[[Call], ValueId]:
    return lambda call: pool(call.builder, call.x(), kind, call.name, list(call.shape()[2:]))


def _norm(call: Call) -> ValueId:
    if call.attribute("training_mode", 0):
        raise UserError(f"{call.name} normalises by the statistics of each batch: export the model after eval()")
    scale, bias, mean, variance = (
        call.array(index, what) for index, what in enumerate(("scale", "bias", "mean", "variance"), start=1)
    )
    return call.add(Norm(scale, bias, mean, variance, call.attribute("epsilon", 1e-5)))


def _clip(call: Call) -> ValueId:
    if call.opset < 11:
        low, high = call.attribute("min", None), call.attribute("max", None)
    else:
        low, high = (
            None if value is None else float(value.item()) for value in map(call.optional, (1, 2), ("min", "max"))
        )
    if low != 0 or not (high is None or high > 0):
        raise UserError(f"{call.name} clips to [{low}, {high}], which is not converted: train with ReLU or ReLU6")
    return call.add(Relu(None if high is None or high > 1e30 else high))


def _gemm(call: Call) -> ValueId:
    weight, bias = call.array(1, "matrix"), call.optional(2, "bias")
    if call.attribute("transA", 0) or weight.ndim != 2:
        raise UserError(f"{call.name} is a product that is not converted: only x @ matrix is")
    weight = weight if call.attribute("transB", 0) else weight.T
    if bias is not None:
        bias = np.broadcast_to(np.squeeze(bias), weight.shape[:1]) * call.attribute("beta", 1.0)
    return call.add(Linear(weight * call.attribute("alpha", 1.0), bias))


def _matmul(call: Call) -> ValueId:
    matrix = call.array(1, "matrix")
    if matrix.ndim != 2:
        raise UserError(f"{call.name} multiplies by an array of shape {matrix.shape}, expected a matrix")
    return call.add(Linear(matrix.T, None))


def _arithmetic(kind: str) -> Callable[[Call], Found]:
    def add(call: Call) -> Found:
        one, other = call.inputs
        if one is None or other is None:
            raise UserError(f"{call.name} needs two inputs")
        return arithmetic(call.builder, kind, one, other, call.name)

    return add


def _sum(call: Call) -> Found:
    total = call.inputs[0]
    for other in call.inputs[1:]:
        if total is None or other is None:
            raise UserError(f"{call.name} needs all of its inputs")
        total = arithmetic(call.builder, "add", total, other, call.name)
    return call.x() if total is None else total


def _dropout(call: Call) -> ValueId:
    training = call.optional(2, "mode")
    if training is not None and training.any():
        raise UserError(f"{call.name} drops out at random: export the model after eval()")
    return call.x()


def _flatten(call: Call) -> ValueId:
    shape = call.shape()
    axis = call.attribute("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return call.reshape((math.prod(shape[:axis]), math.prod(shape[axis:])))


def _reshape(call: Call) -> ValueId:
    wanted = [int(size) for size in call.array(1, "shape").reshape(-1)]
    if not call.attribute("allowzero", 0):
        wanted = [call.shape()[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    return call.reshape(wanted)


def _squeeze(call: Call) -> ValueId:
    shape, axes = call.shape(), call.whole_numbers("axes", 1, 13)
    found = set(range(len(shape))) if axes is None else {axis % len(shape) for axis in axes}
    return call.reshape([size for axis, size in enumerate(shape) if axis not in found or size != 1])


def _unsqueeze(call: Call) -> ValueId:
    axes = call.whole_numbers("axes", 1, 13) or []
    count = len(call.shape()) + len(axes)
    new, rest = {axis % count for axis in axes}, iter(call.shape())
    return call.reshape([1 if axis in new else next(rest) for axis in range(count)])


def _transpose(call: Call) -> ValueId:
    return call.add(Transpose(tuple(call.attribute("perm", list(range(len(call.shape())))[::-1]))))


def _mean(call: Call) -> ValueId:
    axes = call.whole_numbers("axes", 1, 18)
    keep = bool(call.attribute("keepdims", 1))
    return spatial_mean(call.builder, call.x(), axes or range(len(call.shape())), keep, call.name)


def _concat(call: Call) -> ValueId:
    values = [call.x(index) for index in range(len(call.inputs))]
    return call.add(Concat(call.attribute("axis", 1) % len(call.shape())), *values)


def _pad(call: Call) -> ValueId:
    pads = call.whole_numbers("pads", 1, 11) or []
    value = call.attribute("value", 0.0) if call.opset < 11 else call.optional(2, "value")
    dimensions = len(call.shape())
    axes = call.whole_numbers("axes", 3, 18) if call.opset >= 18 else None
    amounts = [(0, 0)] * dimensions
    for index, axis in enumerate(range(dimensions) if axes is None else axes):
        amounts[axis] = (pads[index], pads[index + len(pads) // 2])
    if call.attribute("mode", "constant") != "constant" or np.any(value) or min(map(min, amounts), default=0) < 0:
        raise UserError(f"{call.name} pads with other than zeros, or cuts, which is not converted: pad with zeros")
    if dimensions != 4 or amounts[:2] != [(0, 0), (0, 0)]:
        raise UserError(f"{call.name} pads other axes than H and W, which is not converted")
    return call.add(Pad((amounts[2], amounts[3])))


def _negative(call: Call) -> ValueId:
    return call.add(Affine(np.array(-1.0), np.array(0.0)))


_HANDLERS: dict[str, Callable[[Call], Found]] = {
    "Conv": _conv,
    "AveragePool": _pool("average"),
    "MaxPool": _pool("max"),
    "GlobalAveragePool": _global("average"),
    "GlobalMaxPool": _global("max"),
    "BatchNormalization": _norm,
    "Relu": lambda call: call.add(Relu()),
    "Clip": _clip,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _arithmetic("add"),
    "Sub": _arithmetic("sub"),
    "Mul": _arithmetic("mul"),
    "Div": _arithmetic("div"),
    "Neg": _negative,
    "Sum": _sum,
    "Dropout": _dropout,
    "Identity": lambda call: call.x(),
    "Cast": lambda call: call.x(),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "ReduceMean": _mean,
    "Concat": _concat,
    "Pad": _pad,
}
"""What each operation adds to the graph where its input depends on the image."""
