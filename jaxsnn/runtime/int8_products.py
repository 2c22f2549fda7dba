"""Whether XLA multiplies int8 matrices on this CPU with instructions made for that, and how it is told to.

Two cores of Zen 4, GOP/s (benchmarks.machine): float32 210, int8 77 by XLA's own loop and 317 by YNNPACK's.
"""

import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

PROCESSOR = Path("/proc/cpuinfo")


OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
"""Compiler options by which YNNPACK computes single matrix products, and nothing else (``jaxsnn.__init__``)."""


@functools.lru_cache
def fast() -> bool:
    """Whether this CPU has such instructions (VNNI; Linux tells), and XLA takes ``OPTIONS`` and is right."""
    if jax.default_backend() != "cpu" or not PROCESSOR.exists() or "_vnni" not in PROCESSOR.read_text():
        return False
    try:
        with ThreadPoolExecutor(1) as other:  # it may be asked for while this thread traces something else
            return other.submit(_right).result()
    except Exception:  # an XLA without this option
        return False


def _right() -> bool:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-127, 128, shape, np.int8) for shape in ((48, 576), (576, 64)))
    product = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.int32), compiler_options=OPTIONS)
    return np.array_equal(product(a, b), a.astype(np.int32) @ b.astype(np.int32))
