"""Figures of a run, as PNG files.

Nothing stands on a curve: legends and what they say are above or below the axes.
"""

import itertools
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxsnn.analysis.latency import LatencyRow
from jaxsnn.analysis.results import NetworkResult, TestResult
from jaxsnn.reports import labels
from jaxsnn.runtime.entries import Entries
from jaxsnn.runtime.files import write_atomically

matplotlib.use("Agg")

BASELINE, OPTIMIZED, ANN = "#4c72b0", "#c44e52", "#555555"
PERCENTILE = "#2e7d32"
FACTORS = (OPTIMIZED, BASELINE, PERCENTILE, "#8172b3", "#937860")

STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 10,
    # a name from a file is text: dollar signs in it begin no formula
    "text.parse_math": False,
}


def save(figure: Figure, path: Path) -> None:
    """Write the figure atomically and close it."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight")
    plt.close(figure)
    write_atomically(path, buffer.getvalue())


def accuracy_curves(results: TestResult | dict, path: Path) -> None:
    """Acc(t) of both networks, with one iso-accuracy and one iso-time comparison marked (as in Fig. 3).

    Args:
        results: of the comparison, or the contents of a results.json.
    """
    result = TestResult.of(results)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6, 4.2))
        _curves(axes, result)
        if result.half_full is not None:  # few timesteps are what matters
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
        ann = 100 * result.ann_accuracy
        axes.axhline(ann, color=ANN, linewidth=1, linestyle=":", label=f"ANN, {ann:.2f} %")
        row = most_saved(result.latency)
        if row is not None:
            _mark(axes, result, row)
        axes.set_xlabel(_timesteps(result.delay))
        kind = "attacked test images" if result.attack else "test images"
        axes.set_ylabel(f"accuracy on {result.test_images:,} {kind} [%]")
        axes.set_xlim(0 if result.half_full is None else 1, result.timesteps)
        _legend_above(axes, columns=1)
        save(figure, path)


def _curves(axes: Axes, result: TestResult) -> None:
    """Acc(t) of all networks in percent."""
    steps = np.arange(1, result.timesteps + 1)
    base, best = result.baseline, result.optimized
    curves = [(base, BASELINE, labels.baseline_name(base)), (best, OPTIMIZED, labels.optimized_name(best))]
    if result.half_full is not None:
        curves.insert(1, (result.half_full, PERCENTILE, labels.baseline_name(result.half_full)))
    for network, color, name in curves:
        axes.plot(steps, 100 * np.array(network.accuracy), color=color, label=name)


def most_saved(rows: Sequence[LatencyRow]) -> LatencyRow | None:
    """The target at which most timesteps are saved; None where no target is reached by both networks."""
    reached = [row for row in rows if row.improvement_percent is not None]
    return max(reached, key=lambda row: row.improvement_percent or 0, default=None)


def _mark(axes: Axes, result: TestResult, row: LatencyRow) -> None:
    """Join the curves at equal accuracy and at equal time; the legend says what that saves and gains."""
    slow, fast = row.baseline_timesteps, row.optimized_timesteps
    if slow is None or fast is None:
        return
    target = 100 * row.target
    saved = f"to {labels.for_figure(row.target_name)}: {labels.saving(row)}"
    axes.plot([fast, slow], [target, target], color="black", linewidth=1, marker="|", linestyle="--", label=saved)
    before, after = (100 * network.accuracy[fast - 1] for network in (result.baseline, result.optimized))
    gained = f"at {fast} steps: {after:.1f} % instead of {before:.1f} %"
    if f"{after:.1f}" == f"{before:.1f}":
        gained = f"at {fast} steps: the same {after:.1f} %"
    axes.plot([fast, fast], [before, after], color="darkred", linewidth=1, marker="_", linestyle=":", label=gained)


def threshold_bars(layers: Sequence[str], baseline: dict, optimized: dict, path: Path) -> None:
    """Thresholds per layer: the value relative to the baseline's, and the percentile of the ANN's activations.

    Args:
        baseline, optimized: the networks of a results.json, the latter with its percentiles.
    """
    base, found = (NetworkResult.from_json(Entries.of(one, "the results")) for one in (baseline, optimized))
    with plt.rc_context(STYLE):
        figure, (top, bottom) = plt.subplots(2, 1, figsize=(6, 5), sharex=True)
        positions = np.arange(len(layers))
        top.bar(positions, np.array(optimized["thresholds"]) / np.array(baseline["thresholds"]), color=OPTIMIZED)
        top.set_axisbelow(True)
        top.axhline(1, color=BASELINE)
        top.set_ylabel("threshold /\nbaseline threshold")
        name = labels.optimized_name(found)
        bottom.plot(positions, optimized["percentiles"], color=OPTIMIZED, marker="o", label=name)
        if base.percentile is not None:
            bottom.axhline(base.percentile, color=BASELINE, label=labels.baseline_name(base))
        bottom.set_ylabel("percentile of the\nANN's activations")
        bottom.ticklabel_format(axis="y", useOffset=False)
        _layer_ticks(bottom, layers)
        pairs = bottom.get_legend_handles_labels()
        top.legend(*pairs, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False)
        save(figure, path)


COLUMNS = 3
"""Panels side by side in the figure of the cost."""


def cost_history(history: Sequence[dict], path: Path) -> None:
    """Cost of the best candidate and the population's mean over generations, and each part on an axis of its own.

    A part that dominates the sum would hide how the others move.
    """
    with plt.rc_context(STYLE):
        parts = list(history[0]["parts"])
        rows = -(-len(parts) // COLUMNS)
        figure = plt.figure(figsize=(6.4, 2.6 + 1.5 * rows), layout="constrained")
        grid = figure.add_gridspec(1 + rows, COLUMNS, height_ratios=[1.7, *[1] * rows])
        whole = figure.add_subplot(grid[0, :])
        numbers = [row["generation"] for row in history]
        best = [row["best_cost"] for row in history]
        _steps(whole, numbers, best, "black", "best candidate")
        mean = _gaps([row["mean_cost"] for row in history])
        whole.plot(numbers, mean, color=ANN, linestyle="--", marker=".", markersize=4, label="population mean")
        _widen(whole, [*best, *mean[np.isfinite(mean)]])
        whole.set_ylabel("cost")
        _legend_above(whole, columns=2)
        for index, name in enumerate(parts):
            axes = figure.add_subplot(grid[1 + index // COLUMNS, index % COLUMNS], sharex=whole)
            values = [row["parts"][name] for row in history]
            _steps(axes, numbers, values, FACTORS[index % len(FACTORS)])
            _widen(axes, values)
            axes.set_title(f"{labels.for_figure(name)}: {_from_to(values)}", fontsize=8, loc="left")
            axes.tick_params(labelsize=8)
        figure.supxlabel("generation", fontsize=10)
        whole.xaxis.set_major_locator(MaxNLocator(integer=True))
        save(figure, path)


def _steps(
    axes: Axes, numbers: Sequence[int], values: Sequence[float], color: str, label: str | None = None
) -> None:
    """A value that holds from its generation to the next."""
    axes.plot(numbers, values, color=color, drawstyle="steps-post", label=label)
    axes.plot(numbers, values, color=color, linestyle="none", marker=".", markersize=4)
    axes.ticklabel_format(axis="y", useOffset=False)


def _widen(axes: Axes, values: Sequence[float]) -> None:
    """Let an axis span at least 2 % of its values, so that what hardly changes looks like it."""
    low, high = min(values), max(values)
    least = 0.02 * max(abs(low), abs(high)) or 1.0
    if high - low < least:
        axes.set_ylim((low + high - least) / 2, (low + high + least) / 2)


def _from_to(values: Sequence[float]) -> str:
    first, last = f"{values[0]:.3g}", f"{values[-1]:.3g}"
    return first if first == last else f"{first} → {last}"


SYMBOLS = {"alpha": "α", "beta": "β", "gamma": "γ"}


def cost_sweep(sweep: dict, path: Path) -> None:
    """Acc(t) of the best candidate as one weight of eq. 11 changes, a panel a weight (as in Fig. 1)."""
    with plt.rc_context(STYLE):
        names = list(sweep["weights"])
        figure, panels = plt.subplots(
            len(names), 1, figsize=(5.2, 2.7 * len(names)), sharex=True, layout="constrained", squeeze=False
        )
        for axes, name in zip(panels[:, 0], names):
            _sweep_panel(axes, SYMBOLS[name], sweep["weights"][name], sweep["own"][name])
        panels[-1, 0].set_xlabel(f"timesteps, {sweep['held_out_images']} held-out training images")
        panels[-1, 0].set_xlim(0, sweep["timesteps"])
        save(figure, path)


def _sweep_panel(axes: Axes, symbol: str, rows: Sequence[dict], own: float) -> None:
    """Acc(t) for each value of one weight."""
    # curves may coincide: the run's own is broad and at the back, the others are broken differently
    others = zip(itertools.cycle(FACTORS), itertools.cycle(("--", ":", "-.")))
    for row in rows:
        steps, accuracy = np.arange(1, len(row["accuracy"]) + 1), 100 * np.array(row["accuracy"])
        label = f"{symbol} = {row['weight']:g}"
        if row["weight"] == own:
            axes.plot(steps, accuracy, label=f"{label} (the run's)", color="#b0b0b0", linewidth=4, zorder=1.5)
        else:
            color, style = next(others)
            axes.plot(steps, accuracy, label=label, color=color, linestyle=style)
    axes.set_ylabel("accuracy [%]")
    axes.set_ylim(0, 100)
    _legend_above(axes, columns=3)


def significance_and_thresholds(
    layers: Sequence[str],
    change: Sequence[float | None],
    percentiles: Sequence[float],
    baseline: NetworkResult,
    path: Path,
) -> None:
    """Change of the number of principal components beside the thresholds' percentiles, as in Fig. 2(a)."""
    with plt.rc_context(STYLE):
        figure, left = plt.subplots(figsize=(5.2, 3.8))
        positions = np.arange(len(layers))
        left.bar(positions, _gaps(change), color=BASELINE, alpha=0.75, label="change of components (left)")
        left.axhline(0, color=BASELINE, linewidth=0.8)
        left.set_axisbelow(True)
        left.set_ylabel("change of components from\nthe layer before [%]", color=BASELINE)
        right = _percentile_axis(left, positions, percentiles, baseline)
        _layer_ticks(left, layers)
        _legend_above(left, right, columns=2)
        save(figure, path)


