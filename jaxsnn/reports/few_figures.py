"""Figures of networks that are prepared for few timesteps: what each layer loses, and accuracy over T."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator, ScalarFormatter

from jaxsnn.conversion.channel_fit import LayerFit
from jaxsnn.reports import labels
from jaxsnn.reports.figures import ANN, BASELINE, OPTIMIZED, STYLE, save

WIDTH = 0.4
MARKERS = "os^vDP*X<>hp"


def layer_errors(fits: Sequence[LayerFit], path: Path) -> None:
    """Errors of each layer's output against the ANN's activations, before the descent on its channels and after.

    Above the mean error of a channel, which a bias can take back; below what is left around it: the order in which
    spikes arrive, and rounding. Both are root mean squares in per cent of the root mean square activation. A
    layer's errors are those behind the layers before it as they are in the end; "before" is ``LayerFit.before``.
    """
    before = np.array([fit.before for fit in fits])
    after = np.array([(fit.bias_error, fit.squared_error) for fit in fits])
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(2, 1, figsize=(6, 5), sharex=True)
        positions = np.arange(len(fits))
        for errors, offset, color, name in (
            (before, -WIDTH / 2, BASELINE, "before"),
            (after, WIDTH / 2, OPTIMIZED, "after"),
        ):
            for axes, value in zip(panels, (errors[:, 0], around_the_mean(errors))):
                axes.bar(positions + offset, 100 * value, WIDTH, color=color, label=name)
        for axes, title in zip(panels, ("mean error", "error around the mean")):
            axes.set_ylabel(f"{title}\n[% of activation]")
            axes.set_axisbelow(True)
            axes.set_ylim(bottom=0)
        names = [labels.for_figure(fit.name) for fit in fits]
        panels[1].set_xticks(positions, names, rotation=45, ha="right", rotation_mode="anchor")
        _legend_above(panels[0], 2)
        save(figure, path)


def around_the_mean(errors: np.ndarray) -> np.ndarray:
    """Root mean square error around each channel's mean error; ``errors`` (L, 2) are bias and squared errors."""
    return np.sqrt(np.maximum(errors[:, 1] - errors[:, 0] ** 2, 0))


def accuracy_over_timesteps(
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    ann: float,
    ylabel: str,
    path: Path,
    bold: Sequence[str] = (),
) -> None:
    """Accuracies of several networks over T on a logarithmic axis, each at timesteps of its own.

    Args:
        curves: by name, timesteps from 1 on and accuracies in [0, 1].
        ann: accuracy of the ANN.
        ylabel: what the accuracies are of.
        bold: names of curves that stand out.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6, 4.2))
        colors = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
        for index, (name, (steps, accuracy)) in enumerate(curves.items()):
            out = name in bold
            axes.plot(
                steps,
                100 * np.array(accuracy),
                color=OPTIMIZED if out else colors[index % len(colors)],
                linewidth=2.2 if out else 1.1,
                marker=MARKERS[index % len(MARKERS)],
                markersize=4,
                zorder=3 if out else 2,
                label=labels.for_figure(name),
            )
        axes.axhline(100 * ann, color=ANN, linewidth=1, linestyle=":", label=f"ANN, {100 * ann:.2f} %")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("timesteps (no layer delay)")
        axes.set_ylabel(ylabel)
        _legend_above(axes, 3)
        save(figure, path)


def _legend_above(axes: Axes, columns: int) -> None:
    axes.legend(fontsize=8, ncols=columns, loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False)
