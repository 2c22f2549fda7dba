"""A whole model, live or from a file, as a network, and how far its logits are from the model's own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsnn.conversion.evaluate_graph import evaluate
from jaxsnn.conversion.folding import fold
from jaxsnn.conversion.from_onnx import graph_of_onnx
from jaxsnn.conversion.from_pt2 import graph_of_pt2
from jaxsnn.conversion.graph import Graph, with_average_pools
from jaxsnn.conversion.graph_values import image_shape
from jaxsnn.conversion.lower_graph import lower
from jaxsnn.conversion.pool_order import behind_activations, max_pools
from jaxsnn.errors import UserError
from jaxsnn.networks.description import Network, Params
from jaxsnn.networks.forward import ann_forward

SUFFIXES = (".onnx", ".pt2")
"""Files that hold a whole model."""
MODULES = {"torch.nn.modules.module.Module", "flax.nnx.module.Module"}
"""What may be handed over as it is; one of their names is among a module's bases."""
TOLERANCE = 1e-3
"""Largest difference of a logit, relative to the largest logit, that rounding may make."""
MAX_POOLS = ("refuse", "average", "spiking")
"""What can become of max pools."""
RANDOM_IMAGES = 8
"""Images on which logits are compared where none are given."""
Logits = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class ImportedModel:
    """A model in our layout, norms not yet folded.

    Attributes:
        difference: the largest difference of a logit, and ``largest`` the largest logit.
        compared_with: what computed the logits that ours were compared with.
        notes: what was assumed or replaced, and the comparison; a sentence each.
    """

    network: Network
    params: Params
    difference: float
    largest: float
    compared_with: str
    notes: tuple[str, ...]


def is_model_file(path: Path) -> bool:
    """Whether a file holds a whole model, by its name."""
    return path.suffix in SUFFIXES


def import_model(
    source: Any,
    input_shape: Sequence[int] | None = None,
    *,
    name: str | None = None,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
    max_pool: str = "refuse",
    images: np.ndarray | None = None,
) -> ImportedModel:
    """A model as a network, its logits compared with the model's own.

    Args:
        source: a ``torch.nn.Module``, a Flax ``nnx.Module``, or the path of an ONNX file or a ``.pt2`` archive.
        input_shape: of one input as the model takes it: (C, H, W), (C, L) or (F,) in PyTorch and ONNX, (H, W, C)
            in Flax; files say it themselves.
        mean, std: of pixels in [0, 1], with which the model's input was normalised: a number for all channels or
            one for each. The model is taken to see pixels in [0, 1] unless they are given.
        max_pool: "refuse"; "spiking", where in each window the input that has fired most passes its spikes; or
            "average", which puts an average pool in the place of every max pool.
        images: (N, H, W, C), uint8 or float pixels in [0, 1], to compare logits on; random ones where they are
            not given or are no images for this model.

    Raises:
        UserError: the model does something that is not converted, by its name in the model, or the logits differ.
    """
    if max_pool not in MAX_POOLS:
        raise UserError(f"max_pool is {max_pool!r}, expected one of {', '.join(map(repr, MAX_POOLS))}")
    graph, own, compared_with, called = _graph_of(source, input_shape)
    pooled = with_average_pools(graph) if max_pool == "average" else behind_activations(graph)
    pools = max_pools(pooled)
    if pools and max_pool == "refuse":
        raise UserError(
            f"{pools[0]} is a max pool, which spiking neurons only come near: import with --max-pool spiking "
            "(max_pool='spiking' in Python), where in each window the input that has fired most passes its "
            "spikes, or with --max-pool average, which puts an average pool in its place, and train further"
        )
    (_, _, channels), _ = image_shape(graph.shapes[0], graph.axes)
    means, stds, said = _normalisation(mean, std, channels)
    network, params = lower(pooled, name or called, means, stds)
    if images is None or images.shape[1:] != network.input_shape or not len(images):
        pixels, which = _random_images(network), "random images"
    else:
        pixels, which = (images / 255 if images.dtype == np.uint8 else images).astype(np.float32), "images"
    x = _inputs(network, pooled, pixels)
    notes = [*said, *pooled.notes]
    if pools:
        notes.append(f"max pools pass the spikes of the input that has fired most: {', '.join(pools)}")
    if pooled.notes != graph.notes:  # the model's own logits are another network's
        expected, theirs = _in_batches(pooled, x), own(x)
        changed = float(np.abs(expected - theirs).max())
        notes.append(f"the model's logits with its max pools, from {compared_with}, are up to {changed:.2g} away")
        compared_with = "the graph with average pools in float64"
    else:
        expected = own(x)
    folded, arrays = fold(network, params)
    ours = np.asarray(ann_forward(folded, arrays, jnp.asarray(pixels))[-1])
    difference, largest = float(np.abs(ours - expected).max()), float(np.abs(expected).max())
    notes.append(
        f"largest difference of a logit on {len(x)} {which}: {difference:.2g} "
        f"from {compared_with} (largest logit {largest:.3g})"
    )
    if float(np.ptp(expected, axis=0).max()) < TOLERANCE * largest:
        notes.append("the logits hardly depend on the image, so that the comparison says little")
    if not difference <= TOLERANCE * largest:
        raise UserError(
            f"the imported network's logits differ by {difference:.3g} from {compared_with}, so it is not "
            "imported right: please report this with the model"
        )
    return ImportedModel(network, params, difference, largest, compared_with, tuple(notes))


