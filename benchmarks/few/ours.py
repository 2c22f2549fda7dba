"""The calibration of ``jaxsnn.conversion.few_timesteps``, and the same with each piece changed.

The pieces are the yes-or-no fields of ``Recipe`` and what its descent chooses, as they are in the code: a piece
that is added there has its row here. None is chosen on test images.
"""

import dataclasses
import functools
from typing import Any

from benchmarks.few.task import Converted, Method, Task
from jaxsnn.conversion.channel_fit import Recipe
from jaxsnn.conversion.few_timesteps import calibrate_for


def pieces() -> dict[str, dict[str, Any]]:
    """Changes of the recipe, by the name of their row: one piece each."""
    usual = Recipe(1)
    switches = [f.name for f in dataclasses.fields(Recipe) if isinstance(getattr(usual, f.name), bool)]
    changes: dict[str, dict[str, Any]] = {}
    for name in switches:
        on = getattr(usual, name)
        changes[f"{'no' if on else 'with'}-{name}"] = {name: not on}
    for name in usual.descend:
        changes[f"no-{name}"] = {"descend": tuple(other for other in usual.descend if other != name)}
    return changes | {"no-descent": {"descend": ()}}


def calibrated(task: Task, **changes: Any) -> Converted:
    """The usual recipe, with ``changes``."""
    recipe = Recipe(timesteps=task.timesteps, seed=task.seed, **changes)
    found = calibrate_for(task.snn, task.images, recipe)
    return Converted(found.channels, recipe.comparison, snn=found.snn, layers=found.fits)


def rows() -> dict[str, Method]:
    """The usual recipe, then each change."""
    found: dict[str, Method] = {"ours": calibrated}
    for name, change in pieces().items():
        found[f"ours-{name}"] = functools.partial(calibrated, **change)
    return found
