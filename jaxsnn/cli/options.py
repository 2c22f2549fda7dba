"""Options that several commands share, each declared once."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from jaxsnn.simulation.plan import Plan


@dataclass(frozen=True, kw_only=True)
class HostOptions:
    """The options of a command that several processes can run together."""

    distributed: bool = False
    """Join the other processes of this job: Slurm, a TPU slice, Open MPI or Kubernetes say which they are."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where nothing says so; with --processes and --process-id."""
    processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """Which of them this is, from 0."""


def _mesh(parts: list[str]) -> tuple[int, int]:
    found = re.fullmatch(r"pop=(\d+),data=(\d+)", parts[0])
    if not found:
        raise ValueError(f"{parts[0]!r} is no mesh: expected pop=N,data=M")
    return int(found[1]), int(found[2])


Mesh = Annotated[
    tuple[int, int],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="pop=N,data=M",
        instance_from_str=_mesh,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda mesh: [f"pop={mesh[0]},data={mesh[1]}"],
    ),
]
"""Devices over candidates and images, on the command line pop=4,data=2."""


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """The options of a command that simulates."""

    backend: Literal["auto", "xla", "events"] = "auto"
    """Simulate with XLA, or event-driven on a CPU (needs the extra cpu); auto: events where it can be."""
    precision: Literal["float32", "bfloat16", "int8"] = "float32"
    """Of the weights that spikes drive; int8 is integer arithmetic, the same spikes on every device."""
    rows: int | None = None
    """Candidates x images that go through a device at once; default: what its memory allows, on a CPU 192, fewer
    if images are large."""
    block: int | None = None
    """Timesteps that a layer does at once before the next layer begins, with XLA; 1 is step by step; default: on a
    CPU as many as make up for few candidates x images."""
    memory_limit: float | None = None
    """Memory in MB that the simulation may take on a device; default: 80 % of the device's, on a CPU no limit."""
    mesh: Mesh | None = None
    """Devices of this process to spread candidates and images over, such as pop=4,data=2; default: one device."""
    threads: int | None = None
    """Threads of the event-driven back-end; default: one a core."""
    explain_plan: bool = False
    """Print how the simulation would be done, layer by layer, and end."""

    def plan(self, group: int | None = None) -> Plan:
        """The plan that the options ask for."""
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
