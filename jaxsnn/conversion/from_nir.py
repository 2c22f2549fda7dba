"""NIR files of feed-forward networks of IF or LIF nodes, as converted networks.

An IF node becomes a layer with threshold 1: its own is divided out of the weights and biases in front of it. A LIF
node leaks by 1 - dt / tau a step and takes its input times r dt / tau. Resets subtract the threshold here,
whatever the file says of v_reset; a comparison, initial membranes, steps and the image's normalisation are taken
from the metadata that ``jaxsnn.export`` writes, where they are there.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np

from jaxsnn.conversion.nir_file import Tree, read_tree
from jaxsnn.errors import UserError
from jaxsnn.networks.description import (
    IMAGE,
    AvgPool,
    Conv,
    Dense,
    Edge,
    Layer,
    Network,
    Op,
    Params,
    layer_shapes,
    output_shape,
)
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.networks.weights import check_params, to_device

NEURONS = ("IF", "LIF")
MAPS = ("Conv2d", "Affine", "Linear")
POOLS = ("SumPool2d", "AvgPool2d")
MOST_PATHS = 64
"""Ways through maps from one layer's neurons to the next: more are no network that anybody has."""
MOST_INPUTS = 1 << 26
"""Numbers of an image."""
DT = 1e-4
"""Seconds a step that LIF nodes are discretised with, as in the readers of NIR."""


@dataclass(frozen=True, eq=False)
class FromNir:
    """A network read from NIR.

    Attributes:
        genes: thresholds of 1, and leaks where there are LIF nodes; initial membranes are in the network.
        timesteps: that the file says it is for, without layer delay; or None.
        notes: a sentence for everything that was assumed.
    """

    snn: SNN
    genes: Genes
    dynamics: Dynamics
    timesteps: int | None
    notes: tuple[str, ...]


def read_nir(path: Path | str, dt: float = DT) -> FromNir:
    """Read a NIR file; raises ``UserError`` where it is not a feed-forward network of IF or LIF nodes."""
    path = Path(path)
    graph = _graph(path, read_tree(path))
    try:
        return _network(graph, dt)
    except (
        KeyError,
        ValueError,
        IndexError,
        TypeError,
        OverflowError,
        ZeroDivisionError,
        RecursionError,
    ) as error:
        raise UserError(f"{path} does not fit together ({error!r})"[:400]) from error


@dataclass(frozen=True, eq=False)
class _Graph:
    """Nodes by name in the order of the flow, what each reads, and the file's metadata."""

    path: Path
    nodes: Mapping[str, Tree]
    before: Mapping[str, list[str]]
    metadata: Tree

    def kind(self, name: str) -> str:
        return str(self.nodes[name].get("type"))

    def wrong(self, name: str, what: str) -> UserError:
        return UserError(f"{self.path}: node {name!r} {what}"[:400])

    def array(self, name: str, key: str) -> np.ndarray:
        """Finite numbers of a node, float64."""
        value = self.nodes[name].get(key)
        found = np.asarray(value, np.float64) if isinstance(value, np.ndarray | np.number | float | int) else None
        if found is None or not np.isfinite(found).all():
            raise self.wrong(name, f"has no finite numbers {key}")
        return found

    def pair(self, name: str, key: str) -> tuple[int, int]:
        """Two whole numbers, for rows and columns."""
        values = np.broadcast_to(self.array(name, key).ravel(), 2)
        if (values != np.round(values)).any() or values.min() < 0 or values.max() > 1 << 16:
            raise self.wrong(name, f"has {key} {values.tolist()}, expected two whole numbers")
        return int(values[0]), int(values[1])


def _graph(path: Path, tree: Tree) -> _Graph:
    nodes, edges = tree.get("nodes"), tree.get("edges")
    if not isinstance(nodes, dict) or not all(isinstance(node, dict) for node in nodes.values()):
        raise UserError(f"{path} holds no graph of nodes")
    if not isinstance(edges, np.ndarray) or edges.ndim != 2 or edges.shape[1] != 2:
        raise UserError(f"{path}: edges are no pairs of nodes")
    pairs = sorted({(str(a), str(b)) for a, b in edges})
    unknown = [name for pair in pairs for name in pair if name not in nodes]
    if unknown:
        raise UserError(f"{path}: an edge names {unknown[0]!r}, which is no node"[:400])
    before: dict[str, list[str]] = {name: [] for name in nodes}
    for one, other in pairs:
        before[other].append(one)
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError as error:
        raise UserError(f"{path} has a cycle: recurrent networks cannot be converted") from error
    metadata = tree.get("metadata")
    graph = _Graph(
        path, {name: nodes[name] for name in order}, before, metadata if isinstance(metadata, dict) else {}
    )
    _check_kinds(graph)
    return graph


