"""A network's twin in PyTorch: what a foreign file computes in its own layout, and the way back to one.

PyTorch is an optional dependency, so it is imported inside the functions.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxsnn.conversion.state_dicts import Module, require_torch
from jaxsnn.errors import UserError
from jaxsnn.networks.description import (
    EPSILON,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Edge,
    MaxPool,
    Network,
    Op,
    Params,
    ScaleNorm,
    WithParameters,
    run,
    walk,
)
from jaxsnn.networks.taps import Pair, Taps, short


def torch_logits(
    network: Network,
    modules: dict[str, Module],
    images: np.ndarray,
    batch: int = 100,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Logits (N, classes) of uint8 images (N, H, W, C), computed in PyTorch from a file's own tensors.

    Independent of our layouts, lowerings and folding: NCHW, norms in inference mode, float32.

    Args:
        modules: the module of every op, as ``jaxsnn.conversion.import_network`` found them.
        progress: called with the number of images that have just been finished.
    """
    torch = require_torch("computing a network in its original layout")
    functional = torch.nn.functional
    tensors = {
        name: {part: torch.from_numpy(np.ascontiguousarray(array)) for part, array in module.tensors.items()}
        for name, module in modules.items()
    }

    def apply_op(op: Op, x: Any) -> Any:
        own = tensors.get(op.name, {}) if isinstance(op, WithParameters) else {}
        match op:
            case Conv():
                taps = op.taps
                x = functional.pad(x, _around(taps))
                return functional.conv2d(
                    x, own["weight"], own.get("bias"), taps.strides, 0, taps.dilation, op.groups
                )
            case Dense():
                return functional.linear(x.flatten(1), own["weight"], own.get("bias"))
            case AvgPool():
                taps, whole = op.taps, x if op.count_padding else torch.ones_like(x[:1])
                sums, counts = (
                    functional.avg_pool2d(functional.pad(part, _around(taps)), taps.sides, taps.strides)
                    for part in (x, whole)
                )
                return sums if op.count_padding else sums / counts
            case MaxPool():
                taps = op.taps
                return functional.max_pool2d(
                    functional.pad(x, _around(taps), value=-np.inf), taps.sides, taps.strides
                )
            case BatchNorm() | ScaleNorm():
                epsilon = op.epsilon if isinstance(op, BatchNorm) else EPSILON
                statistics = own["running_mean"], own["running_var"]
                return functional.batch_norm(x, *statistics, own.get("weight"), own.get("bias"), eps=epsilon)
        return x

    def apply(edge: Edge, x: Any) -> Any:
        for op in edge.ops:
            x = apply_op(op, x)
        return x

    mean, std = (torch.tensor(values)[:, None, None] for values in (network.mean, network.std))
    logits = []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            x = (torch.from_numpy(part.transpose(0, 3, 1, 2).copy()).float() / 255 - mean) / std
            caps = iter([layer.cap for layer in network.layers])
            logits.append(run(network, x, apply, lambda z, caps=caps: z.clamp(0, next(caps)))[-1].numpy())
            if progress is not None:
                progress(len(part))
    return np.concatenate(logits)


def _around(taps: Taps) -> tuple[int, int, int, int]:
    """Padding in PyTorch's order: left, right, top, bottom."""
    (top, bottom), (left, right) = taps.pads
    return left, right, top, bottom


def state_dict(network: Network, params: Params) -> dict[str, Any]:
    """The network as a PyTorch ``state_dict`` of float32 tensors, the inverse of ``import_network``.

    Keys are ``module_names``. A ``ScaleNorm`` becomes a BatchNorm whose running mean and bias are zero.
    """
    torch = require_torch("writing a PyTorch file")
    refuse_quantised(network)
    names = module_names(network)
    state = {}
    for _, _, op, shape in walk(network):
        if not isinstance(op, WithParameters):
            continue
        parts = {}
        match op:
            case Conv():
                parts = {"weight": params[f"{op.name}.kernel"].transpose(3, 2, 0, 1)}
            case Dense() if len(shape) == 3:
                kernel = params[f"{op.name}.kernel"].reshape(*shape, op.features)
                parts = {"weight": kernel.transpose(3, 2, 0, 1).reshape(op.features, -1)}
            case Dense():
                parts = {"weight": params[f"{op.name}.kernel"].T}
            case BatchNorm() | ScaleNorm():
                zeros = np.zeros(shape[-1], np.float32)
                parts = {
                    "weight": params[f"{op.name}.scale"],
                    "bias": params.get(f"{op.name}.bias", zeros),
                    "running_mean": params.get(f"{op.name}.mean", zeros),
                    "running_var": params[f"{op.name}.var"],
                    "num_batches_tracked": np.asarray(0),
                }
        if isinstance(op, Conv | Dense) and op.bias:
            parts["bias"] = params[f"{op.name}.bias"]
        for part, array in parts.items():
            state[f"{names[op.name]}.{part}"] = torch.from_numpy(np.array(array, order="C"))
    return state