def _graph_of(source: Any, input_shape: Sequence[int] | None) -> tuple[Graph, Logits, str, str]:
    """The graph, the model's own logits as a function of its input, who computes them, and its name."""
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.is_file():
            raise UserError(f"no model at {path}")
        if path.suffix == ".onnx":
            graph = graph_of_onnx(path, input_shape)
            own, who = _onnx_logits(path, graph)
            return graph, own, who, path.stem
        if path.suffix == ".pt2":
            graph = graph_of_pt2(path)
            return graph, lambda x: _in_batches(graph, x), "the archive's own graph in float64", path.stem
        raise UserError(f"{path} is no whole model, expected a file that ends in {' or '.join(SUFFIXES)}")
    kind = type(source)
    bases = {f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__}
    if not bases & MODULES:
        given = (
            f"the class {source.__name__}, not a module made of it,"
            if isinstance(source, type)
            else f"a {kind.__name__}"
        )
        raise UserError(
            f"{given} cannot be loaded: expected a torch.nn.Module, a flax.nnx.Module, or the path of a file"
        )
    if input_shape is None:
        raise UserError(f"input_shape is missing: the shape of one input of {kind.__name__}, such as (3, 32, 32)")
    if "torch.nn.modules.module.Module" in bases:
        from jaxsnn.conversion.from_torch import graph_of_module, module_logits

        graph = graph_of_module(source, input_shape)
        return graph, lambda x: module_logits(source, x), "the module in PyTorch", kind.__name__
    from jaxsnn.conversion.from_nnx import graph_of_nnx, nnx_logits

    graph = graph_of_nnx(source, input_shape)
    return graph, lambda x: nnx_logits(source, x), "the module in Flax", kind.__name__


def _onnx_logits(path: Path, graph: Graph) -> tuple[Logits, str]:
    """ONNX Runtime where it is installed, else the graph."""
    try:
        import onnxruntime
    except ImportError:
        return lambda x: _in_batches(graph, x), "the file's own graph in float64"

    def run(x: np.ndarray) -> np.ndarray:
        try:
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            given = session.get_inputs()[0].name
            return np.concatenate([session.run(None, {given: part})[0] for part in _batches(graph, x)])[: len(x)]
        except Exception as error:  # ONNX Runtime has types of its own, and not for every operation
            reason = str(error).splitlines()[0]
            raise UserError(f"ONNX Runtime cannot run {path} ({reason}): export it again") from error

    return run, "ONNX Runtime"


def _batches(graph: Graph, x: np.ndarray) -> list[np.ndarray]:
    """Inputs in batches of the graph's size, the last one filled up."""
    size = graph.shapes[0][0]
    filled = np.concatenate([x, np.zeros((-len(x) % size, *x.shape[1:]), x.dtype)])
    return [filled[start : start + size] for start in range(0, len(filled), size)]


def _in_batches(graph: Graph, x: np.ndarray) -> np.ndarray:
    return np.concatenate([evaluate(graph, part) for part in _batches(graph, x)])[: len(x)]


def _normalisation(
    mean: Sequence[float] | float | None, std: Sequence[float] | float | None, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...], list[str]]:
    """Mean and standard deviation for each channel, and what was assumed."""
    if mean is None and std is None:
        note = (
            "the model is taken to see pixels in [0, 1]: give mean and std if it was trained on images that were "
            "normalised before"
        )
        return (0.0,) * channels, (1.0,) * channels, [note]
    if mean is None or std is None:
        raise UserError("mean and std belong together: give both or none")
    found = []
    for name, value in (("mean", mean), ("std", std)):
        numbers = (value,) * channels if isinstance(value, int | float) else tuple(float(v) for v in value)
        numbers = numbers * channels if len(numbers) == 1 else numbers
        if len(numbers) != channels or not np.isfinite(numbers).all() or (name == "std" and min(numbers) <= 0):
            rule = "above 0" if name == "std" else "finite"
            raise UserError(f"{name} is {value}, expected a number {rule} for each of {channels} channels")
        found.append(numbers)
    return found[0], found[1], []


def _random_images(network: Network) -> np.ndarray:
    """Pixels in [0, 1], alike on every call."""
    return np.random.default_rng(0).random((RANDOM_IMAGES, *network.input_shape), np.float32)


def _inputs(network: Network, graph: Graph, pixels: np.ndarray) -> np.ndarray:
    """Images (N, H, W, C) as the model takes them, normalised."""
    x = ((pixels - np.array(network.mean)) / np.array(network.std)).astype(np.float32)
    if not graph.axes:  # else channels come last there, too
        x = x.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(x).reshape(len(x), *graph.shapes[0][1:])
