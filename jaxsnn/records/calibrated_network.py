"""calibrated.safetensors: the network that a search started around, in the run's folder."""

import json
from pathlib import Path

import numpy as np

from jaxsnn.conversion.channel_fit import LayerFit
from jaxsnn.conversion.start import Start
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import SNN, Genes, check_genes
from jaxsnn.networks.weights import load_weights, save_weights, to_device
from jaxsnn.runtime.entries import Entries

NAME = "calibrated.safetensors"


def name_for(timesteps: int) -> str:
    """The file of the network that a frontier's candidates of so many timesteps are searched around."""
    return f"calibrated-{timesteps}.safetensors"


def save_start(folder: Path, start: Start, name: str = NAME) -> Path:
    """Write the calibrated network, and in the file's header all else; returns the path."""
    path = folder / name
    params = {name: np.asarray(value) for name, value in start.snn.params.items()}
    notes = {"genes": json.dumps(start.genes.to_record()), "calibration": json.dumps(calibration_record(start))}
    save_weights(path, start.snn.network, params, notes)
    return path


def calibration_record(start: Start) -> dict:
    """How a network was calibrated, for results.json."""
    parts = ("name", "bias_error", "squared_error")  # no seconds: equal runs are equal
    layers = [{part: getattr(fit, part) for part in parts} | {"before": list(fit.before)} for fit in start.fits]
    most = {"spikes_per_step": start.most} if start.most > 1 else {}
    return {"timesteps": start.timesteps, **most, "changed": list(start.changed), "layers": layers}


def fits_of(record: Entries) -> tuple[LayerFit, ...]:
    """The layers of a ``calibration_record``; raises ``UserError`` where it is not one."""
    return tuple(
        LayerFit(
            layer.text("name"),
            layer.number("bias_error"),
            layer.number("squared_error"),
            (layer.numbers("before", 2)[0], layer.numbers("before", 2)[1]),
        )
        for layer in record.list_of_entries("layers")
    )


def load_start(folder: Path, ann: SNN, name: str = NAME) -> Start | None:
    """The calibrated network in a run's folder, or None where there is none.

    Args:
        ann: the network before calibration.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / name
    if not path.is_file():
        return None
    network, params, notes = load_weights(path)
    try:
        genes = Genes.from_record(json.loads(notes["genes"]))
        check_genes(network, genes)
        record = Entries(json.loads(notes.get("calibration", '{"timesteps": 1, "layers": []}')), str(path))
        fits, timesteps = fits_of(record), record.count("timesteps", 1)
        changed = tuple(map(str, record.record.get("changed", ())))
        most = record.count("spikes_per_step", 1) if record.known("spikes_per_step") else 1
    except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
        raise UserError(f"{path} does not hold the genes of its network: remove it") from error
    return Start(SNN(network, to_device(params)), genes, ann, timesteps, fits, changed, most)
