"""A spiking network from a file of trained weights, ours or another program's."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxsnn.conversion.folding import fold
from jaxsnn.conversion.import_network import import_network
from jaxsnn.conversion.state_dicts import read_foreign
from jaxsnn.errors import UserError
from jaxsnn.networks.description import Network, Params
from jaxsnn.networks.spiking import SNN
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
        weights: safetensors with a network description, safetensors without one, or a PyTorch ``state_dict``;
            None is the embedded network.
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
) -> tuple[SNN, str]:
    """The converted network of a weights file, and the file's sha256; arguments as in ``load_network``."""
    folded, params = fold(*load_network(weights, network, image_shape, say))
    path = embedded_path() if weights is None else weights
    return SNN(folded, to_device(params)), hashlib.sha256(path.read_bytes()).hexdigest()


def load(
    weights: Path | str | None = None,
    network: str | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> SNN:
    """A converted spiking network from a file of trained weights; without arguments the embedded one.

    Args:
        weights: safetensors of jaxsnn.train, a PyTorch ``state_dict`` (.pt), or plain safetensors.
        network: of a file that does not describe it: an architecture's name or the path of a description.
        image_shape: (H, W, C) of the images that such a file is for.

    Raises:
        UserError: the file cannot be read or does not fit the network.

    >>> load().network.classes
    10
    """
    return load_snn(None if weights is None else Path(weights), network, image_shape)[0]


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
    snn, sha256 = load_snn(path, described, image_shape, say)
    if weights is None and found.get("weights_sha256") not in (None, sha256):
        raise UserError(
            f"{path or 'the embedded network'} is not the file that {where} was made with: its sha256 is "
            f"{sha256}, expected {found['weights_sha256']}; give the right one as --weights"
        )
    return snn, sha256
