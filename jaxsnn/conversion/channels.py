"""Numbers for each channel that fold into the weights: thresholds, amplitudes, biases and initial membranes.

A neuron that fires at theta_c and whose spike is worth a_c behaves as one with the layer's own threshold theta_l
if row c of the map in front of it (and its bias) is multiplied by theta_l / theta_c, and input channel c of the
maps after it by a_c / theta_l: exact in real arithmetic. So a threshold remains one gene a layer, and a folded
network is an ordinary one for the simulator, for int8 and for export.

An edge without a kernel (the shortcut of a residual block) has nothing to multiply. The layers at its two ends
therefore share one shape of thresholds over channels, up to a factor a layer, and their spikes are worth their
thresholds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.description import IMAGE, Conv, Dense, Edge, Layer, Network, Op, Params, layer_shapes
from jaxsnn.networks.linear_maps import keeps_constants
from jaxsnn.networks.merging import unshared
from jaxsnn.networks.spiking import SNN, Genes

MOST_V0 = 0.99
"""Genes hold v0 below 1."""
AGREE = 1e-5
"""Relative difference up to which two layers' shapes of thresholds count as one: float32 has 6e-8."""


@dataclass(frozen=True, eq=False)
class Channels:
    """Numbers for each channel of one network, in the units of its ANN's activations.

    Attributes:
        thresholds: per spiking layer (C,): what must be exceeded to fire, and what a spike takes away.
        amplitudes: per spiking layer (C,): what a spike is worth to the layers that it drives.
        biases: per layer, read-out included, (C,): a constant current at every step, added to the network's own.
        starts: per spiking layer (C,): the initial membrane as a fraction of the threshold.
    """

    thresholds: tuple[np.ndarray, ...]
    amplitudes: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    starts: tuple[np.ndarray, ...]


def of_genes(snn: SNN, genes: Genes) -> Channels:
    """The channels of the one candidate in ``genes`` (1, L): alike but for the network's own starts."""
    widths = [shape[-1] for shape in layer_shapes(snn.network)]
    thresholds = tuple(np.full(c, theta, np.float64) for c, theta in zip(widths, genes.threshold[0]))
    v0 = np.zeros(len(thresholds)) if genes.v0 is None else genes.v0[0]
    own = [snn.params[f"{layer.name}.start"] if layer.start else 0.0 for layer in snn.network.spiking]
    starts = tuple(np.full(c, start, np.float64) + extra for c, start, extra in zip(widths, v0, own))
    return Channels(thresholds, thresholds, tuple(np.zeros(c) for c in widths), starts)


def maps_of(edge: Edge) -> list[Conv | Dense]:
    """The ops of an edge that have a kernel."""
    return [op for op in edge.ops if isinstance(op, Conv | Dense)]


def groups(network: Network) -> tuple[int, ...]:
    """For each spiking layer the first of those that it shares a shape of thresholds with."""
    first = list(range(len(network.spiking)))
    for index, layer in enumerate(network.spiking):
        for edge in layer.edges:
            if edge.source != IMAGE and not maps_of(edge):
                one, other = sorted((first[edge.source], first[index]))
                first = [one if f == other else f for f in first]
    return tuple(first)


def fold_channels(snn: SNN, channels: Channels) -> tuple[SNN, Genes]:
    """The network with its channels folded into weights, biases and starts, and genes (1, L) to run it with.

    A layer's threshold is the median of its channels', so that alike channels leave the weights alone. Its cap is
    where the spikes of the channel whose are worth most reach the ANN's cap. The v0 of
    the genes is the layer's median start, held in [0, 1); what a channel differs by is the layer's ``start``, left
    out where no channel does.

    Raises:
        UserError: channels that are not positive and finite, or layers that an edge without a kernel joins and
        that
            do not share a shape.
    """
    network, params = unshared(snn.network, {name: np.asarray(value) for name, value in snn.params.items()})
    _check(network, channels)
    theta = [_median(t) for t in channels.thresholds]
    params = {name: value for name, value in params.items() if not name.endswith((".ceiling", ".start"))}
    layers, v0 = [], []
    for index, layer in enumerate(network.layers):
        spiking = index < len(network.spiking)
        row = theta[index] / channels.thresholds[index] if spiking else 1.0
        edges = [
            _fold_edge(edge, params, row, 1.0 if s == IMAGE else channels.amplitudes[s] / theta[s])
            for edge, s in ((edge, edge.source) for edge in layer.edges)
        ]
        edges = _add_bias(edges, params, channels.biases[index] * row)
        layer = replace(layer, edges=tuple(edges), levels=None, start=False)
        if spiking:
            if layer.cap is not None:
                layer = replace(layer, cap=float(layer.cap * theta[index] / np.max(channels.amplitudes[index])))
            start = np.asarray(channels.starts[index], np.float64)
            v0.append(np.clip(_median(start), 0, MOST_V0))
            if (start != v0[-1]).any():
                layer = replace(layer, start=True)
                params[f"{layer.name}.start"] = (start - v0[-1]).astype(np.float32)
        layers.append(layer)
    genes = Genes(np.array([theta]), np.array([v0]))
    return SNN(replace(network, layers=tuple(layers)), params), genes


