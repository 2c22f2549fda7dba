"""How to simulate, never what: back-end, precision, and how much goes through the device at once."""

from dataclasses import dataclass

from jaxsnn.errors import UserError

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
