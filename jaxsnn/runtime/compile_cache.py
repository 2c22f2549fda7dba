"""What XLA and Numba have compiled, kept for the next start of a command in the user's cache folder.

Never in the installed package: pip does not know such files, and what it leaves of a folder hides a later install.

The second start of the same search with XLA on a CPU took 3.4 s of processor time instead of 14 (vgg11-slim,
float32, with the accuracy's limit), with the event-driven back-end 2.7 instead of 3.7.
"""

import hashlib
import importlib
import os
import platform
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax

PROCESSOR = Path("/proc/cpuinfo")


LEAST_SECONDS = 0.2
"""What compiles faster is not kept."""


def cache_folder(name: str) -> Path | None:
    """The folder ~/.cache/jaxsnn/``name``, made where it is missing, for the user alone; None if it cannot be.

    ``XDG_CACHE_HOME`` names another ~/.cache.
    """
    try:
        named = os.environ.get("XDG_CACHE_HOME", "")
        # the specification has no other path count
        caches = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
        folder = caches / "jaxsnn" / name
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except (OSError, RuntimeError):  # the latter from a user without a home
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def keep_loop(loop: Any) -> Any:
    """Let Numba keep what it compiles of ``loop``, in ~/.cache/jaxsnn/numba or where NUMBA_CACHE_DIR says."""
    config = importlib.import_module("numba").config
    named, folder = config.CACHE_DIR, cache_folder("numba")
    if named or folder is not None:
        try:  # Numba reads the setting once, here; for the rest of the program it stays what it was
            config.CACHE_DIR = named or str(folder)
            loop.enable_caching()
            loop._cache.save_overload = _spared(loop._cache.save_overload)
        finally:
            config.CACHE_DIR = named
    return loop


def processor() -> str:
    """What the system says of the processor."""
    return PROCESSOR.read_text() if PROCESSOR.is_file() else platform.processor()


def loads_what_it_kept() -> bool:
    """Whether JAX can load what it compiled here before; False where that is known to go wrong.

    That is on macOS, where loading large programs crashed, and on processors with Intel's "gather data sampling"
    bug, for which XLA compiles with a preference that its own loader takes for a missing instruction (jax issue
    38445).
    """
    return sys.platform != "darwin" and not re.search(r"^bugs\s*:.*\bgds\b", processor(), re.MULTILINE)


def _spared(save: Callable[..., None]) -> Callable[..., None]:
    """Numba's ``save``, which a full disk does not let end a run: then it is compiled again."""

    def spared(*arguments: Any) -> None:
        with suppress(OSError):
            save(*arguments)

    return spared


def keep_compiled() -> None:
    """Let JAX keep what it compiles in ~/.cache/jaxsnn/compiled, in a folder for each kind of processor.

    ``JAX_COMPILATION_CACHE_DIR`` names another folder, and ``JAX_ENABLE_COMPILATION_CACHE=false`` keeps nothing.
    Nothing is kept where it could not be loaded.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None or not loads_what_it_kept():
        return
    flags = re.findall(r"^(?:flags|Features|vendor_id|model name)\s*:.*", processor(), re.MULTILINE)
    kind = hashlib.sha256("\n".join(sorted({platform.machine(), *flags})).encode()).hexdigest()[:16]
    folder = cache_folder(f"compiled/{kind}")
    if folder is None:  # then it is compiled again
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
