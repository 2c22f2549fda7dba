"""Weights on disk: safetensors with the network description in the header. Nothing in such a file can run."""

import json
from importlib import resources
from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from jaxsnn.errors import UserError
from jaxsnn.networks.description import Arrays, Network, Params, shapes_of
from jaxsnn.networks.json_format import from_json, to_json
from jaxsnn.runtime.files import write_atomically


def save_weights(path: Path, network: Network, params: Params, notes: dict[str, str] | None = None) -> None:
    """Save parameters (any float dtype) with their network; ``notes`` are strings kept in the header."""
    arrays = {name: np.ascontiguousarray(value) for name, value in params.items()}
    write_atomically(path, _sorted(save(arrays, metadata={"network": to_json(network)} | (notes or {}))))


def _sorted(content: bytes) -> bytes:
    """A safetensors file with its header in one order, so that equal networks are equal files."""
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(
        json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    header += b" " * (-len(header) % 8)  # arrays are aligned to eight bytes
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def describes_network(path: Path) -> bool:
    """Whether ``path`` is a safetensors file with a network description in its header."""
    if not path.is_file():  # a FIFO would be waited for
        return False
    try:
        with safe_open(path, framework="numpy") as file:
            return "network" in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError, TypeError):
        return False


def load_weights(path: Path | str) -> tuple[Network, Params, dict[str, str]]:
    """Network, float32 parameters and notes of a weights file; raises ``UserError`` where they do not fit."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no weights file at {path}; give --weights a .safetensors file written by jaxsnn.train")
    try:
        with safe_open(path, framework="numpy") as file:
            notes = file.metadata() or {}
            params = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error})") from error
    if "network" not in notes:
        raise UserError(f"{path} has no network description in its header; jaxsnn.train writes one")
    try:
        network = from_json(notes.pop("network"))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return network, check_params(network, params, str(path)), notes


def check_params(network: Network, params: Params, where: str) -> Params:
    """The parameters as float32, or a ``UserError`` that names the first that does not match the network."""
    expected = shapes_of(network)
    for name, shape in expected.items():
        if name not in params:
            raise UserError(f"{where}: {name} is missing; network {network.name} expects shape {shape}")
        if params[name].shape != shape:
            raise UserError(
                f"{where}: {name} has shape {params[name].shape}, network {network.name} expects {shape}"
            )
        if not np.isfinite(params[name]).all():
            raise UserError(f"{where}: {name} holds NaN or infinite values")
    extra = sorted(params.keys() - expected.keys())
    if extra:
        raise UserError(f"{where}: {extra[0]} belongs to no layer of network {network.name}")
    return {name: np.asarray(params[name], np.float32) for name in expected}


def embedded_path() -> Path:
    """The weights of the network that comes with the package."""
    return Path(str(resources.files("jaxsnn") / "embedded" / "vgg8_cifar10.safetensors"))


def to_device(params: Arrays) -> dict[str, jax.Array]:
    """The parameters as device arrays."""
    return {name: jax.numpy.asarray(value) for name, value in params.items()}
