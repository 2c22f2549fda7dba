"""One search on one device, on several, and in several processes: same result, and how fast.

    python -m benchmarks.scaling

Every way runs `python -m jaxsnn.optimize` with the same seed in processes of its own, with XLA in int8 on the
embedded network; a CPU pretends to be eight devices (XLA_FLAGS), and the processes talk over localhost by gloo
collectives. The last row resumes, on one device, a run that eight devices had begun and SIGTERM ended. On the
cores of one machine several devices are not faster: the figures say what dividing the work costs there. The rate
is that of the generations after the first, so that compiling is left out.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import command
from benchmarks.kills import outcome
from jaxsnn.cli.options import DebugOptions
from jaxsnn.errors import UserError
from jaxsnn.runtime.checks import at_least

SEARCH = {
    "backend": "xla",
    "precision": "int8",
    "population": "8",
    "generations": "6",
    "images": "96",
    "timesteps": "30",
    "test-timesteps": "30",
    "test-images": "64",
    "calibration-images": "100",
    "finalists": "2",
    "final-images": "96",
    "limit": "0",
    "tol": "0",
}


OPTIONS = [part for name, value in SEARCH.items() for part in (f"--{name}", value)]


TIMESTEPS = 20
"""Those of ``SEARCH`` that are simulated: without the ten silent ones."""


DEVICES = {"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type= --xla_force_host_platform_device_count=8"}


ALONE = {"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type="}


@dataclass(frozen=True)
class Config(DebugOptions):
    """Compare one search on one device, on eight pretended ones, and in two processes."""

    processes: int = 2
    """Processes of the way with several, at least two."""


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def start(arguments: list[str], environment: dict[str, str], processes: int = 1) -> list[subprocess.Popen]:
    """The processes of one run of jaxsnn.optimize."""
    called = [sys.executable, "-m", "jaxsnn.optimize", *arguments]
    joined = ["--coordinator", f"localhost:{free_port()}", "--processes", str(processes), "--process-id"]
    return [
        subprocess.Popen(
            called if processes == 1 else [*called, *joined, str(number)],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(processes)
    ]


def finish(children: list[subprocess.Popen]) -> str:
    """Wait for the processes; what the first one printed.

    Raises:
        UserError: one of them failed.
    """
    printed = [child.communicate()[0] for child in children]
    for child, text in zip(children, printed):
        if child.returncode:
            said = text.strip().splitlines() or ["nothing was printed"]
            raise UserError(f"jaxsnn.optimize ended with exit code {child.returncode}: {said[-1]}")
    return printed[0]


def rate(folder: Path) -> float:
    """Executed image x timestep x candidate a second, of the generations after the first."""
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    seconds = sum(row["seconds"] for row in rows[1:])
    return (rows[-1]["image_evaluations"] - rows[0]["image_evaluations"]) * TIMESTEPS / seconds


def interrupted(folder: Path) -> None:
    """A run on eight devices that SIGTERM ended after a generation."""
    (child,) = start([*OPTIONS, "--mesh", "pop=4,data=2", "--out", str(folder)], DEVICES)
    while not any((folder / "checkpoints").glob("000002.checkpoint")) and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    if not re.search("stopped by SIGTERM", finish([child])):
        raise UserError("the run on eight devices ended before it could be stopped")


@dataclass(frozen=True)
class Way:
    """One way to run the search.

    Attributes:
        arguments: of jaxsnn.optimize; None: a run that eight devices begin and one device ends.
        environment: variables that its processes get in addition.
    """

    name: str
    arguments: list[str] | None
    environment: dict[str, str]
    processes: int = 1

    def run(self, folder: Path) -> None:
        """Run the search in ``folder``."""
        if self.arguments is None:
            interrupted(folder)
            finish(start(["--resume", str(folder), "--mesh", "pop=1,data=1"], self.environment))
        else:
            finish(start([*self.arguments, "--out", str(folder)], self.environment, self.processes))


def main(config: Config) -> None:
    """Run all ways, print the table; exit code 1 where results differ."""
    at_least(config, processes=2)
    ways = (
        Way("one device", OPTIONS, ALONE),
        Way("eight devices, pop=4,data=2", [*OPTIONS, "--mesh", "pop=4,data=2"], DEVICES),
        Way(f"{config.processes} processes, gloo", OPTIONS, ALONE, config.processes),
        Way("begun on eight devices, ended on one", None, ALONE),
    )
    table = Table("way", "same result", "itc/s", "against one device")
    console = Console()
    differ = False
    with tempfile.TemporaryDirectory() as scratch, console.status("") as status:
        reference = Path(scratch) / "0"
        for number, way in enumerate(ways):
            status.update(way.name)
            folder = Path(scratch) / str(number)
            way.run(folder)
            same = outcome(folder) == outcome(reference)
            differ |= not same
            whole = way.arguments is not None
            rates = (f"{rate(folder):,.0f}", f"{rate(folder) / rate(reference):.2f}") if whole else ("", "")
            table.add_row(way.name, "yes" if same else "NO", *rates)
    console.print(table)
    if differ:
        sys.exit(1)


if __name__ == "__main__":
    command.run(Config, main, "scaling", __doc__)
