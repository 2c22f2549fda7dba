"""Checkpoints: all that a search needs to resume after a generation and end as if nothing had happened.

A checkpoint is one file: a line that names the format, the sha256 of the rest, and a safetensors file with JSON in
its header. It is written beside its place, flushed and renamed, so that it is there as a whole or not at all; the
checksum tells what a disk has done to it since. Nothing in it can run, and no size it declares is allocated before
it has been compared with the file's. The one before is kept for the case that the newest is damaged.

Orbax is made for gigabytes of arrays on many hosts. The state of a search is some ten kilobytes that one process
holds, and a folder of a dozen files whose writing can stop in between is slower and harder to check than one file
(``python -m benchmarks.kills --checkpoints`` measures both).
"""

import hashlib
import json
import re
import shlex
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from jaxsnn.errors import UserError
from jaxsnn.runtime.files import write_atomically
from jaxsnn.search.evolve import Candidate, Generation

FORMAT = b"jaxsnn checkpoint 1\n"


KEPT = 2


LARGEST = 1 << 30
"""Bytes beyond which a file is not even read."""


_COUNTS = ("number", "evaluations", "rescored", "image_evaluations")


_NUMBERS = ("mean", "spread", "seconds")


_FLAGS = ("converged", "last")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a search after a generation.

    Attributes:
        identity: of the search: its configuration, content hashes of data and weights, the code's version.
        generation: the last one, leaders and counters in it.
        engine: arrays of the engine's state (``evo.state_arrays``).
        objective: arrays of the objective's memory.
        rows: the lines of history.jsonl.
        seconds: the run's duration so far, over all its processes.
    """

    identity: dict[str, Any]
    generation: Generation
    engine: dict[str, np.ndarray]
    objective: dict[str, np.ndarray]
    rows: list[dict]
    seconds: float


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """The checkpoint as a file's content."""
    generation = checkpoint.generation
    leaders = generation.leaders
    arrays = {
        "leaders/vector": np.stack([leader.vector for leader in leaders]),
        "leaders/cost": np.array([leader.cost for leader in leaders], np.float64),
        "leaders/parts": np.array([list(leader.parts.values()) for leader in leaders], np.float64),
        "leaders/accuracy": np.stack([leader.accuracy for leader in leaders]),
    }
    arrays |= {f"engine/{name}": array for name, array in checkpoint.engine.items()}
    arrays |= {f"objective/{name}": array for name, array in checkpoint.objective.items()}
    told = {name: getattr(generation, name) for name in (*_COUNTS, *_NUMBERS, *_FLAGS)}
    state = {
        "identity": checkpoint.identity,
        "generation": told,
        "parts": list(leaders[0].parts),
        "rows": checkpoint.rows,
        "seconds": checkpoint.seconds,
    }
    payload = save_arrays(
        {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()},
        metadata={"state": json.dumps(state)},
    )
    return FORMAT + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


def from_bytes(content: bytes) -> Checkpoint:
    """The checkpoint in a file's content.

    Raises:
        ValueError: damaged, or not a checkpoint.
    """
    head = len(FORMAT) + 65
    if not content.startswith(FORMAT) or len(content) <= head:
        raise ValueError("it is cut short or not a checkpoint of this version")
    payload = content[head:]
    if content[len(FORMAT) : head] != hashlib.sha256(payload).hexdigest().encode() + b"\n":
        raise ValueError("it is damaged: its checksum is not that of its content")
    try:
        arrays = load_arrays(payload)
        # the library's own reader of headers wants a file
        header = json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])
        state = json.loads(header["__metadata__"]["state"])
        told, parts, rows = state["generation"], state["parts"], state["rows"]
        leaders = [arrays[f"leaders/{name}"] for name in ("vector", "cost", "parts", "accuracy")]
        good = (
            all(type(told[name]) is int and 0 <= told[name] < 1 << 53 for name in _COUNTS)
            and all(type(told[name]) is float for name in _NUMBERS)
            and all(type(told[name]) is bool for name in _FLAGS)
            and told["rescored"] <= told["evaluations"]
            and type(state["seconds"]) is float
            and 0 <= state["seconds"] < 1e12
            and isinstance(state["identity"], dict)
            and all(type(name) is str for name in parts)
            and all(name.isidentifier() for name in parts)
            and len(rows) == told["number"] + 1
            and all(_is_row(row, number, parts) for number, row in enumerate(rows))
            and all(array.dtype == np.float64 for array in leaders)
            and [array.ndim for array in leaders] == [2, 1, 2, 2]
            and len({len(array) for array in leaders}) == 1
            and len(leaders[1]) > 0
            and leaders[2].shape[1] == len(set(parts))
        )
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        raise ValueError(f"it holds no state of a search ({type(error).__name__}: {error})") from error
    if not good:
        raise ValueError("it holds no state of a search")
    candidates = tuple(
        Candidate(vector, float(cost), dict(zip(parts, values.tolist())), accuracy)
        for vector, cost, values, accuracy in zip(*leaders)
    )
    return Checkpoint(
        state["identity"],
        Generation(leaders=candidates, **{name: told[name] for name in (*_COUNTS, *_NUMBERS, *_FLAGS)}),
        _under("engine/", arrays),
        _under("objective/", arrays),
        rows,
        state["seconds"],
    )


