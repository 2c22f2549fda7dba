"""What the contenders of ``benchmarks.throughput`` simulate: a converted network, thresholds, images, the answer.

A problem is one file, so that a contender in a process of its own reads it without JAX. This module also counts
the work in it: multiply-accumulates (MAC) of an image and step, and additions of a spike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.description import IMAGE, AvgPool, Conv, Dense, Network, layer_shapes, output_shape
from jaxsnn.networks.json_format import from_json, to_json

CHECK_STEPS = 32
"""Steps, without layer delay, after which contenders are compared with the reference."""


SPREAD = 0.05
"""Standard deviation of the candidates' thresholds, relative to the 99.7 percentile; the first has none."""


@dataclass(frozen=True)
class Problem:
    """A converted network and its reference.

    Attributes:
        network: folded: no norms, no dropout.
        params: float32 arrays by name.
        thresholds: (P, L) float32; the first candidate's are the 99.7 percentile's.
        images: uint8 (B, H, W, C), the images that are timed.
        check_scores: (N, classes) summed scores of the first N images and the first candidate, after
            ``CHECK_STEPS`` steps without layer delay, by ``jaxsnn.simulation.observe.record`` in float32.
        check_spikes: (L,) its spikes over these images and steps.
    """

    network: Network
    params: dict[str, np.ndarray]
    thresholds: np.ndarray
    images: np.ndarray
    check_scores: np.ndarray
    check_spikes: np.ndarray


def save_problem(path: Path, problem: Problem) -> None:
    """Write the problem as one uncompressed npz file."""
    names = ("thresholds", "images", "check_scores", "check_spikes")
    arrays: dict[str, Any] = {name: getattr(problem, name) for name in names}
    arrays |= {f"param:{name}": np.asarray(value) for name, value in problem.params.items()}
    np.savez(path, network=np.array(to_json(problem.network)), **arrays)


def load_problem(path: Path) -> Problem:
    """Read what ``save_problem`` wrote."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    params = {name.removeprefix("param:"): arrays.pop(name) for name in list(arrays) if name.startswith("param:")}
    return Problem(from_json(arrays.pop("network").item()), params, **arrays)


def random_params(network: Network, images: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Random weights with activity like a trained network's: each edge's values on ``images`` get unit variance.

    Kaiming-normal kernels, scaled edge by edge on the way through the network (LSUV, Mishkin and Matas 2016,
    without its orthogonal start); biases are zero.
    """
    import jax

    from jaxsnn.networks.description import run, shapes_of
    from jaxsnn.networks.forward import preprocess
    from jaxsnn.networks.linear_maps import linear_map

    rng = np.random.default_rng(seed)
    params = {}
    for name, shape in shapes_of(network).items():
        if name.endswith(".kernel"):
            kernel = rng.standard_normal(shape, np.float32)
            params[name] = kernel * np.float32(math.sqrt(2 / math.prod(shape[:-1])))
        else:
            params[name] = np.zeros(shape, np.float32)

    def scaled(edge, x):
        y = linear_map(edge.ops, params, x.shape[1:])(x)
        weighted = [op for op in edge.ops if isinstance(op, Conv | Dense)]
        if not weighted:
            return y
        gain = 1 / np.std(np.asarray(y))
        params[f"{weighted[0].name}.kernel"] *= gain
        return y * gain

    run(network, preprocess(network, jax.numpy.asarray(images)), scaled, jax.nn.relu)
    return params