def _check_kinds(graph: _Graph) -> None:
    """Raise ``UserError`` for nodes that cannot be converted, and for those that lead nowhere: none is skipped."""
    for kind in ("Input", "Output"):
        count = sum(graph.kind(name) == kind for name in graph.nodes)
        if count != 1:
            raise UserError(f"{graph.path} has {count} nodes of type {kind}, expected one")
    read = {name for names in graph.before.values() for name in names}
    for name in graph.nodes:
        kind = graph.kind(name)
        if kind not in (*NEURONS, *MAPS, *POOLS, "Flatten", "Input", "Output"):
            known = ", ".join((*NEURONS, *MAPS, *POOLS, "Flatten"))
            raise graph.wrong(name, f"is of type {kind!r}, which cannot be converted: known are {known}")
        if (kind != "Output" and name not in read) or (kind != "Input" and not graph.before[name]):
            raise graph.wrong(name, "is not on a way from the input to the output")


def _ways(graph: _Graph) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    """For every node the ways to it: where each begins (neurons or the input), and the nodes after that."""
    found: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for name in graph.nodes:
        ways: list[tuple[str, tuple[str, ...]]] = []
        for earlier in graph.before[name]:
            begins = graph.kind(earlier) in (*NEURONS, "Input")
            for source, between in [(earlier, ())] if begins else found[earlier]:
                ways.append((source, between if begins else (*between, earlier)))
        if len(ways) > MOST_PATHS:
            raise graph.wrong(name, f"can be reached in more than {MOST_PATHS} ways")
        found[name] = ways
    return found


def _network(graph: _Graph, dt: float) -> FromNir:
    names = [*(name for name in graph.nodes if graph.kind(name) in NEURONS)]
    (source,) = (name for name in graph.nodes if graph.kind(name) == "Input")
    (output,) = (name for name in graph.nodes if graph.kind(name) == "Output")
    sizes = graph.array(source, "shape").astype(int).tolist()
    if len(sizes) != 3 or min(sizes) < 1 or math.prod(sizes) > MOST_INPUTS:
        raise graph.wrong(source, f"has shape {sizes}, expected (channels, height, width)")
    numbers = {source: IMAGE} | {name: number for number, name in enumerate(names)}
    shapes: dict[str, tuple[int, ...]] = {source: (sizes[1], sizes[2], sizes[0])}
    ways, layers, params = _ways(graph), [], {}
    leaks, notes = [], [f"{graph.path}: resets subtract the threshold, whatever v_reset says"]
    for name in (*names, output):
        own = f"layer{len(layers)}_{re.sub(r'[^A-Za-z0-9_]', '_', name)}"[:60]
        worth, leak, start = _neurons(graph, name, dt) if name != output else (np.ones(1), 1.0, np.zeros(1))
        builder = _Builder(graph, own, numbers, shapes, params)
        edges = tuple(builder.edge(begin, between) for begin, between in ways[name])
        shapes[name] = builder.finish(edges, worth, name == output)
        channels = shapes[name][-1]
        if start.any():
            params[f"{own}.start"] = _by_channel(graph, name, start, channels).astype(np.float32)
        layers.append(Layer(own, tuple(builder.edges), start=bool(start.any())))
        leaks.append(leak)
    mean, std = (_normalised(graph, key, sizes[0], usual) for key, usual in (("mean", 0.0), ("std", 1.0)))
    if shapes[output] != (shapes[output][-1],):
        raise graph.wrong(output, f"has shape {shapes[output]}, expected one number a class")
    network = Network("nir", shapes[source], shapes[output][0], tuple(layers), mean, std)  # type: ignore[arg-type]
    layer_shapes(network)
    checked = check_params(network, params, str(graph.path))
    return _found(graph, SNN(network, to_device(checked)), leaks[:-1], notes)


def _found(graph: _Graph, snn: SNN, leaks: list[float], notes: list[str]) -> FromNir:
    comparison, steps = graph.metadata.get("comparison"), graph.metadata.get("timesteps")
    if comparison not in (">", ">="):
        notes.append(f"{graph.path} says nothing of a comparison: neurons fire above the threshold")
        comparison = ">"
    timesteps = int(steps) if isinstance(steps, np.integer) and 0 < steps < 1 << 20 else None
    leak = None if all(value == 1 for value in leaks) else np.array([leaks])
    genes = Genes(np.ones((1, len(leaks))), None, leak)
    return FromNir(snn, genes, Dynamics(comparison, "none"), timesteps, tuple(notes))


