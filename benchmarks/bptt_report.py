"""Tables and figures of benchmarks.bptt."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich import box
from rich.table import Table

from jaxsnn.analysis.latency import latency
from jaxsnn.reports import figures

PAPER = (
    "the paper, T = 5: 2.9 times less memory and 42 times less time, at batches of 21, 2, 2 and 1 for its four T"
)


def accuracy_tables(report: dict) -> tuple[Table, Table]:
    """Fig. 4 in numbers: how accurate, and at what cost."""
    delay, ann = report["delay_steps"], report["ann_accuracy"]
    title = f"{report['test_images']:,} test images, ANN {100 * ann:.2f} %; t without layer delay"
    shape = {"box": box.SIMPLE, "pad_edge": False, "padding": (0, 1, 0, 0)}  # fits 80 columns
    accuracy, cost = Table(title=title, **shape), Table(**shape)
    steps = [t for t in (4, 8, 16, 24, 32, 48) if t + delay <= len(report["rows"][0]["accuracy"])]
    accuracy.add_column("accuracy [%]", no_wrap=True)
    for heading in (*(f"t={t}" for t in steps), "end", "to ANN-2"):
        accuracy.add_column(heading, justify="right", no_wrap=True)
    cost.add_column("cost", no_wrap=True)
    for heading in ("images", "M image steps", "s", "peak MB"):
        cost.add_column(heading, justify="right", no_wrap=True)
    for row in report["rows"]:
        curve = np.array(row["accuracy"])
        reached = int(latency(curve, ann - 0.02 - 1e-9))
        shown = [*(curve[t + delay - 1] for t in steps), curve[-1]]
        accuracy.add_row(
            row["name"], *(f"{100 * a:.1f}" for a in shown), str(reached - delay) if reached else "never"
        )
        if row["image_evaluations"]:
            cost.add_row(
                row["name"],
                f"{row['image_evaluations']:,}",
                f"{row['image_steps'] / 1e6:.2f}",
                f"{row['seconds']:.0f}",
                f"{row['peak_bytes'] / 1e6:,.0f}" if row["peak_bytes"] else "",
            )
    return accuracy, cost


def accuracy_figure(report: dict, path: Path) -> None:
    """Acc(t) of every method, with what it cost in the legend."""
    colors = (figures.BASELINE, figures.OPTIMIZED, "#64b5cd", "#da8bc3", "#55a868", "#8172b3", "#dd8452")
    with plt.rc_context(figures.STYLE):
        figure, axes = plt.subplots(figsize=(7, 4.6))
        for row, color in zip(report["rows"], colors):
            cost = f"{row['image_evaluations']:,} images, {row['seconds']:.0f} s"
            memory = f", {row['peak_bytes'] / 1e6:,.0f} MB" if row["peak_bytes"] else ""
            label = f"{row['name']}: {cost}{memory}" if row["image_evaluations"] else row["name"]
            steps = np.arange(1, len(row["accuracy"]) + 1)
            axes.plot(steps, 100 * np.array(row["accuracy"]), color=color, label=label)
        ann = 100 * report["ann_accuracy"]
        axes.axhline(ann, color=figures.ANN, linewidth=1, linestyle=":", label=f"ANN, {ann:.2f} %")
        convention = "one step of delay per layer" if report["delay"] == "layer" else "no layer delay"
        axes.set_xlabel(f"timesteps ({convention})")
        axes.set_ylabel(f"accuracy on {report['test_images']:,} test images [%]")
        axes.set_xlim(0, max(len(row["accuracy"]) for row in report["rows"]))
        axes.set_ylim(0, 100)
        axes.legend(fontsize=8, loc="lower right")
        figures.save(figure, path)


def memory_table(report: dict) -> Table:
    """Fig. 5 in numbers."""
    cost = report["training_cost_epochs"]
    table = Table(
        title=f"{report['network']}; largest batch of BPTT in {report['limit_gib']:g} GiB; eq. 19 with "
        f"{cost['bptt']:g} and {cost['search']:.2f} epochs",
        caption=PAPER,
    )
    for heading in ("T", "batch", "BPTT GB", "checkpointed GB", "search GB", "less memory"):
        table.add_column(heading, justify="right")
    timed = report["measure"] != "none"
    note = " (extrapolated)" if report["measure"] == "small" else ""
    for heading in (f"BPTT h{note}", f"search h{note}", "less time") if timed else ():
        table.add_column(heading, justify="right")
    for row in report["rows"]:
        sizes = [row[f"{name}_bytes"] for name in ("bptt", "checkpoint", "search")]
        cells = [str(row["timesteps"]), str(row["batch"] or "1 does not fit"), *(f"{s / 1e9:.2f}" for s in sizes)]
        cells.append(f"{sizes[0] / sizes[2]:.1f}x")
        if timed:
            hours = row["bptt_hours"], row["search_hours"]
            cells += [*(f"{h:,.0f}" for h in hours), f"{hours[0] / hours[1]:.0f}x"]
        table.add_row(*cells)
    return table


def memory_figure(report: dict, path: Path) -> None:
    """Memory and running time over T, as in Fig. 5."""
    rows = report["rows"]
    timed = report["measure"] != "none"
    with plt.rc_context(figures.STYLE):
        figure, panels = plt.subplots(1, 2 if timed else 1, figsize=(9 if timed else 5, 3.8), squeeze=False)
        places = np.arange(len(rows))
        left = panels[0, 0]
        kinds = (("bptt", "BPTT", "#55a868"), ("checkpoint", "BPTT, checkpointed", "#a3cfa9"))
        for shift, (name, label, color) in enumerate((*kinds, ("search", "search", figures.OPTIMIZED))):
            left.bar(
                places + 0.27 * (shift - 1),
                [row[f"{name}_bytes"] / 1e9 for row in rows],
                0.25,
                color=color,
                label=label,
            )
        left.set_ylabel("memory of a batch [GB]")
        if timed:
            right = panels[0, 1]
            for shift, (name, label, color) in enumerate((kinds[0], ("search", "search", figures.OPTIMIZED))):
                right.bar(
                    places + 0.4 * (shift - 0.5),
                    [row[f"{name}_hours"] for row in rows],
                    0.38,
                    color=color,
                    label=label,
                )
            right.set_yscale("log")
            extrapolated = ", extrapolated" if report["measure"] == "small" else ""
            right.set_ylabel(f"running time, eq. 19{extrapolated} [h]")
        for axes in panels[0]:
            axes.set_xticks(places, [f"{row['timesteps']}\n(batch {max(1, row['batch'])})" for row in rows])
            axes.set_xlabel("timesteps")
            axes.legend(fontsize=8)
        figures.save(figure, path)
