"""What a graph computes, in float64 NumPy: the reference where the model's own program is missing."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from jaxsnn.conversion.graph import (
    Add,
    Affine,
    Concat,
    Convolution,
    Graph,
    Linear,
    Norm,
    Operation,
    Pad,
    Pool,
    Relu,
    Reshape,
    Transpose,
)
from jaxsnn.networks.taps import Pads, Taps


def evaluate(graph: Graph, x: np.ndarray) -> np.ndarray:
    """The graph's output for an input of its shape, whose batch is the graph's."""
    values = [np.asarray(x, np.float64)]
    last_use = {index: number for number, node in enumerate(graph.nodes) for index in node.inputs}
    for number, node in enumerate(graph.nodes):
        values.append(_apply(node.operation, [values[i] for i in node.inputs]))
        for index in node.inputs:
            if last_use[index] == number and index != graph.output:
                values[index] = np.empty(0)
    return values[graph.output]


def _apply(operation: Operation, inputs: list[np.ndarray]) -> np.ndarray:
    x = inputs[0]
    match operation:
        case Convolution():
            return _convolution(operation, x)
        case Linear(weight=weight, bias=bias):
            return x @ weight.T + (0.0 if bias is None else bias)
        case Norm():
            sides = (1, -1) + (1,) * (x.ndim - 2)
            gain = operation.scale / np.sqrt(operation.variance.astype(np.float64) + operation.epsilon)
            return (x - operation.mean.reshape(sides)) * gain.reshape(sides) + operation.bias.reshape(sides)
        case Affine(scale=scale, shift=shift):
            return x * scale + shift
        case Relu(cap=cap):
            return np.clip(x, 0, cap)
        case Pool():
            return _pool(operation, x)
        case Add():
            return x + inputs[1]
        case Concat(axis=axis):
            return np.concatenate(inputs, axis)
        case Pad(pads=pads):
            return _padded(x, pads)
        case Reshape(shape=shape):
            return x.reshape(shape)
        case Transpose(order=order):
            return x.transpose(order)


def _padded(x: np.ndarray, pads: Pads, value: float = 0.0) -> np.ndarray:
    return np.pad(x, ((0, 0), (0, 0), *pads), constant_values=value)


def _windows(x: np.ndarray, taps: Taps) -> np.ndarray:
    """What each output position of a padded input reads: (N, C, H', W', h, w)."""
    every = sliding_window_view(x, taps.spans, (2, 3))
    rows, columns = taps.strides
    return every[:, :, ::rows, ::columns, :: taps.dilation[0], :: taps.dilation[1]]


def _convolution(operation: Convolution, x: np.ndarray) -> np.ndarray:
    windows = _windows(_padded(x, operation.pads), operation.taps)
    groups = operation.groups
    weight = operation.weight.astype(np.float64)
    parts = [
        np.einsum("nchwij,ocij->nohw", part, kernel, optimize=True)
        for part, kernel in zip(np.split(windows, groups, 1), np.split(weight, groups))
    ]
    total = np.concatenate(parts, 1)
    return total if operation.bias is None else total + operation.bias[:, None, None]


def _pool(operation: Pool, x: np.ndarray) -> np.ndarray:
    if operation.kind == "max":
        return _windows(_padded(x, operation.pads, -np.inf), operation.taps).max((4, 5))
    total = _windows(_padded(x, operation.pads), operation.taps).sum((4, 5))
    counted = _padded(np.ones_like(x[:1, :1]), operation.pads, 1.0 if operation.count_pads else 0.0)
    return total / _windows(counted, operation.taps).sum((4, 5))
