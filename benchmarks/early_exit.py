"""When an image should stop: rules judged on training images they were not chosen on, then one on test images.

    python -m benchmarks.early_exit RUN --first 2000

The rules: the margin or the entropy of the scores; a threshold for each step, or one for all; and how many answers
may change where the thresholds are chosen. Training images are divided into parts, without labels: thresholds are
chosen on all parts but one, and that one says how many answers they change on images they have not seen. The rule
that stops soonest, of those that change at most --change percent there, is chosen once more on all parts, and test
images are simulated once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks import command
from jaxsnn.analysis.early_exit import WISHES, chosen_rule, evaluated, exit_steps, stops
from jaxsnn.cli.options import DebugOptions, PlanOptions
from jaxsnn.errors import UserError
from jaxsnn.records.exported_run import timesteps_of
from jaxsnn.records.finished_run import FinishedRun, read_run
from jaxsnn.reports.early_exit import exit_table
from jaxsnn.runtime.checks import at_least, in_range
from jaxsnn.runtime.files import write_json
from jaxsnn.search.evolve import subsets
from jaxsnn.simulation.exits import KINDS, ExitRule, Trace, confidence, trace

QUANTILES = np.linspace(0, 1, 401)
"""Of all confidences, those that are tried as one threshold for all steps."""


@dataclass(frozen=True)
class ExitConfig(PlanOptions, DebugOptions):
    """Choose when images stop on training images, and measure it on test images."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run of jaxsnn.optimize."""
    images: int = 4000
    """Training images on which rules are chosen and judged."""
    parts: int = 4
    change: float = 0.2
    """Answers in percent that a rule may change on training images that it was not chosen on."""
    first: int = 0
    """Number of the first test image."""
    test_images: int | None = None
    """Test images from there on; default: all."""
    json: Path | None = None


def one_threshold(scores: np.ndarray, kind: str, most_changed: float) -> ExitRule:
    """``chosen_rule`` with the same threshold at every step."""
    steps, sure = scores.shape[1], confidence(scores, kind)
    same = scores.argmax(-1) == scores[:, -1:].argmax(-1)
    best, fewest = ExitRule(kind, (np.inf,) * steps), float(steps)
    for threshold in np.quantile(sure, QUANTILES):
        rule = ExitRule(kind, (*[float(threshold)] * (steps - 1), np.inf))
        last = stops(sure, rule.thresholds)
        if 1 - same[np.arange(len(last)), last - 1].mean() <= most_changed + 1e-12 and last.mean() < fewest:
            best, fewest = rule, float(last.mean())
    return best


FORMS = {"a step": chosen_rule, "for all steps": one_threshold}


def unseen(scores: np.ndarray, kind: str, form: str, share: float, parts: int) -> tuple[float, float]:
    """Mean steps, and the share of changed answers, of images that thresholds were not chosen on."""
    steps, changed = [], []
    for part in range(parts):
        held = np.arange(len(scores)) % parts == part
        rule = FORMS[form](scores[~held], kind, share)
        last = exit_steps(scores[held], rule)
        answers = scores[held][np.arange(len(last)), last - 1].argmax(-1)
        steps.append(last)
        changed.append(answers != scores[held][:, -1].argmax(-1))
    return float(np.concatenate(steps).mean()), float(np.concatenate(changed).mean())


def traced(config: ExitConfig, run: FinishedRun, images: np.ndarray) -> Trace:
    """All steps of the run's network."""
    timesteps = timesteps_of(run.folder, run.thresholds) - run.dynamics.silent_steps(run.optimized_snn.network)
    return trace(run.optimized_snn, run.optimized, images, timesteps, run.dynamics.comparison, config.plan())


def main(config: ExitConfig) -> None:
    """Choose, print what was judged, then touch the test images."""
    at_least(config, images=2, parts=2, first=0, test_images=1)
    in_range(config, "[0, 100]", "change")
    console, run = Console(), read_run(config.run, "train")
    # as in jaxsnn.evaluate: not the draws of the search, its finalists and the calibration
    drawn = next(subsets(run.dataset.labels, min(config.images, len(run.dataset)), "fixed", run.config.seed + 4))
    scores = traced(
        config, run, np.asarray(run.dataset.images[np.random.default_rng(0).permutation(drawn)])
    ).scores
    table = Table(
        "thresholds", "may change", "mean T", "changed, unseen [%]", title=f"{len(drawn):,} training images"
    )
    rows = []
    for kind in KINDS:
        for form in FORMS:
            for share in WISHES:
                steps, changed = unseen(scores, kind, form, share, config.parts)
                rows.append((steps, changed, kind, form, share))
                table.add_row(f"{kind}, {form}", f"{100 * share:g} %", f"{steps:.2f}", f"{100 * changed:.2f}")
    console.print(table)
    fit = [row for row in rows if 100 * row[1] <= config.change + 1e-9]
    if not fit:
        raise UserError(f"every rule changes more than {config.change:g} % of the answers: give a larger --change")
    *_, kind, form, share = min(fit)
    rule = FORMS[form](scores, kind, share)
    test = run.config.load("test")
    last = len(test) if config.test_images is None else config.first + config.test_images
    images, labels = np.asarray(test.images[config.first : last]), test.labels[config.first : last]
    whole = traced(config, run, images)
    network = run.optimized_snn.network
    found = [evaluated(network, whole, labels, None), evaluated(network, whole, labels, rule, share)]
    console.print(f"chosen: {kind}, {form}, {100 * share:g} %; test images {config.first + 1:,} to {last:,}")
    console.print(exit_table(found, len(labels), kind, "INT8"))
    if config.json is not None:
        keys = ("mean_timesteps", "changed_unseen", "kind", "form", "most_changed")
        write_json(
            config.json, {"judged": [dict(zip(keys, r)) for r in rows], "test": [o.to_json() for o in found]}
        )


if __name__ == "__main__":
    command.run(ExitConfig, main, "early_exit", __doc__)