def _neurons(graph: _Graph, name: str, dt: float) -> tuple[np.ndarray, float, np.ndarray]:
    """What a sum is multiplied with so that the threshold is 1; the leak; initial membranes in thresholds."""
    threshold = graph.array(name, "v_threshold")
    if not (threshold > 0).all():
        raise graph.wrong(name, "has a threshold that is not positive")
    r = graph.array(name, "r")
    leak, gain = 1.0, np.ones(1)
    if graph.kind(name) == "LIF":
        tau = np.unique(graph.array(name, "tau"))
        if len(tau) != 1 or not tau[0] > dt:
            raise graph.wrong(name, f"needs one tau above the step of {dt:g} s")
        if graph.array(name, "v_leak").any():
            raise graph.wrong(name, "leaks to another value than 0")
        leak, gain = float(1 - dt / tau[0]), r * dt / tau[0]
    elif len(np.unique(r)) != 1:
        raise graph.wrong(name, "has neurons of different r")
    metadata = graph.nodes[name].get("metadata")
    start = metadata.get("initial_membrane") if isinstance(metadata, dict) else None
    held = np.asarray(start, np.float64) if isinstance(start, np.ndarray) else np.zeros(1)
    if not np.isfinite(held).all():
        raise graph.wrong(name, "has initial membranes that are not finite")
    return gain / threshold, leak, held


def _by_channel(graph: _Graph, name: str, values: np.ndarray, channels: int) -> np.ndarray:
    """(C,) of values for channels first, which may not differ between positions."""
    if values.size == 1:
        return np.full(channels, values.ravel()[0])
    if values.size % channels:
        raise graph.wrong(name, f"has {values.size} neurons, which {channels} channels do not divide")
    rows = values.reshape(channels, -1)
    if (rows != rows[:, :1]).any():
        raise graph.wrong(name, "has neurons of one channel that differ, which a converted network cannot")
    return rows[:, 0]


def _normalised(graph: _Graph, key: str, channels: int, usual: float) -> tuple[float, ...]:
    value = graph.metadata.get(key)
    if not isinstance(value, np.ndarray):
        return (usual,) * channels
    numbers = np.broadcast_to(np.asarray(value, np.float64).ravel(), channels)
    if not np.isfinite(numbers).all() or (key == "std" and not (numbers > 0).all()):
        raise UserError(f"{graph.path}: {key} is {numbers.tolist()}, expected finite numbers, std above 0"[:400])
    return tuple(float(number) for number in numbers)


