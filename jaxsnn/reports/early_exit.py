"""Images that stop early, as people read it: a table; a figure of accuracy over mean timesteps, and exit times."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator
from rich import box
from rich.table import Table

from jaxsnn.analysis.early_exit import ExitResult
from jaxsnn.reports.figures import ANN, BASELINE, OPTIMIZED, STYLE, save


def exit_table(results: Sequence[ExitResult], images: int, kind: str, energy: str) -> Table:
    """A line without a rule and one for each share of answers that a rule may change.

    Args:
        energy: the kind of arithmetic whose microjoules are shown.
    """
    table = Table(
        title=f"{images:,} test images; thresholds of the {kind} from training images",
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    measures = ("mean\nT", "of\nT", "95 %\nby T", "correct", "against\nall T (95 %)", "M\nsynops", f"uJ\n{energy}")
    for heading in ("may\nchange", *measures):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in results:
        low, high = one.gain_ci95
        table.add_row(
            "all T" if one.changed is None else f"{100 * one.changed:g} %",
            f"{one.mean_steps:.2f}",
            f"{100 * one.mean_steps / len(one.exits):.0f} %",
            str(one.steps_of_share(0.95)),
            f"{100 * one.accuracy:.2f} %",
            "" if one.changed is None else f"{one.gain:+.2f} ({low:+.2f}..{high:+.2f})",
            f"{sum(one.synops) / 1e6:.2f}",
            f"{one.energy[energy]:.2f}",
        )
    return table


def exit_figure(
    accuracy: np.ndarray, results: Sequence[ExitResult], chosen: ExitResult, ann: float, path: Path
) -> None:
    """Left, accuracy over mean timesteps, with and without exits; right, when images stop under the chosen rule.

    Args:
        accuracy: Acc(t) of all images at t = 1..T, in [0, 1].
        ann: accuracy of the ANN.
    """
    steps = np.arange(1, len(accuracy) + 1)
    rules = sorted((one for one in results if one.changed is not None), key=lambda one: one.mean_steps)
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.6), layout="constrained")
        left.plot(steps, 100 * accuracy, color=BASELINE, marker="o", markersize=3, label="all images T steps")
        means = [one.mean_steps for one in rules]
        reached = [100 * one.accuracy for one in rules]
        left.plot(means, reached, color=OPTIMIZED, marker="s", markersize=4, label="images that stop when sure")
        left.axhline(100 * ann, color=ANN, linewidth=1, linestyle=":", label=f"ANN, {100 * ann:.2f} %")
        left.set_xlabel("mean timesteps")
        left.set_ylabel("accuracy [%]")
        left.set_ylim(bottom=max(0, min(reached) - 10))
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False)
        shares = 100 * np.array(chosen.exits) / sum(chosen.exits)
        right.bar(steps, shares, color=OPTIMIZED)
        right.set_axisbelow(True)
        right.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.set_xlabel("timesteps of an image")
        right.set_ylabel("share of the images [%]")
        mean = chosen.mean_steps
        right.set_title(f"mean {mean:.2f} of {len(steps)} steps", fontsize=9, loc="left")
        save(figure, path)
