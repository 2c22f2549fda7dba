"""Which kernels of ours this device computes, if any."""

import functools
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import jax

from jaxsnn.simulation import gpu, tpu

OURS = {"gpu": gpu, "tpu": tpu}
"""By JAX's name of a back-end: ``layers_of``, ``start``, ``block`` and ``probe``."""


@functools.lru_cache
def usable(precision: str) -> ModuleType | None:
    """The kernels of this device, if it gets a small case right; one that refuses them goes without."""
    kernels = OURS.get(jax.default_backend())
    if kernels is None:
        return None
    try:
        with ThreadPoolExecutor(1) as other:  # it may be asked for while this thread traces something else
            return kernels if other.submit(kernels.probe, precision).result() else None
    except Exception:
        return None