def _is_row(row: Any, number: int, parts: list[str]) -> bool:
    """Whether it is the line of history.jsonl of this generation, as far as it is read again."""

    def numbers(values: Iterable[Any]) -> bool:
        return all(type(value) in (int, float) and abs(value) < 1e300 for value in values)

    return (
        isinstance(row, dict)
        and row["generation"] == number
        and list(row["parts"]) == parts
        and numbers([*row["parts"].values(), row["best_cost"], row["accuracy"], row["image_evaluations"]])
        and all(row[name] is None or numbers([row[name]]) for name in ("mean_cost", "std_cost", "latency"))
    )


def _under(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write the checkpoint into a run's folder, and remove all but the newest ``KEPT``.

    Raises:
        UserError: it cannot be written; those that are there stay.
    """
    place = folder / "checkpoints"
    path = place / f"{checkpoint.generation.number:06d}.checkpoint"
    try:
        write_atomically(path, to_bytes(checkpoint))
        for old in files(folder)[KEPT:]:
            old.unlink()
    except OSError as error:
        before = files(folder)
        then = f"resumes after generation {int(before[0].stem)}" if before else "starts again"
        raise UserError(
            f"the checkpoint of generation {checkpoint.generation.number} cannot be written ({error.strerror}: "
            f"{path}); once it can, python -m jaxsnn.optimize --resume {shlex.quote(str(folder))} {then}"
        ) from error
    return path


class Saver:
    """Saves a run's checkpoints, one every ``every`` seconds; what is taken in between waits for ``write``."""

    def __init__(self, folder: Path, every: float):
        self._folder, self._every = folder, every
        self._waiting: Checkpoint | None = None
        self._written = time.perf_counter()

    def take(self, checkpoint: Checkpoint) -> None:
        """Save the checkpoint if it is time to, otherwise keep it."""
        self._waiting = checkpoint
        if time.perf_counter() - self._written >= self._every:
            self.write()

    def write(self) -> None:
        """Save the last checkpoint that was taken, unless it is saved already."""
        if self._waiting is not None:
            save(self._folder, self._waiting)
            self._waiting, self._written = None, time.perf_counter()


def files(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder, the newest first."""
    place = folder / "checkpoints"
    found = (p for p in place.iterdir() if re.fullmatch(r"\d{6,9}\.checkpoint", p.name)) if place.is_dir() else ()
    return sorted(found, key=lambda path: int(path.stem), reverse=True)


def read(path: Path) -> Checkpoint:
    """The checkpoint in a file; raises ``UserError`` where it is damaged or not a checkpoint."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            raise ValueError(f"it is not a file of at most {LARGEST} bytes")
        return from_bytes(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} cannot be resumed from: {error}") from error


def newest(folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint in a run's folder that is whole, or None where there is none at all.

    Args:
        say: gets a sentence for every one that is damaged.

    Raises:
        UserError: there are some, all damaged.
    """
    found = files(folder)
    for path in found:
        try:
            return read(path)
        except UserError as error:
            say(str(error))
    if found:
        raise UserError(
            f"no checkpoint in {folder / 'checkpoints'} is whole: remove that folder to start this run from the "
            "beginning"
        )
    return None


def clear(folder: Path) -> None:
    """Remove the checkpoints of a run that has ended."""
    for path in files(folder):
        path.unlink()
    if (folder / "checkpoints").is_dir() and not any((folder / "checkpoints").iterdir()):
        (folder / "checkpoints").rmdir()


def check_identity(held: dict, own: dict, where: Path) -> None:
    """Raise ``UserError`` with the reason unless a checkpoint's identity is this run's."""
    reasons = {
        "code": "by another version of this program: install that one, or start a new run",
        "weights_sha256": "with another file of weights: give the right one as --weights",
        "train_sha256": "with other training images: give the right folder as --data-dir",
        "test_sha256": "with other test images: give the right folder as --data-dir",
    }
    different = sorted(key for key in held.keys() | own.keys() if held.get(key) != own.get(key))
    for key in (*reasons, *different):
        if key in different:
            why = reasons.get(key, "with another configuration: its config.json was changed, change it back")
            there, here = (str(one.get(key))[:64] for one in (held, own))
            raise UserError(f"{where} was made {why} ({key} is {there} there, {here} here)")