def make_problem(
    network: Network,
    params: dict[str, np.ndarray],
    images: np.ndarray,
    calibration_images: np.ndarray,
    candidates: int,
    check_images: int,
    seed: int,
) -> Problem:
    """Thresholds at the 99.7 percentile, candidates around them, and the reference's answer.

    Args:
        calibration_images: uint8 (N, H, W, C), other images than those that are timed.

    Raises:
        UserError: maps that other simulators are not given (``require_plain``).
    """
    require_plain(network)
    from jaxsnn.conversion.calibration import calibrate
    from jaxsnn.networks.spiking import SNN, Genes
    from jaxsnn.networks.weights import to_device
    from jaxsnn.simulation.observe import record

    snn = SNN(network, to_device(params))
    batch = max(1, 64 * 32 * 32 // math.prod(network.input_shape[:2]))
    base = calibrate(network, snn.params, calibration_images, batch).threshold(99.7)
    spread = np.random.default_rng(seed).standard_normal((candidates, len(base))) * SPREAD
    spread[0] = 0
    thresholds = (base * np.exp(spread)).astype(np.float32)
    _, spikes, scores = record(snn, Genes(thresholds[:1]), images[:check_images], CHECK_STEPS)
    counts = np.array([layer.sum() for layer in spikes])
    params = {name: np.asarray(value) for name, value in params.items()}
    return Problem(network, params, thresholds, images, scores[0, -1], counts)


def require_plain(network: Network) -> None:
    """Refuse maps of which this module and the other simulators know nothing.

    Raises:
        UserError: a convolution or pool that is not square, or with a padding, dilation or groups of its own.
    """
    for layer in network.layers:
        for edge in layer.edges:
            for op in edge.ops:
                if isinstance(op, Conv | AvgPool) and not op.plain:
                    raise UserError(
                        f"layer {layer.name} of {network.name}: this benchmark takes square convolutions padded "
                        f"by half their kernel, without dilation or groups, and disjoint square pools, not {op}"
                    )


def macs(network: Network, *, fold: bool = False, first: bool = True, matrix_positions: int = 0) -> int:
    """Multiply-accumulates of one image and one step, taps in the zero padding included.

    Args:
        fold: a 2x2 average pool after a convolution is folded into it: one output in four is computed.
        first: count the edges that read the image; their current is constant and can be computed once.
        matrix_positions: a convolution whose input times output positions are at most this many is one dense
            matrix product (``jaxsnn.networks.linear_maps``), counted as such.

    Raises:
        UserError: maps that are not counted so (``require_plain``).
    """
    require_plain(network)
    total = 0
    shapes = layer_shapes(network)
    for layer in network.layers:
        for edge in layer.edges:
            if edge.source == IMAGE and not first:
                continue
            shape = network.input_shape if edge.source == IMAGE else shapes[edge.source]
            for op, after in zip(edge.ops, (*edge.ops[1:], None)):
                target = output_shape(op, shape)
                if isinstance(op, Dense):
                    total += math.prod(shape) * op.features
                elif isinstance(op, Conv):
                    pool = after.window if isinstance(after, AvgPool) else 1
                    pooled = math.prod(target[:2]) // pool**2
                    pairs = math.prod(shape[:2]) * pooled
                    if pairs > matrix_positions:
                        folded = fold and pool == 2 and op.stride == 1 and op.kernel % 2
                        pairs = op.kernel**2 * (pooled if folded else math.prod(target[:2]))
                    total += pairs * shape[-1] * op.features
                shape = target
    return total


def neurons(network: Network) -> np.ndarray:
    """Neurons of each spiking layer, (L,)."""
    return np.array([math.prod(shape) for shape in layer_shapes(network)[:-1]])


def additions_per_synop(network: Network) -> np.ndarray:
    """Additions that an event-driven simulator needs per synaptic operation, for the spikes of each layer, (L,).

    ``jaxsnn.networks.fan_out`` counts the weights of the convolution that a spike drives. Where a pool follows it,
    both make one strided kernel, in which the spike drives fewer: 4 instead of 9 for 3x3 and a 2x2 pool. A mean
    over the layer's positions.

    Raises:
        UserError: maps that are not counted so (``require_plain``).
    """
    require_plain(network)
    shapes = layer_shapes(network)
    weights, additions = np.zeros(len(shapes) - 1), np.zeros(len(shapes) - 1)
    for layer in network.layers:
        for edge in layer.edges:
            if edge.source == IMAGE:
                continue
            reached = _reach(edge.ops, shapes[edge.source])
            weights[edge.source] += reached[0]
            additions[edge.source] += reached[1]
    return additions / weights


def _reach(ops: Sequence, shape: tuple[int, ...]) -> tuple[float, float]:
    """Outputs of the first map that a unit reaches on average: of the map itself, and of the pool after it."""
    match ops:
        case [Conv() as conv, AvgPool() as pool, *_]:
            windows = (1, pool.window)
        case [Conv() as conv, *_]:
            windows = (1, 1)
        case [Dense() as dense, *_]:
            return dense.features, dense.features
        case _:
            return 1, 1
    means = []
    for window in windows:
        sides = [_positions_reached(size, conv.kernel, conv.stride, window) for size in shape[:2]]
        means.append(conv.features * sides[0].mean() * sides[1].mean())
    return means[0], means[1]


def _positions_reached(size: int, kernel: int, stride: int, window: int) -> np.ndarray:
    """How many outputs, pooled by ``window``, each of ``size`` inputs reaches along one axis."""
    outputs = (size + 2 * (kernel // 2) - kernel) // stride + 1
    starts = np.arange(outputs) * stride - kernel // 2
    reached = [{o // window for o in np.flatnonzero((starts <= p) & (p < starts + kernel))} for p in range(size)]
    return np.array([len(r) for r in reached])


CIFAR_PIXELS = 32 * 32


@dataclass(frozen=True)
class Case:
    """One network to measure: its problem on disk and in memory, and how many images it gets."""

    name: str
    path: Path
    problem: Problem

    @property
    def network(self) -> Network:
        return self.problem.network

    def images(self, count: int) -> int:
        """``count`` images of 32x32 as images of this network, by pixels."""
        return max(1, count * CIFAR_PIXELS // math.prod(self.network.input_shape[:2]))

    def steps(self, timesteps: int, delay: str) -> int:
        """Steps that are simulated for T = ``timesteps``."""
        return timesteps - (self.network.delay if delay == "layer" else 0)
