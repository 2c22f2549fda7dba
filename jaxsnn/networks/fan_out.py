"""How many synaptic operations a spike causes."""

import numpy as np

from jaxsnn.networks.description import IMAGE, AvgPool, Conv, Dense, Network, layer_shapes, output_shape


def fan_out(network: Network) -> list[np.ndarray]:
    """How many weights one spike drives, per spiking layer: int64 (H, W), or (1, 1) after a dense layer."""
    shapes = layer_shapes(network)
    totals = [np.zeros(shape[:2] if len(shape) == 3 else (1, 1), np.int64) for shape in shapes[:-1]]
    for layer in network.layers:
        for edge in layer.edges:
            if edge.source != IMAGE:
                totals[edge.source] += _reach(edge.ops, shapes[edge.source])
    return totals


def _reach(ops: tuple, shape: tuple[int, ...]) -> np.ndarray:
    """Weights driven by one unit at each position of an input of ``shape``; an edge without weights drives 1."""
    if not ops:
        return np.ones(shape[:2] if len(shape) == 3 else (1, 1), np.int64)
    op, *rest = ops
    driven = _reach(tuple(rest), output_shape(op, shape))
    match op:
        case Dense():
            positions = shape[:2] if len(shape) == 3 else (1, 1)
            return np.full(positions, op.features * driven.item())
        case AvgPool():
            return driven.repeat(op.window, 0).repeat(op.window, 1)
        case Conv():
            pad = op.kernel // 2
            total = np.zeros((shape[0] + 2 * pad, shape[1] + 2 * pad), np.int64)
            for i in range(op.kernel):
                for j in range(op.kernel):
                    rows = slice(i, i + op.stride * (driven.shape[0] - 1) + 1, op.stride)
                    columns = slice(j, j + op.stride * (driven.shape[1] - 1) + 1, op.stride)
                    total[rows, columns] += op.features * driven
            return total[pad : pad + shape[0], pad : pad + shape[1]]
    return driven
