"""Options of the commands that read a finished run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class RunOptions:
    """Which run, and where its files are now."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a finished run."""
    weights: Path | None = None
    """The run's weights file, where it has moved."""
    data_dir: Path | None = None
    """Folder of the run's dataset, where it has moved."""
