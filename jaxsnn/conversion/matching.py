"""Which array of a foreign file belongs to which layer of a network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxsnn.conversion.state_dicts import CONVOLUTION, LINEAR, NORM, Module
from jaxsnn.errors import UserError
from jaxsnn.networks.description import (
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Edge,
    Layer,
    MaxPool,
    Network,
    Op,
    Params,
    ScaleNorm,
    WithParameters,
    walk,
)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """One line of the report: an op of the network, the module that it was read from, and what became of it."""

    layer: str
    op: str
    module: str
    shape: str
    what: str


def match(network: Network, modules: Sequence[Module], where: str) -> dict[str, Module]:
    """The module of every op that has parameters, by op name; ``where`` names the file in errors.

    Raises:
        UserError: a module without an op, an op without a module, a shape or a part that does not fit.
    """
    wanted: dict[str, tuple[WithParameters, Shape]] = {}
    for _, _, op, shape in walk(network):
        if isinstance(op, WithParameters):  # of edges that share one, the first has the bias
            wanted.setdefault(op.name, (op, shape))
    named = {module.name: module for module in modules}
    matched = named if named.keys() == wanted.keys() else _in_order(network.name, wanted, modules, where)
    for name, (op, shape) in wanted.items():
        _check(network, op, shape, matched[name], where)
    return {name: matched[name] for name in wanted}


def _in_order(
    name: str, wanted: dict[str, tuple[WithParameters, Shape]], modules: Sequence[Module], where: str
) -> dict[str, Module]:
    matched: dict[str, Module] = {}
    for kind in (CONVOLUTION, LINEAR, NORM):
        ours = [op for op, _ in wanted.values() if _kind_of(op) == kind]
        theirs = [module for module in modules if module.kind == kind]
        matched |= {op.name: module for op, module in zip(ours, theirs)}
        if len(theirs) < len(ours):
            op, shape = wanted[ours[len(theirs)].name]
            raise UserError(
                f"{where} has too few {kind}s, {len(theirs)} of {len(ours)} that network {name} needs: nothing is "
                f"left for {op.name}, weight {_torch_shapes(op, shape)['weight']}"
            )
        if len(theirs) > len(ours):
            raise UserError(
                f"{where} has too many {kind}s, {len(theirs)} for the {len(ours)} of network {name}: "
                f"{theirs[len(ours)].key('weight')} belongs to no layer"
            )
    return matched


def _kind_of(op: WithParameters) -> str:
    return CONVOLUTION if isinstance(op, Conv) else LINEAR if isinstance(op, Dense) else NORM


def _torch_shapes(op: WithParameters, shape: Shape) -> dict[str, Shape]:
    """PyTorch's parts and shapes of an op on an input of ``shape`` (H, W, C) or (C,)."""
    if isinstance(op, Conv):
        return {"weight": (op.features, shape[-1] // op.groups, *op.taps.sides), "bias": (op.features,)}
    if isinstance(op, Dense):
        return {"weight": (op.features, math.prod(shape)), "bias": (op.features,)}
    return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (shape[-1],))


def _check(network: Network, op: WithParameters, shape: Shape, module: Module, where: str) -> None:
    if module.kind != _kind_of(op):
        raise UserError(
            f"{where}: {module.name} is a {module.kind}, but {op.name} of network {network.name} is not"
        )
    expected = _torch_shapes(op, shape)
    readout = network.layers[-1].edges[0].ops[-1]
    if op == readout and module.tensors["weight"].shape[0] != network.classes:
        raise UserError(
            f"{where}: {module.key('weight')} gives {module.tensors['weight'].shape[0]} classes, network "
            f"{network.name} has {network.classes}"
        )
    for part, array in module.tensors.items():
        if part in expected and array.shape != expected[part]:
            raise UserError(
                f"{where}: {module.key(part)} has shape {array.shape}, {op.name} of network {network.name} "
                f"expects {expected[part]}"
            )
    if isinstance(op, Conv | Dense) and op.bias != ("bias" in module.tensors):
        have, wants = ("has", "none") if "bias" in module.tensors else ("has no", "one")
        raise UserError(
            f"{where}: {module.name} {have} bias, but {op.name} of network {network.name} has {wants}: set its "
            f'"bias" to {"false" if op.bias else "true"} in the description'
        )
    if isinstance(op, ScaleNorm) and (
        module.tensors["running_mean"].any() or module.tensors.get("bias", np.zeros(1)).any()
    ):
        raise UserError(
            f"{where}: {module.name} shifts, but {op.name} of network {network.name} is a norm that only scales: "
            "use BatchNorm in a description of your own"
        )


def _to_params(op: WithParameters, shape: Shape, module: Module) -> Params:
    """The op's parameters from its module; ``shape`` (H, W, C) or (C,) is that of the op's input."""
    tensors = module.tensors
    if isinstance(op, BatchNorm | ScaleNorm):
        ones, zeros = np.ones(shape[-1], np.float32), np.zeros(shape[-1], np.float32)
        parts = {"scale": tensors.get("weight", ones), "var": tensors["running_var"]}
        if isinstance(op, BatchNorm):
            parts |= {"bias": tensors.get("bias", zeros), "mean": tensors["running_mean"]}
    else:
        weight = tensors["weight"]
        if isinstance(op, Conv):
            kernel = weight.transpose(2, 3, 1, 0)
        elif len(shape) == 3:
            height, width, channels = shape
            kernel = weight.reshape(-1, channels, height, width).transpose(2, 3, 1, 0).reshape(-1, len(weight))
        else:
            kernel = weight.T
        parts = {"kernel": np.ascontiguousarray(kernel)} | ({"bias": tensors["bias"]} if op.bias else {})
    return {f"{op.name}.{part}": value for part, value in parts.items()}


def _row(layer: Layer, edge: Edge, op: Op, shape: Shape, modules: dict[str, Module]) -> Row:
    bias = ", bias" if getattr(op, "bias", False) else ""
    match op:
        case Conv():
            what = f"OIHW to HWIO{bias}"
        case Dense():
            what = f"transposed{' from CHW order' if len(shape) == 3 else ''}{bias}"
        case AvgPool() | MaxPool():
            what = f"{'x'.join(map(str, op.taps.sides))}, has no weights"
        case Dropout():
            what = "left out"
        case _:
            maps = [o.name for o in edge.ops[: edge.ops.index(op)] if isinstance(o, Conv | Dense)]
            what = f"folded into {maps[-1]}" if maps else "nothing to fold into"
    if not isinstance(op, WithParameters):
        return Row(layer.name, type(op).__name__, "", "", what)
    module = modules[op.name]
    dims = "x".join(map(str, next(iter(module.tensors.values())).shape))
    return Row(layer.name, op.name, module.name, dims, what)
