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
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.conversion.channels import Channels, can_bias, groups, maps_of, positions
from jaxsnn.conversion.reconstruction import correction, fan_in, from_matrix, inputs_of, one_sided, rebuilt
from jaxsnn.errors import UserError
from jaxsnn.networks.description import IMAGE, Network, layer_shapes
from jaxsnn.networks.forward import ann_forward, preprocess
from jaxsnn.networks.linear_maps import linear_map
from jaxsnn.networks.spiking import SNN

CHUNK = 64
"""Images at once: one compiled shape, and results that do not depend on how much memory there is."""
SAMPLE = 8192
"""Most values that a channel is fitted to: bounds memory and time."""
REBUILT = 16_384
"""Most values that a layer's weights are fitted to, and most numbers in these, which bounds memory: 128 MB."""
REBUILT_NUMBERS = 1 << 25
MOST_TIMESTEPS = 1024
GRID = 1 - 0.01 * np.arange(95)
"""Thresholds that are tried, as fractions of the largest activation (Li et al.)."""
NARROW = 1e-3
"""Least threshold of a channel, relative to its layer's largest: below, it would blow up its row of weights."""
START = 0.5
"""Initial membrane at first: with it an even current's spikes are its rounded value."""
STARTS = (-1.0, 2.0)
"""Range of the initial membrane, in thresholds. Within [0, 1) errors were a little larger."""
SPREAD = {"threshold": 0.5, "bias": 0.4, "start": 0.4}
"""Half the width of what is tried at first: of the threshold's logarithm, and of the others in thresholds."""
SHRINK = 0.6
"""Factor on that width from sweep to sweep."""
POINTS = 11
"""Values that are tried for each number in a sweep."""


@dataclass(frozen=True)
class Recipe:
    """What is calibrated, for ``timesteps`` T without layer delay.

    Attributes:
        channels: a threshold for each channel; otherwise for each layer.
        correct: take the mean error of each channel back by its bias, before the descent and in the read-out.
        descend: what is chosen for each channel on its actual currents by coordinate descent, any of "threshold",
            "bias" and "start".
        amplitudes: let a spike be worth what fits best, rather than its threshold.
        reconstruct: change each layer's weights so that they fit the spikes that really arrive
            (``jaxsnn.conversion.reconstruction``).
        sweeps: of the descent.
        comparison: of the neuron, ">" or ">=".
        seed: draws the values that channels are fitted to where there are more than ``SAMPLE``.
    """

    timesteps: int
    channels: bool = True
    correct: bool = True
    descend: tuple[str, ...] = ("threshold", "bias", "start")
    amplitudes: bool = True
    reconstruct: bool = False
    sweeps: int = 4
    comparison: str = ">"
    seed: int = 0

    def __post_init__(self):
        if not 1 <= self.timesteps <= MOST_TIMESTEPS:
            raise UserError(f"calibration is for {self.timesteps} timesteps, expected 1 to {MOST_TIMESTEPS}")
        unknown = [name for name in self.descend if name not in SPREAD]
        if unknown:
            raise UserError(f"cannot calibrate {unknown[0]!r}: any of {', '.join(SPREAD)}")


