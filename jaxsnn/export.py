"""Write a run's spiking network for other programs: python -m jaxsnn.export RUN --to {nir,torch,npz}"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.filesize import decimal

from jaxsnn.cli import command
from jaxsnn.cli.options import DebugOptions
from jaxsnn.exports.nir_readers import says
from jaxsnn.exports.write import files_of, write_files
from jaxsnn.records.exported_run import read_converted
from jaxsnn.runtime.checks import at_least


@dataclass(frozen=True)
class ExportConfig(DebugOptions):
    """Write the spiking network of a run, or of a file of thresholds, for other programs.

    nir: network.nir, and a program that runs it in the --target. torch: network.py, a module of its own that needs
    PyTorch alone, and its weights. npz: the integers of --precision int8, and how to run them.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run, or a file of thresholds."""
    to: Literal["nir", "torch", "npz"]
    point: int | None = None
    """Of a run's frontier, the point of this number; default: its most accurate one."""
    out: Path | None = None
    """Folder for the files; default: export-nir, export-torch or export-npz in the run's folder."""
    target: Literal["snntorch", "spikingjelly", "norse", "sinabs", "lava"] = "snntorch"
    """The reader that a NIR file is for: they disagree on pools and on the unit of currents."""
    v0: Literal["metadata", "bias"] = "metadata"
    """Initial membranes, which NIR lacks: in the metadata of its nodes, which the program beside it reads, or
    in the biases, a part at every step, for a reader that knows of none."""
    baseline: bool = False
    """The run's baseline in place of what the search found."""
    timesteps: int | None = None
    """T, counted as the run counts it; default: the run's --timesteps, or 100 for a file of thresholds alone."""
    weights: Path | None = None
    """Trained ANN; default: the one that the thresholds name, or the embedded network."""
    network: str | None = None
    """Network of weights that do not describe it, a name or FILE.json; default: the one the thresholds name."""


def export(config: ExportConfig) -> list[Path]:
    """Run the command; returns the paths of the files."""
    console = command.TextConsole()
    at_least(config, timesteps=1)
    converted = read_converted(
        config.run, config.weights, config.network, config.baseline, config.timesteps, console.out, config.point
    )
    folder = config.run if config.run.is_dir() else config.run.parent
    files = files_of(converted, config.to, config.target, config.v0)
    written = write_files(config.out or folder / f"export-{config.to}", files)
    counted = f" ({converted.timesteps} with one step of delay per layer)" if converted.silent else ""
    dynamics = converted.dynamics
    fires = dynamics.comparison if dynamics.most == 1 else f"up to {dynamics.most} spikes a neuron and step"
    lines = [
        f"{converted.network.name}, {converted.steps} steps{counted}, {fires}, reset by subtraction",
        *(f"  {path}, {decimal(path.stat().st_size)}" for path in written),
    ]
    if config.to == "nir":
        lines.append(says(converted, config.target, config.v0))
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return written


if __name__ == "__main__":
    command.main(ExportConfig, export, "jaxsnn.export")
