"""The int8 arithmetic as arrays: what a chip needs, and a README with a program that runs them in NumPy."""

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.exports.converted import (
    Converted,
    conv_weight,
    dense_weight,
    plain_name,
    plain_names,
)
from jaxsnn.networks.description import (
    IMAGE,
    AvgPool,
    Conv,
    Dense,
    Dropout,
    Edge,
    MaxPool,
    Network,
    layer_shapes,
    output_shape,
)
from jaxsnn.networks.senders import has_gates
from jaxsnn.networks.spiking import SNN, check_single
from jaxsnn.networks.taps import Taps
from jaxsnn.simulation.integers import IntegerSNN, integer_neurons, integer_pixels, quantize

ARRAYS, DESCRIPTION, README = "network.npz", "network.json", "README.md"
"""Names of the files."""


TEXT = """\
# {title} in integers

Written by jaxsnn.export. `network.npz` holds the arrays, `network.json` the layers and what each reads. All
arithmetic is in integers that fit into 32 bits for {steps} steps, so that every machine gets the same spikes.

| array | what |
| --- | --- |
| `pixels` | int32 (256, channels): what a grey level 0..255 of a channel drives the first layer with |
| `LAYER.EDGE.weight` | int8, (outputs, inputs, height, width) or (outputs, inputs), for channels first |
| `LAYER.EDGE.gain` | int32, (channels,) or (1,): what the edge's sum is multiplied with; 1 where it is not given |
| `LAYER.bias` | int32 (channels,): added to every membrane at every step |
| `LAYER.start` | int32 (channels,): membranes before the first step |
| `LAYER.threshold` | int32 (channels,): a neuron fires where its membrane is {words} it, and loses it |

Run {steps} steps{delay}. In a step the layers act one after the
other and see the spikes of the same step; the image is the same at every step, and its drive need be computed only
once. {pools} The last layer has no neurons: its sums are added up over the steps, and the class is that of
the largest.

```python
{program}```
"""


PROGRAM = '''\
import json

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def windows(x, op):
    """What each output position reads, (N, channels, height, width, rows, columns)."""
    (high, wide), (down, right), (dy, dx) = op["window"], op["stride"], op["dilation"]
    x = np.pad(x, ((0, 0), (0, 0), *op["padding"]))
    spans = dy * (high - 1) + 1, dx * (wide - 1) + 1
    return sliding_window_view(x, spans, (2, 3))[:, :, ::down, ::right, ::dy, ::dx]


def pass_spikes(op, x, counts):
    """A max pool: a spike passes where it raises the largest spike count of its window."""
    before = counts.get(id(op), np.zeros_like(x))
    counts[id(op)] = before + x
    return windows(counts[id(op)], op).max((4, 5)) - windows(before, op).max((4, 5))


def apply(op, x, arrays, counts):
    if op["op"] == "max_pool":
        return pass_spikes(op, x, counts)
    if op["op"] == "flatten":
        return x.reshape(len(x), -1)
    if op["op"] == "sum_pool":
        return windows(x, op).sum((4, 5))
    weight = arrays[op["weight"]].astype(np.int64)
    if op["op"] == "dense":
        return x @ weight.T
    parts = zip(np.split(windows(x, op), op["groups"], 1), np.split(weight, op["groups"]))
    return np.concatenate([np.einsum("nchwij,fcij->nfhw", *part, optimize=True) for part in parts], 1)


def simulate(images, network, arrays):
    """Scores (steps, N, classes) and spikes per layer, of images uint8 (N, channels, height, width)."""
    pixels = arrays["pixels"][images, np.arange(images.shape[1])[:, None, None]].astype(np.int64)
    fires = {">": np.greater, ">=": np.greater_equal}[network["comparison"]]
    membranes, counts, spikes, total, scores = {}, {}, {}, 0, []
    for _ in range(network["steps"]):
        outputs = {-1: pixels}
        for index, layer in enumerate(network["layers"]):
            own = {
                number: arrays[f"{layer['name']}.{number}"].reshape(-1, *[1] * (len(layer["shape"]) - 1))
                for number in layer["numbers"]
            }
            drive = own["bias"].astype(np.int64)
            for edge in layer["edges"]:
                x = outputs[edge["source"]]
                for op in edge["ops"]:
                    x = apply(op, x, arrays, counts)
                drive = drive + x * (own[edge["gain"]] if "gain" in edge else 1)
            if "threshold" not in own:  # the last layer
                total = total + drive
                scores.append(total)
                break
            membrane = membranes.get(index, own["start"]) + drive
            outputs[index] = fires(membrane, own["threshold"]).astype(np.int64)
            membranes[index] = membrane - own["threshold"] * outputs[index]
            spikes[layer["name"]] = spikes.get(layer["name"], 0) + int(outputs[index].sum())
    return np.stack(scores), spikes


def load(folder="."):
    with open(f"{folder}/network.json") as file, np.load(f"{folder}/network.npz") as arrays:
        return json.load(file), dict(arrays)
'''


GATES = """\
Average pools are sums. A max pool counts its inputs' spikes, and a spike
passes where it raises the largest count of its window, so that the input that has fired most passes its spikes."""


def integer_files(converted: Converted) -> dict[str, bytes]:
    """Contents by file name; raises ``UserError`` for networks that integers cannot express."""
    try:
        return _files(converted)
    except UserError as error:  # what the simulator would be told
        raise UserError(str(error).replace("use float32", "export to torch")) from error