@dataclass(frozen=True)
class LayerFit:
    """How well one layer's spikes, averaged over T steps, follow the ANN's activations, on the fitted values.

    Attributes:
        bias_error: root mean square over channels of the mean difference, relative to the root mean square
            activation.
        squared_error: mean squared difference relative to the mean square activation.
        before: the same two before the descent.
        seconds: that the layer took.
    """

    name: str
    bias_error: float
    squared_error: float
    before: tuple[float, float]
    seconds: float


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

    Memory does not grow with the number of images: spikes, a bit each, wait in a temporary file. The same images
    in the same order give the same bits. In another order other values are drawn and sums round differently, so
    that results differ as those of other images do.

    Args:
        progress: called with the number of layers x images that have just been simulated; in all there are
            ``work(network, len(images))``.

    Raises:
        UserError: no images, weights that are not finite, or a layer that is never active.
    """
    network = snn.network
    if not len(images) or images.shape[1:] != network.input_shape:
        raise UserError(f"images have shape {images.shape}, expected (N >= 1, *{network.input_shape})")
    for name, value in snn.params.items():
        if not np.isfinite(value).all():
            raise UserError(f"{name} holds NaN or infinite values, so there is nothing to calibrate")
    advance = progress or (lambda count: None)
    params = {name: jnp.asarray(value) for name, value in snn.params.items()}
    places = [_places(network, i, len(images), recipe) for i in range(len(network.layers))]
    sums = _ann_samples(network, params, images, places, advance)
    targets = [*(np.maximum(part, 0) for part in sums[:-1]), sums[-1]]
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
            gather = functools.partial(
                _currents, network, index, recipe.timesteps, params, images, trains, [c.amplitude for c in cells]
            )
            shape = layer_shapes(network)[index]
            if recipe.reconstruct and rebuilt(layer):
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
            trains.append(_fire(gather, cell, recipe, Path(scratch) / f"{index}", advance))
            for source in range(index):  # those that nothing reads any more
                if max(_readers(network, source)) <= index and trains[source] is not None:
                    trains[source] = None
                    (Path(scratch) / f"{source}").unlink()
            fits.append(LayerFit(layer.name, *after, before, time.perf_counter() - started))
    columns = [tuple(np.asarray(part, np.float64) for part in parts) for parts in zip(*cells)]
    theta, amplitude, bias, start = columns
    changed = {name: np.asarray(value) for name, value in params.items()} if recipe.reconstruct else snn.params
    return Calibrated(SNN(network, changed), Channels(theta, amplitude, (*bias, readout), start), tuple(fits))


def work(network: Network, images: int, reconstruct: bool = False) -> int:
    """Layers x images of a calibration, for a progress bar."""
    more = sum(1 for layer in network.layers if rebuilt(layer)) if reconstruct else 0
    return (2 * len(network.spiking) + 2 + more) * images


class Cells(tuple):
    """One layer's (threshold, amplitude, bias, start), (C,) each."""

    amplitude = property(lambda self: self[1])


