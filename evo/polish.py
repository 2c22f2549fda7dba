"""A local search from the best member at the end, by SciPy, as SciPy's function does it."""

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from evo.constraints import Constraints
from evo.objective import Objective
from evo.result import OptimizeResult

INFEASIBLE = (
    "differential evolution didn't find a solution satisfying the constraints, attempting to polish from the"
    " least infeasible solution"
)


def check_installed(polish: Any) -> None:
    """ModuleNotFoundError where polishing is asked for and SciPy is not installed."""
    if polish and importlib.util.find_spec("scipy") is None:
        raise ModuleNotFoundError("polish needs SciPy: install it (pip install scipy) or say polish=False")


def polished(
    result: OptimizeResult,
    polish: bool | Callable[..., Any],
    objective: Objective,
    box: tuple[np.ndarray, np.ndarray],
    constraints: Constraints,
    disp: bool,
) -> OptimizeResult:
    """`result`, with x, fun and jac of a local search from its x where that found less.

    L-BFGS-B, or trust-constr where there are constraints, within `box` (low and high, (D,) each). A callable
    `polish` takes the place of `scipy.optimize.minimize`. The evaluations are counted in either case. As in SciPy
    the first of the population's energies becomes the new one, while the population keeps the old point.

    Raises:
        ValueError: `polish` returns no result.
    """
    optimize: Any = importlib.import_module("scipy.optimize")  # a third of a second, which evo's own import is not
    if constraints and (constraints.violation(result.x[None]) > 0).any():
        warnings.warn(INFEASIBLE, UserWarning, stacklevel=4)
    given = [_as_scipys(constraint, len(result.x), optimize) for constraint in constraints.given]
    bounds = optimize.Bounds(*box)
    if callable(polish):
        found = polish(objective.function.func, np.copy(result.x), bounds=bounds, constraints=given)
    else:
        method = "trust-constr" if constraints else "L-BFGS-B"
        if disp:
            print(f"Polishing solution with '{method}'")
        start = np.copy(result.x)
        found = optimize.minimize(objective.uncounted, start, method=method, bounds=bounds, constraints=given)
    if not isinstance(found, optimize.OptimizeResult | OptimizeResult):
        raise ValueError("The result from a user defined polishing function should return an OptimizeResult.")
    objective.count += found.get("nfev", 0)
    result = OptimizeResult(result, nfev=objective.count)
    inside = np.all(found.x <= box[1]) and np.all(box[0] <= found.x)
    if not (found.fun < result.fun and found.success and inside):
        return result
    energies = result.population_energies.copy()
    energies[0] = found.fun
    better = {"x": found.x, "fun": found.fun, "jac": found.get("jac")}
    return OptimizeResult(result, **better, population_energies=energies)


def _as_scipys(constraint: Any, dimension: int, optimize: Any) -> Any:
    """`constraint` as an object of SciPy's own classes, which `minimize` asks for; it takes no Bounds."""
    if isinstance(constraint, optimize.NonlinearConstraint | optimize.LinearConstraint):
        return constraint
    if hasattr(constraint, "fun"):
        return optimize.NonlinearConstraint(constraint.fun, constraint.lb, constraint.ub)
    matrix = constraint.A if hasattr(constraint, "A") else np.eye(dimension)
    return optimize.LinearConstraint(matrix, constraint.lb, constraint.ub)
