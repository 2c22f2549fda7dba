"""A model as a graph of the few operations that can be converted, whatever program it came from.

Tensors are (N, C, H, W) or (N, F), and operations mean what they mean in PyTorch. A front (``from_torch``,
``from_onnx``, ``from_pt2``, ``from_nnx``) makes the graph with a ``Builder``, which knows the shape of every value
as soon as it is added; ``lower_graph`` turns it into a ``Network``; ``evaluate_graph`` computes it in float64.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.taps import Pads, Pair, Taps

Shape = tuple[int, ...]
NO_PADS: Pads = ((0, 0), (0, 0))
LARGEST_VALUE = 2**26
"""Numbers that one value of a graph may have: a file that says more is refused before anything is computed."""


@dataclass(frozen=True, eq=False)
class Convolution:
    """``weight`` (O, C / groups, h, w), ``bias`` (O,) or None."""

    weight: np.ndarray
    bias: np.ndarray | None
    stride: Pair = (1, 1)
    pads: Pads = NO_PADS
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def taps(self) -> Taps:
        """What each output position reads."""
        high, wide = self.weight.shape[2:]
        return Taps((high, wide), self.stride, self.pads, self.dilation)


@dataclass(frozen=True, eq=False)
class Linear:
    """``weight`` (O, I) on the last axis, ``bias`` (O,) or None."""

    weight: np.ndarray
    bias: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Norm:
    """BatchNorm in inference mode over the channels, axis 1: four arrays (C,)."""

    scale: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    epsilon: float


@dataclass(frozen=True, eq=False)
class Affine:
    """x * scale + shift with constants that broadcast against x, the batch being an axis of 1."""

    scale: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class Relu:
    """max(x, 0), and min(., cap) where there is a cap."""

    cap: float | None = None


@dataclass(frozen=True)
class Pool:
    """A pool of ``kind`` "average" or "max"; padded zeros count in the mean only with ``count_pads``."""

    kind: str
    window: Pair
    stride: Pair
    pads: Pads = NO_PADS
    count_pads: bool = True

    @property
    def taps(self) -> Taps:
        """What each output position reads."""
        return Taps(self.window, self.stride, self.pads)


@dataclass(frozen=True)
class Add:
    """The sum of two values of one shape."""


@dataclass(frozen=True)
class Concat:
    """Values one after the other along ``axis``."""

    axis: int


@dataclass(frozen=True)
class Pad:
    """Zeros around rows and columns."""

    pads: Pads


@dataclass(frozen=True)
class Reshape:
    """The same numbers in another ``shape``, the batch included."""

    shape: Shape


@dataclass(frozen=True)
class Transpose:
    """Axes in another ``order``."""

    order: tuple[int, ...]


Operation = Convolution | Linear | Norm | Affine | Relu | Pool | Add | Concat | Pad | Reshape | Transpose


@dataclass(frozen=True, eq=False)
class Node:
    """One operation; ``inputs`` and its result are numbers of values, ``name`` is what the source calls it."""

    operation: Operation
    inputs: tuple[int, ...]
    name: str


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in the order of evaluation. Value 0 is the input, value k the result of node k - 1.

    Attributes:
        shapes: of every value, with the batch.
        axes: letters of the input's axes where they are not N, C, H, W ("NHWC").
        notes: sentences about what was read differently from what the source says.
    """

    nodes: tuple[Node, ...]
    shapes: tuple[Shape, ...]
    output: int
    axes: str = ""
    notes: tuple[str, ...] = ()


class ValueId(int):
    """The number of a value in a graph: a type of its own, to tell it from sizes and constants."""


class Builder:
    """Makes a graph node by node, and knows the shapes of its values."""

    def __init__(self, shape: Shape):
        _check_size("the input", shape)
        self.nodes: list[Node] = []
        self.shapes: list[Shape] = [shape]

    def add(self, operation: Operation, *inputs: int, name: str) -> ValueId:
        """The value that ``operation`` makes of others; raises ``UserError`` where it does not fit them."""
        shape = _shape_after(operation, [self.shapes[i] for i in inputs], name)
        _check_size(name, shape)
        self.nodes.append(Node(operation, inputs, name))
        self.shapes.append(shape)
        return ValueId(len(self.nodes))

    def graph(self, output: int, axes: str = "") -> Graph:
        """The graph that ends in ``output``, without what does not reach it; ``axes`` as in ``Graph``."""
        needed = {output}
        for index in range(len(self.nodes), 0, -1):
            if index in needed:
                needed |= set(self.nodes[index - 1].inputs)
        kept = [index for index in range(1, len(self.shapes)) if index in needed]
        place = {0: 0} | {old: new for new, old in enumerate(kept, start=1)}
        nodes = [self.nodes[index - 1] for index in kept]
        renumbered = tuple(Node(n.operation, tuple(place[i] for i in n.inputs), n.name) for n in nodes)
        shapes = (self.shapes[0], *(self.shapes[index] for index in kept))
        return Graph(renumbered, shapes, place[output], axes)


