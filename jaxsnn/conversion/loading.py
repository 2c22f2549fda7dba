"""A spiking network from a file of trained weights, ours or another program's."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn.conversion.folding import fold
from jaxsnn.conversion.import_network import import_network
from jaxsnn.conversion.model_import import import_model, is_model_file
from jaxsnn.conversion.state_dicts import read_foreign
from jaxsnn.errors import UserError
from jaxsnn.networks.description import Network, Params
from jaxsnn.networks.spiking import SNN
from jaxsnn.networks.spiking_input import has_spiking_input, spiking_input
from jaxsnn.networks.weights import describes_network, embedded_path, load_weights, to_device


def check_data(network: Network, images: np.ndarray, classes: int, name: str) -> None:
    """Raise ``UserError`` where a dataset does not fit the network."""
    if images.shape[1:] != network.input_shape or classes != network.classes:
        raise UserError(
            f"network {network.name} takes images {network.input_shape} of {network.classes} classes, but {name} "
            f"has {images.shape[1:]} of {classes}: choose other --weights or other --data"
        )


def load_network(
    weights: Path | None,
    network: str | None = None,
    image_shape: tuple[int, int, int] | None = None,
    say: Callable[[str], None] | None = None,
) -> tuple[Network, Params]:
    """The network of a weights file, norms not yet folded, and its float32 parameters.

    Args:
        weights: safetensors with a network description, safetensors without one, a PyTorch ``state_dict``, or a
            whole model (.onnx, .pt2); None is the embedded network.
        network: of a file without a description: an architecture's name or the path of a description; None
            infers it from the shapes.
        image_shape: (H, W, C) of the images that a file without a description is for.
        say: gets a sentence for everything that was assumed or left out.

    Raises:
        UserError: the file cannot be read or does not fit the network.
    """
    if weights is None and network is not None:
        raise UserError("--network says what network a file holds: give the file as --weights")
    path = embedded_path() if weights is None else weights
    if describes_network(path):
        if network is not None:
            raise UserError(f"{path} describes its own network: leave --network out")
        return load_weights(path)[:2]
    if is_model_file(path):
        if network is not None:
            raise UserError(f"{path} holds a whole model: leave --network out")
        model = import_model(path)
        if say is not None:
            for note in model.notes:
                say(f"{path}: {note}")
        return model.network, model.params
    imported = import_network(read_foreign(path), network, image_shape=image_shape)
    if say is not None:
        for note in imported.notes:
            say(f"{path}: {note}")
    return imported.network, imported.params


def load_snn(
    weights: Path | None,
    network: str | None = None,
    image_shape: tuple[int, int, int] | None = None,
    say: Callable[[str], None] | None = None,
    encoding: str = "constant",
) -> tuple[SNN, str]:
    """The converted network of a weights file, and the file's sha256; arguments as in ``load_network``.

    Args:
        encoding: of the image; "rate" puts a layer in front that sends it as spikes, where there is none yet.
    """
    folded, params = fold(*load_network(weights, network, image_shape, say))
    path = embedded_path() if weights is None else weights
    snn = SNN(folded, to_device(params))
    if encoding == "rate" and not has_spiking_input(folded):
        snn = spiking_input(snn)
    return snn, hashlib.sha256(path.read_bytes()).hexdigest()


def load(
    weights: Any = None,
    network: str | None = None,
    image_shape: tuple[int, int, int] | None = None,
    *,
    input_shape: Sequence[int] | None = None,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
    max_pool: str = "refuse",
    say: Callable[[str], None] | None = print,
) -> SNN:
    """A converted spiking network, from a live model or a file; without arguments the embedded one.

    Args:
        weights: a ``torch.nn.Module`` or Flax ``nnx.Module``; or the path of a whole model (.onnx, or .pt2 of
            ``torch.export.save``), of safetensors of jaxsnn.train, of a PyTorch ``state_dict`` (.pt), or of plain
            safetensors.
        network: of a file of weights alone: an architecture's name or the path of a description.
        image_shape: (H, W, C) of the images that such a file is for.
        input_shape: of one input of a live model as it takes it: (C, H, W) in PyTorch, (H, W, C) in Flax.
        mean, std: of pixels in [0, 1], one number or one for each channel, with which a model's input was
            normalised; without them it is taken to see pixels in [0, 1].
        max_pool: what becomes of a model's max pools: "refuse"; "spiking", where the input that has fired most
            passes its spikes; or "average" for average pools in their place, to be trained further.
        say: gets a sentence for everything that was assumed of a model, and how far the logits are from its own.

    Raises:
        UserError: the model or file cannot be read or converted; the sentence names the part that cannot.

    >>> load().network.classes
    10
    >>> from flax import nnx
    >>> model = nnx.Sequential(nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0)), nnx.relu, lambda x: x.mean((1, 2)))
    >>> load(model, input_shape=(8, 8, 3), say=None).network.classes
    4
    """
    whole = weights is not None and (not isinstance(weights, str | Path) or is_model_file(Path(weights)))
    if not whole:
        if any(value is not None for value in (input_shape, mean, std)) or max_pool != "refuse":
            raise UserError("input_shape, mean, std and max_pool are for whole models: leave them out")
        return load_snn(None if weights is None else Path(weights), network, image_shape)[0]
    if network is not None or image_shape is not None:
        raise UserError("network and image_shape are for files of weights alone: a whole model says them itself")
    imported = import_model(weights, input_shape, mean=mean, std=std, max_pool=max_pool)
    if say is not None:
        for note in imported.notes:
            say(note)
    folded, params = fold(imported.network, imported.params)
    return SNN(folded, to_device(params))


def load_named(
    found: dict,
    where: Path | None,
    weights: Path | None,
    network: str | None,
    image_shape: tuple[int, int, int] | None = None,
    say: Callable[[str], None] | None = None,
) -> tuple[SNN, str]:
    """``load_snn`` of the weights that a file of thresholds names, unless the user gives others.

    Args:
        found: what ``jaxsnn.records.thresholds_file.read_thresholds`` returned, or nothing.
        where: that file or its folder, for messages.
        weights, network: what the user gave.

    Raises:
        UserError: the weights are not those that the thresholds were made with, or cannot be read.
    """
    named = found.get("weights")
    path = weights or (Path(named) if isinstance(named, str) else None)
    described = network or (None if weights else found.get("architecture"))
    if not isinstance(described, str | None):
        raise UserError(f"{where}: architecture is {described!r}, expected a name or a file")
    encoding = found.get("encoding") or "constant"
    if encoding not in ("constant", "rate"):
        raise UserError(f"{where}: encoding is {encoding!r}, expected constant or rate"[:500])
    snn, sha256 = load_snn(path, described, image_shape, say, encoding)
    if weights is None and found.get("weights_sha256") not in (None, sha256):
        raise UserError(
            f"{path or 'the embedded network'} is not the file that {where} was made with: its sha256 is "
            f"{sha256}, expected {found['weights_sha256']}; give the right one as --weights"
        )
    return snn, sha256
