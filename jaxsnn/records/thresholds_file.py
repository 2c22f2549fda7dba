"""thresholds.json: the genes of one network, and what they belong to."""

from pathlib import Path

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.description import Network
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.networks.spiking_input import has_spiking_input
from jaxsnn.runtime.files import read_json

GENES = ("thresholds", "v0", "leak", "baseline_thresholds", "baseline_v0", "baseline_leak")
"""The lists, one number per spiking layer, that thresholds.json may hold."""


def read_thresholds(path: Path) -> dict:
    """thresholds.json of a run folder, or a file like it.

    It needs a list ``thresholds``; the rest of what ``jaxsnn.optimize`` writes there is optional. Lists of
    numbers are given as float64 arrays.

    Raises:
        UserError: no such file, or entries of the wrong kind.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: give the folder of a run, or a file of thresholds")
    found = read_json(path / "thresholds.json" if path.is_dir() else path)
    if found.get("thresholds") is None:
        raise UserError(f"{path} has no list of thresholds")
    for name in GENES:
        if found.get(name) is not None:
            values = found[name]
            if not isinstance(values, list) or not all(type(v) in (int, float) for v in values):
                raise UserError(f"{path}: {name} is not a list of numbers")
            try:
                found[name] = np.asarray(values, np.float64)
            except OverflowError as error:
                raise UserError(f"{path}: {name} holds a number beyond float64") from error
    return found


def thresholds_record(
    network: Network, weights: Path | None, sha256: str, genes: Genes, dynamics: Dynamics
) -> dict:
    """What every thresholds.json holds: one candidate's ``genes``, and the weights (None: the embedded ones)."""
    return {
        "network": network.name,
        "weights": None if weights is None else str(weights),
        "weights_sha256": sha256,
        "layers": [layer.name for layer in network.spiking],
        "comparison": dynamics.comparison,
        "delay": dynamics.delay,
        **({"encoding": "rate"} if has_spiking_input(network) else {}),
    } | genes.to_record()
