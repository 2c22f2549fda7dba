"""A run of jaxsnn.optimize whose folder is open."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxsnn.cli import command
from jaxsnn.cli.inputs import Inputs


@dataclass(frozen=True)
class OpenRun:
    """What a search works with.

    Attributes:
        config: of the command, a ``jaxsnn.optimize.OptimizeConfig``.
        identity: what a checkpoint must agree with to be this run's.
        stamp: versions and device, and content hashes, for results.json.
        started: ``time.perf_counter`` at the start of the run, time of earlier processes counted.
    """

    config: Any
    folder: Path
    console: Console
    inputs: Inputs
    identity: dict
    stamp: dict
    termination: command.Termination
    started: float

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started
