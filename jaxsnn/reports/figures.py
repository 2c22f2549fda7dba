"""Figures of a run, as PNG files."""

import itertools
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from jaxsnn.runtime.files import write_atomically

matplotlib.use("Agg")


BASELINE, OPTIMIZED, ANN = "#4c72b0", "#c44e52", "#555555"


STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 10,
}


def save(figure, path: Path) -> None:
    """Write the figure atomically and close it."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight")
    plt.close(figure)
    write_atomically(path, buffer.getvalue())


def accuracy_curves(results: dict, path: Path) -> None:
    """Acc(t) of both networks, with one iso-accuracy and one iso-time comparison marked (as in Fig. 3)."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6, 4.2))
        steps = np.arange(1, results["timesteps"] + 1)
        curves = [100 * np.array(results[name]["accuracy"]) for name in ("baseline", "optimized")]
        percentile = results["baseline"].get("percentile")
        label = f"{percentile:g} percentile" if percentile else "baseline"
        axes.plot(steps, curves[0], color=BASELINE, label=label)
        axes.plot(steps, curves[1], color=OPTIMIZED, label="optimised thresholds")
        ann = 100 * results["ann_accuracy"]
        axes.axhline(ann, color=ANN, linewidth=1, linestyle=":", label=f"ANN, {ann:.2f} %")
        reached = [row for row in results["latency"] if row["improvement_percent"] is not None]
        if reached:
            row = max(reached, key=lambda row: row["improvement_percent"])
            slow, fast, target = row["baseline_timesteps"], row["optimized_timesteps"], 100 * row["target"]
            pair = [curve[fast - 1] for curve in curves]
            axes.plot([fast, slow], [target, target], color="black", linewidth=1, marker="|", linestyle="--")
            axes.plot([fast, fast], pair, color="darkred", linewidth=1, marker="_", linestyle=":")
            saved = (
                f"{row['target_name']}: {fast} instead of {slow} steps ({row['improvement_percent']:.1f} % fewer)"
            )
            gained = f"at {fast} steps: {pair[1]:.1f} % instead of {pair[0]:.1f} %"
            # nothing is drawn in the upper left: the curves rise later
            box = {"boxstyle": "round", "facecolor": "white", "edgecolor": "lightgrey"}
            for text, height, point in ((saved, 0.85, (fast, target)), (gained, 0.68, (fast, np.mean(pair)))):
                axes.annotate(
                    text.replace(" (", "\n(").replace(" instead", "\ninstead") if len(text) > 30 else text,
                    point,
                    xytext=(0.02, height),
                    textcoords="axes fraction",
                    va="top",
                    fontsize=8,
                    bbox=box,
                    arrowprops={"arrowstyle": "-", "color": "grey", "linewidth": 0.7},
                )
        convention = "one step of delay per layer" if results["delay"] == "layer" else "no layer delay"
        axes.set_xlabel(f"timesteps ({convention})")
        kind = "attacked test images" if results.get("attack") else "test images"
        axes.set_ylabel(f"accuracy on {results['test_images']:,} {kind} [%]")
        axes.set_xlim(0, results["timesteps"])
        axes.legend(loc="lower right", fontsize=8)
        save(figure, path)


def threshold_bars(layers: Sequence[str], baseline: dict, optimized: dict, path: Path) -> None:
    """Thresholds per layer: the value relative to the baseline's, and the percentile of the ANN's activations."""
    with plt.rc_context(STYLE):
        figure, (top, bottom) = plt.subplots(2, 1, figsize=(6, 5), sharex=True)
        positions = np.arange(len(layers))
        ratio = np.array(optimized["thresholds"]) / np.array(baseline["thresholds"])
        top.bar(positions, ratio, color=OPTIMIZED)
        top.set_axisbelow(True)
        top.axhline(1, color=BASELINE)
        top.set_ylabel("threshold /\nbaseline threshold")
        bottom.plot(positions, optimized["percentiles"], color=OPTIMIZED, marker="o", label="optimised")
        bottom.axhline(baseline["percentile"], color=BASELINE, label=f"{baseline['percentile']:g} percentile")
        bottom.set_ylabel("percentile of the\nANN's activations")
        bottom.set_xticks(positions, layers, rotation=45, ha="right")
        bottom.legend(fontsize=8)
        save(figure, path)


