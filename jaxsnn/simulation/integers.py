"""int8 weights and int32 membranes: integer arithmetic, so the same spikes on every device, batch and chunk.

Every output channel c of a map has weights scale_c * k with integers |k| <= 127 (the read-out has one scale for
all classes, whose scores are compared; no scale is below ``NARROWEST`` of the map's widest, so that a channel that
training left next to nothing does not count in next to nothing). A membrane counts in units of what a spike adds
per unit of k, theta_source * scale_c; thresholds, initial membranes and biases are rounded to that unit once for
each candidate. A layer that the image drives reads normalised pixels, rounded to 1 / 256 (coarser where its sums
would leave the range in which float32 holds every integer). Where several edges meet, each is multiplied by an
integer that brings it to a common unit, 1 / 64 of the first edge's.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.description import (
    IMAGE,
    Arrays,
    AvgPool,
    Conv,
    Dense,
    Edge,
    Layer,
    Network,
    Op,
    layer_shapes,
    source_shape,
)
from jaxsnn.networks.linear_maps import LinearMap, keeps_constants, linear_map, pool_unit
from jaxsnn.networks.merging import one_map_an_edge
from jaxsnn.networks.senders import heard
from jaxsnn.networks.spiking import SNN, Genes
from jaxsnn.runtime.weak_cache import remembered
from jaxsnn.simulation.step import Neurons, Wiring, without_biases

LARGEST = 127


NARROWEST = 2.0**-8
"""The smallest scale of a channel, as a part of the largest: far below what the largest channel is rounded by."""


FINEST_PIXEL = 256


EXACT = 2**24
"""float32 holds every integer up to here."""


MEETING = 64


@dataclass(frozen=True, eq=False)
class IntegerSNN:
    """An SNN in integers.

    Attributes:
        network: with one map an edge at most.
        kernels: ``<op>.kernel``, float32 arrays that hold integers.
        scales: per layer and edge, float64 (C,): what 1 stands for at the edge's end; pools divide nothing here.
        biases: per layer, float64 (C,), in the units of the ANN, or None.
        starts: per spiking layer, (C,) or 0: what is added to the gene v0.
        pixel: what a normalised pixel is multiplied with before it is rounded.
        reaches: per layer and edge, the largest sum that inputs of 1 can come to, pools dividing nothing.
    """

    network: Network
    kernels: dict[str, np.ndarray]
    scales: tuple[tuple[np.ndarray, ...], ...]
    biases: tuple[np.ndarray | None, ...]
    starts: tuple[np.ndarray | float, ...]
    pixel: int
    reaches: tuple[tuple[float, ...], ...]


@remembered
def quantize(snn: SNN) -> IntegerSNN:
    """The network with int8 weights; raises ``UserError`` for one that integers cannot express."""
    network, params = one_map_an_edge(snn.network, {name: np.asarray(value) for name, value in snn.params.items()})
    kernels, scales, biases = {}, [], []
    shapes = layer_shapes(network)
    for index, layer in enumerate(network.layers):
        if len({edge.source == IMAGE for edge in layer.edges}) > 1:
            raise UserError(f"int8 cannot add the image to spikes in layer {layer.name}: use float32")
        parts, bias = [], None
        for edge in layer.edges:
            scale = np.ones(shapes[index][-1])
            for position, op in enumerate(edge.ops):
                if not isinstance(op, Conv | Dense):
                    continue
                kernel = np.asarray(params[f"{op.name}.kernel"], np.float64)
                axes = None if index == len(network.layers) - 1 else tuple(range(kernel.ndim - 1))
                top = np.broadcast_to(np.abs(kernel).max(axis=axes), op.features)
                scale = np.maximum(top, (top.max() or 1) * NARROWEST) / LARGEST
                kernels[f"{op.name}.kernel"] = np.round(kernel / scale).astype(np.float32)
                if op.bias:
                    bias = (0 if bias is None else bias) + np.asarray(params[f"{op.name}.bias"], np.float64)
                    if not keeps_constants(edge.ops[position:]):
                        raise UserError(
                            f"int8 needs the bias of {op.name} to be alike at all positions: use float32"
                        )
            parts.append(scale / pool_unit(edge.ops, source_shape(network, shapes, edge)))
        scales.append(tuple(parts))
        biases.append(bias)
    reaches = tuple(
        tuple(_reach(edge, kernels, source_shape(network, shapes, edge)) for edge in layer.edges)
        for layer in network.layers
    )
    image_reach = max(
        reach
        for layer, each in zip(network.layers, reaches)
        for edge, reach in zip(layer.edges, each)
        if edge.source == IMAGE
    )
    pixel = 2 ** math.floor(math.log2(EXACT / max(1, image_reach * _largest_pixel(network))))
    if pixel < 1:
        raise UserError("int8: the layer that the image drives has too many weights to sum exactly: use float32")
    starts = tuple(
        np.asarray(params[f"{layer.name}.start"], np.float64) if layer.start else 0.0 for layer in network.spiking
    )
    return IntegerSNN(network, kernels, tuple(scales), tuple(biases), starts, min(pixel, FINEST_PIXEL), reaches)


def _reach(edge: Edge, kernels: dict[str, np.ndarray], shape: tuple[int, ...]) -> float:
    """The largest sum of |k| at the end of an edge that reads ``shape``, its pools being sums."""
    largest = 1.0
    for op in edge.ops:
        if isinstance(op, Conv | Dense):
            kernel = np.abs(kernels[f"{op.name}.kernel"], dtype=np.float64)
            largest = kernel.sum(tuple(range(kernel.ndim - 1))).max()
    return largest * pool_unit(edge.ops, shape)


def _largest_pixel(network: Network) -> float:
    """The largest magnitude of a normalised pixel."""
    mean, std = np.array(network.mean), np.array(network.std)
    return (np.maximum(mean, 1 - mean) / std).max()


def integer_neurons(integers: IntegerSNN, genes: Genes, timesteps: int) -> Neurons:
    """Int32 neurons of P candidates, each number (P, C) or (P, 1).

    Raises:
        UserError: leaks, or membranes that could exceed int32 within ``timesteps``.
    """
    network = integers.network
    if genes.leak is not None and not (np.asarray(genes.leak) == 1).all():
        raise UserError("int8 membranes cannot leak: use float32, or a leak of 1")
    theta = np.asarray(genes.threshold, np.float64)
    gains, thresholds, starts, biases = [], [], [], []
    for index, layer in enumerate(network.layers):
        amplitudes, unit = _amplitudes(integers, index, theta)
        factors = [np.round(amplitude / unit) for amplitude in amplitudes]
        bias = np.zeros_like(unit) if integers.biases[index] is None else np.round(integers.biases[index] / unit)
        _check_range(layer, integers, integers.reaches[index], factors, bias, timesteps)
        gains.append([_int32(f) for edge, f in zip(layer.edges, factors) if edge.source != IMAGE])
        biases.append(_int32(bias))
        if index < len(network.spiking):
            threshold = np.maximum(1, np.round(theta[:, [index]] / unit))
            _check_size(layer, threshold)
            thresholds.append(_int32(threshold))
            v0 = 0 if genes.v0 is None else np.asarray(genes.v0, np.float64)[:, [index]]
            starts.append(_int32(np.round((v0 + integers.starts[index]) * threshold)))
    return Neurons(gains, thresholds, starts, None, biases)


def _amplitudes(integers: IntegerSNN, index: int, theta: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """What 1 at the end of each edge of a layer stands for, and what a membrane counts in; (P, C), or (P, 1)."""
    layer = integers.network.layers[index]
    amplitudes = [
        (np.ones((len(theta), 1)) if edge.source == IMAGE else theta[:, [edge.source]]) * scale
        for edge, scale in zip(layer.edges, integers.scales[index])
    ]
    finer = integers.pixel if layer.edges[0].source == IMAGE else MEETING if len(amplitudes) > 1 else 1
    unit = amplitudes[0] / finer
    return amplitudes, unit[:, :1] if index == len(integers.network.layers) - 1 else unit


def readout_units(integers: IntegerSNN, genes: Genes) -> np.ndarray:
    """What 1 in the class scores of each candidate stands for in the units of the ANN's, (P,)."""
    return _amplitudes(integers, -1 + len(integers.network.layers), np.asarray(genes.threshold, np.float64))[1][
        :, 0
    ]


