"""A Flax NNX module as a graph, read from the program (jaxpr) that JAX makes of it in inference mode.

Images are (N, H, W, C) there, so convolutions and pools stand between two transpositions, which cost nothing once
the graph is lowered. What depends on weights alone is computed on the way.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxsnn.conversion.common_ops import Found, arithmetic, back, convolution, in_two_dimensions, pool
from jaxsnn.conversion.graph import (
    Affine,
    Builder,
    Concat,
    Graph,
    Linear,
    Pad,
    Relu,
    Reshape,
    Transpose,
    ValueId,
)
from jaxsnn.conversion.refusals import refuse
from jaxsnn.errors import UserError

BATCH = 2
"""Images in the traced batch: not 1, so that a reshape which mixes images with one another shows."""


def graph_of_nnx(module: Any, input_shape: Sequence[int]) -> Graph:
    """The graph of a ``flax.nnx.Module`` for inputs (N, *input_shape); the module stays as it is.

    Args:
        input_shape: (H, W, C), (L, C) or (F,), as the module takes it, without the batch.

    Raises:
        UserError: JAX cannot trace the module, or it does something that is not converted.
    """
    shape = (BATCH, *input_shape)
    try:
        closed = jax.make_jaxpr(_in_inference(module))(jnp.zeros(shape))
    except UserError:
        raise
    except Exception as error:  # whatever the module or the tracer raises
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise UserError(
            f"JAX cannot trace {type(module).__name__} for an input of shape {shape} ({reason}): give input_shape "
            "as the module takes it, without the batch"
        ) from error
    translator = _Translator(shape, _names(module))
    (found,) = translator.run(closed.jaxpr, closed.consts, [ValueId(0)])[:1] or (None,)
    if not isinstance(found, ValueId) or len(closed.jaxpr.outvars) != 1:
        raise UserError("the model must return one array that depends on its input: the logits")
    return translator.builder.graph(found, {4: "NHWC", 3: "NWC"}.get(len(shape), ""))


def nnx_logits(module: Any, x: np.ndarray) -> np.ndarray:
    """What the module itself makes of ``x`` in inference mode, (N, classes)."""
    return np.asarray(_in_inference(module)(jnp.asarray(x)))


def _in_inference(module: Any) -> Callable:
    """A copy of the module that neither drops out nor normalises by the batch."""
    copy = nnx.merge(*nnx.split(module))
    copy.eval()
    return lambda x: copy(x)


def _names(module: Any) -> dict[int, str]:
    """Names of the modules that own the arrays, by the arrays' identities."""
    state = nnx.to_flat_state(nnx.state(module))
    return {id(leaf.get_value()): ".".join(map(str, path[:-1])) for path, leaf in state}


class _Translator:
    """Runs through a jaxpr's equations and builds the graph."""

    def __init__(self, shape: tuple[int, ...], names: dict[int, str]):
        self.builder = Builder(shape)
        self.names = names
        self.count = 0

    def run(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts)) | dict(zip(jaxpr.invars, inputs))
        for equation in jaxpr.eqns:
            given = [v.val if hasattr(v, "val") else values[v] for v in equation.invars]
            values |= dict(zip(equation.outvars, self.equation(equation, given)))
        return [v.val if hasattr(v, "val") else values[v] for v in jaxpr.outvars]

    def equation(self, equation: Any, inputs: list[Any]) -> list[Any]:
        kind, parameters = equation.primitive.name, equation.params
        inner = next((parameters[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in parameters), None)
        if inner is not None:
            return self.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs)
        if not any(isinstance(value, ValueId) for value in inputs):
            found = equation.primitive.bind(*inputs, **parameters)
            return list(found) if equation.primitive.multiple_results else [found]
        self.count += 1
        owner = next((self.names[id(value)] for value in inputs if id(value) in self.names), None)
        name = owner or f"{kind}{self.count}"
        if kind not in _HANDLERS:
            raise refuse(kind, name)
        return [_HANDLERS[kind](self.builder, inputs, parameters, name)]


def _value(inputs: list[Any], name: str, index: int = 0) -> ValueId:
    if not isinstance(inputs[index], ValueId):
        raise UserError(f"{name} works on a constant where an activation is expected, which is not converted")
    return inputs[index]


def _constant(value: Any, name: str) -> np.ndarray:
    if isinstance(value, ValueId):
        raise UserError(f"{name} multiplies activations with one another, which is not converted: no weight can")
    return np.asarray(value)


def _narrow(constant: Any) -> np.ndarray:
    """A constant without the axes along which it does not vary: they become 1 long."""
    array = np.asarray(constant, np.float64)
    for axis in range(array.ndim):
        first = array.take([0], axis)
        if array.shape[axis] > 1 and (array == first).all():
            array = first
    return array


