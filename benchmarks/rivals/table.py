"""Tables and sentences of a report of ``benchmarks.rivals``."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.rivals.rows import right_of
from benchmarks.rivals.system import Published, System
from jaxsnn.analysis.latency import gain_intervals

Report = dict[str, Any]
AGREES = 2.0
"""Points by which a drop may differ from the published one without a word."""


def rows_of(report: Report, name: str, steps: int) -> list[dict]:
    """The rows of a system at T, a seed each."""
    return [row for row in report["rows"] if (row["system"], row["timesteps"]) == (name, steps)]


def accuracy(report: Report, name: str, steps: int) -> float | None:
    """Median over seeds at T, in per cent."""
    found = [100 * row["accuracy"][-1] for row in rows_of(report, name, steps)]
    return float(np.median(found)) if found else None


def best(report: Report, systems: Mapping[str, System], steps: int) -> str | None:
    """The system with the highest accuracy at T."""
    found = {name: value for name in systems if (value := accuracy(report, name, steps)) is not None}
    return max(found, key=lambda name: found[name]) if found else None


def ours_less(report: Report, name: str, steps: int) -> tuple[float, float, float] | None:
    """Points that ours is above a system at T, and the 95 % interval of a paired bootstrap, of the first seed."""
    pair = [rows_of(report, one, steps) for one in (name, "ours")]
    if not all(pair):
        return None
    images = report["settings"]["test_images"]
    rival, own = (right_of(rows[0], images)[:, None] for rows in pair)
    ((low, high),) = gain_intervals(rival, own)
    return 100 * (own.mean() - rival.mean()), low, high


def table_of(report: Report, systems: Mapping[str, System], timesteps: Sequence[int]) -> Table:
    """Accuracy at each T, what ours has more, and spikes, energy and preparation at the largest T."""
    delay, last = report["delay"], max(timesteps)
    settings, ann = report["settings"], report["ann_microjoules"]
    table = Table(
        "",
        *(f"T = {steps}\nT = {steps + delay}, delay" for steps in timesteps),
        f"spikes\nT = {last}",
        "synops",
        "µJ",
        "images",
        "seconds",
        title=f"{report['network']}, ANN {100 * report['ann_accuracy']:.2f} %, {ann:.0f} µJ: accuracy in %, "
        "below it ours less this",
        caption=f"{settings['test_images']:,} test images; T without layer delay, and with one step per layer. "
        "Energy of additions and multiplications, float32 at 45 nm. L: with labels.",
    )
    leaders = {steps: best(report, systems, steps) for steps in timesteps}
    for name, system in systems.items():
        cells = []
        for steps in timesteps:
            value = accuracy(report, name, steps)
            gain = ours_less(report, name, steps) if name != "ours" else None
            text = "" if value is None else f"{value:.2f}" + " *" * (leaders[steps] == name)
            cells.append(text + ("" if gain is None else "\n{:+.1f} ({:+.1f} to {:+.1f})".format(*gain)))
        if any(cells):
            table.add_row(system.title, *cells, *_costs(report, name, last, system.trained))
    return table


def _costs(report: Report, name: str, steps: int, trained: bool) -> list[str]:
    """Of the largest T; the seconds are the most of any T, since what serves all is done for the first."""
    rows = rows_of(report, name, steps)
    if not rows:
        return [""] * 5
    spikes, synops, energy = (
        float(np.median([r[key] for r in rows])) for key in ("spikes", "synops", "microjoules")
    )
    seconds = max(row["seconds"] for row in report["rows"] if row["system"] == name)
    seen = f"{rows[0]['images']:,}" + " L" * trained
    return [f"{spikes / 1e3:,.0f} k", f"{synops / 1e6:,.1f} M", f"{energy:,.0f}", seen, f"{seconds:.1f}"]


def published_table(report: Report, systems: Mapping[str, System]) -> Table:
    """Drops below the ANN of systems that were run: published, and here at the same T, or the nearest."""
    table = Table(
        "",
        "their network",
        "ANN",
        "SNN",
        "T",
        "drop",
        "here, T",
        "drop here",
        "",
        title="Published figures, all of other networks, beside this table's",
    )
    for name, system in systems.items():
        for figure in system.published:
            nearest, drop = nearest_drop(report, name, figure)
            if nearest is None:
                continue
            table.add_row(
                f"{system.title}\n{system.source}",
                f"{figure.network}\n{figure.where}",
                "" if figure.ann is None else f"{figure.ann:.2f}",
                f"{figure.snn:.2f}",
                str(figure.timesteps),
                "" if figure.drop is None else f"{figure.drop:.2f}",
                str(nearest),
                "" if drop is None else f"{drop:.2f}",
                why(system, figure, nearest, drop),
            )
    return table


def nearest_drop(report: Report, name: str, figure: Published) -> tuple[int | None, float | None]:
    """The T of this report that is nearest to a published one, and the points lost there."""
    there = sorted({row["timesteps"] for row in report["rows"] if row["system"] == name})
    if not there:
        return None, None
    nearest = min(there, key=lambda steps: abs(steps - figure.timesteps))
    value = accuracy(report, name, nearest)
    return nearest, None if value is None else 100 * report["ann_accuracy"] - value


def why(system: System, figure: Published, nearest: int | None, drop: float | None) -> str:
    """Why a drop differs from the published one by more than ``AGREES`` points; "" where it does not."""
    if drop is None or nearest is None:
        return ""
    if figure.drop is not None and abs(drop - figure.drop) <= AGREES:
        return ""
    unknown = "their ANN's accuracy is not known here" if figure.drop is None else ""
    steps = f"{figure.timesteps:,} steps in theirs, {nearest} here" if nearest != figure.timesteps else ""
    return "; ".join(filter(None, (unknown, steps, system.deviates or "another network, trained otherwise")))


def sentences(report: Report, systems: Mapping[str, System], timesteps: Sequence[int]) -> list[str]:
    """Where a rival is ahead of ours, calibrated, in a sentence each; notes of rows; and how long all took."""
    found = []
    rivals = {name: system for name, system in systems.items() if not name.startswith("ours")}
    for steps in timesteps:
        leader = best(report, rivals, steps)
        gain = None if leader is None else ours_less(report, leader, steps)
        if leader is not None and gain is not None and gain[0] < 0:
            sure = "surely" if gain[2] < 0 else "not surely"
            first = best(report, systems, steps)
            ours_first = "" if first is None or first in rivals else f"; first is {systems[first].title}"
            found.append(
                f"T = {steps}: {systems[leader].title} is ahead of ours, calibrated, by {-gain[0]:.2f} points "
                f"({-gain[2]:.2f} to {-gain[1]:.2f}), {sure}{ours_first}."
            )
    noted = {row["system"]: row["note"] for row in report["rows"] if row["note"] and row["system"] in systems}
    found += [f"{systems[name].title}: {note}." for name, note in noted.items()]
    there = {row["system"] for row in report["rows"]}
    bare = [s.title for name, s in rivals.items() if name in there and not s.published]
    if bare:
        found.append(f"No published figure is at hand for {', '.join(bare)}.")
    # what serves several T counts for each of them
    minutes = sum(row["seconds"] + row["test_seconds"] for row in report["rows"] if row["system"] in systems) / 60
    return [*found, f"Preparation and simulation of all these rows: at most {minutes:.1f} minutes."]
