"""Calibrate a converted network for a given number of timesteps on images without labels.

Layer by layer, each after the layers that are calibrated already: T steps of the layer's actual currents are
simulated, and each channel's threshold, bias, initial membrane and amplitude are chosen so that its spikes,
averaged over the T steps, come closest to the ANN's activations in the least-squares sense. The result folds into
the weights (``jaxsnn.conversion.channels``).

The start of each layer is the least-squared-error threshold of Li et al. (A free lunch from ANN: towards
efficient, accurate spiking neural networks calibration, ICML 2021) with half-full membranes, and their bias
correction; their thresholds see the ANN's activations, not the currents that really arrive. What the currents'
order of arrival does to a layer is most of the error that is left, and an initial membrane a channel is what takes
most of it back.
"""

import functools
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.conversion.channel_fit import Cells, LayerFit, Recipe, fit_layer, mmse_thresholds, simulate
from jaxsnn.conversion.channels import Channels, can_bias, groups, maps_of, positions
from jaxsnn.conversion.reconstruction import correction, fan_in, from_matrix, inputs_of, one_sided, rebuilt
from jaxsnn.errors import UserError
from jaxsnn.networks.description import IMAGE, Edge, Network, layer_shapes
from jaxsnn.networks.forward import ann_forward, check_images, preprocess
from jaxsnn.networks.linear_maps import linear_map
from jaxsnn.networks.senders import from_start, has_gates
from jaxsnn.networks.spiking import SNN, Dynamics

CHUNK = 64
"""Images at once: one compiled shape, and results that do not depend on how much memory there is."""
SAMPLE = 8192
"""Most values that a channel is fitted to: bounds memory and time."""
SPARSE = 4
"""Values looked at for each one that is fitted to: of these are as few images as hold them,"""
LEAST_IMAGES = 128
"""but not fewer than these."""
REBUILT = 16_384
"""Most values that a layer's weights are fitted to, and most numbers in these, which bounds memory: 128 MB."""
REBUILT_NUMBERS = 1 << 25
KEPT = 80 << 20
"""Most drives of a layer that wait in memory, in numbers, so that they are not computed again: 320 MB."""


@dataclass(frozen=True, eq=False)
class Calibrated:
    """What calibration finds.

    Attributes:
        snn: the network, with other weights where they were reconstructed.
        channels: of that network, for ``fold_channels``.
        fits: of each spiking layer.
    """

    snn: SNN
    channels: Channels
    fits: tuple[LayerFit, ...]


def calibrate_for(
    snn: SNN,
    images: np.ndarray,
    recipe: Recipe,
    progress: Callable[[int], None] | None = None,
) -> Calibrated:
    """Channels for ``recipe.timesteps`` steps from uint8 training images (N, H, W, C), for ``fold_channels``.

    Memory does not grow with the number of images: spikes, a bit each, or a byte a neuron and step where it may
    send several, wait in a temporary file. It runs on the
    CPU, also where there is a GPU, which would compile each layer for longer than the work takes (35 to 60 s for
    VGG15) and round in another way. The same images in the same order give the same bits. In another order other
    values are drawn and sums round differently, so that results differ as those of other images do.

    Args:
        progress: called with the number of layers x images that have just been simulated; in all there are
            ``work(network, len(images))``.

    Raises:
        UserError: no images, weights that are not finite, a layer that is never active, or max pools where neurons
            may send several spikes a step.
    """
    with on_the_cpu():
        return _calibrate(snn, images, recipe, progress or (lambda count: None))


