"""A clock that stands still while XLA compiles."""

import time

import jax

COMPILED = {"seconds": 0.0}


def _listen(event: str, duration_secs: float, **details: str | int) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILED["seconds"] += duration_secs


jax.monitoring.register_event_duration_secs_listener(_listen)


def seconds() -> float:
    """Wall-clock seconds without those that XLA took to compile in this process."""
    return time.perf_counter() - COMPILED["seconds"]