def _behind(builder: Builder, x: ValueId, order: Sequence[int], name: str, apply: Callable) -> ValueId:
    """``apply`` to the axes in ``order``, (N, C, H, W), and back."""
    turned = builder.add(Transpose(tuple(order)), x, name=name)
    inverse = tuple(int(axis) for axis in np.argsort(order))
    return builder.add(Transpose(inverse), apply(turned), name=name)


def _conv(builder: Builder, inputs: list[Any], p: dict[str, Any], name: str) -> ValueId:
    numbers = p["dimension_numbers"]
    if set(p["lhs_dilation"]) != {1} or p["batch_group_count"] != 1:
        raise refuse("conv_transpose", name)
    weight = _constant(inputs[1], name).transpose(numbers.rhs_spec)
    padding = [(int(low), int(high)) for low, high in p["padding"]]
    pads = ((0, 0), padding[0]) if len(padding) == 1 else (padding[0], padding[1])
    x = builder.add(Transpose(tuple(numbers.lhs_spec)), _value(inputs, name), name=name)
    strides, dilation = list(p["window_strides"]), list(p["rhs_dilation"])
    made = convolution(builder, x, weight, None, name, strides, pads, dilation, p["feature_group_count"])
    return builder.add(Transpose(tuple(int(axis) for axis in np.argsort(numbers.out_spec))), made, name=name)


def _dot(builder: Builder, inputs: list[Any], p: dict[str, Any], name: str) -> ValueId:
    ((left, right), (batch, _)) = p["dimension_numbers"]
    x, matrix = _value(inputs, name), _constant(inputs[1], name)
    if tuple(left) != (len(builder.shapes[x]) - 1,) or batch or matrix.ndim != 2:
        raise UserError(f"{name} is a product that is not converted: use flax.nnx.Linear on the last axis")
    return builder.add(Linear(matrix if right[0] == 1 else matrix.T, None), x, name=name)


def _arithmetic(kind: str) -> Callable:
    def add(builder: Builder, inputs: list[Any], p: dict[str, Any], name: str) -> Found:
        one, other = (v if isinstance(v, ValueId) else _narrow(v) for v in inputs)
        return arithmetic(builder, kind, one, other, name)

    return add


def _max(builder: Builder, inputs: list[Any], p: dict[str, Any], name: str) -> ValueId:
    x, low = (inputs[0], inputs[1]) if isinstance(inputs[0], ValueId) else (inputs[1], inputs[0])
    if isinstance(low, ValueId) or np.any(np.asarray(low)):
        raise UserError(f"{name} is a maximum that is no ReLU, which is not converted: train with ReLU")
    return builder.add(Relu(), x, name=name)


def _min(builder: Builder, inputs: list[Any], p: dict[str, Any], name: str) -> ValueId:
    x, high = (inputs[0], inputs[1]) if isinstance(inputs[0], ValueId) else (inputs[1], inputs[0])
    before = builder.nodes[x - 1] if x > 0 else None
    cap = None if isinstance(high, ValueId) else _narrow(high)
    if cap is None or cap.size != 1 or cap.item() <= 0 or before is None or not isinstance(before.operation, Relu):
        raise UserError(f"{name} is a minimum that is no ReLU6, which is not converted: train with ReLU or ReLU6")
    own = before.operation.cap
    return builder.add(Relu(min(cap.item(), own or math.inf)), ValueId(before.inputs[0]), name=name)


def _spatial_axes(count: int, axes: Sequence[int], name: str) -> list[int]:
    """The order of axes that puts the batch, the channels and then the averaged ones."""
    rest = [axis for axis in range(1, count) if axis not in axes]
    if count not in (3, 4) or len(rest) != 1 or 0 in axes:
        raise UserError(f"{name} sums over the axes {tuple(axes)} of {count}: only all positions can be averaged")
    return [0, rest[0], *sorted(axes)]


def _sum(builder: Builder, inputs: list[Any], p: dict[str, Any], name: str) -> ValueId:
    x, axes = _value(inputs, name), [int(axis) for axis in p["axes"]]
    shape = builder.shapes[x]
    turned = builder.add(Transpose(tuple(_spatial_axes(len(shape), axes, name))), x, name=name)
    sides = builder.shapes[turned][2:]
    mean = pool(builder, turned, "average", name, list(sides))
    flat = builder.add(Reshape(builder.shapes[turned][:2]), mean, name=name)
    return builder.add(Affine(np.array(float(math.prod(sides))), np.array(0.0)), flat, name=name)


