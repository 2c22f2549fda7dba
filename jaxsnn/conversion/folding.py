"""From a trained ANN to a spiking network: norms folded into kernels, thresholds from activation percentiles."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

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
    Params,
    ScaleNorm,
    walk,
)
from jaxsnn.networks.linear_maps import keeps_constants
from jaxsnn.networks.spiking import SNN
from jaxsnn.networks.weights import check_params, to_device


def convert(network: Network, params: Params) -> SNN:
    """A trained ANN, given as a description and its arrays, as a spiking network.

    Args:
        network: may have norms and dropout; they are folded away.
        params: arrays by name; ``jaxsnn.networks.description.shapes_of(network)`` lists them.

    Raises:
        UserError: an array is missing, has another shape, or is not finite.

    >>> import numpy as np
    >>> from jaxsnn.networks.architectures import vgg
    >>> from jaxsnn.networks.description import shapes_of
    >>> network = vgg([[4], [8]], name="small")
    >>> snn = convert(network, {name: np.ones(shape) for name, shape in shapes_of(network).items()})
    >>> [layer.name for layer in snn.network.spiking]
    ['conv1', 'conv2']
    """
    folded, arrays = fold(network, check_params(network, dict(params), "params"))
    return SNN(folded, to_device(arrays))


def fold(network: Network, params: Params) -> tuple[Network, Params]:
    """The same function without norms and dropout: each norm is folded into the map in front of it.

    y = (W x + b - mean) * g + beta, with g = scale / sqrt(var + eps), is W' x + b' with W' = g W and
    b' = (b - mean) g + beta. An average pool between the two commutes with a per-channel affine map, unless it
    counts zeros around its input, which a shift does not reach.
    ``ScaleNorm`` has neither mean nor beta, so that a map without bias stays without one.
    """
    folded: Params = {}
    uses = Counter(op.name for _, _, op, _ in walk(network) if isinstance(op, Conv | Dense))
    layers = []
    for layer in network.layers:
        edges = []
        for edge in layer.edges:
            ops: list = []
            for op in edge.ops:
                if isinstance(op, BatchNorm | ScaleNorm):
                    _fold_norm(op, ops, folded, params, uses, f"layer {layer.name}")
                elif not isinstance(op, Dropout):
                    ops.append(op)
                    if isinstance(op, Conv | Dense):
                        parts = ("kernel", "bias") if op.bias else ("kernel",)
                        folded |= {f"{op.name}.{p}": np.asarray(params[f"{op.name}.{p}"]) for p in parts}
            edges.append(Edge(edge.source, tuple(ops)))
        layers.append(replace(layer, edges=tuple(edges)))
    folded |= {name: np.asarray(value) for name, value in params.items() if name.endswith((".ceiling", ".start"))}
    return replace(network, layers=tuple(layers)), folded


def _fold_norm(
    norm: BatchNorm | ScaleNorm, ops: list, folded: Params, params: Params, uses: Mapping[str, int], where: str
) -> None:
    index = len(ops) - 1
    while index >= 0 and isinstance(ops[index], AvgPool):
        index -= 1
    if index < 0 or isinstance(ops[index], MaxPool):
        raise UserError(f"{where}: {norm.name} has no convolution or dense map in front of it to fold into")
    target = ops[index]
    if uses[target.name] > 1:
        raise UserError(f"{where}: {norm.name} cannot be folded into {target.name}, which several edges share")
    if isinstance(norm, BatchNorm) and not keeps_constants(ops[index:]):
        raise UserError(
            f"{where}: {norm.name} cannot be folded past a pool whose mean counts zeros around its input: put it "
            "in front of the pool, or set the pool's count_padding to false"
        )
    variance = params[f"{norm.name}.var"].astype(np.float64)
    epsilon = norm.epsilon if isinstance(norm, BatchNorm) else EPSILON
    gain = params[f"{norm.name}.scale"] / np.sqrt(variance + epsilon)
    folded[f"{target.name}.kernel"] = (folded[f"{target.name}.kernel"] * gain).astype(np.float32)
    if isinstance(norm, ScaleNorm) and not target.bias:
        return
    bias = folded.get(f"{target.name}.bias", 0.0)
    shift = (
        (0.0, 0.0) if isinstance(norm, ScaleNorm) else (params[f"{norm.name}.mean"], params[f"{norm.name}.bias"])
    )
    folded[f"{target.name}.bias"] = ((bias - shift[0]) * gain + shift[1]).astype(np.float32)
    ops[index] = replace(target, bias=True)
