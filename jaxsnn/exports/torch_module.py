"""The spiking network as a PyTorch module in one readable file, with its weights in safetensors beside it.

Neither file needs this package. Weights, thresholds and the order of the sums are the simulator's, in float32.
"""

import math
from typing import Any

import numpy as np
from safetensors.numpy import save

from jaxsnn.errors import UserError
from jaxsnn.exports.converted import (
    Converted,
    bias_currents,
    channels_first,
    conv_weight,
    dense_weight,
    even_pads,
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
from jaxsnn.networks.spiking import Dynamics, check_single
from jaxsnn.networks.taps import short

CODE, WEIGHTS = "network.py", "network.safetensors"
"""Names of the two files."""


TEMPLATE = '''\
"""{title}: a spiking network, step by step. Written by jaxsnn.export; needs PyTorch and safetensors alone.

    network = load()
    scores = network(pixels)  # pixels (N, {channels}, {height}, {width}) in [0, 1]; scores (steps, N, {classes})
    classes = scores[-1].argmax(-1)

In a step every layer adds its drive to its membranes, {fires}.
A spike is worth its layer's threshold to the layers that read it. The image is a constant drive. Scores are summed
over the steps. {delay}
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

STEPS = {steps}
IMAGE = -1


class Layer(nn.Module):
    """The layers that a layer reads (by number, or IMAGE), the map of each, and its neurons' numbers."""

    def __init__(self, name, shape, sources, *maps):
        super().__init__()
        self.name, self.sources, self.maps = name, sources, nn.ModuleList(maps)
        self.register_buffer("bias", torch.zeros(shape))  # added at every step
        self.register_buffer("start", torch.zeros(shape))  # the membrane before the first step
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("leak", torch.ones(()))


{gate}class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor({mean}).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor({std}).view(-1, 1, 1))
        self.layers = nn.ModuleList([
{layers}
        ])

    def forward(self, pixels, steps=STEPS):
{reset}        image = (pixels - self.mean) / self.std
        constant = [layer.bias for layer in self.layers]
        for index, layer in enumerate(self.layers):
            for source, linear in zip(layer.sources, layer.maps):
                if source == IMAGE:
                    constant[index] = constant[index] + linear(image)
        membranes, total, scores = [layer.start for layer in self.layers], 0, []
        for _ in range(steps):
            spikes = []
            for index, layer in enumerate(self.layers):
                drive = constant[index]
                for source, linear in zip(layer.sources, layer.maps):
                    if source != IMAGE:
                        drive = drive + self.layers[source].threshold * linear(spikes[source])
                if index == len(self.layers) - 1:
                    break
                membrane = layer.leak * membranes[index] + drive
                spikes.append({fired})
                membranes[index] = membrane - layer.threshold * spikes[index]
            total = total + drive
            scores.append(total)
        return torch.stack(scores)


def load(weights=Path(__file__).with_name("{weights}")):
    network = Network()
    network.load_state_dict(load_file(weights))
    return network.eval()
'''


GATE = '''\
class Gate(nn.MaxPool2d):
    """A spiking max pool: a spike passes where it raises the largest spike count of its window, so that the input
    that has fired most passes its spikes."""

    counts = None

    def forward(self, spikes):
        before = 0 if self.counts is None else super().forward(self.counts)
        self.counts = spikes if self.counts is None else self.counts + spikes
        return super().forward(self.counts) - before


'''
RESET = """\
        for module in self.modules():
            if isinstance(module, Gate):
                module.counts = None
"""
"""What only networks with max pools need."""


def torch_files(converted: Converted) -> dict[str, bytes]:
    """Contents by file name: the code and the weights."""
    return {CODE: code(converted).encode(), WEIGHTS: save(tensors(converted))}


def code(converted: Converted) -> str:
    """The Python file. Of the network's names only letters, digits and underscores stand in it."""
    network = converted.network
    height, width, channels = network.input_shape
    pooled, lines = has_gates(network), []
    if pooled:
        check_single(converted.dynamics, "spiking max pools are")
    for index, (name, shape) in enumerate(zip(plain_names(network.layers), _number_shapes(converted))):
        edges = network.layers[index].edges
        first = f"""            Layer("{name}", {shape}, {[edge.source for edge in edges]}"""
        maps = [_sequential(edge, source) for edge, source in zip(edges, _inputs(network, index))]
        between = ", " if len(maps) == 1 else ",\n" + " " * 18
        lines.append(between.join([first, *maps]) + "),")
    if converted.silent:
        delay = f"{converted.steps} steps\nare {converted.timesteps} with one step of delay per layer."
    else:
        delay = f"With one step of delay\nper layer the same scores come {network.delay} steps later."
    fires, fired = _firing(converted.dynamics)
    return TEMPLATE.format(
        title=plain_name(network.name),
        channels=channels,
        height=height,
        width=width,
        classes=network.classes,
        fires=fires,
        fired=fired,
        delay=delay,
        steps=converted.steps,
        mean=[float(value) for value in network.mean],
        std=[float(value) for value in network.std],
        layers="\n".join(lines),
        weights=WEIGHTS,
        gate=GATE if pooled else "",
        reset=RESET if pooled else "",
    )


def _firing(dynamics: Dynamics) -> tuple[str, str]:
    """What a neuron does, in words and in PyTorch."""
    if dynamics.most > 1:
        fires = f"sends a spike for each threshold that fits into\none, up to {dynamics.most}, and takes these off"
        return fires, f"(membrane / layer.threshold).floor().clamp(0, {dynamics.most})"
    words = "above" if dynamics.comparison == ">" else "at or above"
    fires = f"fires where they are {words} the threshold, and takes the\nthreshold off those that fired"
    return fires, f"(membrane {dynamics.comparison} layer.threshold).to(membrane)"


def tensors(converted: Converted) -> dict[str, np.ndarray]:
    """The module's ``state_dict``."""
    network, params = converted.network, converted.snn.params
    found = {
        "mean": np.asarray(network.mean, np.float32).reshape(-1, 1, 1),
        "std": np.asarray(network.std, np.float32).reshape(-1, 1, 1),
    }
    starts, thresholds = converted.starts(), converted.thresholds()
    leaks = np.ones_like(thresholds) if converted.genes.leak is None else converted.genes.leak[0]
    shapes = _number_shapes(converted)
    for index, (layer, bias) in enumerate(zip(network.layers, bias_currents(converted.snn))):
        shape, spiking = shapes[index], index < len(thresholds)
        zeros = np.zeros(shape[0], np.float32)
        for name, value in (
            ("bias", zeros if bias is None else bias),
            ("start", starts[index] if spiking else zeros),
        ):
            first = channels_first(value)
            first = first if first.ndim == len(shape) else first.reshape(-1, *[1] * (len(shape) - 1))
            found[f"layers.{index}.{name}"] = np.array(np.broadcast_to(first, shape), order="C")
        found[f"layers.{index}.threshold"] = np.array(thresholds[index] if spiking else 0, np.float32)
        found[f"layers.{index}.leak"] = np.array(leaks[index] if spiking else 1, np.float32)
        for number, (edge, input_shape) in enumerate(zip(layer.edges, _inputs(network, index))):
            for position, (op, shape) in enumerate(_modules(edge, input_shape)):
                weight = None
                if isinstance(op, Conv):
                    weight = conv_weight(op, params)
                elif isinstance(op, Dense):
                    weight = dense_weight(op, shape, params)
                if weight is not None:
                    found[f"layers.{index}.maps.{number}.{position}.weight"] = weight
    return found


def _inputs(network: Network, index: int) -> list[tuple[int, ...]]:
    """Shapes of what the edges of a layer read."""
    shapes = layer_shapes(network)
    edges = network.layers[index].edges
    return [network.input_shape if edge.source == IMAGE else shapes[edge.source] for edge in edges]


def _number_shapes(converted: Converted) -> list[tuple[int, ...]]:
    """Shapes of the layers' biases and initial membranes: (C, 1, 1) or (F,); positions only where they differ."""
    found = []
    for shape, bias in zip(layer_shapes(converted.network), bias_currents(converted.snn)):
        if len(shape) == 1:
            found.append(shape)
        else:
            found.append((shape[2], 1, 1) if bias is None or bias.ndim == 1 else (shape[2], *shape[:2]))
    return found


def _modules(edge: Edge, shape: tuple[int, ...]) -> list[tuple[object, tuple[int, ...]]]:
    """The ops of an edge that stay, and the shapes of their inputs; None is a flattening, pairs are zero pads."""
    found: list[tuple[object, tuple[int, ...]]] = []
    for op in edge.ops:
        if isinstance(op, Dense) and len(shape) == 3:
            found.append((None, shape))
        if isinstance(op, Conv | AvgPool | MaxPool) and even_pads(op.taps.pads) is None:
            if isinstance(op, AvgPool) and not op.count_padding:
                raise UserError(
                    "PyTorch has no average pool that leaves zeros out which differ between the sides of an input"
                )
            found.append((op.taps.pads, shape))
        if not isinstance(op, Dropout):
            found.append((op, shape))
        shape = output_shape(op, shape)
    return found


def _sequential(edge: Edge, shape: tuple[int, ...]) -> str:
    """An edge as PyTorch code."""
    return f"nn.Sequential({', '.join(_module(op, shape) for op, shape in _modules(edge, shape))})"


def _module(op: object, shape: tuple[int, ...]) -> str:
    match op:
        case None:
            return "nn.Flatten()"
        case tuple():
            (top, bottom), (left, right) = op
            return f"nn.ZeroPad2d(({left}, {right}, {top}, {bottom}))"
        case Conv():
            taps = op.taps
            given = {"stride": taps.strides, "padding": even_pads(taps.pads) or (0, 0), "dilation": taps.dilation}
            rest = _options(given | {"groups": op.groups}, {"padding": 0})
            return f"nn.Conv2d({shape[-1]}, {op.features}, {short(taps.sides)}{rest}, bias=False)"
        case Dense():
            return f"nn.Linear({math.prod(shape)}, {op.features}, bias=False)"
        case AvgPool():
            taps = op.taps
            given = {"stride": taps.strides, "padding": even_pads(taps.pads) or (0, 0)}
            given |= {"count_include_pad": op.count_padding}
            rest = _options(given, {"stride": short(taps.sides), "padding": 0, "count_include_pad": True})
            return f"nn.AvgPool2d({short(taps.sides)}{rest})"
        case MaxPool():  # of counts, which padded zeros never exceed
            taps = op.taps
            given = {"stride": taps.strides, "padding": even_pads(taps.pads) or (0, 0)}
            return f"Gate({short(taps.sides)}{_options(given, {'stride': short(taps.sides), 'padding': 0})})"
    raise UserError(f"{type(op).__name__} cannot be exported to PyTorch: only convolutions, dense maps and pools")


def _options(given: dict[str, Any], usual: dict[str, Any]) -> str:
    """Arguments as code, those left out that are as usual (1 where ``usual`` has none)."""
    short_ones = {name: short(value) for name, value in given.items()}
    return "".join(f", {name}={value}" for name, value in short_ones.items() if value != usual.get(name, 1))
