"""thresholds.json: the genes of one network, and what they belong to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.description import Network
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.networks.spiking_input import has_spiking_input
from jaxsnn.runtime.entries import Entries
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


def dynamics_of(
    found: Mapping[str, Any], where: Path | str | None, comparison: str | None = None, delay: str | None = None
) -> Dynamics:
    """How the neurons of a thresholds.json behave, as in ``jaxsnn.optimize`` where it does not say.

    Args:
        where: the file, for messages.
        comparison, delay: in place of what it says.

    Raises:
        UserError: it says something that no neuron does.
    """
    entries = Entries(dict(found), str(where))
    said = {name: entries.text(name) for name in ("comparison", "delay") if entries.known(name)}
    most = entries.count("spikes_per_step", 1) if entries.known("spikes_per_step") else 1
    return Dynamics(comparison or said.get("comparison", ">"), delay or said.get("delay", "layer"), most)


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
        **({"spikes_per_step": dynamics.most} if dynamics.most > 1 else {}),
        **({"encoding": "rate"} if has_spiking_input(network) else {}),
    } | genes.to_record()
