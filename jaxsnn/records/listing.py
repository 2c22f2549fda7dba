"""The runs in a folder: which command made each, and what became of it."""

import errno
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jaxsnn.errors import UserError
from jaxsnn.records import run_folder
from jaxsnn.runtime.files import read_json

STATES = ("running", "interrupted", "stopped", "finished", "damaged")

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""Errors of a disk that is full, or may not be written any more."""

COMMANDS = {"jaxsnn.optimize": "population", "jaxsnn.train": "label_smoothing", "jaxsnn.finetune": "neuron_rate"}
"""The commands that make runs, each with a setting in config.json that no other one has."""


@dataclass(frozen=True)
class Run:
    """One run, as far as its folder tells.

    Attributes:
        command: one of ``COMMANDS``.
        state: one of ``STATES``.
        done, planned: the last generation or epoch, and the last planned; None where the folder does not tell.
        cost: lowest so far, on training images; in training the lowest mean loss of an epoch.
        accuracy: on test images, of the optimised or trained network once it is finished. Before that, the best on
            images that jaxsnn.train held out.
        steps: once it is finished, the baseline's and the optimised network's timesteps to the ANN's accuracy less
            1 point (None: never); of jaxsnn.train None.
        changed: when something in the folder last changed, in seconds since the epoch.
        note: what is damaged, or how the run is resumed.
    """

    folder: Path
    command: str
    state: str
    done: int | None = None
    planned: int | None = None
    cost: float | None = None
    accuracy: float | None = None
    steps: tuple[int | None, int | None] | None = None
    changed: float = 0.0
    note: str = ""


def made_by(folder: Path) -> str | None:
    """Which of ``COMMANDS`` made the run in a folder; None where there is no run.

    Raises:
        UserError: its config.json cannot be read.
    """
    record = folder / "config.json"
    return command_of(read_json(record)) if record.is_file() else None


def command_of(config: dict) -> str | None:
    """Which of ``COMMANDS`` a run's configuration belongs to; None for none."""
    return next((command for command, setting in COMMANDS.items() if setting in config), None)


def how_to_resume(folder: Path, command: str) -> str:
    """What resumes the run of a command."""
    if command == "jaxsnn.optimize":
        return f"python -m jaxsnn.optimize --resume {shlex.quote(str(folder))}"
    return f"python -m {command} --out {shlex.quote(str(folder))} with the options it was started with"


@contextmanager
def resumable(folder: Path, command: str) -> Iterator[None]:
    """A file that the disk has no room for ends the run in a sentence: which file, and how the run goes on."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise UserError(
            f"{error.filename or folder} cannot be written ({error.strerror}); once it can, "
            f"{how_to_resume(folder, command)} continues the run"
        ) from error


def check_made_by(folder: Path, command: str) -> None:
    """Raise ``UserError`` where the folder holds a run of another command, with what resumes that one."""
    found = made_by(folder)
    if found not in (None, command):
        raise UserError(
            f"{folder} holds a run of {found}, not of {command}: {how_to_resume(folder, found)} resumes it"
        )


def read_run_state(folder: Path) -> Run | None:
    """What a folder tells of its run; None where it is not the folder of a run.

    Files that cannot be read make it "damaged", never an error.
    """
    record = folder / "config.json"
    if not record.is_file():
        return None
    places = [folder, *folder.iterdir(), *(folder / "checkpoints").glob("*.checkpoint")]
    changed = max(path.stat().st_mtime for path in places if path == folder or not path.is_symlink())
    running = run_folder.is_locked(folder)
    command = "jaxsnn.optimize"
    try:
        config = read_json(record)
        found = command_of(config)
        if found is None:
            return None
        command = found
        path = folder / "history.jsonl"
        rows = run_folder.read_history(path) if path.is_file() else []
        path = folder / "results.json"
        results = read_json(path) if path.is_file() else None
        state = _state(folder, command, results)
        return Run(
            folder,
            command,
            "running" if running else state,
            *_progress(command, config, rows),
            _accuracy(command, results, rows),
            None if results is None or command == "jaxsnn.train" or "frontier" in results else _steps(results),
            changed,
            how_to_resume(folder, command) if state == "interrupted" and not running else "",
        )
    except (UserError, LookupError, TypeError, ValueError, AttributeError, StopIteration, OSError) as error:
        note = (
            str(error) if isinstance(error, UserError) else f"a file in it is not a run's ({type(error).__name__})"
        )
        return Run(folder, command, "running" if running else "damaged", changed=changed, note=note)


def _state(folder: Path, command: str, results: dict | None) -> str:
    if results is not None:
        return "stopped" if results["stopped_early"] else "finished"
    # earlier versions of jaxsnn.train wrote no results.json, had no folder of checkpoints, and wrote weights last
    earlier = command == "jaxsnn.train" and not (folder / "checkpoints").exists()
    return "finished" if earlier and (folder / "weights.safetensors").is_file() else "interrupted"


def _progress(command: str, config: dict, rows: list[dict]) -> tuple[int | None, int | None, float | None]:
    """The last generation or epoch, the last planned, and the lowest cost or loss."""
    if command == "jaxsnn.optimize":
        last = rows[-1] if rows else {}
        # L-SHADE's generations shrink, so it does more of them than it was given
        planned = None if config.get("engine") == "lshade" else config.get("generations")
        return last.get("generation"), planned, _number(last.get("best_cost"))
    losses = [float(row["loss"]) for row in rows]
    return rows[-1]["epoch"] if rows else None, config.get("epochs"), min(losses, default=None)


def _accuracy(command: str, results: dict | None, rows: list[dict]) -> float | None:
    if command == "jaxsnn.train":
        held_out = (float(row["held_out_accuracy"]) for row in rows if "held_out_accuracy" in row)
        return max(held_out, default=None) if results is None else float(results["test_accuracy"])
    if results is not None and "frontier" in results:
        return float(results["frontier"]["accuracy"])
    return None if results is None else float(results["optimized"]["accuracy"][-1])


def _steps(results: dict) -> tuple[int | None, int | None]:
    row = next(row for row in results["latency"] if row["target_name"] == "ANN - 1")
    return row["baseline_timesteps"], row["optimized_timesteps"]


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def find_runs(folder: Path) -> list[Run]:
    """The runs in a folder, or the one that it is, the newest first.

    Raises:
        UserError: no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the one that holds the runs' folders")
    places = [folder, *(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())]
    runs = [run for place in places if (run := read_run_state(place)) is not None]
    return sorted(runs, key=lambda run: (run.changed, run.folder), reverse=True)