def cost_history(history: Sequence[dict], path: Path) -> None:
    """Cost of the best candidate with its parts stacked, and the population's mean, over generations."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6, 3.6))
        numbers = [row["generation"] for row in history]
        names = list(history[0]["parts"])
        stacks = [[row["parts"][name] for row in history] for name in names]
        axes.stackplot(numbers, stacks, labels=[f"best: {name}" for name in names], alpha=0.7, step="post")
        axes.plot(
            numbers,
            _gaps([row["mean_cost"] for row in history]),
            color="black",
            marker=".",
            label="population mean",
        )
        axes.set_xlabel("generation")
        axes.set_ylabel("cost")
        axes.set_ylim(bottom=0)
        if len(numbers) > 1:
            axes.set_xlim(numbers[0], numbers[-1])
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize=8)
        save(figure, path)


PERCENTILE = "#2e7d32"


FACTORS = (OPTIMIZED, BASELINE, "#2e7d32", "#8172b3", "#937860")


def cost_sweep(sweep: dict, path: Path) -> None:
    """Acc(t) of the best candidate as one weight of eq. 11 changes, a panel a weight (as in Fig. 1)."""
    with plt.rc_context(STYLE):
        names = list(sweep["weights"])
        figure, panels = plt.subplots(len(names), 1, figsize=(5.2, 2.5 * len(names)), sharex=True)
        for axes, name in zip(panels, names):
            # curves may coincide: the run's own is broad and behind, the others are broken differently
            others = zip(itertools.cycle(FACTORS), itertools.cycle(("--", ":", "-.")))
            for row in sweep["weights"][name]:
                own = row["weight"] == sweep["own"][name]
                if own:
                    style = {"color": "#b0b0b0", "linewidth": 4, "zorder": 1.5}
                else:
                    style = dict(zip(("color", "linestyle"), next(others)))
                symbol = {"alpha": "α", "beta": "β", "gamma": "γ"}[name]
                label = f"{symbol} = {row['weight']:g}" + (" (the run's)" if own else "")
                steps = np.arange(1, len(row["accuracy"]) + 1)
                axes.plot(steps, 100 * np.array(row["accuracy"]), label=label, **style)
            axes.set_ylabel("accuracy [%]")
            axes.set_ylim(0, 100)
            axes.legend(fontsize=8, loc="upper left")
        panels[-1].set_xlabel(f"timesteps, {sweep['held_out_images']} held-out training images")
        panels[-1].set_xlim(0, len(steps))
        save(figure, path)


def significance_and_thresholds(
    layers: Sequence[str], change: Sequence[float | None], percentiles: Sequence[float], base: float, path: Path
) -> None:
    """Change of the number of principal components beside the thresholds' percentiles, as in Fig. 2(a)."""
    with plt.rc_context(STYLE):
        figure, left = plt.subplots(figsize=(5.2, 3.8))
        positions = np.arange(len(layers))
        left.bar(positions, _gaps(change), color=BASELINE, alpha=0.75, label="change of components (left)")
        left.axhline(0, color=BASELINE, linewidth=0.8)
        left.set_axisbelow(True)
        left.set_ylabel("change of components from\nthe layer before [%]", color=BASELINE)
        right = _percentile_axis(left, positions, percentiles, base)
        _layer_ticks(left, layers)
        _legend_above(figure, left, right)
        save(figure, path)


def sensitivity_and_thresholds(
    layers: Sequence[str],
    sensitivity: dict[str, Sequence[float | None]],
    percentiles: Sequence[float],
    base: float,
    path: Path,
) -> None:
    """Adversarial noise sensitivity per layer beside the thresholds' percentiles, as in Fig. 2(b)."""
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
        right = _percentile_axis(left, positions, percentiles, base)
        _layer_ticks(left, layers)
        _legend_above(figure, left, right)
        save(figure, path)


def clean_and_attacked(panels: dict[str, dict], baseline_name: str, path: Path) -> None:
    """Acc(t) of both networks and the ANN's accuracy on clean and on attacked images, as in Fig. 3.

    Args:
        panels: by title, what ``compare_on_test`` returned.
    """
    with plt.rc_context(STYLE):
        figure, rows = plt.subplots(len(panels), 1, figsize=(5.2, 3.0 * len(panels)), sharex=True)
        for axes, (title, results) in zip(rows, panels.items()):
            steps = np.arange(1, results["timesteps"] + 1)
            for name, color, label in (
                ("baseline", BASELINE, baseline_name),
                ("optimized", OPTIMIZED, "optimised thresholds"),
            ):
                axes.plot(steps, 100 * np.array(results[name]["accuracy"]), color=color, label=label)
            ann = 100 * results["ann_accuracy"]
            axes.axhline(ann, color=ANN, linewidth=1, linestyle=":")
            axes.annotate(f"ANN {ann:.2f} %", (0, ann), xytext=(4, 3), textcoords="offset points", fontsize=8)
            axes.set_title(title, fontsize=10, loc="left")
            axes.set_ylabel("accuracy [%]")
            axes.set_ylim(0, 100)
        rows[0].legend(fontsize=8, loc="lower right")
        convention = "one step of delay per layer" if results["delay"] == "layer" else "no layer delay"
        rows[-1].set_xlabel(f"timesteps ({convention})")
        rows[-1].set_xlim(0, results["timesteps"])
        save(figure, path)


def _gaps(values: Sequence[float | None]) -> np.ndarray:
    """Undefined values as NaN, which is not drawn."""
    return np.array([np.nan if value is None else value for value in values])


def _percentile_axis(left, positions: np.ndarray, percentiles: Sequence[float], base: float):
    right = left.twinx()
    right.grid(False)
    right.spines["right"].set_visible(True)
    right.plot(positions, percentiles, color=PERCENTILE, marker="D", markersize=4, label="threshold (right)")
    right.axhline(base, color=PERCENTILE, linestyle=":", linewidth=1, label=f"{base:g} percentile")
    right.set_ylabel("percentile of the ANN's activations", color=PERCENTILE)
    right.ticklabel_format(axis="y", useOffset=False)
    return right


def _layer_ticks(axes, layers: Sequence[str]) -> None:
    axes.set_xticks(np.arange(len(layers)), layers, rotation=45, ha="right", rotation_mode="anchor")


def _legend_above(figure, *axes) -> None:
    """One legend for several axes, where nothing is drawn."""
    pairs = [pair for a in axes for pair in zip(*a.get_legend_handles_labels())]
    handles, labels = zip(*pairs)
    axes[0].legend(handles, labels, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False)
