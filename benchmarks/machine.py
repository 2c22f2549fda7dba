"""What this machine can do at best: dot products, and additions that stay in cache.

    python -m benchmarks.machine        # prints JSON

``benchmarks.throughput`` runs this in a process of its own, before and after it measures.
"""

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from benchmarks import command
from jaxsnn.cli.options import DebugOptions

DOT_SIZES = {"cpu": (512, 1024, 2048), "accelerator": (4096, 8192)}


PACKAGES = ("jaxsnn-evo", "jax", "numpy", "numba", "torch", "spikingjelly", "snntorch", "spyx", "bindsnet")


@dataclass(frozen=True)
class MachineConfig(DebugOptions):
    """Measure what this machine can do at best, and print it as JSON."""


def facts() -> dict:
    """CPU, cores, operating system and versions."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []  # Linux alone has it
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
    }


def best_dots() -> dict[str, dict[str, float]]:
    """GFLOP/s (GOP/s for int8) of the fastest square dot product, by precision, then by library.

    float32 in and out; bfloat16 in, float32 out (JAX) or bfloat16 out (torch); int8 in, int32 out (JAX).
    """
    found: dict[str, dict[str, float]] = {}
    for measure in (_jax_dots, _torch_dots):
        try:
            for precision, library, rate in measure():
                held = found.setdefault(precision, {})
                held[library] = max(rate, held.get(library, 0))
        except ImportError:
            continue
    return found


def _jax_dots() -> Iterator[tuple[str, str, float]]:
    import jax
    import jax.numpy as jnp

    from jaxsnn.runtime import int8_products

    rng = np.random.default_rng(0)
    for precision, out in (("float32", jnp.float32), ("bfloat16", jnp.float32), ("int8", jnp.int32)):
        options = int8_products.OPTIONS if precision == "int8" and int8_products.fast() else None
        dot = jax.jit(
            lambda a, b, out=out: jax.lax.dot(a, b, preferred_element_type=out), compiler_options=options
        )
        for size in DOT_SIZES["cpu" if jax.default_backend() == "cpu" else "accelerator"]:
            a, b = (jnp.asarray(rng.uniform(-9, 9, (size, size)), precision) for _ in range(2))
            yield precision, "jax", _dot_rate(size, lambda a=a, b=b, dot=dot: jax.block_until_ready(dot(a, b)))


def _torch_dots() -> Iterator[tuple[str, str, float]]:
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def run(a, b):
        torch.mm(a, b)
        if device == "cuda":
            torch.cuda.synchronize()

    for precision in ("float32", "bfloat16"):
        for size in DOT_SIZES["cpu" if device == "cpu" else "accelerator"]:
            a, b = (torch.rand(size, size, device=device).to(getattr(torch, precision)) for _ in range(2))
            yield precision, "torch", _dot_rate(size, lambda a=a, b=b: run(a, b))


def _dot_rate(size: int, run: Callable, repeats: int = 5) -> float:
    return 2e-9 * size**3 / _best_seconds(run, repeats)


def _best_seconds(run: Callable, repeats: int) -> float:
    run()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def best_additions() -> dict[str, float]:
    """G additions/s on all cores, operands in the first-level cache, by form and type.

    "sum" keeps its accumulators in registers and loads one operand per addition; "in place" also loads and stores
    the other one. With Numba, or without it NumPy's ``add`` alone, whose overhead per call is inside.
    """
    try:
        import numba
    except ImportError:
        return {"float32 in place (NumPy)": _all_cores(_numpy_additions, np.float32, size=4096, rounds=20_000)}

    @numba.njit(nogil=True)
    def in_place(membranes, weights, rounds):
        for _ in range(rounds):
            for i in range(len(membranes)):
                membranes[i] += weights[i]

    @numba.njit(nogil=True, fastmath=True)
    def sums(membranes, weights, rounds):
        for r in range(rounds):
            total = membranes[r % len(membranes)]
            for i in range(len(weights)):
                total += weights[i]
            membranes[r % len(membranes)] = total

    rates = {"float32 sum": _all_cores(sums, np.float32)}
    for dtype in (np.float32, np.int32, np.int16):
        rates[f"{np.dtype(dtype).name} in place"] = _all_cores(in_place, dtype)
    return rates


def _numpy_additions(membranes, weights, rounds):
    for _ in range(rounds):
        np.add(membranes, weights, out=membranes)


def _all_cores(kernel: Callable, dtype, size: int = 2048, rounds: int = 200_000) -> float:
    arrays = [(np.zeros(size, dtype), np.ones(size, dtype)) for _ in range(os.cpu_count() or 1)]
    kernel(*arrays[0], 1)

    def run():
        threads = [threading.Thread(target=kernel, args=(*pair, rounds)) for pair in arrays]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return 1e-9 * len(arrays) * size * rounds / _best_seconds(run, 3)


def measure() -> dict:
    """All of it; seconds."""
    return facts() | {"dot_gflops": best_dots(), "gigaadditions": best_additions()}


def main(config: MachineConfig) -> None:
    """Measure and print."""
    print(json.dumps(measure(), indent=1))


if __name__ == "__main__":
    command.run(MachineConfig, main, "machine", __doc__)