def _files(converted: Converted) -> dict[str, bytes]:
    check_single(converted.dynamics, "integers, unlike --to torch, are")
    integers = quantize(converted.snn)
    # maps without neurons between them are one in integers
    converted = replace(converted, snn=SNN(integers.network, converted.snn.params))
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays(converted, integers))
    described = describe(converted)
    silent = f", which are {converted.timesteps} with one step of delay per layer" if converted.silent else ""
    text = TEXT.format(
        title=plain_name(converted.network.name),
        steps=converted.steps,
        words="above" if converted.dynamics.comparison == ">" else "at or above",
        delay=silent,
        program=PROGRAM,
        pools=GATES if has_gates(converted.network) else "Pools are sums.",
    )
    return {
        ARRAYS: content.getvalue(),
        DESCRIPTION: (json.dumps(described, indent=1) + "\n").encode(),
        README: text.encode(),
    }


def describe(converted: Converted) -> dict[str, Any]:
    """network.json: the layers, what each reads, and the conventions."""
    network = converted.network
    height, width, channels = network.input_shape
    shapes, layers = layer_shapes(network), []
    for index, (layer, name) in enumerate(zip(network.layers, plain_names(network.layers))):
        edges = [_described(network, edge, f"{name}.{position}") for position, edge in enumerate(layer.edges)]
        numbers = ["bias", "start", "threshold"] if index < len(network.spiking) else ["bias"]
        numbers += [edge["gain"] for edge in edges if "gain" in edge]
        shape = shapes[index]
        layers.append({"name": name, "shape": [shape[-1], *shape[:-1]], "edges": edges, "numbers": numbers})
    return converted.conventions() | {
        "input": "pixels[level, channel] of every pixel, the same at every step",
        "input_shape": [channels, height, width],
        "classes": network.classes,
        "steps": converted.steps,
        "layers": layers,
    }


def arrays(converted: Converted, integers: IntegerSNN) -> dict[str, np.ndarray]:
    """The arrays of network.npz."""
    network = converted.network
    neurons = integer_neurons(integers, converted.genes, converted.steps)
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 256, 1).repeat(network.input_shape[2], -1)
    found = {"pixels": integer_pixels(integers, levels)[0, 0].astype(np.int32)}
    shapes = layer_shapes(network)
    for index, (layer, name) in enumerate(zip(network.layers, plain_names(network.layers))):
        found |= _weights(network, layer.edges, name, integers.kernels)
        carriers = [position for position, edge in enumerate(layer.edges) if edge.source != IMAGE]
        for position, gain in zip(carriers, neurons.gains[index]):
            found[f"{name}.{position}.gain"] = gain[0]
        numbers = {"bias": (neurons.biases or [])[index]}
        if index < len(network.spiking):
            numbers |= {"start": neurons.starts[index], "threshold": neurons.thresholds[index]}
        for number, value in numbers.items():
            found[f"{name}.{number}"] = np.array(np.broadcast_to(value[0], shapes[index][-1:]), order="C")
    return found


def _weights(network: Network, edges: tuple[Edge, ...], name: str, kernels: dict) -> dict[str, np.ndarray]:
    found = {}
    for position, edge in enumerate(edges):
        shape = _source_shape(network, edge)
        for op in edge.ops:
            weight = None
            if isinstance(op, Conv):
                weight = conv_weight(op, kernels)
            elif isinstance(op, Dense):
                weight = dense_weight(op, shape, kernels)
            if weight is not None:
                found[f"{name}.{position}.weight"] = weight.astype(np.int8)
            shape = output_shape(op, shape)
    return found


def _described(network: Network, edge: Edge, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {"source": edge.source}
    if edge.source != IMAGE:
        found["gain"] = f"{name.rpartition('.')[2]}.gain"
    return found | {"ops": _ops(edge, _source_shape(network, edge), f"{name}.weight")}


def _source_shape(network: Network, edge: Edge) -> tuple[int, ...]:
    return network.input_shape if edge.source == IMAGE else layer_shapes(network)[edge.source]


def _ops(edge: Edge, shape: tuple[int, ...], weight: str) -> list[dict[str, Any]]:
    """The ops of an edge, whose one map has the array ``weight``."""
    found: list[dict[str, Any]] = []
    for op in edge.ops:
        match op:
            case Conv():
                found.append({"op": "conv", "weight": weight, **_taps(op.taps), "groups": op.groups})
            case Dense():
                found += [{"op": "flatten"}] if len(shape) == 3 else []
                found.append({"op": "dense", "weight": weight})
            case AvgPool():
                if not op.count_padding:
                    raise UserError("integers have no average pool that leaves its padding out: export to torch")
                found.append({"op": "sum_pool", **_taps(op.taps)})
            case MaxPool():
                found.append({"op": "max_pool", **_taps(op.taps)})
            case Dropout():
                pass
            case _:
                raise UserError(f"{type(op).__name__} cannot be exported as integers: export to torch")
        shape = output_shape(op, shape)
    return found


def _taps(taps: Taps) -> dict[str, Any]:
    """Which input positions an output position reads; padding as [[top, bottom], [left, right]]."""
    return {"window": taps.sides, "stride": taps.strides, "padding": taps.pads, "dilation": taps.dilation}
