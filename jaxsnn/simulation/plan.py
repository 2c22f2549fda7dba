"""How to simulate, never what: back-end, precision, and how much goes through the device at once."""

from dataclasses import dataclass
from typing import Literal

from jaxsnn.errors import UserError
from jaxsnn.runtime.marks import Where

BACKENDS = ("auto", "xla", "events")


PRECISIONS = ("float32", "bfloat16", "int8")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to simulate.

    Attributes:
        backend: "xla", "events" (event-driven, for CPUs; needs Numba), or "auto": events on a CPU where it can be.
        precision: of the weights that spikes drive. "bfloat16" sums in float32 and keeps float32 membranes;
            "int8" is integer arithmetic throughout (``jaxsnn.simulation.integers``): the same spikes on every
            device, back-end, batch and chunk.
        rows: at most this many candidates x images go through a device at once; None: what its memory allows,
            on a CPU 192.
        group: at most this many candidates do (None: as many as fit), so that the compiled shape does not
            depend on their number.
        block: timesteps that each layer does at once before the next layer begins, for XLA; 1 is step by step,
            None as many as make up for few rows on a CPU.
        threads: of the event-driven back-end; None for one a core.
        memory_limit: bytes that the simulation may take on a device; None: 80 % of it, on a CPU what ``rows``
            take.
        mesh: devices over (candidates, images), for XLA; None is one device.
    """

    backend: str = "auto"
    precision: str = "float32"
    rows: int | None = None
    group: int | None = None
    block: int | None = None
    threads: int | None = None
    memory_limit: int | None = None
    mesh: tuple[int, int] | None = None

    def __post_init__(self):
        if self.backend not in BACKENDS:
            raise UserError(f"back-end is {self.backend!r}, expected one of {', '.join(BACKENDS)}")
        if self.precision not in PRECISIONS:
            raise UserError(f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}")
        for name in ("rows", "group", "block", "threads", "memory_limit"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name.replace('_', ' ')} is {getattr(self, name)}, expected at least 1")
        if self.mesh is not None and min(self.mesh) < 1:
            raise UserError(f"mesh is {self.mesh[0]} x {self.mesh[1]}, expected at least 1 x 1")


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """A plan as a run's configuration and a command's options hold it."""

    backend: Literal["auto", "xla", "events"] = "auto"
    """Simulate with XLA, or event-driven on a CPU (needs the extra cpu); auto: events where it can be."""
    precision: Literal["float32", "bfloat16", "int8"] = "float32"
    """Of the weights that spikes drive; int8 is integer arithmetic, the same spikes on every device."""
    rows: Where[int | None] = None
    """Candidates x images that go through a device at once; default: what its memory allows, on a CPU 192, fewer
    if images are large."""
    block: Where[int | None] = None
    """Timesteps that a layer does at once before the next layer begins, with XLA; 1 is step by step; default: on a
    CPU as many as make up for few candidates x images."""
    memory_limit: Where[float | None] = None
    """Memory in MB that the simulation may take on a device; default: 80 % of the device's, on a CPU no limit."""
    mesh: Where[tuple[int, int] | None] = None
    """Devices of this process to spread candidates and images over; default: one device."""
    threads: Where[int | None] = None
    """Threads of the event-driven back-end; default: one a core."""

    def plan(self, group: int | None = None) -> Plan:
        """The plan that the settings ask for."""
        limit = None if self.memory_limit is None else int(self.memory_limit * 1e6)
        return Plan(
            backend=self.backend,
            precision=self.precision,
            rows=self.rows,
            group=group,
            block=self.block,
            threads=self.threads,
            memory_limit=limit,
            mesh=self.mesh,
        )
