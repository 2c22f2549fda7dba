"""What runs of jaxsnn.train and jaxsnn.finetune keep: history, checkpoint, weights, and thresholds beside them."""

import hashlib
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from jaxsnn.conversion.loading import load_snn
from jaxsnn.errors import UserError
from jaxsnn.networks.activations import SHIFT, ceiling
from jaxsnn.networks.description import Network, Params
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.networks.weights import save_weights
from jaxsnn.records import run_folder
from jaxsnn.records.listing import check_made_by
from jaxsnn.records.thresholds_file import read_thresholds, thresholds_record
from jaxsnn.runtime.files import plain, read_json, write_json
from jaxsnn.runtime.provenance import code_version

CHECKPOINT = Path("checkpoints", "training.checkpoint")
"""Place of the checkpoint in a run's folder."""
FREE = ("code",)
"""Keys of config.json that may differ when a run is resumed, beside those that say where to compute."""


@contextmanager
def opened(folder: Path, command: str, record: dict, free: Collection[str]) -> Iterator[bool]:
    """The folder of a run, locked and with its configuration; yields whether the program has changed since.

    Args:
        command: jaxsnn.train or jaxsnn.finetune.
        record: what config.json holds, without the code's version.
        free: its keys that may differ when a run is resumed.

    Raises:
        UserError: the folder holds another run, a finished one or other files, or a process holds it.
    """
    run_folder.check_folder(folder)
    check_made_by(folder, command)
    with run_folder.locked(folder):
        path = folder / "config.json"
        held = read_json(path) if path.exists() else {}
        if held and "code" not in held:
            raise UserError(
                f"{folder} holds a run of an earlier version, which this one cannot resume: choose another --out"
            )
        code = code_version()
        run_folder.open_run(folder, plain(record) | {"code": code}, (*free, *FREE))
        run_folder.sweep(folder)
        yield (folder / CHECKPOINT).exists() and held["code"] != code


def history_until(folder: Path, epochs: int) -> list[dict]:
    """The first ``epochs`` lines of a run's history; a later one may stem from after its checkpoint."""
    path = folder / "history.jsonl"
    return run_folder.read_history(path)[:epochs] if path.exists() else []


def finish(folder: Path, results: dict) -> None:
    """Write results.json, by which a run is finished, and remove its checkpoint."""
    write_json(folder / "results.json", results)
    shutil.rmtree((folder / CHECKPOINT).parent, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """sha256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_ann(path: Path, network: Network, params: Params, notes: dict[str, str]) -> None:
    """Write an ANN's weights and, beside those of a quantised one, its ceilings as thresholds.json.

    The thresholds of weights.safetensors are thresholds.json, those of NAME.safetensors NAME-thresholds.json.
    """
    save_weights(path, network, params, notes)
    if any(layer.levels for layer in network.spiking):
        prefix = "" if path.stem == "weights" else f"{path.stem}-"
        ceilings = np.array([[ceiling(layer, params) for layer in network.spiking]])
        sha256 = sha256_of(path)
        genes = Genes(ceilings, np.full_like(ceilings, SHIFT))
        record = thresholds_record(network, path.absolute(), sha256, genes, Dynamics())
        write_json(path.with_name(f"{prefix}thresholds.json"), record)


def write_snn(
    folder: Path, network: Network, params: Params, genes: Genes, dynamics: Dynamics, notes: dict[str, str]
) -> None:
    """Write a spiking network as weights.safetensors and thresholds.json; ``genes`` are one candidate's."""
    path = folder / "weights.safetensors"
    save_weights(path, network, params, notes)
    sha256 = sha256_of(path)
    write_json(folder / "thresholds.json", thresholds_record(network, path.absolute(), sha256, genes, dynamics))


def read_snn(folder: Path) -> tuple[SNN, Genes]:
    """The network that ``write_snn`` wrote, and its genes (1, L)."""
    return load_snn(folder / "weights.safetensors")[0], Genes.from_record(read_thresholds(folder))
