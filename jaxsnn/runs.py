"""List the runs of jaxsnn.optimize in a folder, the newest first: python -m jaxsnn.runs [FOLDER]"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jaxsnn.cli import command
from jaxsnn.records.listing import Run, find_runs


@dataclass(frozen=True)
class RunsConfig:
    """List the runs of jaxsnn.optimize in a folder, the newest first, with their state and their best result.

    running: a process is at it. interrupted: none is, and --resume goes on. stopped: ended early by Ctrl-C, with
    results. finished: ended by itself.
    """

    folder: Annotated[Path, tyro.conf.Positional] = Path("runs")
    """Folder of the runs' folders, or one run's."""
    debug: bool = False
    """Show where an error came from."""


def runs_table(runs: list[Run]) -> Table:
    """A line for each run."""
    table = Table(
        box=box.SIMPLE,
        pad_edge=False,
        caption="accuracy on test images, timesteps to the ANN's less 1 point: baseline > optimised, - never",
    )
    for name in ("run", "state", "changed"):
        table.add_column(name, overflow="fold", no_wrap=name != "run")
    for name in ("generation", "cost", "accuracy", "steps"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        generation = "" if run.generation is None else str(run.generation)
        steps = run.steps and " > ".join("-" if step is None else str(step) for step in run.steps)
        table.add_row(
            escape(run.folder.name or str(run.folder)),
            run.state,
            f"{datetime.fromtimestamp(run.changed):%m-%d %H:%M}",
            generation + (f"/{run.generations}" if generation and run.generations is not None else ""),
            "" if run.cost is None else f"{run.cost:.2f}",
            "" if run.accuracy is None else f"{100 * run.accuracy:.2f} %",
            steps or "",
        )
    return table


def list_runs(config: RunsConfig) -> list[Run]:
    """Run the command; returns the runs."""
    console = Console()
    runs = find_runs(config.folder)
    if not runs:
        console.print(f"no runs of jaxsnn.optimize in {config.folder}", highlight=False, markup=False)
        return runs
    console.print(runs_table(runs))
    for run in runs:
        if run.note:
            console.print(f"{run.folder.name}: {run.note}", highlight=False, markup=False, soft_wrap=True)
    return runs


if __name__ == "__main__":
    command.main(RunsConfig, list_runs, "jaxsnn.runs")
