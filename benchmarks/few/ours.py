"""The calibration of ``jaxsnn.conversion.few_timesteps``, and the same with each piece changed.

The pieces are the yes-or-no fields of ``Recipe`` and what its descent chooses, as they are in the code: a piece
that is added there has its row here. None is chosen on test images. With neurons that may send several spikes in a
step there is a row for each of ``SPIKES``. Three more rows go on from there: a read-out that leaves out the first
steps, and gradient descent through the timesteps on all training images (``jaxsnn.training.distillation``), of the
channels, which fold into the weights, or of the weights, too.
"""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.few import clock
from benchmarks.few.layerwise import Walk, neurons_of
from benchmarks.few.task import Converted, Method, Task
from jaxsnn.conversion.channel_fit import Recipe
from jaxsnn.conversion.few_timesteps import Calibrated, calibrate_for
from jaxsnn.simulation.cells.burst import Several
from jaxsnn.training.distillation import Distillation, distil, divergence, teacher_logits

SPIKES = (2, 4, 8)
"""That a neuron may send in one step."""


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
    cells = None if recipe.most == 1 else Several(most=recipe.most)
    return Converted(found.channels, recipe.comparison, snn=found.snn, layers=found.fits, cells=cells)


def distilled(task: Task, weights: bool) -> Converted:
    """The usual recipe, and then ``task.distillation`` steps of gradient descent."""
    recipe = Recipe(timesteps=task.timesteps, seed=task.seed, reconstruct=weights and task.reconstruct)
    found, seconds = _once(task, recipe)
    how = Distillation(
        task.timesteps,
        steps=task.distillation,
        batch=task.distillation_batch,
        weights=weights,
        seed=task.seed,
    )
    snn, channels = distil(found.snn, found.channels, task.snn, task.pool, how)
    seen = f"{how.steps} steps of {how.batch}"
    return Converted(channels, recipe.comparison, snn=snn, shared_seconds=seconds, note=seen)


def _once(task: Task, recipe: Recipe) -> tuple[Calibrated, float]:
    """What a row goes on from, and the seconds that it took where another row found it."""
    key = f"ours, T = {task.timesteps}, {'reconstructed' if recipe.reconstruct else 'folded only'}"
    if key in task.shared:
        return task.shared[key]
    started = clock.seconds()
    found = calibrate_for(task.snn, task.images, recipe)
    task.shared[key] = (found, clock.seconds() - started)
    return found, 0.0


def delayed(task: Task) -> Converted:
    """The usual recipe, and a read-out that leaves out as many first steps as bring it closest to the ANN.

    Chosen on the calibration images, among none to half of T.
    """
    found, seconds = _once(task, Recipe(timesteps=task.timesteps, seed=task.seed))
    walk = Walk(found.snn, task.images, task.timesteps, ">")
    for index, neurons in enumerate(neurons_of(found.channels)):
        walk.fire(index, neurons)
    sums = walk.scores(found.channels.biases[-1]).cumsum(0)
    teacher = teacher_logits(task.snn, task.images)
    skip = closest_skip(sums, teacher)
    note = f"read-out from step {skip + 1} on"
    return Converted(found.channels, snn=found.snn, skip=skip, shared_seconds=seconds, note=note)


def closest_skip(sums: np.ndarray, teacher: np.ndarray) -> int:
    """How many first steps of ``sums`` (T, N, classes) to leave out so that the last is closest to ``teacher``."""
    steps = len(sums)
    late = [(sums[-1] - (sums[skip - 1] if skip else 0)) / (steps - skip) for skip in range(steps // 2 + 1)]
    return int(np.argmin([float(divergence(jnp.asarray(teacher), logits).mean()) for logits in late]))


def distillations() -> dict[str, Method]:
    """By gradient descent, without and with the weights."""
    return {
        "ours-distilled-channels": functools.partial(distilled, weights=False),
        "ours-distilled-weights": functools.partial(distilled, weights=True),
    }


def rows() -> dict[str, Method]:
    """The usual recipe, then each change."""
    found: dict[str, Method] = {"ours": calibrated}
    for name, change in pieces().items():
        found[f"ours-{name}"] = functools.partial(calibrated, **change)
    return found | bursts()


def bursts() -> dict[str, Method]:
    """The usual recipe for neurons that may send several spikes in a step."""
    return {f"ours-{most}-spikes": functools.partial(calibrated, most=most) for most in SPIKES}