def _int32(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.int32)


def _check_size(layer: Layer, threshold: np.ndarray) -> None:
    if threshold.max() >= 2**30:
        raise UserError(f"int8: a threshold of layer {layer.name} is too large for its weights: use float32")


def _check_range(
    layer: Layer,
    integers: IntegerSNN,
    reaches: tuple[float, ...],
    factors: list,
    bias: np.ndarray,
    timesteps: int,
) -> None:
    """Membranes move by at most the sum of all weights in a step; that times T must fit into int32."""
    step = np.abs(bias).max()
    for edge, reach, factor in zip(layer.edges, reaches, factors):
        reach = reach * (integers.pixel * _largest_pixel(integers.network) if edge.source == IMAGE else 1)
        if reach >= EXACT:
            raise UserError(f"int8: layer {layer.name} has too many weights to sum exactly: use float32")
        # an edge from the image is already in the layer's unit
        step = step + reach * (1 if edge.source == IMAGE else np.abs(factor).max())
    if step * timesteps >= 2**31:
        raise UserError(
            f"int8: membranes of layer {layer.name} could exceed 32 bits within {timesteps} timesteps: "
            "use float32, or fewer timesteps"
        )


def integer_pixels(integers: IntegerSNN, images: np.ndarray) -> np.ndarray:
    """uint8 images as normalised pixels times ``pixel``: integers in float32, by a table made in float64."""
    network, levels = integers.network, np.arange(256)[:, None] / 255
    table = np.round((levels - np.array(network.mean)) / np.array(network.std) * integers.pixel).astype(np.float32)
    return table[images, np.arange(images.shape[-1])]


