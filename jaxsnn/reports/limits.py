"""A table of what limits of energy and peak activity have cost."""

from typing import Any

from rich import box
from rich.table import Table

NAMES = {
    "calibrated": "as calibrated",
    "found": "searched below limits",
    "early_exit": "calibrated, early exit",
}
UNITS = {"energy": "uJ an image", "peak": "spikes a neuron and step"}


def limits_table(record: dict[str, Any]) -> Table:
    """A line for each network of the limits in a results.json."""
    limits = ", ".join(f"{value:.4g} {UNITS[name]}" for name, value in record["limits"].items())
    table = Table(
        title=f"limits on training images: {limits}\non test images, T = {record['timesteps']}:",
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("")
    for heading in ("correct", "points (95 %)", "mean\nT", f"uJ\n{record['kind']}", "less", "peak"):
        table.add_column(heading, justify="right", no_wrap=True)
    usual = record["networks"]["calibrated"]["microjoules"]
    for name, row in record["networks"].items():
        gain = row.get("accuracy_gain_ci95")
        table.add_row(
            NAMES[name],
            f"{100 * row['accuracy']:.2f} %",
            "" if gain is None else f"{gain[0]:+.2f}..{gain[1]:+.2f}",
            f"{row['mean_timesteps']:.2f}",
            f"{row['microjoules']:.3f}",
            "" if name == "calibrated" else f"{100 * (1 - row['microjoules'] / usual):.0f} %",
            f"{row['peak']:.3f}" if "peak" in row else "",
        )
    return table
