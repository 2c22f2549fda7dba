"""The runs in a folder and what became of them."""

from dataclasses import dataclass
from pathlib import Path

from jaxsnn.errors import UserError
from jaxsnn.records import run_folder
from jaxsnn.runtime.files import read_json
from jaxsnn.search import checkpoint

STATES = ("running", "interrupted", "stopped", "finished", "damaged")


@dataclass(frozen=True)
class Run:
    """One run, as far as its folder tells.

    Attributes:
        state: one of ``STATES``.
        generation, generations: of the last one and of the last planned; None where the folder does not tell.
        cost: lowest so far, on training images.
        accuracy, steps: once it is finished, the optimised network's last accuracy on test images, and the
            baseline's and its own timesteps to the ANN's less 1 point (None: never).
        changed: when something in the folder last changed, in seconds since the epoch.
        note: what is damaged, or how to go on.
    """

    folder: Path
    state: str
    generation: int | None
    generations: int | None
    cost: float | None
    accuracy: float | None
    steps: tuple[int | None, int | None] | None
    changed: float
    note: str


def read_run_state(folder: Path) -> Run | None:
    """What a folder tells of its run; None where it is no folder of a run of jaxsnn.optimize.

    Files that cannot be read make it "damaged", never an error.
    """
    record = folder / "config.json"
    if not record.is_file():
        return None
    known = [path for path in (*folder.iterdir(), *checkpoint.files(folder)) if not path.is_symlink()]
    changed = max(path.stat().st_mtime for path in [folder, *known])
    running = run_folder.is_locked(folder)
    try:
        config = read_json(record)
        if "population" not in config:
            return None
        rows = run_folder.read_history(folder / "history.jsonl") if (folder / "history.jsonl").is_file() else []
        finished = (folder / "results.json").is_file()
        results = read_json(folder / "results.json") if finished else {}
        last = rows[-1] if rows else {}
        accuracy = steps = None
        if finished:
            accuracy = float(results["optimized"]["accuracy"][-1])
            row = next(row for row in results["latency"] if row["target_name"] == "ANN - 1")
            steps = row["baseline_timesteps"], row["optimized_timesteps"]
        state = ("stopped" if results["stopped_early"] else "finished") if finished else "interrupted"
        run = Run(
            folder,
            "running" if running else state,
            last.get("generation"),
            None if config.get("engine") == "lshade" else config.get("generations"),
            None if last.get("best_cost") is None else float(last["best_cost"]),
            accuracy,
            steps,
            changed,
            f"--resume {folder}" if state == "interrupted" and not running else "",
        )
    except (UserError, LookupError, TypeError, ValueError, AttributeError, StopIteration, OSError) as error:
        note = (
            str(error) if isinstance(error, UserError) else f"a file in it is not a run's ({type(error).__name__})"
        )
        return Run(folder, "running" if running else "damaged", None, None, None, None, None, changed, note)
    return run


def find_runs(folder: Path) -> list[Run]:
    """The runs in a folder, or the one that it is, the newest first.

    Raises:
        UserError: no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give the one that holds the runs' folders")
    places = [folder, *(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())]
    runs = [run for place in places if (run := read_run_state(place)) is not None]
    return sorted(runs, key=lambda run: (run.changed, run.folder), reverse=True)
