"""What jaxsnn.train and jaxsnn.finetune do around their work."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from jaxsnn.cli import command
from jaxsnn.records import run_folder, training_run
from jaxsnn.records.listing import how_to_resume, resumable
from jaxsnn.training.loop import Batches, Descent, Place, descend, load_checkpoint, save_checkpoint

SAVING = 1.0, 0.05
"""Seconds that checkpoints may take in all, and beyond them their share of the time: a VGG15's has 135 MB."""


@contextmanager
def training_session(
    console: Console, folder: Path, name: str, record: dict, free: Collection[str]
) -> Iterator[command.Termination]:
    """The folder of a run, locked and with its configuration; SIGTERM says how the run is resumed and leaves.

    Args:
        name: of the command.
        record, free: see ``training_run.opened``.

    Raises:
        UserError: the folder holds another run, a finished one or other files, or a process holds it.
    """

    def goodbye() -> None:
        sentence = f"stopped by SIGTERM; {how_to_resume(folder, name)} resumes the run"
        console.print(sentence, highlight=False, soft_wrap=True, markup=False)

    with (
        command.leave_on_termination(goodbye) as termination,
        training_run.opened(folder, name, record, free) as changed,
        resumable(folder, name),
    ):
        if changed:
            command.warn(
                console,
                f"the program has changed since the run in {folder} was started: its result may differ from "
                "that of either version",
            )
        yield termination


def run_training(
    folder: Path,
    descent: Descent,
    batches: Batches,
    epochs: int,
    bar: Progress,
    termination: command.Termination,
    row_at: Callable[[Place, list[dict]], dict | None],
    asked: list | None = None,
    wait: int = 1,
) -> tuple[list[dict], float]:
    """Train to the last epoch, or until ``asked``, from where the run's folder stands; SIGTERM saves and leaves.

    Args:
        row_at: called with every place at which training is saved and the lines of history so far; returns the
            line for it, or None for none.
        asked: not empty when the user wants to stop.
        wait: see ``descend``.

    Returns:
        the lines of history.jsonl, and the seconds that earlier processes spent on this run's training.
    """
    checkpoint = folder / training_run.CHECKPOINT
    begin = load_checkpoint(checkpoint, descent) if checkpoint.exists() else Place()
    rows = training_run.history_until(folder, begin.epochs)
    before = sum(row["seconds"] for row in rows) + (0 if begin.whole else begin.seconds)
    if begin.epoch:
        within = "" if begin.whole else f" and {len(begin.scalars)} steps"
        bar.console.print(f"resuming after epoch {begin.epochs} of {epochs}{within}", highlight=False)
    done = begin.steps(batches)
    task = bar.add_task("training", total=epochs * batches.steps, completed=done, note="compiling")

    def progress(place: Place) -> None:
        note = f"epoch {place.epoch}/{epochs}, loss {place.scalars[-wait:, 0].mean():.3f}"
        bar.update(task, completed=place.steps(batches), note=note)

    def stop() -> bool:
        return bool(asked) or termination.asked

    began, saving = time.perf_counter(), 0.0
    termination.deferred = True  # a step is finished and saved first
    for place in descend(descent, batches, epochs, begin, wait=wait, asked=stop, progress=progress):
        row = row_at(place, rows)
        if row is not None:
            rows.append(row)
            run_folder.write_history(folder, rows)
        now = time.perf_counter()
        if stop() or saving < SAVING[0] + SAVING[1] * (now - began):
            save_checkpoint(checkpoint, descent, place)
            saving += time.perf_counter() - now
        if termination.asked:
            termination.leave()
    termination.deferred = False
    return rows, before