def refuse_quantised(network: Network) -> None:
    """Raise ``UserError`` for activations that a PyTorch file cannot hold."""
    if any(layer.levels for layer in network.layers):
        raise UserError(
            f"network {network.name} has quantised activations, for which PyTorch has no module: only networks "
            "with ReLUs can be exported or imported"
        )


def module_names(network: Network) -> dict[str, str]:
    """PyTorch's name of every op with parameters: its position in an ``nn.Sequential``, else the op's own name."""
    lines = sequential(network)
    if lines is None:
        return {op.name: op.name for _, _, op, _ in walk(network) if isinstance(op, WithParameters)}
    return {name: str(position) for position, (name, _) in enumerate(lines) if name}


def sequential(network: Network) -> list[tuple[str, str]] | None:
    """The network as the modules of an ``nn.Sequential``, (op name or "", PyTorch expression) each; None if it has
    shortcuts."""
    if any(len(layer.edges) != 1 or layer.edges[0].source != i - 1 for i, layer in enumerate(network.layers)):
        return None
    lines: list[tuple[str, str]] = []
    previous, flat = None, False
    for layer, edge, op, shape in walk(network):
        if previous is not None and layer is not previous:
            lines.append(("", _ACTIVATIONS.get(previous.cap) or f"Hardtanh(0, {previous.cap})"))
        previous = layer
        if not flat and _flattens_here(edge, op):
            lines.append(("", "Flatten()"))
            flat = True
        if isinstance(op, Conv | AvgPool | MaxPool) and _uneven(op.taps):
            if isinstance(op, AvgPool) and not op.count_padding:
                raise UserError(
                    f"layer {layer.name} has a pool that does not count uneven padding: PyTorch has no such module"
                )
            lines.append(("", f"ZeroPad2d({_around(op.taps)})"))
        lines.append((op.name if isinstance(op, WithParameters) else "", _expression(op, shape)))
    return lines


def _flattens_here(edge: Edge, op: Op) -> bool:
    """Whether the flatten stands in front of ``op``: a dense map, or the dropout in front of it."""
    rest = edge.ops[edge.ops.index(op) :]
    ahead = [o for o in rest if not isinstance(o, Dropout)]
    return isinstance(op, Dense | Dropout) and bool(ahead) and isinstance(ahead[0], Dense)


_ACTIVATIONS = {None: "ReLU()", 6.0: "ReLU6()"}


def _uneven(taps: Taps) -> bool:
    """Whether opposite sides are padded differently, for which PyTorch's modules have no argument."""
    return any(before != behind for before, behind in taps.pads)


def _padding(taps: Taps) -> int | Pair:
    """The padding of a module itself."""
    return 0 if _uneven(taps) else short((taps.pads[0][0], taps.pads[1][0]))


def _expression(op: Op, shape: tuple[int, ...]) -> str:
    match op:
        case Conv():
            more = {"dilation": (op.dilation, 1), "groups": (op.groups, 1)}
            extra = "".join(f", {name}={value}" for name, (value, usual) in more.items() if value != usual)
            window = f"{op.kernel}, stride={op.stride}, padding={_padding(op.taps)}"
            return f"Conv2d({shape[-1]}, {op.features}, {window}, bias={op.bias}{extra})"
        case Dense():
            return f"Linear({np.prod(shape)}, {op.features}, bias={op.bias})"
        case AvgPool() | MaxPool():  # padded zeros are never above a maximum of activations
            more = {"stride": (op.stride, None), "padding": (_padding(op.taps), 0)}
            if isinstance(op, AvgPool):
                more |= {"count_include_pad": (op.count_padding, True)}
            extra = "".join(f", {name}={value}" for name, (value, usual) in more.items() if value != usual)
            return f"{type(op).__name__}2d({op.window}{extra})"
        case Dropout():
            return f"Dropout({op.rate})"
    epsilon = op.epsilon if isinstance(op, BatchNorm) else EPSILON
    return f"BatchNorm{'2d' if len(shape) == 3 else '1d'}({shape[-1]}, eps={epsilon})"
