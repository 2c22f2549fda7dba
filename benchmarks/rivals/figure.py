"""What all systems lose to the ANN over timesteps and over energy, with the frontier of those that nothing beats.

Points lost are on a logarithmic scale: systems that nearly reach the ANN and such that have hardly begun are seen
apart.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import NullLocator, ScalarFormatter

from benchmarks.rivals.system import System
from benchmarks.rivals.table import accuracy, rows_of
from jaxsnn.reports.figures import OPTIMIZED, STYLE, save

MARKERS = "os^vDP*X<>hp"
LEAST = 0.1
"""Points lost that are drawn for less, or for none."""
PANELS = (("timesteps", "timesteps (no layer delay)"), ("microjoules", "energy [µJ an image]"))


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of points (cost, lost) that no other with at most their cost matches, by cost."""
    found: list[tuple[float, float]] = []
    for cost, value in sorted(points):
        if not found or value < found[-1][1]:
            found.append((cost, value))
    return found


def draw(report: dict[str, Any], systems: Mapping[str, System], path: Path) -> None:
    """One panel over T and one over energy; the frontier is a step line."""
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(10, 4.6), sharey=True)
        colors = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
        everything: list[list[tuple[float, float]]] = [[], []]
        for index, (name, system) in enumerate(systems.items()):
            steps = sorted({row["timesteps"] for row in report["rows"] if row["system"] == name})
            if not steps:
                continue
            lost = [100 * report["ann_accuracy"] - (accuracy(report, name, t) or 0.0) for t in steps]
            values = [max(points, LEAST) for points in lost]
            own = name.startswith("ours")
            for axes, (key, _), points in zip(panels, PANELS, everything):
                costs = [float(np.median([row[key] for row in rows_of(report, name, t)])) for t in steps]
                points += zip(costs, values)
                axes.plot(
                    costs,
                    values,
                    color=OPTIMIZED if own else colors[index % len(colors)],
                    linewidth=2.0 if own else 0.9,
                    marker=MARKERS[index % len(MARKERS)],
                    markersize=4,
                    zorder=3 if own else 2,
                    label=system.title,
                )
        for axes, (_, label), points in zip(panels, PANELS, everything):
            if points:
                axes.step(
                    *zip(*frontier(points)), where="post", color="0.7", linewidth=5, zorder=1, label="frontier"
                )
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlabel(label)
        panels[0].set_yscale("log")
        panels[0].yaxis.set_major_formatter("{x:g}")
        panels[0].invert_yaxis()
        panels[0].set_ylabel(
            f"points below the ANN, at least {LEAST} ({report['settings']['test_images']:,} images)"
        )
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, fontsize=7, ncols=7, loc="outside upper center", frameon=False)
        save(figure, path)