def _median(values: np.ndarray) -> float:
    """The lower median, one of the values themselves."""
    return float(np.sort(values)[(len(values) - 1) // 2])


def _check(network: Network, channels: Channels) -> None:
    for layer, *parts in zip(network.spiking, channels.thresholds, channels.amplitudes, channels.starts):
        if not all(np.isfinite(part).all() for part in parts) or not all((part > 0).all() for part in parts[:2]):
            raise UserError(f"layer {layer.name} has channels that are not finite and positive")
    for index, layer in enumerate(network.spiking):
        for edge in layer.edges:
            if edge.source == IMAGE or maps_of(edge):
                continue
            for name, part in (("amplitudes", channels.amplitudes), ("thresholds", channels.thresholds)):
                ratio = part[edge.source] / channels.thresholds[edge.source if name == "amplitudes" else index]
                if np.ptp(ratio) > AGREE * ratio.max() or (name == "amplitudes" and abs(ratio[0] - 1) > AGREE):
                    raise UserError(
                        f"layers {network.layers[edge.source].name} and {layer.name} are joined by an edge "
                        f"without a kernel, so their {name} must be alike over channels"
                    )


def _fold_edge(edge: Edge, params: Params, row, column) -> Edge:
    """Multiply the output channels of an edge by ``row`` and its input channels by ``column``, in ``params``."""
    maps = maps_of(edge)
    scaled = {op.name: np.asarray(params[f"{op.name}.kernel"], np.float64) for op in maps}
    if maps:
        first, last = maps[0].name, maps[-1].name
        scaled[first] = _with_inputs_times(scaled[first], column, maps[0])
        scaled[last] = scaled[last] * row
        if maps[-1].bias:
            params[f"{last}.bias"] = (params[f"{last}.bias"] * np.float64(row)).astype(np.float32)
    params |= {f"{name}.kernel": kernel.astype(np.float32) for name, kernel in scaled.items()}
    return edge


def _with_inputs_times(kernel: np.ndarray, column: np.ndarray | float, op: Conv | Dense) -> np.ndarray:
    """A kernel with its input channels multiplied by ``column`` (C,), or a number for all."""
    if np.size(column) == 1:
        return kernel * column
    features = kernel.shape[-1]
    if isinstance(op, Dense) or op.groups == 1:
        return (kernel.reshape(-1, np.size(column), features) * np.reshape(column, (-1, 1))).reshape(kernel.shape)
    # output features in groups, each of which reads its part of the inputs
    parts = kernel.reshape(*kernel.shape[:-1], op.groups, features // op.groups)
    return (parts * np.reshape(column, (op.groups, -1)).T[..., None]).reshape(kernel.shape)


def _add_bias(edges: Sequence[Edge], params: Params, bias: np.ndarray) -> list[Edge]:
    """The edges with ``bias`` (C,) added to the last map of the first edge that has one.

    A pool after that map passes a constant on. Where no channel has a bias, or no edge has a map, nothing
    changes.
    """
    edges = list(edges)
    at = next((k for k, edge in enumerate(edges) if _carries_bias(edge)), None)
    if at is None or not bias.any():
        return edges
    target = maps_of(edges[at])[-1]
    own = params[f"{target.name}.bias"] if target.bias else np.zeros(target.features, np.float32)
    params[f"{target.name}.bias"] = (own + bias).astype(np.float32)

    def biased(op: Op) -> Op:
        return replace(op, bias=True) if op is target else op

    edges[at] = replace(edges[at], ops=tuple(biased(op) for op in edges[at].ops))
    return edges


def can_bias(layer: Layer) -> bool:
    """Whether a layer has a map to carry a bias."""
    return any(_carries_bias(edge) for edge in layer.edges)


def _carries_bias(edge: Edge) -> bool:
    return bool(maps_of(edge)) and keeps_constants(edge.ops[edge.ops.index(maps_of(edge)[-1]) :])


def positions(shape: tuple[int, ...]) -> int:
    """Neurons of one channel in a layer of ``shape``."""
    return math.prod(shape[:-1])
