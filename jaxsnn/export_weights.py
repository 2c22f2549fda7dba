"""Export a trained network to PyTorch: python -m jaxsnn.export_weights WEIGHTS --out FILE.pt"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxsnn.cli import command
from jaxsnn.cli.options import DebugOptions
from jaxsnn.conversion.state_dicts import require_torch
from jaxsnn.conversion.torch_twin import sequential, state_dict
from jaxsnn.errors import UserError
from jaxsnn.networks.json_format import to_json
from jaxsnn.networks.weights import load_weights
from jaxsnn.runtime.files import write_atomically


@dataclass(frozen=True)
class ExportConfig(DebugOptions):
    """Write a network of ours as a PyTorch state_dict, and its description beside it.

    Networks without shortcuts get the keys of an nn.Sequential, whose modules are printed; others are keyed by
    their ops' names (those of torchvision, for the ResNets here). The way back is jaxsnn.import_weights FILE.pt
    --network FILE.json.
    """

    weights: Annotated[Path, tyro.conf.Positional]
    """A .safetensors file of jaxsnn.train or jaxsnn.import_weights."""
    out: Path
    """File to write, .pt or .pth; the description gets the same name with .json."""


def export_weights(config: ExportConfig) -> None:
    """Run the command."""
    console = command.TextConsole()
    if config.out.suffix not in (".pt", ".pth"):
        raise UserError(f"--out is {config.out}, expected a name that ends in .pt or .pth")
    torch = require_torch(f"writing {config.out}")
    network, params, _ = load_weights(config.weights)
    content = io.BytesIO()
    torch.save(state_dict(network, params), content)
    description = config.out.with_suffix(".json")
    write_atomically(config.out, content.getvalue())
    write_atomically(description, (json.dumps(json.loads(to_json(network)), indent=2) + "\n").encode())
    lines = sequential(network)
    if lines is not None:
        console.print("nn.Sequential(", highlight=False)
        for position, (_, expression) in enumerate(lines):
            console.print(f"    {expression},  # {position}", highlight=False, markup=False)
        console.print(")", highlight=False)
    console.print(f"{network.name} -> {config.out}, its description -> {description}", highlight=False)


if __name__ == "__main__":
    command.main(ExportConfig, export_weights, "jaxsnn.export_weights")
