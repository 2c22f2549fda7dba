"""Weights that other programs wrote: PyTorch ``state_dict`` files and plain safetensors, as modules of arrays.

A ``state_dict`` maps ``<module>.<part>`` to tensors. Nothing in a file is run, and PyTorch is not needed to
read one (``jaxsnn.conversion.torch_file``).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from jaxsnn.conversion.torch_file import EXPORT, read_torch_file
from jaxsnn.conversion.torch_pickle import Inert, Name, Storage, Tensor
from jaxsnn.errors import UserError
from jaxsnn.networks.description import LONGEST_NAME, is_name

CONVOLUTION, LINEAR, NORM = "convolution", "linear map", "norm"


_PARTS = ("weight", "bias", "running_mean", "running_var")


_COUNTER = "num_batches_tracked"  # of BatchNorm


_WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile


@dataclass(frozen=True)
class Module:
    """One module of a file.

    Attributes:
        name: its prefix in the file ("features.0").
        kind: ``CONVOLUTION``, ``LINEAR`` or ``NORM``.
        tensors: float32 by part, in PyTorch's layout: weight (O, I, k, k), (O, I) or (C,), bias, running_mean and
            running_var (O,) or (C,).
    """

    name: str
    kind: str
    tensors: dict[str, np.ndarray]

    def key(self, part: str) -> str:
        """The file's key of a part."""
        return f"{self.name}.{part}" if self.name else part


@dataclass(frozen=True)
class ForeignFile:
    """Modules in the order of the file, and what was done to read them or was left out, a sentence each."""

    path: Path
    modules: tuple[Module, ...]
    notes: tuple[str, ...]


def has_torch() -> bool:
    """Whether PyTorch is installed."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


def require_torch(why: str) -> Any:
    """The ``torch`` package, or a ``UserError`` that says how to get it."""
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f'{why} needs PyTorch, which is not installed: install torch, or this package with its extra "torch"'
        ) from error
    return torch


def read_foreign(path: Path) -> ForeignFile:
    """Read a PyTorch file, or a safetensors file if it is named so.

    Raises:
        UserError: no such file, no tensors in it, or tensors that no convertible network has.
    """
    if not path.is_file():
        raise UserError(f"no weights file at {path}; give a .safetensors file or a PyTorch state_dict (.pt, .pth)")
    tensors, notes = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    tensors, unwrapped = _unwrap(tensors)
    arrays = {key: _widen(key, value, path) for key, value in tensors.items()}
    kinds = {str(value.dtype) for value in tensors.values() if value.ndim} - {"float32"}
    if kinds:
        notes = [*notes, f"tensors of {' and '.join(sorted(kinds))} are used as float32"]
    counters = [key for key in arrays if key.split(".")[-1] == _COUNTER]
    if counters:
        notes = [*notes, f"left out: {len(counters)} counters of batches ({_COUNTER})"]
    arrays = {key: value for key, value in arrays.items() if key not in counters}
    return ForeignFile(path, tuple(_modules(arrays, path)), (*notes, *unwrapped))


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error})") from error
    return {name: tensors[name] for name in sorted(tensors, key=_order_of(tensors))}, []


def _order_of(tensors: dict[str, np.ndarray]):
    """A sort key: safetensors files keep no order, so numbers in names count, and linear heads come last."""
    groups: dict[str, set[int]] = {}
    for name, value in tensors.items():
        groups.setdefault(name.split(".")[0], set()).add(value.ndim)

    def key(name: str):
        dims = groups[name.split(".")[0]]
        parts = [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", name)]
        return 2 in dims and 4 not in dims and not name[0].isdigit(), parts

    return key


def _read_torch(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    file = read_torch_file(path)
    state, notes = _state_dict(path, file.content)
    arrays: dict[Tensor, np.ndarray] = {}
    room = path.stat().st_size
    for key, tensor in state.items():
        if tensor not in arrays:
            arrays[tensor] = file.array(key, tensor)
            room -= arrays[tensor].size
            if room < 0:  # other views of the same numbers are copied: a small file could ask for any memory
                raise UserError(f"{path}: its tensors share their numbers too often to be weights")
    return {key: arrays[tensor] for key, tensor in state.items()}, notes


def _state_dict(path: Path, content: Any) -> tuple[dict[str, Tensor], list[str]]:
    """The state_dict in what was saved, which may have one among other things, like an epoch."""

    def is_state(value: Any) -> bool:
        return isinstance(value, dict) and bool(value) and all(isinstance(v, Tensor) for v in value.values())

    if is_state(content):
        return content, []
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} holds {_what(content)}, expected a state_dict: {EXPORT}")
    found = [key for key, value in content.items() if is_state(value)]
    name = "state_dict" if "state_dict" in found else found[0] if len(found) == 1 else None
    if name is None:
        listed = _listed(found or list(content))
        how = "more than one state_dict" if found else "no state_dict"
        raise UserError(f"{path} holds {how} ({listed}): save one alone, {EXPORT}")
    rest = [key for key in content if key != name]
    return content[name], [
        f"read the state_dict that is stored under {name!r:.100}"
        + (f"; left out: {_listed(rest)}" if rest else "")
    ]


def _listed(keys: list[str], most: int = 8) -> str:
    """The first of some names from a file, each cut where it is long."""
    return ", ".join(f"{key!r:.100}" for key in keys[:most]) + (", ..." if len(keys) > most else "")


def _what(content: Any) -> str:
    """What was saved, for people to read."""
    if isinstance(content, dict):
        return "nothing"
    if isinstance(content, Inert | Name | Storage):
        return "no tensors"
    return f"a {type(content).__name__}"


def _unwrap(tensors: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Without the prefixes that wrappers put before every key."""
    notes = []
    while tensors and (found := [w for w in _WRAPPERS if all(key.startswith(w) for key in tensors)]):
        tensors = {key.removeprefix(found[0]): value for key, value in tensors.items()}
        notes.append(f"took the prefix {found[0]!r} off every key")
    return tensors, notes


