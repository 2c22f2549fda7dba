"""Options that several commands share, each declared once."""

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from jaxsnn.records.run_config import DataOptions, WeightsOptions
from jaxsnn.runtime.marks import Unrecorded, Where
from jaxsnn.runtime.processes import HostOptions
from jaxsnn.simulation.plan import PlanSettings

__all__ = ["DataOptions", "DebugOptions", "HostOptions", "Mesh", "PlanOptions", "WeightsOptions"]


def _mesh(parts: list[str]) -> tuple[int, int]:
    found = re.fullmatch(r"pop=(\d+),data=(\d+)", parts[0])
    if not found:
        raise ValueError(f"{parts[0]!r} is not a mesh: expected pop=N,data=M")
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
class PlanOptions(PlanSettings):
    """The options of a command that simulates."""

    mesh: Where[Mesh | None] = None
    """Devices of this process to spread candidates and images over, such as pop=4,data=2; default: one device."""
    explain_plan: Unrecorded[bool] = False
    """Print how the simulation would be done, layer by layer, and end."""


@dataclass(frozen=True, kw_only=True)
class DebugOptions:
    """What every command takes."""

    command_line: ClassVar[bool] = True
    """Messages name these settings as they are typed (``jaxsnn.runtime.checks``)."""

    debug: Unrecorded[bool] = False
    """Show where an error came from."""
