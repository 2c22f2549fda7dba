"""calibrated.safetensors: the network that a search started around, in the run's folder."""

import json
from pathlib import Path

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import SNN, Genes, check_genes
from jaxsnn.networks.weights import load_weights, save_weights, to_device
from jaxsnn.search.job import Start

NAME = "calibrated.safetensors"


def save_start(folder: Path, start: Start) -> Path:
    """Write the calibrated network, with the genes to run it with in the file's header; returns the path."""
    path = folder / NAME
    params = {name: np.asarray(value) for name, value in start.snn.params.items()}
    save_weights(path, start.snn.network, params, {"genes": json.dumps(start.genes.to_record())})
    return path


def load_start(folder: Path) -> Start | None:
    """The calibrated network in a run's folder, or None where there is none.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    network, params, notes = load_weights(path)
    try:
        genes = Genes.from_record(json.loads(notes["genes"]))
        check_genes(network, genes)
    except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
        raise UserError(f"{path} does not hold the genes of its network: remove it") from error
    return Start(SNN(network, to_device(params)), genes)