def _widen(key: str, value: np.ndarray, path: Path) -> np.ndarray:
    if key.split(".")[-1] == _COUNTER:
        return value
    # ml_dtypes.bfloat16 is not an np.floating, but it converts
    if not (np.issubdtype(value.dtype, np.floating) or value.dtype.name == "bfloat16"):
        raise UserError(f"{path}: {key} is of type {value.dtype}, expected floating-point numbers")
    with np.errstate(over="ignore"):
        value = value.astype(np.float32)
    if not np.isfinite(value).all():
        raise UserError(f"{path}: {key} holds NaN or infinite values")
    return value


def _modules(tensors: dict[str, np.ndarray], path: Path) -> list[Module]:
    grouped: dict[str, dict[str, np.ndarray]] = {}
    for key, value in tensors.items():
        if not is_name(key):
            raise UserError(f"{path}: {key!r:.100} is no name: expected printable text of at most {LONGEST_NAME}")
        name, _, part = key.rpartition(".")
        if part not in _PARTS:
            raise UserError(
                f"{path}: {key} belongs to no layer that can be converted; those have {', '.join(_PARTS)} "
                "(take pruning masks, weight norm and learned activations out first)"
            )
        grouped.setdefault(name, {})[part] = value
    modules = [Module(name, _kind(name, parts, path), parts) for name, parts in grouped.items()]
    if not modules:
        raise UserError(f"{path} holds no tensors and no network description")
    return modules


def _kind(name: str, parts: dict[str, np.ndarray], path: Path) -> str:
    dims = parts["weight"].ndim if "weight" in parts else 0
    if "running_var" in parts and "running_mean" in parts:
        if parts["running_var"].min() < 0:
            raise UserError(f"{path}: {name}.running_var holds negative values")
        return NORM
    if dims == 4:
        return CONVOLUTION
    if dims == 2:
        return LINEAR
    shape = parts["weight"].shape if "weight" in parts else None
    why = (
        "a norm without running statistics, which cannot be folded (a LayerNorm or GroupNorm?), or a PReLU"
        if dims == 1
        else "neither a 2D convolution, a linear map nor a BatchNorm"
    )
    raise UserError(f"{path}: {name or 'its only module'} with weight of shape {shape} is {why}")
