"""SciPy's own tests of differential_evolution with evo's function in its place.

    python -m benchmarks.optimizers_suite       # 20 seconds; ends with 1 where a test fails

Loads the test module that is installed with SciPy (scipy.optimize.tests.test__differential_evolution), puts
`evo.differential_evolution` and `evo.OptimizeResult` where it names SciPy's, and runs every test of it. Which
tests came to evo's function is counted while they run; the others test SciPy's private classes, which evo does not
have, and say nothing of evo. They are named.
"""

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from rich.console import Console

import evo
from benchmarks import command
from jaxsnn.cli.options import DebugOptions
from jaxsnn.errors import UserError

MODULE = "scipy.optimize.tests.test__differential_evolution"


@dataclass(frozen=True)
class SuiteConfig(DebugOptions):
    """Run SciPy's own tests of differential_evolution on evo's."""


class Outcome(NamedTuple):
    """A test: its name, how often it called evo's function, and what it failed with, or None."""

    name: str
    calls: int
    failure: BaseException | None


def scipys_tests(minimise: Callable[..., Any]) -> type | None:
    """SciPy's test class in a fresh copy of its module, with `minimise` where it calls SciPy's function.

    None where SciPy was installed without its tests.
    """
    try:
        spec = importlib.util.find_spec(MODULE)
    except ModuleNotFoundError:
        return None
    if spec is None or spec.loader is None:
        return None
    module: Any = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        # marks that only SciPy's own settings of pytest know
        warnings.simplefilter("ignore", pytest.PytestUnknownMarkWarning)
        spec.loader.exec_module(module)
    module.differential_evolution = minimise
    module.OptimizeResult = evo.OptimizeResult
    return module.TestDifferentialEvolutionSolver


def names(tests: type) -> list[str]:
    """The tests of a class."""
    return [name for name in dir(tests) if name.startswith("test_")]


class Counted:
    """evo's function, counting its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> evo.OptimizeResult:
        self.calls += 1
        return evo.differential_evolution(*args, **kwargs)


def run(tests: type, name: str, counted: Counted) -> Outcome:
    """Run one test as pytest would: with a fresh object, set up before and torn down after."""
    case, before = tests(), counted.calls
    case.setup_method()
    try:
        getattr(case, name)()
    except (Exception, pytest.fail.Exception) as failure:
        return Outcome(name, counted.calls - before, failure)
    finally:
        case.teardown_method()
    return Outcome(name, counted.calls - before, None)


def main(config: SuiteConfig) -> None:
    """Run all of them and say how many pass, and how many of those say anything of evo.

    Raises:
        UserError: SciPy's tests are not installed.
        SystemExit: a test fails.
    """
    console, counted = Console(), Counted()
    tests = scipys_tests(counted)
    if tests is None:
        raise UserError("SciPy is not installed here with its tests: pip install scipy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcomes = [run(tests, name, counted) for name in names(tests)]
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    ours = sum(outcome.calls > 0 for outcome in outcomes)
    private = [outcome.name for outcome in outcomes if not outcome.calls]
    console.print(
        f"{len(outcomes) - len(failed)} of {len(outcomes)} tests pass; {ours} of them call evo's function."
    )
    console.print(f"{len(private)} test SciPy's private classes alone: {', '.join(private)}.", highlight=False)
    for outcome in failed:
        console.print(f"failed: {outcome.name}: {outcome.failure!r}", markup=False)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    command.run(SuiteConfig, main, "optimizers_suite", __doc__)
