"""Random configurations of `evo.differential_evolution` against SciPy's function, bit for bit.

    python -m benchmarks.optimizers_fuzz --configurations 3000 --seed 0     # 5 minutes on one core

Every number from --seed on makes one configuration (`benchmarks.optimizers_fuzz_cases`): a box with fixed and
whole dimensions, every strategy and start, immediate and deferred updating, up to two constraints, and polishing.
Both functions run it, and everything is compared to the last bit: the result field by field, population and
energies of every generation, what the callback is told, the generator's state afterwards and the warnings; or the
error's type. Ends with 1 where anything differs, with the number that makes it again.
"""

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console

import evo
from benchmarks import command
from benchmarks.optimizers_fuzz_cases import Case, case
from jaxsnn.cli.options import DebugOptions
from jaxsnn.errors import UserError
from jaxsnn.runtime.checks import at_least

FIELDS = ("x", "fun", "population", "population_energies", "nit", "nfev", "convergence", "success", "message")


@dataclass(frozen=True)
class FuzzConfig(DebugOptions):
    """Compare evo's differential evolution with SciPy's on random configurations."""

    configurations: int = 3000
    seed: int = 0
    """The first configuration's number; the others follow."""


def outcome(minimise: Callable[..., Any], case: Case, ours: bool) -> dict[str, Any]:
    """All that a run of `case` shows to its caller."""
    history = []

    def remember(intermediate_result: Any) -> None:
        kept = (*FIELDS, "constr", "constr_violation", "maxcv")
        history.append({name: deepcopy(intermediate_result[name]) for name in kept if name in intermediate_result})

    shown: dict[str, Any] = {"history": history}
    arguments, generator = case.arguments(ours)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            shown["result"] = dict(minimise(**arguments, callback=remember))
        except Exception as error:
            # where SciPy fails in its first generation, evo refuses beforehand and has drawn less
            return {**shown, "error": type(error)}
    shown["warnings"] = [str(each.message) for each in warned if each.category is UserWarning]
    legacy = isinstance(generator, np.random.RandomState)
    shown["generator"] = generator.get_state() if legacy else generator.bit_generator.state
    return shown


def differences(ours: Any, theirs: Any, place: str = "") -> Iterator[str]:
    """The places where two outcomes differ, in type, shape, or any bit."""
    if hasattr(theirs, "toarray") and hasattr(ours, "toarray"):
        ours, theirs = ours.toarray(), theirs.toarray()
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted({*ours, *theirs}):
            if key in ours and key in theirs:
                yield from differences(ours[key], theirs[key], f"{place}.{key}")
            else:
                yield f"{place}.{key} is only {'ours' if key in ours else 'theirs'}"
    elif isinstance(theirs, list | tuple) and isinstance(ours, list | tuple):
        if len(ours) != len(theirs):
            yield f"{place} has {len(ours)} entries, not {len(theirs)}"
        for number, pair in enumerate(zip(ours, theirs)):
            yield from differences(*pair, f"{place}[{number}]")
    elif isinstance(theirs, np.ndarray | np.generic | float):
        left, right = np.asarray(ours), np.asarray(theirs)
        if (left.dtype, left.shape, left.tobytes()) != (right.dtype, right.shape, right.tobytes()):
            yield f"{place} is {ours}, not {theirs}"
    elif type(ours) is not type(theirs) or ours != theirs:
        yield f"{place} is {ours}, not {theirs}"


def compare(number: int) -> tuple[Case, dict[str, Any], list[str]]:
    """Configuration `number`, what evo made of it, and where SciPy's function differs.

    Raises:
        UserError: SciPy is not installed.
    """
    try:
        import scipy
        from scipy.optimize import differential_evolution
    except ModuleNotFoundError as error:
        raise UserError("this comparison needs SciPy: pip install scipy") from error
    made = case(number)
    if callable(made.others["polish"]) and tuple(map(int, scipy.__version__.split(".")[:2])) < (1, 17):
        made = replace(made, others={**made.others, "polish": True})  # SciPy took no function then
    ours = outcome(evo.differential_evolution, made, ours=True)
    return made, ours, list(differences(ours, outcome(differential_evolution, made, ours=False)))


def main(config: FuzzConfig) -> None:
    """Compare them and print how many are the same, and what they had in them.

    Raises:
        SystemExit: any differs.
    """
    at_least(config, configurations=1, seed=0)
    console, counts, began = Console(), Counter(), time.monotonic()
    for done in range(config.configurations):
        made, ours, different = compare(config.seed + done)
        counts.update(made.traits())
        counts["same"] += not different
        counts["refused by both"] += not different and "error" in ours
        for line in different[:3]:
            console.print(f"--seed {config.seed + done}: {line}", markup=False, highlight=False)
        if (done + 1) % 100 == 0:
            minutes = (time.monotonic() - began) / 60
            console.print(f"{done + 1} compared in {minutes:.0f} min, {counts['same']} the same", highlight=False)
    same = counts.pop("same")
    console.print(
        f"{same} of {config.configurations} configurations are the same to the last bit.", highlight=False
    )
    console.print("; ".join(f"{name} {count}" for name, count in sorted(counts.items())), highlight=False)
    if same < config.configurations:
        raise SystemExit(1)


if __name__ == "__main__":
    command.run(FuzzConfig, main, "optimizers_fuzz", __doc__)
