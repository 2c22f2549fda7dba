"""ONNX files from plain values, so that the reader is tested without ONNX's own package."""

import struct

import numpy as np

NUMBERS = {np.dtype(np.float32): 1, np.dtype(np.int64): 7}


def varint(value):
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number, value):
    """A whole number, or bytes, text or a message with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name, array, dims=None, raw=None, external=None):
    """TensorProto; ``dims`` and ``raw`` are what it says and holds, where that is not the array's."""
    parts = [field(1, int(size)) for size in (array.shape if dims is None else dims)]
    parts += [field(2, NUMBERS[array.dtype]), field(8, name)]
    if external is None:
        parts.append(field(9, array.tobytes() if raw is None else raw))
    else:
        parts += [field(13, field(1, key) + field(2, value)) for key, value in external.items()] + [field(14, 1)]
    return b"".join(parts)


def attribute(name, value):
    """AttributeProto of a number, text, an array or whole numbers."""
    match value:
        case float():
            body = varint(2 << 3 | 5) + struct.pack("<f", value) + field(20, 1)
        case int():
            body = field(3, value) + field(20, 2)
        case str():
            body = field(4, value) + field(20, 3)
        case np.ndarray():
            body = field(5, tensor("", value)) + field(20, 4)
        case _:
            body = b"".join(field(8, item) for item in value) + field(20, 7)
    return field(1, name) + body


def node(kind, inputs, output, name="", domain="", **attributes):
    """NodeProto."""
    parts = [field(1, given) for given in inputs] + [
        field(2, output),
        field(3, name),
        field(4, kind),
        field(7, domain),
    ]
    return b"".join(parts + [field(5, attribute(key, value)) for key, value in attributes.items()])


def _value(name, shape):
    dims = b"".join(field(1, field(1, size) if isinstance(size, int) else field(2, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


def model(nodes, constants, shape, output, opset=17, tensors=()):
    """ModelProto of messages of nodes, arrays by name, and an input "x" of ``shape``, texts being open sizes."""
    graph = [field(1, message) for message in nodes]
    graph += [field(5, tensor(name, array)) for name, array in constants.items()]
    graph += [field(5, message) for message in tensors]
    graph += [field(11, _value("x", shape)), field(12, _value(output, (1, 1)))]
    return field(1, 8) + field(8, field(1, "") + field(2, opset)) + field(7, b"".join(graph))


def drawn(seed, *shape):
    return (np.random.default_rng(seed).normal(size=shape) / max(1, np.prod(shape[1:])) ** 0.5).astype(np.float32)


def dense_model(opset=17, shape=("n", 1, 2, 3), end=(), output="y", tensors=()):
    """A reshape as exporters write it (Shape, Gather, Unsqueeze, Concat), two dense maps, a ReLU between."""
    constants = {
        "a.weight": drawn(0, 4, 6), "a.bias": drawn(1, 4), "b.weight": drawn(2, 4, 3),
        "zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1]),
    }  # fmt: skip
    nodes = [
        node("Shape", ["x"], "s"),
        node("Gather", ["s", "zero"], "n", axis=0),
        node("Unsqueeze", ["n", "axes"], "n1"),
        node("Concat", ["n1", "rest"], "to", axis=0),
        node("Reshape", ["x", "to"], "flat"),
        node("Gemm", ["flat", "a.weight", "a.bias"], "h", name="/a/Gemm", transB=1, alpha=0.5),
        node("Relu", ["h"], "r"),
        node("MatMul", ["r", "b.weight"], "y"),
        *end,
    ]
    return model(nodes, constants, shape, output, opset, tensors), constants