def sensitivity_and_thresholds(
    layers: Sequence[str],
    sensitivity: Mapping[str, Sequence[float | None]],
    percentiles: Sequence[float],
    baseline: NetworkResult,
    path: Path,
) -> None:
    """Adversarial noise sensitivity per layer beside the thresholds' percentiles, as in Fig. 2(b).

    Args:
        sensitivity: of the networks "ann", "baseline" and "optimized".
    """
    with plt.rc_context(STYLE):
        figure, left = plt.subplots(figsize=(5.2, 3.9))
        positions = np.arange(len(layers))
        styles = {
            "ann": (ANN, "s", "ANN"),
            "baseline": (BASELINE, "o", "SNN, baseline"),
            "optimized": (OPTIMIZED, "^", "SNN, optimised"),
        }
        for name, (color, marker, label) in styles.items():
            left.plot(positions, _gaps(sensitivity[name]), color=color, marker=marker, markersize=4, label=label)
        left.set_ylabel("noise sensitivity (left)")
        left.set_ylim(bottom=0)
        right = _percentile_axis(left, positions, percentiles, baseline)
        _layer_ticks(left, layers)
        _legend_above(left, right, columns=2)
        save(figure, path)


def clean_and_attacked(panels: Mapping[str, TestResult], path: Path) -> None:
    """Acc(t) of both networks and the ANN's accuracy on clean and on attacked images, as in Fig. 3.

    Args:
        panels: by title, what ``compare_networks`` found; all of the same networks.
    """
    with plt.rc_context(STYLE):
        size = (5.2, 3.0 * len(panels))
        figure, rows = plt.subplots(len(panels), 1, figsize=size, sharex=True, layout="constrained", squeeze=False)
        for axes, (title, result) in zip(rows[:, 0], panels.items()):
            _curves(axes, result)
            ann = 100 * result.ann_accuracy
            axes.axhline(ann, color=ANN, linewidth=1, linestyle=":", label="ANN")
            ends = labels.accuracy_interval(result.ann_accuracy, result.test_images)
            heading = f"{labels.for_figure(title)}: ANN {ann:.2f} % ({ends}), {result.test_images:,} images"
            axes.set_title(heading, fontsize=10, loc="left")
            axes.set_ylabel("accuracy [%]")
            axes.set_ylim(0, 100)
        last = list(panels.values())[-1]
        rows[-1, 0].set_xlabel(_timesteps(last.delay))
        rows[-1, 0].set_xlim(0, last.timesteps)
        pairs = rows[0, 0].get_legend_handles_labels()
        figure.legend(*pairs, fontsize=8, ncols=3, loc="outside upper left", frameon=False)
        save(figure, path)


