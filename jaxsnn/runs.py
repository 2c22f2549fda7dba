"""List the runs in a folder, the newest first: python -m jaxsnn.runs [FOLDER]"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro
from rich import box
from rich.markup import escape
from rich.table import Table

from jaxsnn.cli import command
from jaxsnn.cli.options import DebugOptions
from jaxsnn.records.listing import Run, find_runs


@dataclass(frozen=True)
class RunsConfig(DebugOptions):
    """List the runs of jaxsnn.optimize, jaxsnn.train and jaxsnn.finetune in a folder, the newest first, with their
    state and their best result.

    running: a process is working on it. interrupted: none is, and it can be resumed. stopped: ended early by
    Ctrl-C, with results. finished: ended by itself.
    """

    folder: Annotated[Path, tyro.conf.Positional] = Path("runs")
    """Folder of the runs' folders, or one run's."""


def runs_table(runs: Sequence[Run]) -> Table:
    """A line for each run."""
    table = Table(
        box=box.SIMPLE,
        pad_edge=False,
        caption="lowest cost or training loss; accuracy on test images, while training on held-out ones; "
        "timesteps to the ANN's accuracy less 1 point: baseline > optimised, - never",
    )
    for name in ("run", "command", "state", "changed"):
        table.add_column(name, overflow="fold", no_wrap=name != "run")
    for name in ("done", "cost", "accuracy", "steps"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        done = "" if run.done is None else str(run.done)
        steps = run.steps and " > ".join("-" if step is None else str(step) for step in run.steps)
        table.add_row(
            escape(run.folder.name or str(run.folder)),
            run.command.removeprefix("jaxsnn."),
            run.state,
            f"{datetime.fromtimestamp(run.changed):%m-%d %H:%M}",
            done + (f"/{run.planned}" if done and run.planned is not None else ""),
            "" if run.cost is None else f"{run.cost:.2f}",
            "" if run.accuracy is None else f"{100 * run.accuracy:.2f} %",
            steps or "",
        )
    return table


def list_runs(config: RunsConfig) -> list[Run]:
    """Run the command; returns the runs."""
    console = command.TextConsole()
    runs = find_runs(config.folder)
    if not runs:
        console.print(f"no runs in {config.folder}", highlight=False, markup=False)
        return runs
    console.print(runs_table(runs))
    for run in runs:
        if run.note:
            console.print(f"{run.folder.name}: {run.note}", highlight=False, markup=False, soft_wrap=True)
    return runs


if __name__ == "__main__":
    command.main(RunsConfig, list_runs, "jaxsnn.runs")
