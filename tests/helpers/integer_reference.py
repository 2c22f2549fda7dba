"""int8 simulation by its definition: int64 in NumPy, no code of the package's arithmetic."""

import math

import numpy as np

from helpers import reference
from jaxsnn.networks.description import AvgPool, Conv, Dense, MaxPool


def pool_unit(ops, shape):
    """What a chain of pools and maps is multiplied with so that no pool divides: by asking each pool."""
    unit = 1
    for op in ops:
        if isinstance(op, AvgPool):
            ones = np.zeros((math.prod(shape[:2]), *shape[:2], 1))
            ones.reshape(len(ones), -1)[np.diag_indices(len(ones))] = 1
            unit *= math.lcm(*(round(1 / share) for share in np.unique(reference.average(op, ones)) if share))
        nothing = {f"{op.name}.kernel": _zeros(op, shape)} if isinstance(op, Conv | Dense) else {}
        shape = reference.apply_edge([op], nothing, np.zeros((1, *shape)), bias=False).shape[1:]
    return unit


def _zeros(op, shape):
    if isinstance(op, Dense):
        return np.zeros((math.prod(shape), op.features))
    return np.zeros((*reference.two(op.kernel), shape[-1] // op.groups, op.features))


def integer_reference(snn, theta, images, steps, v0):
    """Spikes (T, B, ...) per layer and scores (T, B, classes) in int64, for networks with one edge a layer."""
    network = snn.network
    levels = np.arange(256)[:, None] / 255
    shape = images.shape[1:]
    prepared, pixel = [], None
    for index, layer in enumerate(network.layers):
        (edge,) = layer.edges
        (op,) = (o for o in edge.ops if isinstance(o, Conv | Dense))
        pooled = pool_unit(edge.ops, shape)
        kernel = np.asarray(snn.params[f"{op.name}.kernel"], np.float64)
        axes = tuple(range(kernel.ndim - 1))
        top = np.abs(kernel).max(None if index == len(network.layers) - 1 else axes)
        top = np.maximum(top, (np.max(top) or 1) / 256)
        whole = {f"{op.name}.kernel": np.round(kernel / (top / 127))}
        if index == 0:  # PLAIN normalises pixels to 0 .. 255
            room = 2**24 / max(1, 255 * np.abs(whole[f"{op.name}.kernel"]).sum(axes).max() * pooled)
            pixel = min(256, 2 ** np.floor(np.log2(room)))
        amplitude = 1 / pixel if index == 0 else theta[index - 1]
        unit = np.broadcast_to(top / 127 / pooled * amplitude, (op.features,))
        bias = np.round(snn.params[f"{op.name}.bias"] / unit) if op.bias else 0
        gate = reference.Gates(edge.ops[0], shape[:2]) if isinstance(edge.ops[0], MaxPool) else None
        prepared.append((gate, edge.ops[gate is not None :], whole, pooled, unit, bias))
        shape = reference.apply_edge(edge.ops, whole, np.zeros((1, *shape)), bias=False).shape[1:]
    table = np.round((levels - np.array(network.mean)) / np.array(network.std) * pixel)
    image = table[images, np.arange(images.shape[-1])]
    membranes = [None] * len(network.spiking)
    trace, scores, curve = [[] for _ in network.spiking], 0, []
    for _ in range(steps):
        signal = image
        for index, (gate, ops, whole, pooled, unit, bias) in enumerate(prepared):
            signal = signal if gate is None else gate.passed(signal)
            drive = np.round(reference.apply_edge(ops, whole, signal, bias=False) * pooled) + bias
            if index == len(network.spiking):
                scores = scores + drive
                curve.append(scores)
                break
            threshold = np.maximum(1, np.round(theta[index] / unit))
            before = np.round(v0 * threshold) if membranes[index] is None else membranes[index]
            v = before + drive
            signal = (v > threshold).astype(float)
            membranes[index] = v - threshold * signal
            trace[index].append(signal)
    return [np.array(t) for t in trace], np.array(curve)