def dense_alone(op: Op) -> bool:
    """What accelerators multiply faster in int8, for ``wire_integers``."""
    return isinstance(op, AvgPool | Dense)


def matrix_products(op: Op) -> bool:
    """What a CPU with instructions for int8 multiplies faster in it."""
    return dense_alone(op) or (isinstance(op, Conv) and op.groups == 1)


def wire_integers(
    network: Network, kernels: Arrays, x: jax.Array, narrow: Callable[[Op], bool] | None = None
) -> Wiring:
    """The wiring for ``x`` of ``integer_pixels``.

    Products are float32; their sums are integers below 2^24 and therefore exact. Those of spikes with edges all
    of whose ops are ``narrow`` are int8.
    """
    constant, synapses = [], []
    for edges in heard(network):
        fixed, maps = jnp.int32(0), []
        for edge, sender, shape in edges:
            weights, sums = without_biases(kernels), jnp.float32
            spikes = narrow is not None and sender != IMAGE and all(map(narrow, edge.linear))
            if spikes and pool_unit(edge.linear, shape) <= LARGEST:
                weights = {name: jnp.asarray(value).astype(jnp.int8) for name, value in weights.items()}
                sums = jnp.int32
            linear = linear_map(edge.linear, weights, shape, sums=sums, whole=True)
            if sender == IMAGE:
                fixed = fixed + _integer(linear, x)
            else:
                maps.append((sender, functools.partial(_integer, linear)))
        constant.append(fixed)
        synapses.append(maps)
    return Wiring(constant, synapses)


def _integer(linear: LinearMap, spikes: jax.Array) -> jax.Array:
    return linear(spikes).astype(jnp.int32)
