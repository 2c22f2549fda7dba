"""Figures of a run, as PNG files."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from jaxsnn.weights import write_atomically

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
        figure, axes = plt.subplots(figsize=(7, 4.2))
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
        axes.set_ylabel(f"accuracy on {results['test_images']:,} test images [%]")
        axes.set_xlim(0, results["timesteps"])
        axes.legend(loc="lower right")
        save(figure, path)


def threshold_bars(layers: Sequence[str], baseline: dict, optimized: dict, path: Path) -> None:
    """Thresholds per layer: the value relative to the baseline's, and the percentile of the ANN's activations."""
    with plt.rc_context(STYLE):
        figure, (top, bottom) = plt.subplots(2, 1, figsize=(7, 5), sharex=True)
        positions = np.arange(len(layers))
        ratio = np.array(optimized["thresholds"]) / np.array(baseline["thresholds"])
        top.bar(positions, ratio, color=OPTIMIZED)
        top.axhline(1, color=BASELINE)
        top.set_ylabel("threshold /\nbaseline threshold")
        bottom.plot(positions, optimized["percentiles"], color=OPTIMIZED, marker="o", label="optimised")
        bottom.axhline(baseline["percentile"], color=BASELINE, label=f"{baseline['percentile']:g} percentile")
        bottom.set_ylabel("percentile of the\nANN's activations")
        bottom.set_xticks(positions, layers, rotation=45, ha="right")
        bottom.legend()
        save(figure, path)


def cost_history(history: Sequence[dict], path: Path) -> None:
    """Cost of the best candidate with its parts stacked, and the population's mean, over generations."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 3.6))
        numbers = [row["generation"] for row in history]
        names = list(history[0]["parts"])
        stacks = [[row["parts"][name] for row in history] for name in names]
        axes.stackplot(numbers, stacks, labels=[f"best: {name}" for name in names], alpha=0.7, step="post")
        axes.plot(
            numbers, [row["mean_cost"] for row in history], color="black", marker=".", label="population mean"
        )
        axes.set_xlabel("generation")
        axes.set_ylabel("cost")
        axes.set_ylim(bottom=0)
        if len(numbers) > 1:
            axes.set_xlim(numbers[0], numbers[-1])
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize=8)
        save(figure, path)
