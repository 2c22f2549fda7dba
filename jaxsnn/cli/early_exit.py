"""jaxsnn.evaluate --early-exit: thresholds from training images, then all of it on test images, once."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import Progress

import data
from jaxsnn.analysis.comparison import ann_right
from jaxsnn.analysis.early_exit import WISHES, chosen_rule, evaluated, exit_steps
from jaxsnn.analysis.energy import Costs
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.reports.early_exit import exit_figure, exit_table
from jaxsnn.reports.run_pages import spared
from jaxsnn.runtime.files import write_json
from jaxsnn.search.evolve import subsets
from jaxsnn.simulation.exits import ExitRule, Trace, trace
from jaxsnn.simulation.observe import observe
from jaxsnn.simulation.plan import Plan

WARM = 256
"""Images that go through before seconds are counted, so that no compilation is in them."""


@dataclass(frozen=True, kw_only=True)
class ExitOptions:
    """How images stop early."""

    early_exit: bool = False
    """Let each image stop when its read-out is sure, and show what that saves, in place of the comparison with
    the baseline. Thresholds are chosen on training images, without labels."""
    exit_change: float = 0.0
    """Answers in percent of the training images that stopping may change."""
    exit_kind: Literal["margin", "entropy"] = "margin"
    """What tells how sure a read-out is: the margin between its two highest scores, or their entropy."""
    exit_images: int = 2000
    """Training images on which thresholds are chosen, at most as many as there are."""


@dataclass(frozen=True)
class ExitInputs:
    """What is measured.

    Attributes:
        snn, genes: the spiking network; ``ann``, the one whose ANN is the measure.
        timesteps: T, a layer delay not counted.
        seed: of the draw of training images; the network's own calibration and search have seen other draws.
    """

    snn: SNN
    genes: Genes
    ann: SNN
    timesteps: int
    comparison: str
    plan: Plan
    train: data.Dataset
    test: data.Dataset
    seed: int


def evaluate_exits(
    options: ExitOptions,
    inputs: ExitInputs,
    costs: Mapping[str, Costs],
    folder: Path,
    console: Console,
    say: Callable[[str], object],
) -> dict[str, Any]:
    """Choose on training images, measure on test images; print the table, write early_exit.json and its figure.

    Args:
        folder: for both.
        say: gets a sentence where the figure cannot be made.

    Returns:
        what early_exit.json holds.
    """
    labels, wish = inputs.test.labels, options.exit_change / 100
    with Progress(console=console) as bar:
        rules = _rules(options, inputs, bar)
        whole = _traced(inputs, inputs.test.images, None, bar, "all steps")
        every = [
            evaluated(inputs.snn.network, whole, labels, rule, share, costs)
            for share, rule in ((None, None), *rules.items())
        ]
        speed = _speed(inputs, rules[wish], whole, bar)
    chosen = every[1 + [*rules].index(wish)]
    accuracy = (whole.scores.argmax(-1) == labels[:, None]).mean(0)
    ann = float(ann_right(inputs.ann.network, inputs.ann.params, inputs.test.images[:], labels).mean())
    console.print(exit_table(every, len(labels), options.exit_kind, "INT8"))
    console.print(
        f"where {options.exit_change:g} % may change: {speed['seconds_early_exit']:.1f} s instead of "
        f"{speed['seconds_all_steps']:.1f} s (processor {speed['processor_seconds_early_exit']:.1f} and "
        f"{speed['processor_seconds_all_steps']:.1f}), {speed['image_steps_computed']:,} image-steps instead of "
        f"{len(labels) * inputs.timesteps:,} -> {folder / 'early_exit.json'}",
        soft_wrap=True,
    )
    found = {
        "test_images": len(labels),
        "training_images": min(options.exit_images, len(inputs.train)),
        "timesteps": inputs.timesteps,
        "ann_accuracy": ann,
        "accuracy": accuracy.tolist(),
        "rules": [one.to_json() for one in every],
        "chosen": chosen.to_json(),
        "speed": speed,
    }
    write_json(folder / "early_exit.json", found)
    with spared(say, path := folder / "figures" / "early_exit.png"):
        exit_figure(accuracy, every, chosen, ann, path)
    return found


def _rules(options: ExitOptions, inputs: ExitInputs, bar: Progress) -> dict[float, ExitRule]:
    """By the share of answers that may change, in ascending order."""
    train, size = inputs.train, min(options.exit_images, len(inputs.train))
    # not the draws of the search, its finalists and the calibration
    drawn = next(subsets(train.labels, size, "fixed", inputs.seed + 4))
    scores = _traced(inputs, train.images[drawn], None, bar, "training images").scores
    shares = sorted({*WISHES, options.exit_change / 100})
    return {share: chosen_rule(scores, options.exit_kind, share) for share in shares}


def _traced(
    inputs: ExitInputs, images: np.ndarray, rule: ExitRule | None, bar: Progress | None, name: str = ""
) -> Trace:
    images = np.asarray(images[:])
    task = None if bar is None else bar.add_task(name, total=len(images))
    return trace(
        inputs.snn,
        inputs.genes,
        images,
        inputs.timesteps,
        inputs.comparison,
        inputs.plan,
        rule,
        None if bar is None or task is None else lambda count: bar.update(task, advance=count),
    )


def _speed(inputs: ExitInputs, rule: ExitRule, whole: Trace, bar: Progress) -> dict[str, float]:
    """Seconds on the test images, with the rule and as they are simulated without one, compilation left out."""
    images, labels = np.asarray(inputs.test.images[:]), inputs.test.labels

    def plainly(count: int) -> None:
        observe(
            inputs.snn,
            inputs.genes,
            images[:count],
            labels[:count],
            timesteps=inputs.timesteps,
            dynamics=Dynamics(inputs.comparison, "none"),
            plan=inputs.plan,
        )

    plainly(WARM)
    _traced(inputs, images[:WARM], rule, None)
    started = _clocks()
    plainly(len(images))
    usual = _clocks()
    stopped = _traced(inputs, images, rule, bar, "images that stop")
    early = _clocks()
    return {
        "seconds_all_steps": usual[0] - started[0],
        "seconds_early_exit": early[0] - usual[0],
        # which other programs on the machine do not lengthen
        "processor_seconds_all_steps": usual[1] - started[1],
        "processor_seconds_early_exit": early[1] - usual[1],
        "itc_all_steps": len(images) * inputs.timesteps / (usual[0] - started[0]),
        "itc_early_exit": stopped.row_steps / (early[0] - usual[0]),
        "image_steps_computed": stopped.row_steps,
        # none but where float32 sums round differently with other images beside them
        "images_that_stop_at_another_step": int((stopped.steps != exit_steps(whole.scores, rule)).sum()),
    }


def _clocks() -> tuple[float, float]:
    """Seconds that have gone by, and seconds of all threads' work."""
    return time.perf_counter(), time.process_time()
