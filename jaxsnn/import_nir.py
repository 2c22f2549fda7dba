"""Import a spiking network from a NIR file: python -m jaxsnn.import_nir FILE.nir --out mine.safetensors"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console

from jaxsnn.cli import command
from jaxsnn.cli.options import DebugOptions
from jaxsnn.conversion.from_nir import DT, FromNir, read_nir
from jaxsnn.errors import UserError
from jaxsnn.networks.weights import save_weights
from jaxsnn.records.thresholds_file import thresholds_record
from jaxsnn.runtime.checks import in_range
from jaxsnn.runtime.files import write_json


@dataclass(frozen=True)
class ImportNirConfig(DebugOptions):
    """Import a feed-forward network of IF or LIF nodes from a NIR file.

    Writes its weights, for --weights of the other commands, and beside them a file of thresholds, with which
    jaxsnn.evaluate and jaxsnn.export run it as it is.
    """

    file: Annotated[Path, tyro.conf.Positional]
    """A .nir file."""
    out: Path
    """File of weights to write, .safetensors; the thresholds get the same name with -thresholds.json."""
    dt: float = DT
    """Seconds a step that LIF nodes are discretised with."""


def import_nir(config: ImportNirConfig) -> FromNir:
    """Run the command."""
    console = Console()
    in_range(config, "(0, inf)", "dt")
    if config.out.suffix != ".safetensors":
        raise UserError(f"--out is {config.out}, expected a name that ends in .safetensors")
    found = read_nir(config.file, config.dt)
    network = found.snn.network
    save_weights(config.out, network, {name: np.asarray(value) for name, value in found.snn.params.items()})
    sha256 = hashlib.sha256(config.out.read_bytes()).hexdigest()
    thresholds = config.out.with_name(f"{config.out.stem}-thresholds.json")
    record = thresholds_record(network, config.out.absolute(), sha256, found.genes, found.dynamics)
    write_json(thresholds, record | ({"timesteps": found.timesteps} if found.timesteps else {}))
    steps = f", for {found.timesteps} timesteps" if found.timesteps else ""
    lines = (
        *found.notes,
        f"{len(network.spiking)} spiking layers{steps}, {found.dynamics.comparison}, no layer delay -> "
        f"{config.out}, its thresholds -> {thresholds}",
    )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return found


if __name__ == "__main__":
    command.main(ImportNirConfig, import_nir, "jaxsnn.import_nir")
