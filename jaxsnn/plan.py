"""How to simulate, never what: back-end, precision, and how much goes through the device at once."""

import os
from dataclasses import dataclass, replace
from typing import Literal

import jax

from jaxsnn import events
from jaxsnn.errors import UserError
from jaxsnn.network import Network

BACKENDS = ("auto", "xla", "events")
PRECISIONS = ("float32", "bfloat16", "int8")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to simulate.

    Attributes:
        backend: "xla", "events" (event-driven, for CPUs; needs Numba), or "auto": events on a CPU where it can be.
        precision: of the weights that spikes drive. "bfloat16" sums in float32 and keeps float32 membranes;
            "int8" is integer arithmetic throughout (``jaxsnn.quantize``): the same spikes on every device,
            back-end, batch and chunk.
        rows: at most this many candidates x images go through the device at once.
        group: at most this many candidates do (None: as many as fit), so that the compiled shape does not
            depend on their number.
        threads: of the event-driven back-end; None for one a core.
    """

    backend: str = "auto"
    precision: str = "float32"
    rows: int = 192
    group: int | None = None
    threads: int | None = None

    def __post_init__(self):
        if self.backend not in BACKENDS:
            raise UserError(f"back-end is {self.backend!r}, expected one of {', '.join(BACKENDS)}")
        if self.precision not in PRECISIONS:
            raise UserError(f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}")
        for name in ("rows", "group", "threads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, expected at least 1")


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """The options of a command that simulates."""

    backend: Literal["auto", "xla", "events"] = "auto"
    """Simulate with XLA, or event-driven (CPU only; needs the extra cpu); auto: events on a CPU where it can be."""
    precision: Literal["float32", "bfloat16", "int8"] = "float32"
    """Of the weights that spikes drive; int8 is integer arithmetic, the same spikes on every device."""
    rows: int = 192
    """Candidates x images that go through the device at once: lower it where memory is short."""
    threads: int | None = None
    """Threads of the event-driven back-end; default: one a core."""

    def plan(self, group: int | None = None) -> Plan:
        """The plan that the options ask for."""
        return Plan(
            backend=self.backend, precision=self.precision, rows=self.rows, threads=self.threads, group=group
        )


def resolve(plan: Plan, network: Network) -> Plan:
    """The plan with "auto" and the number of threads decided.

    Events pay below a density of about a half, where every converted network is; they cannot do bfloat16.

    Raises:
        UserError: the event-driven back-end was asked for and cannot be.
    """
    obstacle = _obstacle(plan, network)
    if plan.backend == "events" and obstacle:
        raise UserError(f"the event-driven back-end {obstacle}: use --backend xla or auto")
    on_cpu = jax.default_backend() == "cpu"
    chosen = (
        "events" if plan.backend == "events" or (plan.backend == "auto" and on_cpu and not obstacle) else "xla"
    )
    return replace(plan, backend=chosen, threads=plan.threads or len(os.sched_getaffinity(0)))


def _obstacle(plan: Plan, network: Network) -> str | None:
    if not events.available():
        return "needs Numba (install the extra cpu)"
    if plan.precision == "bfloat16":
        return "computes in float32 or int8, not in bfloat16"
    return events.obstacle(network)
