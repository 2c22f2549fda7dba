"""Memory that a device has, how much of it has been used, and whether it was too little."""

import errno
import os
import resource
import sys

import jax


def device_memory() -> int:
    """Bytes that the device lets a program use."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> int:
    """Most memory that this process (on a CPU) or its device has held so far."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    # kibibytes, but on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


ADDRESSES = 4 << 30
"""Bytes of address space with which the commands do: the default job maps 2.9 GB on two cores."""


def few_addresses() -> int | None:
    """Bytes of address space that this process may map (``ulimit -v``), where they may be too few."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return limit if limit != resource.RLIM_INFINITY and limit < ADDRESSES else None


_SIGNS = ("RESOURCE_EXHAUSTED", "failed to map segment", "annot allocate memory")
"""What XLA, the loader of libraries and the system say."""


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that memory is short: a device's or the machine's."""
    while error is not None:
        short = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
        if short or any(sign in str(error) for sign in _SIGNS):
            return True
        error = error.__cause__ or error.__context__
    return False