def with_average_pools(graph: Graph) -> Graph:
    """The graph with an average pool in the place of every max pool, and a note that says which.

    Padded zeros count in its mean, as in PyTorch: every export can express that.
    """

    def replaced(node: Node) -> Node:
        if isinstance(node.operation, Pool) and node.operation.kind == "max":
            return replace(node, operation=replace(node.operation, kind="average", count_pads=True))
        return node

    names = [node.name for node in graph.nodes if replaced(node) is not node]
    if not names:
        return graph
    note = f"average pools stand in place of the max pools {', '.join(names)}: train the network a little further"
    return replace(graph, nodes=tuple(map(replaced, graph.nodes)), notes=(*graph.notes, note))


def sizes_after(shape: Shape, minus_one: Shape, name: str) -> Shape:
    """``minus_one`` with its -1 (at most one) replaced so that it holds as many numbers as ``shape``."""
    total, known = math.prod(shape), math.prod(size for size in minus_one if size != -1)
    if minus_one.count(-1) > 1 or any(size < -1 for size in minus_one):
        raise UserError(f"{name} reshapes to {minus_one}, expected at most one -1 and no other negative size")
    if -1 in minus_one:
        if known == 0 or total % known:
            raise UserError(f"{name} reshapes {shape} to {minus_one}, which does not divide")
        return tuple(total // known if size == -1 else size for size in minus_one)
    if total != known:
        raise UserError(f"{name} reshapes {shape} to {minus_one}, which holds another count of numbers")
    return minus_one


def _check_size(name: str, shape: Shape) -> None:
    if any(size < 1 for size in shape) or math.prod(shape) > LARGEST_VALUE:
        raise UserError(
            f"{name} has shape {shape}, expected sizes from 1 and at most {LARGEST_VALUE} numbers in all"
        )


def _shape_after(operation: Operation, shapes: list[Shape], name: str) -> Shape:
    first = shapes[0]

    def expect(good: bool, what: str) -> None:
        if not good:
            raise UserError(f"{name} gets {' and '.join(map(str, shapes))}, expected {what}")

    match operation:
        case Convolution(weight=weight, bias=bias, groups=groups):
            expect(weight.ndim == 4 and 0 not in weight.shape, f"a kernel of four axes, not {weight.shape}")
            expect(groups > 0 and (bias is None or bias.shape == weight.shape[:1]), "a bias a feature")
            expect(
                len(first) == 4 and first[1] == weight.shape[1] * groups and weight.shape[0] % groups == 0,
                f"(N, {weight.shape[1] * groups}, H, W)",
            )
            return _spatial(operation.taps, first, weight.shape[0], name)
        case Pool():
            expect(len(first) == 4, "(N, C, H, W)")
            return _spatial(operation.taps, first, first[1], name)
        case Linear(weight=weight, bias=bias):
            expect(weight.ndim == 2 and (bias is None or bias.shape == weight.shape[:1]), "a bias a feature")
            expect(first[-1] == weight.shape[1], f"a last axis for a matrix {weight.shape}")
            return (*first[:-1], weight.shape[0])
        case Norm(scale=scale, variance=variance, epsilon=epsilon):
            arrays = (scale, operation.bias, operation.mean, variance)
            expect(len(first) > 1 and all(a.shape == (first[1],) for a in arrays), f"{scale.shape} channels")
            expect(variance.min() >= 0 and epsilon >= 0 and bool((variance + epsilon).all()), "variances above 0")
        case Affine(scale=scale, shift=shift):
            try:
                fits = np.broadcast_shapes(first, scale.shape, shift.shape) == first
            except ValueError:
                fits = False
            expect(fits, f"a shape against which {scale.shape} and {shift.shape} broadcast")
        case Add():
            expect(shapes[1] == first, "two values of one shape")
        case Concat(axis=axis):
            rest = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
            expect(0 <= axis < len(first) and len(rest) == 1, f"shapes that differ in axis {axis} alone")
            return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])
        case Pad(pads=pads):
            expect(len(first) == 4, "(N, C, H, W)")
            return (*first[:2], first[2] + sum(pads[0]), first[3] + sum(pads[1]))
        case Reshape(shape=shape):
            return sizes_after(first, shape, name)
        case Transpose(order=order):
            expect(sorted(order) == list(range(len(first))), f"{len(order)} axes")
            return tuple(first[axis] for axis in order)
    return first


def _spatial(taps: Taps, shape: Shape, features: int, name: str) -> Shape:
    numbers = (*taps.sides, *taps.strides, *taps.dilation)
    if min(numbers) < 1 or min(n for pair in taps.pads for n in pair) < 0:
        raise UserError(f"{name} has a window, stride, padding or dilation that is not positive")
    height, width = taps.target((shape[2], shape[3]))
    if min(height, width) < 1:
        raise UserError(f"{name} does not fit into an input of shape {shape}")
    return shape[0], features, height, width