def _timesteps(delay: str) -> str:
    """Label of an axis of timesteps."""
    return f"timesteps ({'one step of delay per layer' if delay == 'layer' else 'no layer delay'})"


def _gaps(values: Sequence[float | None]) -> np.ndarray:
    """Undefined values as NaN, which is not drawn."""
    return np.array([np.nan if value is None else value for value in values])


def _percentile_axis(
    left: Axes, positions: np.ndarray, percentiles: Sequence[float], baseline: NetworkResult
) -> Axes:
    right = left.twinx()
    right.grid(False)
    right.spines["right"].set_visible(True)
    right.plot(positions, percentiles, color=PERCENTILE, marker="D", markersize=4, label="threshold (right)")
    if baseline.percentile is not None:
        name = labels.baseline_name(baseline)
        right.axhline(baseline.percentile, color=PERCENTILE, linestyle=":", linewidth=1, label=name)
    right.set_ylabel("percentile of the ANN's activations", color=PERCENTILE)
    right.ticklabel_format(axis="y", useOffset=False)
    return right


def _layer_ticks(axes: Axes, layers: Sequence[str]) -> None:
    names = [labels.for_figure(name) for name in layers]
    axes.set_xticks(np.arange(len(layers)), names, rotation=45, ha="right", rotation_mode="anchor")


def _legend_above(*axes: Axes, columns: int) -> None:
    """One legend for several axes, above them, where nothing is drawn."""
    pairs = [pair for one in axes for pair in zip(*one.get_legend_handles_labels())]
    handles, names = zip(*pairs)
    axes[0].legend(
        handles, names, fontsize=8, ncols=columns, loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False
    )
