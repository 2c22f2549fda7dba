"""Max pools moved behind the activation that follows them, where spikes arrive that they can choose among.

A maximum commutes with whatever does not decrease: a ReLU, or a norm whose gains are not negative. So conv, pool,
(norm,) ReLU becomes conv, (norm,) ReLU, pool, and a norm between a ReLU and a pool goes behind the pool.
"""

from dataclasses import replace

from jaxsnn.conversion.chains import as_affine
from jaxsnn.conversion.graph import Affine, Graph, Node, Norm, Pool, Relu


def is_max(node: Node) -> bool:
    """Whether a node is a max pool."""
    return isinstance(node.operation, Pool) and node.operation.kind == "max"


def max_pools(graph: Graph) -> list[str]:
    """Names of the max pools."""
    return [node.name for node in graph.nodes if is_max(node)]


def behind_activations(graph: Graph) -> Graph:
    """The same function with max pools behind activations, as far as that can be."""
    nodes, shapes = list(graph.nodes), list(graph.shapes)

    def reader(index: int) -> int | None:
        """The node that reads another's value, if there is just one and the value is not the output."""
        readers = [number for number, node in enumerate(nodes) if index + 1 in node.inputs]
        return readers[0] if len(readers) == 1 and index + 1 != graph.output else None

    def swap(first: int, second: int) -> None:
        """Let a node and its reader change places."""
        one, other = nodes[first], nodes[second]
        nodes[first], nodes[second] = replace(other, inputs=one.inputs), replace(one, inputs=other.inputs)
        shapes[first + 1] = shapes[second + 1] if is_max(other) else shapes[one.inputs[0]]

    def ahead(index: int) -> list[int]:
        """The nodes behind a max pool up to the ReLU that it may pass, or none."""
        before, found = nodes[index].inputs[0] - 1, []
        activated = before >= 0 and isinstance(nodes[before].operation, Relu)
        following = reader(index)
        while following is not None:
            found.append(following)
            if isinstance(nodes[following].operation, Relu):
                return found
            following = reader(following) if _rising(nodes[following]) and not activated else None
        return []

    for index in reversed(range(len(nodes))):
        if is_max(nodes[index]):
            for following in ahead(index):
                swap(index, following)
                index = following
    for index in range(len(nodes)):
        while is_max(nodes[index]) and (before := nodes[index].inputs[0] - 1) >= 0:
            if not _rising(nodes[before]) or reader(before) != index:
                break
            swap(before, index)
            index = before
    return replace(graph, nodes=tuple(nodes), shapes=tuple(shapes))


def _rising(node: Node) -> bool:
    """Whether a node scales channels by numbers that are not negative, and shifts them."""
    match node.operation:
        case Norm() as norm:
            return bool((as_affine(norm).scale >= 0).all())
        case Affine(scale=scale, shift=shift):
            return bool((scale >= 0).all()) and all(_by_channel(part.shape) for part in (scale, shift))
    return False


def _by_channel(shape: tuple[int, ...]) -> bool:
    """Whether a constant is alike at all positions of an image (N, C, H, W)."""
    return all(size == 1 for axis, size in enumerate(reversed(shape)) if axis != 2)
