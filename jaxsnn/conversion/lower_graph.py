"""From a graph to a network: cut at its activations into layers, what lies between them being linear.

An activation ends a sum of chains (``graph_values``): it becomes a layer, and its value the one chain that does
nothing yet. So residual adds, linear bottlenecks and pre-activation blocks need no rule of their own. The map that
reads concatenated channels is the sum of maps of the parts.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from jaxsnn.conversion.chains import LARGEST_IDENTITY, Step, diagonal, op_of, params_of, simplified
from jaxsnn.conversion.graph import (
    Add,
    Affine,
    Concat,
    Convolution,
    Graph,
    Linear,
    Node,
    Norm,
    Pad,
    Pool,
    Relu,
    Reshape,
    Shape,
    Transpose,
)
from jaxsnn.conversion.graph_values import (
    Part,
    Term,
    Value,
    each,
    expect_image,
    image_shape,
    in_words,
    joined,
    letters,
    normalised,
    reshaped,
    scaled,
)
from jaxsnn.errors import UserError
from jaxsnn.networks.description import (
    IMAGE,
    Conv,
    Dense,
    Edge,
    Layer,
    Network,
    Op,
    Params,
    WithParameters,
    layer_shapes,
    output_shape,
)
from jaxsnn.networks.weights import check_params

MOST_TERMS = 512
"""Chains that a value may be the sum of: a residual network of 152 layers in pre-activation form has 50."""


def lower(graph: Graph, name: str, mean: Sequence[float], std: Sequence[float]) -> tuple[Network, Params]:
    """The graph as a network with norms, and its float32 parameters.

    Args:
        mean, std: of the images, one number for each channel: they belong to the network.

    Raises:
        UserError: something that spiking layers cannot express, by its name in the model.
    """
    shape, axes = image_shape(graph.shapes[0], graph.axes)
    return _Lowering(graph, shape, axes).network(name, tuple(mean), tuple(std))


class _Lowering:
    """The layers that have been made so far, and where each parameter name is used."""

    def __init__(self, graph: Graph, shape: tuple[int, int, int], axes: tuple[str, ...]):
        self.graph, self.input_shape = graph, shape
        self.input_axes = axes
        self.layers: list[Layer] = []
        self.shapes: list[tuple[int, ...]] = []
        self.params: dict[str, Params] = {}

    def network(self, name: str, mean: tuple, std: tuple) -> tuple[Network, Params]:
        values = [Value((Part(self.input_shape[2], (Term(IMAGE),)),), self.input_shape[:2], self.input_axes)]
        for node in self.graph.nodes:
            found = self.apply(node, [values[i] for i in node.inputs], self.graph.shapes[len(values)])
            if sum(len(part.terms) for part in found.parts) > MOST_TERMS:
                raise UserError(
                    f"{node.name} is a sum of more than {MOST_TERMS} chains of maps without a ReLU between them, "
                    "which would be as many edges: put activations between the sums"
                )
            values.append(found)
        classes = self.read_out(values[self.graph.output], self.graph.shapes[self.graph.output])
        if len(self.layers) == 1:
            raise UserError(f"{name} has no ReLU: there is no activation for spiking neurons to stand for")
        found = Network(name, self.input_shape, classes, tuple(self.layers), mean, std)
        layer_shapes(found)  # raises where edges do not meet
        params = {f"{op}.{part}": value for op, parts in self.params.items() for part, value in parts.items()}
        return found, check_params(found, params, name)

    def apply(self, node: Node, inputs: list[Value], shape: Shape) -> Value:
        x, name = inputs[0], node.name
        match node.operation:
            case Relu(cap=cap):
                parts = tuple(
                    Part(p.channels, (self.activate(p, x.sides is not None, cap, name),)) for p in x.parts
                )
                return replace(x, parts=parts)
            case Convolution() as conv:
                return self.convolution(conv, x, name)
            case Linear() as linear:
                return self.linear(linear, x, name)
            case Norm() as norm:
                return normalised(norm, x, name)
            case Affine(scale=scale, shift=shift):
                return scaled(scale, shift, x, name)
            case Pool(kind=kind) as pool:
                expect_image(x, name, f"a {kind} pool")
                bare = all(not term.steps and term.source != IMAGE for p in x.parts for term in p.terms)
                if kind == "max" and not (bare and all(len(part.terms) == 1 for part in x.parts)):
                    raise UserError(
                        f"{name} is a max pool of what is no activation, so that no spikes arrive that it could "
                        "choose among: put it right behind a ReLU, or import with --max-pool average"
                    )
                target = pool.taps.target(x.sides or (1, 1))
                return replace(x, parts=each(x, lambda part: part.then(name, pool)), sides=target)
            case Pad(pads=pads):
                expect_image(x, name, "padding")
                height, width = x.sides or (1, 1)
                sides = (height + sum(pads[0]), width + sum(pads[1]))
                return replace(x, parts=each(x, lambda part: part.then(name, Pad(pads))), sides=sides)
            case Add():
                return self.add(x, inputs[1], name)
            case Concat(axis=axis):
                return joined(inputs, axis, name)
            case Reshape():
                return replace(x, axes=reshaped(x, shape, self.batch, name))
            case Transpose(order=order):
                return replace(x, axes=tuple(x.axes[axis] for axis in order))

    @property
    def batch(self) -> int:
        return self.graph.shapes[0][0]

    def activate(self, part: Part, spatial: bool, cap: float | None, name: str) -> Term:
        """The part as a layer of its own; one that an activation made already stays as it is."""
        if len(part.terms) == 1 and not part.terms[0].steps and part.terms[0].source != IMAGE:
            layer = self.layers[part.terms[0].source]
            if cap is None or layer.cap == cap:
                return part.terms[0]
        return Term(self.add_layer(part, spatial, name, cap))

    def add_layer(self, part: Part, spatial: bool, name: str, cap: float | None = None) -> int:
        edges, chains = [], []
        for term in part.terms:
            shape = self.input_shape if term.source == IMAGE else self.shapes[term.source]
            chains.append(simplified(term.steps, shape))
        if not any(chains):  # a layer without any op has no shape of its own
            chains[0] = [Step(name, diagonal(np.ones(part.channels), None, spatial, name))]
        for term, chain in zip(part.terms, chains):
            edges.append(Edge(term.source, tuple(self.named(step) for step in chain)))
        maps = [[op for op in edge.ops if isinstance(op, Conv | Dense)] for edge in edges]
        wanted = next((found[-1].name for found in maps if found), name)
        taken = {layer.name for layer in self.layers}
        layer = Layer(_free(wanted, lambda n: n not in taken), tuple(edges), cap=cap)
        self.layers.append(layer)
        first = edges[0]
        shape = self.input_shape if first.source == IMAGE else self.shapes[first.source]
        for op in first.ops:
            shape = output_shape(op, shape)
        self.shapes.append(shape)
        return len(self.layers) - 1

    def named(self, step: Step) -> Op:
        """The step's op under a name of its own: a map that stands on several edges has a copy on each of them.

        The copies may be folded and scaled apart: what follows one need not follow the other.
        """
        op = op_of(step)
        if isinstance(op, WithParameters):
            name = _free(step.name, lambda n: n not in self.params)
            self.params[name] = params_of(step)
            return replace(op, name=name)
        return op

    def convolution(self, conv: Convolution, x: Value, name: str) -> Value:
        expect_image(x, name, "a convolution")
        per_group, groups = conv.weight.shape[1], conv.groups
        sides = conv.taps.target(x.sides or (1, 1))
        if groups == 1 or len(x.parts) == 1:
            terms: list[Term] = []
            start = 0
            for index, part in enumerate(x.parts):
                weight = conv.weight if groups > 1 else conv.weight[:, start : start + part.channels]
                own = replace(conv, weight=weight, bias=None if terms else conv.bias)
                terms += part.then(_piece(name, index, x), own, replace(own, bias=None))
                start += part.channels
            return Value(
                (Part(len(conv.weight), tuple(terms)),), sides, x.axes[:1] + letters(len(conv.weight), sides)
            )
        parts, start = [], 0
        features = len(conv.weight) // groups
        for index, part in enumerate(x.parts):
            if part.channels % per_group:
                raise UserError(f"{name} has groups of {per_group} channels across parts of a concatenation")
            rows = slice(start * features, (start + part.channels // per_group) * features)
            start += part.channels // per_group
            bias = None if conv.bias is None else conv.bias[rows]
            own = replace(conv, weight=conv.weight[rows], bias=bias, groups=part.channels // per_group)
            terms = list(part.then(_piece(name, index, x), own, replace(own, bias=None)))
            parts.append(Part(rows.stop - rows.start, tuple(terms)))
        return Value(tuple(parts), sides, x.axes[:1] + letters(len(conv.weight), sides))

    def linear(self, linear: Linear, x: Value, name: str) -> Value:
        read, sizes = x.axes[-1], x.sizes
        left = "".join(x.axes[:-1]).replace("N", "")
        if left and set(read) <= {"C"} and x.sides is not None:
            kernel = Convolution(linear.weight[:, :, None, None], linear.bias)
            canonical = replace(x, axes=("N" if self.batch > 1 else "", *letters(sizes["C"], x.sides)))
            made = self.convolution(kernel, canonical, name)
            return replace(made, axes=(*x.axes[:-1], "C" if len(linear.weight) > 1 else ""))
        if left or "N" in read:
            raise UserError(
                f"{name} is a dense map of one axis of {in_words(x)}: flatten all of them in front of it"
            )
        order = read + "".join(letter for letter in "CHW" if letter not in read)  # the others have size 1
        weight = linear.weight.reshape(len(linear.weight), *(sizes[letter] for letter in order))
        weight = weight.transpose(0, *(1 + order.index(letter) for letter in "HWC"))
        terms: list[Term] = []
        start = 0
        for index, part in enumerate(x.parts):
            columns = weight[..., start : start + part.channels].reshape(len(weight), -1)
            own = Linear(columns, None if terms else linear.bias)
            terms += part.then(_piece(name, index, x), own, Linear(columns, None))
            start += part.channels
        features = len(linear.weight)
        return Value((Part(features, tuple(terms)),), None, (*x.axes[:-1], "C" if features > 1 else ""))

    def add(self, one: Value, other: Value, name: str) -> Value:
        if (one.sides is None) != (other.sides is None) and one.axes == other.axes:
            one, other = (x if x.sides is None else self.linear(_identity(x, name), x, name) for x in (one, other))
        channels = [[part.channels for part in x.parts] for x in (one, other)]
        if one.axes != other.axes or one.sizes != other.sizes or channels[0] != channels[1]:
            raise UserError(
                f"{name} adds two values that lie differently, {in_words(one)} and {in_words(other)}: bring them "
                "into one layout first"
            )
        parts = zip(one.parts, other.parts)
        return replace(one, parts=tuple(Part(a.channels, a.terms + b.terms) for a, b in parts))

    def read_out(self, value: Value, shape: Shape) -> int:
        """Add the last layer; returns the number of classes."""
        rest = "".join(value.axes[:-1]).replace("N", "")
        if len(shape) != 2 or rest or "N" in value.axes[1]:
            raise UserError(f"the model's output has shape {shape}, expected (N, classes): flatten it at the end")
        name = next((node.name for node in reversed(self.graph.nodes)), "output")
        bare = any(not term.steps for part in value.parts for term in part.terms)
        if value.sides is not None or len(value.parts) > 1 or bare:
            value = self.linear(_identity(value, name), value, f"{name}.read_out")
        self.add_layer(next(iter(value.parts)), False, name)
        return shape[1]


def _identity(value: Value, name: str) -> Linear:
    count = prod(value.sizes.values())
    if count > LARGEST_IDENTITY:
        raise UserError(f"{name} gives {count} features that no dense map makes, which is too many for a read-out")
    return Linear(np.eye(count), None)


def _free(name: str, fits: Callable[[str], bool]) -> str:
    """``name``, or the first of name_2, name_3, ... that fits."""
    count, found = 1, name
    while not fits(found):
        count += 1
        found = f"{name}_{count}"
    return found


def _piece(name: str, index: int, x: Value) -> str:
    return name if len(x.parts) == 1 else f"{name}.part{index}"
