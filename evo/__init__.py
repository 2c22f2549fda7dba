"""Differential evolution over vectors: an ask/tell protocol, its engines, and SciPy's function reproduced.

`make_engine` builds an engine by name (see `evo.protocol.Engine`), `make_front_engine` one for several costs at
once (`evo.protocol.FrontEngine`). Importing this package imports NumPy only.
"""

from typing import TYPE_CHECKING, Any

from evo.constraints import Bounds, LinearConstraint, NonlinearConstraint
from evo.differential_evolution import differential_evolution
from evo.engines import ENGINES, make_engine, make_front_engine
from evo.pareto import hypervolume
from evo.protocol import Engine, FrontEngine
from evo.result import OptimizeResult
from evo.state import state_arrays, state_from
from evo.strategies import STRATEGIES

if TYPE_CHECKING:
    from evo.engines.device import minimize_on_device

__all__ = [
    "ENGINES",
    "STRATEGIES",
    "Bounds",
    "Engine",
    "FrontEngine",
    "LinearConstraint",
    "NonlinearConstraint",
    "OptimizeResult",
    "differential_evolution",
    "hypervolume",
    "make_engine",
    "make_front_engine",
    "minimize_on_device",
    "state_arrays",
    "state_from",
]


def __getattr__(name: str) -> Any:
    """`minimize_on_device` needs JAX, which this package does not import before someone asks for it."""
    if name == "minimize_on_device":
        from evo.engines.device import minimize_on_device

        return minimize_on_device
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