def _window(kind: str) -> Callable:
    def add(builder: Builder, inputs: list[Any], p: dict[str, Any], name: str) -> ValueId:
        x = _value(inputs, name)
        sides, strides = list(p["window_dimensions"]), list(p["window_strides"])
        padding = [(int(low), int(high)) for low, high in p["padding"]]
        moved = [
            axis for axis in range(len(sides)) if (sides[axis], strides[axis], padding[axis]) != (1, 1, (0, 0))
        ]
        count = len(builder.shapes[x])
        if {*p.get("base_dilation", ()), *p.get("window_dilation", ())} - {1} or not set(moved) <= {
            *range(1, count - 1)
        }:
            raise UserError(f"{name} is a pool over channels, or with a dilation, which is not converted")
        inner = list(range(1, count - 1))
        pads = [padding[axis] for axis in inner]
        both = ((0, 0), pads[0]) if len(pads) == 1 else (pads[0], pads[1])

        def apply(turned: ValueId) -> ValueId:
            window, stride = [sides[axis] for axis in inner], [strides[axis] for axis in inner]
            made = pool(builder, turned, kind, name, window, stride, both)
            if kind == "max":
                return made
            return builder.add(Affine(np.array(float(math.prod(window))), np.array(0.0)), made, name=name)

        return _behind(builder, x, [0, count - 1, *inner], name, apply)

    return add


def _reshape(builder: Builder, inputs: list[Any], p: dict[str, Any], name: str) -> ValueId:
    return builder.add(Reshape(tuple(p["new_sizes"])), _value(inputs, name), name=name)


def _squeeze(builder: Builder, inputs: list[Any], p: dict[str, Any], name: str) -> ValueId:
    x = _value(inputs, name)
    kept = tuple(size for axis, size in enumerate(builder.shapes[x]) if axis not in p["dimensions"])
    return builder.add(Reshape(kept), x, name=name)


def _broadcast(builder: Builder, inputs: list[Any], p: dict[str, Any], name: str) -> ValueId:
    x, target = _value(inputs, name), tuple(p["shape"])
    if math.prod(builder.shapes[x]) != math.prod(target) or list(p["broadcast_dimensions"]) != sorted(
        p["broadcast_dimensions"]
    ):
        raise UserError(f"{name} repeats an activation, which is not converted")
    return builder.add(Reshape(target), x, name=name)


def _transpose(builder: Builder, inputs: list[Any], p: dict[str, Any], name: str) -> ValueId:
    return builder.add(Transpose(tuple(p["permutation"])), _value(inputs, name), name=name)


def _concatenate(builder: Builder, inputs: list[Any], p: dict[str, Any], name: str) -> ValueId:
    return builder.add(Concat(p["dimension"]), *(_value(inputs, name, i) for i in range(len(inputs))), name=name)


def _pad(builder: Builder, inputs: list[Any], p: dict[str, Any], name: str) -> ValueId:
    x, amounts = _value(inputs, name), [tuple(int(n) for n in triple) for triple in p["padding_config"]]
    outer, inner = [amounts[0], amounts[-1]], amounts[1:-1]
    if np.any(_constant(inputs[1], name)) or any(any(a) for a in outer) or any(a[2] or min(a) < 0 for a in inner):
        raise UserError(f"{name} pads with other than zeros around H and W, which is not converted")
    pads = [(a[0], a[1]) for a in inner]

    def apply(turned: ValueId) -> ValueId:
        square, dimensions = in_two_dimensions(builder, turned, name)
        both = ((0, 0), pads[0]) if dimensions == 1 else (pads[0], pads[1])
        return back(builder, builder.add(Pad(both), square, name=name), dimensions, name)

    count = len(amounts)
    return _behind(builder, x, [0, count - 1, *range(1, count - 1)], name, apply)


def _same(builder: Builder, inputs: list[Any], p: dict[str, Any], name: str) -> ValueId:
    return _value(inputs, name)


def _cast(builder: Builder, inputs: list[Any], p: dict[str, Any], name: str) -> ValueId:
    if not jnp.issubdtype(p["new_dtype"], jnp.floating):
        raise UserError(f"{name} turns activations into {p['new_dtype']}, which is not converted")
    return _value(inputs, name)


def _negative(builder: Builder, inputs: list[Any], p: dict[str, Any], name: str) -> ValueId:
    return builder.add(Affine(np.array(-1.0), np.array(0.0)), _value(inputs, name), name=name)


_HANDLERS: dict[str, Callable[[Builder, list[Any], dict[str, Any], str], Found]] = {
    "conv_general_dilated": _conv,
    "dot_general": _dot,
    "add": _arithmetic("add"),
    "add_any": _arithmetic("add"),
    "sub": _arithmetic("sub"),
    "mul": _arithmetic("mul"),
    "div": _arithmetic("div"),
    "neg": _negative,
    "max": _max,
    "min": _min,
    "reduce_sum": _sum,
    "reduce_window_sum": _window("average"),
    "reduce_window_max": _window("max"),
    "reshape": _reshape,
    "squeeze": _squeeze,
    "expand_dims": _broadcast,
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "pad": _pad,
    "convert_element_type": _cast,
    "copy": _same,
    "copy_p": _same,
    "stop_gradient": _same,
}
"""What each of JAX's primitives adds to the graph where an input depends on the image."""
