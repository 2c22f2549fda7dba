"""What each of PyTorch's operators adds to a graph, by its name without its overload.

A handler gets the builder, the operator's arguments by the names of its schema and the name of the module for
messages; it returns a value of the graph, or a constant.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxsnn.conversion.common_ops import (
    Found,
    adaptive_pool,
    arithmetic,
    back,
    convolution,
    flat_pair,
    in_two_dimensions,
    pool,
    spatial_mean,
)
from jaxsnn.conversion.graph import (
    Builder,
    Concat,
    Linear,
    Norm,
    Pad,
    Relu,
    Reshape,
    Transpose,
    ValueId,
    sizes_after,
)
from jaxsnn.conversion.refusals import refuse
from jaxsnn.errors import UserError
from jaxsnn.networks.taps import Pads

Arguments = dict[str, Any]


def _x(arguments: Arguments, name: str, key: str = "input") -> Found:
    for found in (key, "self", "input"):
        if found in arguments:
            return arguments[found]
    raise UserError(f"{name} has no input")


def _activation(arguments: Arguments, name: str) -> ValueId:
    x = _x(arguments, name)
    if not isinstance(x, ValueId):
        raise UserError(
            f"{name} computes a weight from others, which is not converted: make the result a parameter"
        )
    return x


def _array(value: Any, name: str, what: str) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise UserError(f"{name} takes its {what} from an activation, which is not converted: no weight can")
    return value


def _optional(arguments: Arguments, key: str, name: str) -> np.ndarray | None:
    value = arguments.get(key)
    return None if value is None else _array(value, name, key)


def _conv(builder: Builder, a: Arguments, name: str) -> ValueId:
    if a.get("transposed"):
        raise refuse("conv_transpose", name)
    x = _activation(a, name)
    dimensions = len(builder.shapes[x]) - 2
    padding = a.get("padding", 0)
    pads: Pads | str = padding if isinstance(padding, str) else _both(padding, dimensions, name)
    return convolution(
        builder,
        x,
        _array(a["weight"], name, "weight"),
        _optional(a, "bias", name),
        name,
        a.get("stride", 1),
        pads,
        a.get("dilation", 1),
        a.get("groups", 1),
    )


def _both(padding: int | list[int], dimensions: int, name: str) -> Pads:
    """Equal zeros in front and behind, none around the rows of one dimension."""
    rows, columns = flat_pair(padding, dimensions, name, first=0)
    return (rows, rows), (columns, columns)


def _batch_norm(builder: Builder, a: Arguments, name: str) -> ValueId:
    x = _activation(a, name)
    mean, variance = (_optional(a, key, name) for key in ("running_mean", "running_var"))
    if mean is None or variance is None or a.get("training"):
        raise UserError(
            f"{name} normalises by the statistics of each batch: give it running statistics "
            "(track_running_stats=True) and export the module after eval()"
        )
    scale, bias = (_optional(a, key, name) for key in ("weight", "bias"))
    scale = np.ones_like(mean) if scale is None else scale
    bias = np.zeros_like(mean) if bias is None else bias
    return builder.add(Norm(scale, bias, mean, variance, a.get("eps", 1e-5)), x, name=name)


def _relu(cap: float | None) -> Callable[[Builder, Arguments, str], ValueId]:
    return lambda builder, a, name: builder.add(Relu(cap), _activation(a, name), name=name)


def _clamp(builder: Builder, a: Arguments, name: str) -> ValueId:
    low = a.get("min", a.get("min_val"))
    high = a.get("max", a.get("max_val"))
    if low != 0 or not (high is None or (isinstance(high, int | float) and high > 0)):
        raise UserError(
            f"{name} clips to [{low}, {high}], which is not converted: train with ReLU or ReLU6 in its place"
        )
    return builder.add(Relu(None if high is None else float(high)), _activation(a, name), name=name)


def _hardtanh(builder: Builder, a: Arguments, name: str) -> ValueId:
    return _clamp(builder, {"min_val": -1, "max_val": 1} | a, name)


def _same(builder: Builder, a: Arguments, name: str) -> Found:
    return _x(a, name)


def _dropout(builder: Builder, a: Arguments, name: str) -> Found:
    if a.get("train") or a.get("training"):
        raise UserError(f"{name} drops out at random: export the module after eval()")
    return _x(a, name)


def _arithmetic(kind: str) -> Callable[[Builder, Arguments, str], Found]:
    def add(builder: Builder, a: Arguments, name: str) -> Found:
        return arithmetic(builder, kind, _x(a, name), a["other"], name, float(a.get("alpha", 1)))

    return add


def _pool2d(kind: str) -> Callable[[Builder, Arguments, str], ValueId]:
    def add(builder: Builder, a: Arguments, name: str) -> ValueId:
        x = _activation(a, name)
        if a.get("divisor_override") is not None or a.get("dilation", 1) not in (1, [1], [1, 1]):
            raise UserError(f"{name} is a pool with a dilation or a divisor of its own, which is not converted")
        pads = _both(a.get("padding", 0), len(builder.shapes[x]) - 2, name)
        window, stride = a["kernel_size"], a.get("stride")
        return pool(
            builder,
            x,
            kind,
            name,
            window,
            stride,
            pads,
            a.get("ceil_mode", False),
            a.get("count_include_pad", True),
        )

    return add


def _adaptive(kind: str) -> Callable[[Builder, Arguments, str], ValueId]:
    def add(builder: Builder, a: Arguments, name: str) -> ValueId:
        x = _activation(a, name)
        target = a["output_size"]
        sides = len(builder.shapes[x]) - 2
        target = [target] * sides if isinstance(target, int) else target * sides if len(target) == 1 else target
        return adaptive_pool(builder, x, kind, name, target)

    return add


def _mean(builder: Builder, a: Arguments, name: str) -> ValueId:
    axes = a.get("dim")
    axes = [axes] if isinstance(axes, int) else axes or []
    return spatial_mean(builder, _activation(a, name), axes, a.get("keepdim", False), name)


def _linear(builder: Builder, a: Arguments, name: str) -> ValueId:
    weight = _array(a["weight"], name, "weight")
    return builder.add(Linear(weight, _optional(a, "bias", name)), _activation(a, name), name=name)


def _matmul(builder: Builder, a: Arguments, name: str) -> ValueId:
    """x @ matrix, and bias + x @ matrix (addmm)."""
    matrix = _array(a.get("mat2", a.get("other")), name, "matrix")
    if matrix.ndim != 2:
        raise UserError(f"{name} multiplies by an array of shape {matrix.shape}, expected a matrix")
    x = a["mat1"] if "mat1" in a else _activation(a, name)
    bias = _array(_x(a, name), name, "bias") if "mat1" in a else None
    if not isinstance(x, ValueId) or a.get("alpha", 1) != 1 or a.get("beta", 1) != 1:
        raise UserError(f"{name} is a product that is not converted: use torch.nn.Linear")
    return builder.add(Linear(matrix.T, bias), x, name=name)


def _reshape_to(compute: Callable[[tuple[int, ...], Arguments, str], tuple[int, ...]]) -> Any:
    """A handler that reshapes a value or a constant to what ``compute`` makes of its shape."""

    def add(builder: Builder, a: Arguments, name: str) -> Found:
        x = _x(a, name)
        if isinstance(x, ValueId):
            shape = sizes_after(builder.shapes[x], compute(builder.shapes[x], a, name), name)
            return builder.add(Reshape(shape), x, name=name)
        array = np.asarray(x)
        return array.reshape(sizes_after(array.shape, compute(array.shape, a, name), name))

    return add


def _sizes(shape: tuple[int, ...], a: Arguments, name: str) -> tuple[int, ...]:
    return tuple(int(size) for size in a.get("size", a.get("shape", ())))


def _axis(axis: int, count: int, name: str) -> int:
    if not -count <= axis < count:
        raise UserError(f"{name} names axis {axis} of {count}")
    return axis % count


def _flattened(shape: tuple[int, ...], a: Arguments, name: str) -> tuple[int, ...]:
    first, last = (
        _axis(a.get(key, usual), len(shape), name) for key, usual in (("start_dim", 0), ("end_dim", -1))
    )
    return (*shape[:first], int(np.prod(shape[first : last + 1])), *shape[last + 1 :])


def _unsqueezed(shape: tuple[int, ...], a: Arguments, name: str) -> tuple[int, ...]:
    at = _axis(a["dim"], len(shape) + 1, name)
    return (*shape[:at], 1, *shape[at:])


def _squeezed(shape: tuple[int, ...], a: Arguments, name: str) -> tuple[int, ...]:
    axes = a.get("dim", list(range(len(shape))))
    found = {_axis(axis, len(shape), name) for axis in ([axes] if isinstance(axes, int) else axes)}
    return tuple(size for axis, size in enumerate(shape) if size != 1 or axis not in found)


def _unflattened(shape: tuple[int, ...], a: Arguments, name: str) -> tuple[int, ...]:
    at = _axis(a["dim"], len(shape), name)
    return (*shape[:at], *sizes_after((shape[at],), tuple(a["sizes"]), name), *shape[at + 1 :])


def _transposed(order: Callable[[int, Arguments, str], tuple[int, ...]]) -> Any:
    def add(builder: Builder, a: Arguments, name: str) -> Found:
        x = _x(a, name)
        if isinstance(x, ValueId):
            return builder.add(Transpose(order(len(builder.shapes[x]), a, name)), x, name=name)
        return np.asarray(x).transpose(order(np.ndim(x), a, name))

    return add


def _permuted(count: int, a: Arguments, name: str) -> tuple[int, ...]:
    return tuple(_axis(axis, count, name) for axis in a["dims"])


def _swapped(count: int, a: Arguments, name: str) -> tuple[int, ...]:
    one, other = (_axis(a.get(key, usual), count, name) for key, usual in (("dim0", 0), ("dim1", 1)))
    order = list(range(count))
    order[one], order[other] = other, one
    return tuple(order)


def _pad(builder: Builder, a: Arguments, name: str) -> ValueId:
    x = _activation(a, name)
    amounts, value = list(a["pad"]), a.get("value") or 0
    if a.get("mode", "constant") != "constant" or value != 0 or min(amounts, default=0) < 0:
        raise UserError(f"{name} pads with other than zeros, or cuts, which is not converted: pad with zeros")
    amounts += [0] * (4 - len(amounts))
    x, dimensions = in_two_dimensions(builder, x, name)
    if any(amounts[2 * dimensions :]):
        raise UserError(f"{name} pads channels or the batch, which is not converted")
    return back(
        builder,
        builder.add(Pad(((amounts[2], amounts[3]), (amounts[0], amounts[1]))), x, name=name),
        dimensions,
        name,
    )


def _cat(builder: Builder, a: Arguments, name: str) -> ValueId:
    values = a["tensors"]
    if not values or not all(isinstance(value, ValueId) for value in values):
        raise UserError(f"{name} joins constants to activations, which is not converted")
    return builder.add(Concat(_axis(a.get("dim", 0), len(builder.shapes[values[0]]), name)), *values, name=name)


def _size(builder: Builder, a: Arguments, name: str) -> int:
    return builder.shapes[_activation(a, name)][a["dim"]]


HANDLERS: dict[str, Callable[[Builder, Arguments, str], Any]] = {
    "conv1d": _conv,
    "conv2d": _conv,
    "convolution": _conv,
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "relu": _relu(None),
    "relu6": _relu(6.0),
    "clamp": _clamp,
    "clamp_min": _clamp,
    "hardtanh": _hardtanh,
    "dropout": _dropout,
    "feature_dropout": _dropout,
    "alpha_dropout": _dropout,
    "linear": _linear,
    "addmm": _matmul,
    "mm": _matmul,
    "matmul": _matmul,
    "add": _arithmetic("add"),
    "sub": _arithmetic("sub"),
    "mul": _arithmetic("mul"),
    "div": _arithmetic("div"),
    "avg_pool1d": _pool2d("average"),
    "avg_pool2d": _pool2d("average"),
    "max_pool1d": _pool2d("max"),
    "max_pool2d": _pool2d("max"),
    "max_pool2d_with_indices": _pool2d("max"),
    "adaptive_avg_pool1d": _adaptive("average"),
    "adaptive_avg_pool2d": _adaptive("average"),
    "_adaptive_avg_pool2d": _adaptive("average"),
    "adaptive_max_pool1d": _adaptive("max"),
    "adaptive_max_pool2d": _adaptive("max"),
    "mean": _mean,
    "view": _reshape_to(_sizes),
    "_unsafe_view": _reshape_to(_sizes),
    "reshape": _reshape_to(_sizes),
    "flatten": _reshape_to(_flattened),
    "unflatten": _reshape_to(_unflattened),
    "unsqueeze": _reshape_to(_unsqueezed),
    "squeeze": _reshape_to(_squeezed),
    "permute": _transposed(_permuted),
    "transpose": _transposed(_swapped),
    "t": _transposed(_swapped),
    "pad": _pad,
    "constant_pad_nd": _pad,
    "cat": _cat,
    "concat": _cat,
    "sym_size": _size,
    "contiguous": _same,
    "clone": _same,
    "alias": _same,
    "detach": _same,
    "lift_fresh_copy": _same,
    "getitem": _same,
}
"""What each operator adds to the graph."""