class _Builder:
    """The edges of one layer; a node that several ways go through is one op, with its bias on the first alone."""

    def __init__(self, graph: _Graph, own: str, numbers: Mapping[str, int], shapes: Mapping, params: Params):
        self.graph, self.own, self.numbers, self.shapes, self.params = graph, own, numbers, shapes, params
        self.seen: set[str] = set()
        self.last: dict[str, int] = {}
        self.edges: list[Edge] = []

    def edge(self, begin: str, between: tuple[str, ...]) -> Edge:
        shape, ops = self.shapes[begin], []
        for name in between:
            for op in self._ops(name, shape):
                ops.append(op)
                shape = output_shape(op, shape)
        return Edge(self.numbers[begin], tuple(ops))

    def _ops(self, name: str, shape: tuple[int, ...]) -> list[Op]:
        graph, kind = self.graph, self.graph.kind(name)
        if kind == "Flatten":
            return []
        if kind in POOLS:
            window, stride, (high, wide) = (graph.pair(name, key) for key in ("kernel_size", "stride", "padding"))
            pool = AvgPool(window, stride, ((high, high), (wide, wide)))
            return [pool, self._scaled(f"{name}_sum", shape, math.prod(window))] if kind == "SumPool2d" else [pool]
        own = f"{self.own}_{re.sub(r'[^A-Za-z0-9_]', '_', name)}"
        weight = graph.array(name, "weight")
        bias = graph.array(name, "bias") if kind != "Linear" else np.zeros(len(weight))
        if kind == "Conv2d":
            op, kernel = self._conv(name, own, weight, shape)
        else:
            if weight.ndim != 2 or weight.shape[1] != math.prod(shape):
                raise graph.wrong(name, f"has weights {weight.shape} for an input of shape {shape}")
            op, kernel = Dense(own, len(weight)), weight.T
            if len(shape) == 3:
                kernel = kernel.reshape(shape[2], *shape[:2], -1).transpose(1, 2, 0, 3).reshape(kernel.shape)
        if bias.shape != (op.features,):
            raise graph.wrong(name, f"has a bias of shape {bias.shape}, expected {(op.features,)}")
        first = own not in self.seen
        self.seen.add(own)
        self.params[f"{own}.kernel"] = np.asarray(kernel, np.float64)
        if bias.any():
            self.params[f"{own}.bias"] = bias
        return [replace(op, bias=bool(bias.any()) and first)]

    def _conv(self, name: str, own: str, weight: np.ndarray, shape: tuple[int, ...]) -> tuple[Conv, np.ndarray]:
        graph = self.graph
        groups = int(graph.array(name, "groups"))
        if weight.ndim != 4 or len(shape) != 3 or groups < 1 or weight.shape[1] * groups != shape[2]:
            raise graph.wrong(name, f"has weights {weight.shape} in {groups} groups for an input of shape {shape}")
        stride, dilation = graph.pair(name, "stride"), graph.pair(name, "dilation")
        if isinstance(graph.nodes[name].get("padding"), str):
            raise graph.wrong(name, "has a padding in words: write it in numbers")
        high, wide = graph.pair(name, "padding")
        sides = (weight.shape[2], weight.shape[3])
        op = Conv(own, len(weight), sides, stride, False, ((high, high), (wide, wide)), dilation, groups)
        return op, weight.transpose(2, 3, 1, 0)

    def _scaled(self, name: str, shape: tuple[int, ...], factor: float | np.ndarray) -> Conv | Dense:
        """A map that multiplies each channel."""
        own, channels = f"{self.own}_{re.sub(r'[^A-Za-z0-9_]', '_', name)}", shape[-1]
        values = np.broadcast_to(np.asarray(factor, np.float64), channels)
        if len(shape) == 3:
            self.params[f"{own}.kernel"] = values[None, None, None, :]
            return Conv(own, channels, 1, groups=channels)
        self.params[f"{own}.kernel"] = np.diag(values)
        return Dense(own, channels)

    def finish(self, edges: tuple[Edge, ...], worth: np.ndarray, output: bool) -> tuple[int, ...]:
        """Fold sums of pools and ``worth``, what a sum is multiplied with, into the maps; returns the shape."""
        ends = {self._end(edge) for edge in edges}
        if len(ends) != 1:
            raise self.graph.wrong(self.own, f"adds up inputs of the shapes {sorted(ends)}")
        (shape,) = ends
        names = [op.name for edge in edges for op in edge.ops if isinstance(op, Conv | Dense)]
        if len(names) == len(set(names)):
            edges = tuple(self._folded(edge) for edge in edges)
        channels = _by_channel(self.graph, self.own, worth, shape[-1])
        done: set[str] = set()
        for edge in edges:
            maps = [op for op in edge.ops if isinstance(op, Conv | Dense)]
            if not maps and (output or (channels != 1).any()):
                scale = self._scaled(f"scale{len(self.edges)}", shape, channels)
                edge = Edge(edge.source, (*edge.ops, scale))
            elif maps and maps[-1].name not in done:
                done.add(maps[-1].name)
                self._multiply(maps[-1], channels, bias=True)
            self.edges.append(edge)
        inner = {op.name for edge in edges for op in [o for o in edge.ops if isinstance(o, Conv | Dense)][:-1]}
        if done & inner and (channels != 1).any():
            raise self.graph.wrong(self.own, "has a map that leads to it both at once and through another map")
        return shape

    def _end(self, edge: Edge) -> tuple[int, ...]:
        begin = next(name for name, number in self.numbers.items() if number == edge.source)
        shape = self.shapes[begin]
        for op in edge.ops:
            shape = output_shape(op, shape)
        return shape

    def _folded(self, edge: Edge) -> Edge:
        """The edge with the factors of its sum pools in the maps beside them."""
        ops = list(edge.ops)
        for scale in [op for op in ops if isinstance(op, Conv | Dense) and op.name.endswith("_sum")]:
            position = ops.index(scale)
            factor = float(np.asarray(self.params[f"{scale.name}.kernel"]).max())
            behind = next((op for op in ops[position + 1 :] if isinstance(op, Conv | Dense)), None)
            ahead = next((op for op in reversed(ops[:position]) if isinstance(op, Conv | Dense)), None)
            into = behind or ahead
            if into is not None:
                self._multiply(into, np.array(factor), bias=behind is None)
                del ops[position], self.params[f"{scale.name}.kernel"]
        return Edge(edge.source, tuple(ops))

    def _multiply(self, op: Conv | Dense, factor: np.ndarray, bias: bool) -> None:
        """Multiply a map's outputs."""
        for part in ("kernel", "bias") if bias else ("kernel",):
            if f"{op.name}.{part}" in self.params:
                self.params[f"{op.name}.{part}"] = self.params[f"{op.name}.{part}"] * factor
