"""A run's folder: everything needed to repeat, redraw or check it."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.snn import Genes
from jaxsnn.weights import write_atomically

GENES = ("thresholds", "v0", "leak", "baseline_thresholds", "baseline_v0", "baseline_leak")
"""The lists, one number per spiking layer, that thresholds.json may hold."""


def write_json(path: Path, value) -> None:
    """Write indented JSON atomically; NaN and infinity are refused, they are no JSON."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict:
    """The JSON object in ``path``; raises ``UserError`` where there is none."""
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file")
    try:
        value = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {type(value).__name__}, expected a JSON object")
    return value


def open_run(folder: Path, config: dict) -> None:
    """Make the folder and record the configuration.

    Raises:
        UserError: the folder holds a run with another configuration, or other files.
    """
    record = folder / "config.json"
    if record.exists():
        held = read_json(record)
        keys = (held.keys() | config.keys()) - {"versions", "device"}
        different = sorted(key for key in keys if held.get(key) != config.get(key))
        if not different and (folder / "results.json").exists():
            raise UserError(f"{folder} already holds this run with its results: choose another --out")
        if different:
            key = different[0]
            raise UserError(
                f"{folder} already holds a run with another configuration ({key} is {held.get(key)} there, "
                f"{config.get(key)} here): choose another --out"
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not a run folder: choose another --out")
    write_json(record, config)


def write_history(folder: Path, rows: Sequence[dict]) -> None:
    """history.jsonl: a line per generation, rewritten as a whole so that no line is ever half there."""
    lines = [json.dumps(row, allow_nan=False) for row in rows]
    write_atomically(folder / "history.jsonl", ("\n".join(lines) + "\n").encode())


def write_curves(folder: Path, **arrays: np.ndarray) -> None:
    """curves.npz: arrays by name."""
    from io import BytesIO

    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(folder / "curves.npz", buffer.getvalue())


def read_thresholds(path: Path) -> dict:
    """thresholds.json of a run folder, or a file like it.

    It needs a list ``thresholds``; the rest of what ``jaxsnn.optimize`` writes there is optional. Lists of
    numbers are given as float64 arrays.

    Raises:
        UserError: no such file, or entries of the wrong kind.
    """
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


def plain(value):
    """The value as it comes back from JSON, so that what is written equals what is read."""
    return json.loads(json.dumps(value, allow_nan=False))


def genes_to_json(genes: Genes) -> dict:
    """One candidate's genes as lists; v0 and leak are None where they are not set."""
    lists = [None if part is None else np.asarray(part, np.float64)[0].tolist() for part in genes]
    return dict(zip(("thresholds", "v0", "leak"), lists))
