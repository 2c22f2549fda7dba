"""What a result depends on beside its settings: versions, device, and the program's own code."""

import functools
import hashlib
import platform
from collections.abc import Mapping
from importlib import resources
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np

CODE = ("jaxsnn", "evo", "data")
"""The packages whose sources make the code's version."""


@functools.cache
def code_version() -> str:
    """sha256 of the program's own source files: a search resumes bit for bit only with the same code."""
    return code_digest({package: Path(str(resources.files(package))) for package in CODE})


def code_digest(packages: Mapping[str, Path]) -> str:
    """sha256 of all source files below the folders of ``packages``, and of where they stand.

    Raises:
        RuntimeError: a package without source files, whose changes nobody would notice.
    """
    found = hashlib.sha256()
    for package, root in sorted(packages.items()):
        paths = sorted(root.rglob("*.py"))
        if not paths:
            raise RuntimeError(f"no source files of {package} in {root}")
        for path in paths:
            content = path.read_bytes()
            found.update(f"{package}/{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return found.hexdigest()


def digest(arrays: dict[str, np.ndarray]) -> str:
    """sha256 of arrays, their names and types."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()


def describe_device() -> str:
    """The device that the simulation runs on, for people to read."""
    device = jax.local_devices()[0]
    kind = platform.processor() or platform.machine() if device.platform == "cpu" else device.device_kind
    return f"{jax.device_count()} x {device.platform} ({kind})"


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    names = ("jaxsnn-evo", "jax", "jaxlib", "flax", "numpy", "evosax")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except ImportError:
            found[name] = "not installed"
    return found
