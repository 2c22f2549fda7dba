"""The image as spikes: a layer in front, with a neuron for each sign of each channel of each pixel.

The normalised image x drives it as a constant current, one neuron by x and its partner by -x, and the maps that
read the image read the two of them, with the sign in their weights. What the ANN computes stays the same, and all
that reaches the layers behind are spikes. A neuron that begins half full and fires at ``largest_input`` sends a
pixel as evenly as whole spikes go: after t steps ceil(t r + 1/2) - 1 of them, where r is the pixel's share of the
largest (floor(t r + 1/2) with the comparison ">="). So the input's deterministic rate code is an ordinary network,
which every back-end simulates, in integers, too, and which can be calibrated, searched and exported.
"""

from dataclasses import replace

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.description import IMAGE, Conv, Dense, Edge, Layer, Network, Op, shapes_of
from jaxsnn.networks.merging import unshared
from jaxsnn.networks.spiking import SNN, Genes
from jaxsnn.networks.weights import to_device

NAME = "input"
"""Of the layer; where the network has that name already, with a line below behind it."""
ENCODINGS = ("constant", "rate", "poisson")
"""How an image comes in: as a constant current, as evenly spaced spikes, or as random ones."""


def largest_input(network: Network) -> float:
    """The largest absolute value that a pixel has once it is normalised."""
    mean, std = np.array(network.mean), np.array(network.std)
    return float(np.maximum(mean / std, (1 - mean) / std).max())


def spiking_input(snn: SNN) -> SNN:
    """The same network behind a layer that turns the image into spikes; its genes have one more entry, in front.

    Raises:
        UserError: a layer reads the image without weights, in which there would be room for the sign.

    >>> from jaxsnn.conversion.loading import load
    >>> [layer.name for layer in spiking_input(load()).network.spiking][:2]
    ['input', 'conv1']
    """
    network, params = unshared(snn.network, {name: np.asarray(value) for name, value in snn.params.items()})
    channels, layers = network.input_shape[-1], []
    for layer in network.layers:
        for edge in layer.edges:
            if edge.source == IMAGE:
                name = _first_map(layer, edge).name
                params[f"{name}.kernel"] = _signed(params[f"{name}.kernel"], edge, channels)
        # the image becomes layer 0
        layers.append(replace(layer, edges=tuple(Edge(edge.source + 1, edge.ops) for edge in layer.edges)))
    name, taken = NAME, {layer.name for layer in layers} | {key.rpartition(".")[0] for key in params}
    while name in taken:
        name += "_"
    params[f"{name}.kernel"] = np.tile(np.array([1.0, -1.0], np.float32), channels).reshape(1, 1, 1, -1)
    coded = replace(network, layers=(Layer(name, (Edge(IMAGE, (_reader(name, channels),)),)), *layers))
    shapes_of(coded)  # which checks it
    return SNN(coded, to_device(params))


def with_input_spikes(snn: SNN, genes: Genes) -> tuple[SNN, Genes]:
    """``spiking_input``, and genes (P, L) with what the layer in front needs for the rate code."""

    def behind(first: float, part: np.ndarray) -> np.ndarray:
        return np.concatenate([np.full((len(part), 1), first), part], 1)

    v0 = np.zeros_like(genes.threshold) if genes.v0 is None else genes.v0
    leak = None if genes.leak is None else behind(1.0, genes.leak)
    return spiking_input(snn), Genes(behind(largest_input(snn.network), genes.threshold), behind(0.5, v0), leak)


def plain_input(network: Network) -> Network:
    """What ``spiking_input`` was made from, as far as its sizes go; the network itself where it was not."""
    if not has_spiking_input(network):
        return network
    layers = (
        replace(layer, edges=tuple(Edge(edge.source - 1, edge.ops) for edge in layer.edges))
        for layer in network.layers[1:]
    )
    return replace(network, layers=tuple(layers))


def has_spiking_input(network: Network) -> bool:
    """Whether the first layer is the one that ``spiking_input`` adds, calibrated or not."""
    first, channels = network.layers[0], network.input_shape[-1]
    name = first.name
    readers = [(Edge(IMAGE, (_reader(name, channels, bias),)),) for bias in (False, True)]
    alone = all(edge.source != IMAGE for layer in network.layers[1:] for edge in layer.edges)
    return name.rstrip("_") == NAME and first.edges in readers and alone


def _reader(name: str, channels: int, bias: bool = False) -> Conv:
    return Conv(name, 2 * channels, 1, bias=bias, groups=channels)


def _first_map(layer: Layer, edge: Edge) -> Conv | Dense:
    """The first op of an edge with a kernel; the ops before it leave channels alone."""
    found: Op | None = next((op for op in edge.ops if isinstance(op, Conv | Dense)), None)
    if not isinstance(found, Conv | Dense):
        raise UserError(f"layer {layer.name} reads the image without weights: it cannot be sent as spikes")
    return found


def _signed(kernel: np.ndarray, edge: Edge, channels: int) -> np.ndarray:
    """A kernel whose every input channel is two: what is above zero, and what is below."""
    op = next(op for op in edge.ops if isinstance(op, Conv | Dense))
    inputs = channels if isinstance(op, Dense) else kernel.shape[-2]
    rows = kernel.reshape(-1, inputs, kernel.shape[-1])
    doubled = np.stack([rows, -rows], 2)
    return doubled.reshape(*kernel.shape[:-2], 2 * kernel.shape[-2], kernel.shape[-1])