def _places(network: Network, index: int, images: int, recipe: Recipe) -> np.ndarray:
    """Which (image, position) of a layer are looked at, as sorted numbers image * positions + position."""
    most, layer = SAMPLE, network.layers[index]
    if recipe.reconstruct and rebuilt(layer):
        most = max(SAMPLE, min(REBUILT, REBUILT_NUMBERS // fan_in(network, layer)))
    count = images * positions(layer_shapes(network)[index])
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


def _currents(network, index, timesteps, params, images, trains, amplitudes, part: slice) -> jax.Array:
    """Drives (T, B, *shape) of a layer on a whole chunk of images, filled up; T is 1 if all steps are alike."""
    sources = []
    for edge in network.layers[index].edges:
        if edge.source != IMAGE:
            train = _padded(np.asarray(trains[edge.source][:, part]), 1)
            sources.append((train, jnp.asarray(amplitudes[edge.source], jnp.float32)))
        else:
            sources.append(None)
    return _drive(network, index, timesteps, params, _padded(images[part]), sources)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _drive(network, index, timesteps, params, images, sources):
    shapes = layer_shapes(network)
    total = 0
    for edge, source in zip(network.layers[index].edges, sources):
        if source is None:
            x = preprocess(network, images)
            total = total + linear_map(edge.ops, params, x.shape[1:])(x)[None]
            continue
        bits, amplitude = source
        shape = shapes[edge.source]
        spikes = jnp.unpackbits(bits, axis=-1, count=math.prod(shape)).reshape(-1, *shape)
        out = linear_map(edge.ops, params, shape)(spikes * amplitude)
        total = total + out.reshape(timesteps, -1, *out.shape[1:])
    return total


def _sampled(
    gather: Callable, places: np.ndarray, shape: tuple[int, ...], advance, mean: bool = False
) -> np.ndarray:
    """Drives (T or 1, S, C) at the places of a layer; with ``mean`` their mean over time."""
    each, parts = positions(shape), []
    count = gather.args[4].shape[0]
    for part in _chunks(count):
        drive = np.asarray(gather(part).mean(0, keepdims=True) if mean else gather(part))
        parts.append(drive.reshape(len(drive), -1, shape[-1])[:, _inside(places, part, each)])
        advance(part.stop - part.start)
    return np.concatenate(parts, 1)


def _reconstruct(gather: Callable, layer, error: np.ndarray, places: np.ndarray, biased: bool) -> dict:
    """The layer's kernels, changed by what takes the ``error`` (S, C) of its sums back."""
    _, _, timesteps, params, images, trains, amplitudes = gather.args
    edges, parts = rebuilt(layer), []
    shapes = layer_shapes(gather.args[0])
    for part in _chunks(len(images)):
        found = []
        for edge in edges:
            train = _padded(np.asarray(trains[edge.source][:, part]), 1)
            seen = _seen(edge, shapes[edge.source], train, jnp.asarray(amplitudes[edge.source], jnp.float32))
            each = seen.shape[1]
            found.append(np.asarray(seen.reshape(-1, seen.shape[-1])[_inside(places, part, each)]))
        parts.append(np.concatenate(found, -1))
    change = correction(np.concatenate(parts), error, biased)
    kernels, first = {}, 0
    for edge in edges:
        name = f"{maps_of(edge)[0].name}.kernel"
        own = np.asarray(params[name], np.float64)
        size = own.size // own.shape[-1]
        kernels[name] = jnp.asarray(own + from_matrix(change[first : first + size], own.shape), jnp.float32)
        first += size
    return kernels


@functools.partial(jax.jit, static_argnums=(0, 1))
def _seen(edge, shape, bits, amplitude):
    spikes = jnp.unpackbits(bits, axis=-1, count=math.prod(shape)).reshape(*bits.shape[:2], *shape)
    return inputs_of(edge, spikes.mean(0, dtype=jnp.float32) * amplitude)


def _fire(gather: Callable, cell: Cells, recipe: Recipe, path: Path, advance) -> np.ndarray:
    """Spikes of a layer on all images as bits (T, N, ceil(neurons / 8)), in a file."""
    count = gather.args[4].shape[0]
    bits = None
    arrays = [jnp.asarray(part, jnp.float32) for part in cell]
    for part in _chunks(count):
        packed = np.asarray(_spikes(gather(part), *arrays, recipe.timesteps, recipe.comparison))
        if bits is None:
            bits = np.memmap(path, np.uint8, "w+", shape=(recipe.timesteps, count, packed.shape[-1]))
        bits[:, part] = packed[:, : part.stop - part.start]
        advance(part.stop - part.start)
    if bits is None:
        raise ValueError("no images to fire on")
    return bits


@functools.partial(jax.jit, static_argnums=(5, 6))
def _spikes(drive, theta, amplitude, bias, start, timesteps, comparison):
    _, spikes = _simulate(drive, theta, bias, start, timesteps, comparison)
    return jnp.packbits(spikes.reshape(*spikes.shape[:2], -1), axis=-1)


def _simulate(drive, theta, bias, start, timesteps, comparison):
    """Spike counts (..., C) and spikes (T, ..., C) of neurons under a drive (T or 1, ..., C)."""
    v = jnp.broadcast_to(start * theta, drive.shape[1:])
    count, spikes = jnp.zeros(drive.shape[1:]), []
    for t in range(timesteps):
        v = v + (drive[t if len(drive) > 1 else 0] + bias)
        fired = v >= theta if comparison == ">=" else v > theta
        v = v - jnp.where(fired, theta, 0)
        count = count + fired
        spikes.append(fired)
    return count, jnp.stack(spikes)


def mmse_thresholds(activations: np.ndarray, timesteps: int) -> np.ndarray:
    """Thresholds (C,) with the least squared error of half-full neurons under an even current, of a grid.

    Activations (S, C) are the ANN's. A channel that is never active gets the largest threshold of its layer, so
    that it stays silent, and none gets less than ``NARROW`` of that.
    """
    top = activations.max(0)
    error = np.asarray(_mmse_errors(jnp.asarray(activations), jnp.asarray(top), timesteps))
    theta = np.where(top > 0, top * GRID[error.argmin(0)], 0)
    return np.where(top > 0, np.maximum(theta, NARROW * theta.max()), theta.max()).astype(np.float64)


@functools.partial(jax.jit, static_argnums=2)
def _mmse_errors(activations, top, timesteps):
    def one(fraction):
        unit = jnp.maximum(top * fraction, jnp.finfo(jnp.float32).tiny) / timesteps
        return ((unit * jnp.clip(jnp.floor(activations / unit + START), 0, timesteps) - activations) ** 2).sum(0)

    return jax.lax.map(one, jnp.asarray(GRID, jnp.float32))


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
            each = [mmse_thresholds(targets[m], recipe.timesteps) for m in members]
            shapes[index] = np.exp(np.mean([np.log(theta / theta.mean()) for theta in each], 0))
    return shapes


def fit_layer(
    currents: np.ndarray, targets: np.ndarray, recipe: Recipe, shape: np.ndarray | None = None, biased: bool = True
) -> tuple[Cells, tuple[float, float], tuple[float, float]]:
    """Neurons of one layer for currents (T or 1, S, C) that should bring out activations ``targets`` (S, C).

    Args:
        shape: what thresholds must be proportional to; None: nothing.
        biased: whether the layer can have a bias.

    Returns:
        the cells, and (bias_error, squared_error) of ``LayerFit`` before the descent and after.
    """
    channels = targets.shape[1]
    fixed = (jnp.asarray(currents), jnp.asarray(targets), recipe.timesteps, recipe.comparison)
    free = recipe.amplitudes and shape is None
    if shape is None:
        theta = mmse_thresholds(targets, recipe.timesteps)
    else:
        scaled = np.asarray(targets / shape).reshape(-1, 1)  # one number for the whole layer
        theta = mmse_thresholds(scaled, recipe.timesteps)[0] * shape
    bias, start = np.zeros(channels), np.full(channels, START)
    correct = recipe.correct and biased
    for _ in range(2 if correct else 0):
        bias = bias - np.asarray(_mean_errors(*_float(theta, bias, start), *fixed))
    before = _quality(theta, bias, start, fixed, False)
    names = [name for name in recipe.descend if biased or name != "bias"]
    for sweep in range(recipe.sweeps):
        width = SHRINK**sweep
        for name in names:
            together = name == "threshold" and shape is not None
            theta, bias, start = _coordinate(theta, bias, start, name, width, fixed, free, together)
    amplitude = np.asarray(_errors(*_float(theta, bias, start), *fixed, free)[1], np.float64)
    amplitude = amplitude if free else theta
    return Cells((theta, amplitude, bias, start)), before, _quality(theta, bias, start, fixed, free)


def _float(*parts: np.ndarray) -> tuple:
    return tuple(np.asarray(part, np.float32) for part in parts)


def _coordinate(theta, bias, start, name: str, width: float, fixed, free: bool, together: bool) -> tuple:
    """The best of some values of one number for each channel, or of one factor for all ``together``."""
    steps = (np.linspace(-1, 1, POINTS) * width * SPREAD[name])[:, None]
    tried = [np.broadcast_to(part, (POINTS, len(part))) for part in (theta, bias, start)]
    if name == "threshold":
        tried[0] = theta * np.exp(steps)
    elif name == "bias":
        tried[1] = bias + steps * theta
    else:
        tried[2] = np.clip(start + steps, *STARTS)
    error = np.asarray(_try_all(*_float(*tried), *fixed, free), np.float64)
    if together:
        error = np.broadcast_to(error.sum(1, keepdims=True), error.shape)
    # of equals the one nearest to what was there, which is in the middle
    order = np.argsort(np.abs(steps[:, 0]), kind="stable")
    best = order[error[order].argmin(0)]
    return tuple(np.take_along_axis(part, best[None], 0)[0] for part in tried)


@functools.partial(jax.jit, static_argnums=(5, 6, 7))
def _try_all(theta, bias, start, currents, targets, timesteps, comparison, free):
    """Squared errors (K, C) of K candidates (K, C)."""
    return jax.lax.map(
        lambda one: _errors(*one, currents, targets, timesteps, comparison, free)[0], (theta, bias, start)
    )


@functools.partial(jax.jit, static_argnums=(5, 6, 7))
def _errors(theta, bias, start, currents, targets, timesteps, comparison, free):
    """Per channel the squared error, the amplitude (the best where it is ``free``), and the mean error."""
    rate = _simulate(currents, theta, bias, start, timesteps, comparison)[0] / timesteps
    amplitude = theta
    if free:
        best = (rate * targets).sum(0) / jnp.maximum((rate * rate).sum(0), jnp.finfo(jnp.float32).tiny)
        amplitude = jnp.where(best > 0, best, theta)
    error = amplitude * rate - targets
    return (error * error).sum(0), amplitude, error.mean(0)


def _mean_errors(theta, bias, start, *fixed):
    return _errors(theta, bias, start, *fixed, False)[2]


def _quality(theta, bias, start, fixed, free: bool) -> tuple[float, float]:
    """Bias error and squared error, as in ``LayerFit``."""
    squared, _, mean = (
        np.asarray(part, np.float64) for part in _errors(*_float(theta, bias, start), *fixed, free)
    )
    targets = np.asarray(fixed[1], np.float64)
    power = (targets**2).mean()
    return float(np.sqrt((mean**2).mean() / power)), float(squared.sum() / targets.size / power)
