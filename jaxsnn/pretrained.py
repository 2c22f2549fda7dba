"""A spiking network from a file of trained weights."""

import hashlib
from pathlib import Path

from jaxsnn.convert import fold
from jaxsnn.snn import SNN
from jaxsnn.weights import embedded_path, load_weights, to_device


def load_snn(weights: Path | None) -> tuple[SNN, str]:
    """The converted network of a weights file (None: the embedded one), and the file's sha256."""
    path = embedded_path() if weights is None else weights
    network, params, _ = load_weights(path)
    folded, params = fold(network, params)
    return SNN(folded, to_device(params)), hashlib.sha256(path.read_bytes()).hexdigest()
