"""Write a spiking network for other programs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.exports.converted import Converted
from jaxsnn.exports.integers import integer_files
from jaxsnn.exports.nir_readers import nir_files
from jaxsnn.exports.torch_module import torch_files
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.runtime.files import write_atomically

FORMATS: dict[str, Callable[[Converted], dict[str, bytes]]] = {
    "nir": nir_files,
    "torch": torch_files,
    "npz": integer_files,
}


def files_of(converted: Converted, to: str, target: str = "snntorch", v0: str = "metadata") -> dict[str, bytes]:
    """Contents by file name; arguments as in ``export_network``."""
    if to not in FORMATS:
        raise UserError(f"to is {to!r}, expected one of {', '.join(FORMATS)}")
    return nir_files(converted, target, v0) if to == "nir" else FORMATS[to](converted)


def export_network(
    snn: SNN,
    genes: Genes,
    folder: Path | str,
    *,
    to: str,
    timesteps: int,
    dynamics: Dynamics = Dynamics(),
    target: str = "snntorch",
    v0: str = "metadata",
) -> list[Path]:
    """Write a spiking network for other programs; returns the paths of the files.

    Args:
        genes: one candidate, (1, L) or (L,).
        to: "nir"; "torch", a module in one file with its weights; "npz", the int8 arithmetic as integers.
        timesteps: T in the convention of ``dynamics.delay``.
        target: the reader that a NIR file is for: snntorch, spikingjelly, norse, sinabs or lava.
        v0: of a NIR file: initial membranes in the "metadata" of its nodes, or in the "bias" of its maps.

    Raises:
        UserError: something that the format cannot express, or a package that is missing.

    >>> import tempfile, numpy, jaxsnn
    >>> snn = jaxsnn.load()
    >>> genes = jaxsnn.Genes(numpy.ones(len(snn.network.spiking)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print([path.name for path in jaxsnn.export_network(snn, genes, folder, to="torch", timesteps=40)])
    ['network.py', 'network.safetensors']
    """
    converted = Converted(snn, genes.map(np.atleast_2d), dynamics, timesteps)
    return write_files(Path(folder), files_of(converted, to, target, v0))


def write_files(folder: Path, files: dict[str, bytes]) -> list[Path]:
    """Write the files into the folder, each whole or not at all."""
    for name, content in files.items():
        write_atomically(folder / name, content)
    return [folder / name for name in files]