def _calibrate(snn: SNN, images: np.ndarray, recipe: Recipe, advance: Callable[[int], None]) -> Calibrated:
    network = snn.network
    check_images(network, images)
    if recipe.most > 1 and has_gates(network):
        raise UserError("max pools choose among single spikes: calibrate this network with most=1")
    for name, value in snn.params.items():
        if not np.isfinite(value).all():
            raise UserError(f"{name} holds NaN or infinite values, so there is nothing to calibrate")
    params = {name: jnp.asarray(np.asarray(value)) for name, value in snn.params.items()}
    places = [_places(network, i, len(images), recipe) for i in range(len(network.layers))]
    sums = _ann_samples(network, params, images, places, advance)
    targets = [*(np.clip(part, 0, layer.cap) for part, layer in zip(sums, network.spiking)), sums[-1]]
    for layer, target in zip(network.spiking, targets):
        if not np.isfinite(target).all() or not target.max() > 0:
            raise UserError(
                f"layer {layer.name} is never active on {len(images)} calibration images: check the weights and "
                "the images' normalisation, or give more images"
            )
    fitted = [slice(None, None, max(1, len(part) // SAMPLE)) for part in places]
    targets = [target[some] for target, some in zip(targets, fitted)]
    shapes = _group_shapes(network, targets, recipe)
    cells: list[Cells] = []
    fits = []
    with tempfile.TemporaryDirectory(prefix="calibration-") as scratch:
        trains: list[np.ndarray | None] = []
        for index, layer in enumerate(network.layers):
            started = time.perf_counter()
            shape = layer_shapes(network)[index]
            amplitudes = [cell.amplitude for cell in cells]
            gather = _Drives(network, index, recipe.timesteps, recipe.dynamics, params, images, trains, amplitudes)
            if recipe.reconstruct and rebuilt(network, layer):
                mean = _sampled(gather, places[index], shape, advance, mean=True)[0]
                error = sums[index] - mean
                if index < len(network.spiking):
                    error = one_sided(error, sums[index])
                params |= _reconstruct(gather, layer, error, places[index], can_bias(layer))
            currents = _sampled(gather, places[index][fitted[index]], shape, advance)
            if index == len(network.spiking):
                error = (currents.mean(0, dtype=np.float64) - targets[index]).mean(0, dtype=np.float64)
                readout = -error if recipe.correct and can_bias(layer) else np.zeros(network.classes)
                break
            cell, before, after = fit_layer(currents, targets[index], recipe, shapes[index], can_bias(layer))
            cells.append(cell)
            trains.append(_fire(gather, cell, Path(scratch) / f"{index}", advance))
            for source in range(index):  # those that nothing reads any more
                if max(_readers(network, source)) <= index and trains[source] is not None:
                    trains[source] = None
                    (Path(scratch) / f"{source}").unlink()
            fits.append(LayerFit(layer.name, *after, before, time.perf_counter() - started))
    columns = [tuple(np.asarray(part, np.float64) for part in parts) for parts in zip(*cells)]
    theta, amplitude, bias, start = columns
    changed = {name: np.asarray(value) for name, value in params.items()} if recipe.reconstruct else snn.params
    return Calibrated(SNN(network, changed), Channels(theta, amplitude, (*bias, readout), start), tuple(fits))


def on_the_cpu():
    """A context in which JAX computes on the CPU; where it may not (JAX_PLATFORMS), on its device in float32."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return jax.default_matmul_precision("highest")


def work(network: Network, images: int, reconstruct: bool = False) -> int:
    """Layers x images of a calibration, for a progress bar."""
    more = sum(1 for layer in network.layers if rebuilt(network, layer)) if reconstruct else 0
    return (2 * len(network.spiking) + 2 + more) * images


def _places(network: Network, index: int, images: int, recipe: Recipe) -> np.ndarray:
    """Which (image, position) of a layer are looked at, as sorted numbers image * positions + position."""
    most, layer = SAMPLE, network.layers[index]
    if recipe.reconstruct and rebuilt(network, layer):
        most = max(SAMPLE, min(REBUILT, REBUILT_NUMBERS // fan_in(network, layer)))
    each = positions(layer_shapes(network)[index])
    # the fewer images, the less of a layer with many positions is computed to be thrown away
    count = min(images, max(LEAST_IMAGES, SPARSE * most // each)) * each
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng((recipe.seed, index)).choice(count, most, replace=False))


def _chunks(count: int) -> list[slice]:
    return [slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]


def _padded(part: np.ndarray, axis: int = 0) -> np.ndarray:
    """Filled up to a whole chunk of images, so that one compiled shape serves all."""
    missing = CHUNK - part.shape[axis]
    return np.pad(part, [(0, missing if k == axis else 0) for k in range(part.ndim)]) if missing else part


def _inside(places: np.ndarray, part: slice, each: int) -> np.ndarray:
    """The places in a chunk of images, counted from its first."""
    low, high = np.searchsorted(places, (part.start * each, part.stop * each))
    return places[low:high] - part.start * each


def _ann_samples(network, params, images, places, advance) -> list[np.ndarray]:
    """The ANN's sums (S, C) in front of the activation at the places of each layer, the read-out's last."""
    forward = jax.jit(ann_forward, static_argnums=0)
    shapes = layer_shapes(network)
    found: list[list[np.ndarray]] = [[] for _ in shapes]
    for part in _chunks(len(images)):
        sums = forward(network, params, _padded(images[part]))
        for index, (values, shape) in enumerate(zip(sums, shapes)):
            inside = _inside(places[index], part, positions(shape))
            found[index].append(np.asarray(values).reshape(-1, shape[-1])[inside])
        advance(part.stop - part.start)
    return [np.concatenate(parts) for parts in found]


def _readers(network: Network, source: int) -> list[int]:
    """The layers that read a layer, or itself where none does."""
    return [i for i, layer in enumerate(network.layers) if any(e.source == source for e in layer.edges)] or [
        source
    ]


@dataclass(frozen=True, eq=False)
class _Drives:
    """What layer ``index`` receives on chunks of the images, once the layers before it are calibrated.

    Attributes:
        params: of the network, among them what reconstruction changed so far.
        trains: ``packed`` spikes of the layers before it, and in ``amplitudes`` what one of them is worth.
        kept: drives over all steps, by the chunk's first image, where those of all images are few enough.
    """

    network: Network
    index: int
    timesteps: int
    dynamics: Dynamics
    params: dict[str, jax.Array]
    images: np.ndarray
    trains: list[np.ndarray | None]
    amplitudes: list[np.ndarray]
    kept: dict[int, jax.Array] = field(default_factory=dict)

    def source(self, edge: Edge, part: slice) -> tuple[np.ndarray, jax.Array]:
        """The packed spikes of an edge's source, filled up to a whole chunk, and its amplitudes."""
        train = self.trains[edge.source]
        if train is None:
            raise ValueError(f"layer {edge.source} has not fired, or nothing was to read it any more")
        return _padded(np.asarray(train[:, part]), 1), jnp.asarray(self.amplitudes[edge.source], jnp.float32)

    def __call__(self, part: slice, mean: bool = False) -> jax.Array:
        """Drives (T, B, *shape) on a whole chunk of images, filled up; T is 1 if all steps are alike."""
        if part.start in self.kept and not mean:
            return self.kept[part.start]
        edges = self.network.layers[self.index].edges
        sources = [None if edge.source == IMAGE else self.source(edge, part) for edge in edges]
        images = _padded(self.images[part])
        found = drive(self.network, self.index, self.params, images, sources, mean, self.dynamics.most)
        if not mean and found[:, 0].size * len(self.images) <= KEPT:
            self.kept[part.start] = found
        return found


def packed(spikes: jax.Array, most: int) -> jax.Array:
    """Spikes (T, B, *shape) as bytes: a bit each (T, B, ceil(neurons / 8)), or their number where ``most`` > 1."""
    flat = spikes.reshape(*spikes.shape[:2], -1)
    return jnp.packbits(flat, axis=-1) if most == 1 else flat.astype(jnp.uint8)


def unpacked(held: jax.Array, shape: tuple[int, ...], most: int) -> jax.Array:
    """The spikes (T, B, *shape), uint8, that ``packed`` holds."""
    flat = jnp.unpackbits(held, axis=-1, count=math.prod(shape)) if most == 1 else held
    return flat.reshape(*held.shape[:2], *shape)


@functools.partial(jax.jit, static_argnums=(0, 1, 5, 6))
def drive(network: Network, index: int, params, images, sources, mean: bool = False, most: int = 1) -> jax.Array:
    """Drives (T or 1, B, *shape) of layer ``index``; ``sources`` holds, for each edge, the ``packed`` spikes of
    its source, at ``most`` so many a step, and what one is worth, or None for the image. ``mean``: over time."""
    shapes = layer_shapes(network)
    total = jnp.zeros((), jnp.float32)
    for edge, source in zip(network.layers[index].edges, sources):
        if source is None:
            x = preprocess(network, images)
            total = total + linear_map(edge.ops, params, x.shape[1:])(x)[None]
            continue
        held, amplitude = source
        spikes = from_start(edge, unpacked(held, shapes[edge.source], most))
        if mean:
            spikes = spikes.mean(0, keepdims=True, dtype=jnp.float32)
        shape = spikes.shape[2:]
        out = linear_map(edge.linear, params, shape)(spikes.reshape(-1, *shape) * amplitude)
        total = total + out.reshape(len(spikes), -1, *out.shape[1:])
    return total


def _sampled(
    gather: _Drives, places: np.ndarray, shape: tuple[int, ...], advance, mean: bool = False
) -> np.ndarray:
    """Drives (T or 1, S, C) at the places of a layer; with ``mean`` their mean over time."""
    each, parts = positions(shape), []
    for part in _chunks(len(gather.images)):
        inside = _inside(places, part, each)
        if len(inside):
            drive = np.asarray(gather(part, mean))
            parts.append(drive.reshape(len(drive), -1, shape[-1])[:, inside])
        advance(part.stop - part.start)
    return np.concatenate(parts, 1)


def _reconstruct(gather: _Drives, layer, error: np.ndarray, places: np.ndarray, biased: bool) -> dict:
    """The layer's kernels, changed by what takes the ``error`` (S, C) of its sums back."""
    network = gather.network
    edges, parts = rebuilt(network, layer), []
    shapes = layer_shapes(network)
    for part in _chunks(len(gather.images)):
        found = []
        if part.start * positions(shapes[network.layers.index(layer)]) > places[-1]:
            break  # all places are in the images before
        for edge in edges:
            most = gather.dynamics.most
            seen = np.asarray(_seen(edge, shapes[edge.source], most, *gather.source(edge, part)))
            found.append(seen.reshape(-1, seen.shape[-1])[_inside(places, part, seen.shape[1])])
        parts.append(np.concatenate(found, -1))
    change = correction(np.concatenate(parts), error, biased)
    kernels, first = {}, 0
    for edge in edges:
        name = f"{maps_of(edge)[0].name}.kernel"
        own = np.asarray(gather.params[name], np.float64)
        size = own.size // own.shape[-1]
        kernels[name] = jnp.asarray(own + from_matrix(change[first : first + size], own.shape), jnp.float32)
        first += size
    return kernels


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _seen(edge, shape, most, held, amplitude):
    return inputs_of(edge, unpacked(held, shape, most).mean(0, dtype=jnp.float32) * amplitude)


def _fire(gather: _Drives, cell: Cells, path: Path, advance) -> np.ndarray:
    """``packed`` spikes (T, N, bytes) of a layer on all images, in a file."""
    count, train = len(gather.images), None
    arrays = [jnp.asarray(part, jnp.float32) for part in cell]
    for part in _chunks(count):
        held = np.asarray(_spikes(gather(part), *arrays, gather.timesteps, gather.dynamics))
        if train is None:
            train = np.memmap(path, np.uint8, "w+", shape=(len(held), count, held.shape[-1]))
        train[:, part] = held[:, : part.stop - part.start]
        advance(part.stop - part.start)
    if train is None:
        raise ValueError("no images to fire on")
    return train


@functools.partial(jax.jit, static_argnums=(5, 6))
def _spikes(drive, theta, amplitude, bias, start, timesteps, dynamics):
    return packed(simulate(drive, theta, bias, start, timesteps, dynamics)[1], dynamics.most)


def _group_shapes(network: Network, targets: Sequence[np.ndarray], recipe: Recipe) -> list[np.ndarray | None]:
    """Per spiking layer the shape (C,) that its thresholds must have, up to a factor; None: any.

    Layers that edges without a kernel join share the geometric mean of what each would like.
    """
    group = groups(network)
    shapes: list[np.ndarray | None] = [None] * len(group)
    for index, first in enumerate(group):
        members = [m for m, other in enumerate(group) if other == first]
        if not recipe.channels:
            shapes[index] = np.ones(targets[index].shape[1])
        elif len(members) > 1:
            each = [mmse_thresholds(targets[m], recipe.timesteps, recipe.most) for m in members]
            shapes[index] = np.exp(np.mean([np.log(theta / theta.mean()) for theta in each], 0))
    return shapes
