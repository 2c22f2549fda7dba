"""A frontier as people read it: a table, a figure, and a page on which one picks a point."""

import shlex
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from rich import box
from rich.table import Table

from jaxsnn.analysis.intervals import wilson
from jaxsnn.records.frontier import Frontier, Point, read_frontier
from jaxsnn.records.run_folder import read_history
from jaxsnn.reports import html_elements as html
from jaxsnn.reports import labels
from jaxsnn.reports.figures import ANN, BASELINE, OPTIMIZED, STYLE, save
from jaxsnn.runtime.files import write_atomically

AXES: dict[str, tuple[str, Callable[[Frontier, Point], float]]] = {
    "latency": ("timesteps", lambda frontier, point: float(point.timesteps)),
    "energy": ("microjoules an image", lambda frontier, point: point.energy[frontier.energy_kind]),
    "synops": ("million synops an image", lambda frontier, point: sum(point.synops) / 1e6),
    "peak": ("spikes a neuron and step, busiest layer", lambda frontier, point: point.peak),
}
"""What accuracy is drawn over: an objective's words and its value."""

WORDS = {"accuracy": "wrong answers", "latency": "timesteps"}
"""Objectives whose names say less than what is counted."""

SCRIPT = """
const show = n => { document.querySelectorAll('[data-point]').forEach(
  e => e.classList.toggle('chosen', e.dataset.point === n));
  document.querySelectorAll('.detail').forEach(e => { e.hidden = e.id !== 'point-' + n; }); };
document.querySelectorAll('[data-point]').forEach(e => {
  for (const kind of ['click', 'focus', 'mouseenter']) e.addEventListener(kind, () => show(e.dataset.point)); });
"""

PICK_STYLE = """
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--quiet); font-size: 15px; }
svg line { stroke: var(--line); }
svg .bar { stroke: var(--quiet); }
svg circle { fill: var(--strong); fill-opacity: 0.55; cursor: pointer; }
svg circle.start { fill: var(--quiet); }
svg circle.chosen, svg circle:focus { fill: #c44e52; fill-opacity: 1; outline: none; }
tr[data-point] { cursor: pointer; }
tr.chosen td { font-weight: 600; color: #c44e52; }
code { overflow-wrap: anywhere; }
.pick { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); gap: 1.5rem; }
.details { position: sticky; top: 1rem; align-self: start; max-height: 96vh; overflow: auto; }
.details h3 { margin-top: 0; }
.details table { font-size: 0.9rem; }
@media (max-width: 50rem) { .pick { display: block; }
  .details { top: auto; bottom: 0; max-height: 45vh; background: var(--card);
    border-top: 1px solid var(--line); padding-top: 0.5rem; } }
@media (max-width: 40rem) { svg text { font-size: 20px; } }
"""

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 330, 66, 56
MOST_TICKS = 8


def measured_axes(frontier: Frontier) -> list[str]:
    """What accuracy can be drawn over: those of the objectives, timesteps where there is none."""
    return [name for name in AXES if name in frontier.objectives] or ["latency"]


def row_of(frontier: Frontier, number: int, point: Point) -> list[str]:
    """The cells of a point in a table."""
    return [
        str(number),
        str(point.timesteps),
        f"{100 * point.accuracy:.2f} %",
        labels.accuracy_interval(point.accuracy, frontier.test_images),
        f"{point.energy[frontier.energy_kind]:.2f}",
        f"{sum(point.synops) / 1e6:.1f}",
        f"{point.peak:.2f}",
        "as calibrated" if point.start else "",
    ]


def headings_of(frontier: Frontier) -> list[str]:
    """The headings of ``row_of``."""
    return ["point", "T", "correct", "95 %", f"uJ {frontier.energy_kind}", "M synops", "peak", ""]


def frontier_table(frontier: Frontier) -> Table:
    """A line for each point."""
    convention = labels.CONVENTIONS[frontier.delay]
    table = Table(
        title=f"{frontier.test_images:,} test images, ANN {100 * frontier.ann_accuracy:.2f} %, {convention}",
        caption=labels.few(frontier.test_images) or None,
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for heading in headings_of(frontier):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, point in enumerate(frontier.points, 1):
        table.add_row(*row_of(frontier, number, point))
    return table


def frontier_figure(frontier: Frontier, path: Path) -> None:
    """Accuracy of every point over each other objective, with its 95 % interval, and its number beside it."""
    names = measured_axes(frontier)
    intervals = [[100 * end for end in wilson(point.accuracy, frontier.test_images)] for point in frontier.points]
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            1, len(names), figsize=(1.6 + 3.6 * len(names), 3.8), sharey=True, squeeze=False, layout="constrained"
        )
        for axes, name in zip(panels[0], names):
            words, value = AXES[name]
            for point, (low, high) in zip(frontier.points, intervals):
                x, y = value(frontier, point), 100 * point.accuracy
                color = BASELINE if point.start else OPTIMIZED
                axes.errorbar(x, y, [[y - low], [high - y]], color=color, marker="o", markersize=5, elinewidth=1)
            axes.axhline(100 * frontier.ann_accuracy, color=ANN, linewidth=1, linestyle=":")
            axes.set_xlabel(words)
            axes.set_xticks(
                _ticks(name, np.array([value(frontier, one) for one in frontier.points]), *axes.get_xlim())
            )
        panels[0][0].set_ylabel(f"accuracy on {frontier.test_images:,} test images [%]")
        handles = [
            Line2D([], [], color=color, marker="o", linestyle="", label=label)
            for color, label in ((OPTIMIZED, "searched"), (BASELINE, "as calibrated"))
        ]
        ann = f"ANN, {100 * frontier.ann_accuracy:.2f} %"
        handles.append(Line2D([], [], color=ANN, linestyle=":", label=ann))
        figure.legend(handles=handles, fontsize=8, ncols=3, loc="outside upper left", frameon=False)
        figure.draw_without_rendering()  # so that places are final
        for axes, name in zip(panels[0], names):
            xs = [AXES[name][1](frontier, point) for point in frontier.points]
            marks, *ends = (
                [*zip(xs, values)]
                for values in ([100 * point.accuracy for point in frontier.points], *zip(*intervals))
            )
            places, low, high = (axes.transData.transform(part) * 72 / figure.dpi for part in (marks, *ends))
            offsets = number_offsets(places, np.stack([low[:, 1], high[:, 1]], 1))
            for number, (mark, offset) in enumerate(zip(marks, offsets), 1):
                axes.annotate(str(number), mark, xytext=offset, textcoords="offset points", fontsize=7)
        save(figure, path)


def number_offsets(places: np.ndarray, bars: np.ndarray) -> list[tuple[float, float]]:
    """Where the number of each point goes, from it, so that as few as can be cover a point, a bar or another.

    Args:
        places: (N, 2) of the points, in typographic points; ``bars`` (N, 2), where theirs begin and end.
    """
    found = [(0.0, 0.0)] * len(places)
    boxes = [(x - 3, y - 3, x + 3, y + 3) for x, y in places]
    boxes += [(x - 0.5, low, x + 0.5, high) for (x, _), (low, high) in zip(places, bars)]
    for index in np.lexsort(places.T):  # from below, so that numbers are in the order of their points
        x, y = places[index]
        width, height = 4.5 * len(str(index + 1)), 6.0
        # beside the point, a little higher or lower, then on the other side
        wishes = [(side, up) for side in (5.0, -5.0 - width) for up in (-3.0, 0.0, -6.0, 3.0, -9.0, 7.0, -13.0)]
        free = (
            (right, up)
            for right, up in wishes
            if all(
                x + right + width <= box[0] or x + right >= box[2] or y + up + height <= box[1] or y + up >= box[3]
                for box in boxes
            )
        )
        right, up = next(free, wishes[0])
        boxes.append((x + right, y + up, x + right + width, y + up + height))
        found[index] = (right, up)
    return found


def volume_figure(rows: Sequence[dict], path: Path) -> None:
    """Hypervolume over generations."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6, 2.8))
        numbers = [row["generation"] for row in rows]
        axes.plot(numbers, [100 * row["hypervolume"] for row in rows], color=OPTIMIZED, marker=".")
        axes.set_xlabel("generation")
        axes.set_ylabel("hypervolume\n[% of the box]")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        save(figure, path)


def write_page(folder: Path, title: str) -> Path:
    """Write report.html into the folder of a run that holds a frontier; returns its path."""
    path = folder / "report.html"
    write_atomically(path, build_page(folder, read_frontier(folder), title).encode())
    return path


def build_page(folder: Path, frontier: Frontier, title: str) -> str:
    """The page: accuracy over each other objective, a table, and for the point that is picked its details."""
    charts = "".join(f"<h3>Accuracy over {AXES[n][0]}</h3>{_chart(frontier, n)}" for n in measured_axes(frontier))
    pick = (
        f"<style>{PICK_STYLE}</style><h2>Pick a point</h2>"
        + html.quiet(
            "Move over a point, or press it, to see what it is. On training images none is beaten by another in "
            "every objective. Bars are 95 % intervals on test images; grey points are networks as calibrated."
        )
        + f'<div class="pick"><div>{charts}</div><div class="details">'
        + "".join(_detail(folder, frontier, n, point) for n, point in enumerate(frontier.points, 1))
        + "</div></div>"
    )
    rows = [row_of(frontier, n, point) for n, point in enumerate(frontier.points, 1)]
    table = html.table(headings_of(frontier), rows, numbers=range(7))
    for number in range(len(rows)):  # rows are picked like points
        table = table.replace("<tr><td", f'<tr tabindex="0" data-point="{number + 1}"><td', 1)
    sections = [pick, f"<h2>All points</h2>{table}"]
    history = folder / "history.jsonl"
    if history.is_file() and read_history(history):
        reading = "The share of the box between zero and 1.1 times the worst calibrated network that points cover."
        sections.append(
            f"<h2>Search</h2>{html.figure(folder / 'figures' / 'hypervolume.png', 'Hypervolume.', reading)}"
        )
    return html.page(title, sections).replace("</body>", f"<script>{SCRIPT}</script></body>")


def _chart(frontier: Frontier, name: str) -> str:
    """An SVG of the points, each of which can be hovered, pressed or reached with the keyboard."""
    words, value = AXES[name]
    xs = np.array([value(frontier, point) for point in frontier.points])
    ends = np.array([wilson(point.accuracy, frontier.test_images) for point in frontier.points])
    left, right = _padded(xs.min(), xs.max())
    low, high = _padded(ends.min(), max(ends.max(), frontier.ann_accuracy))

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - 10) * (x - left) / (right - left)

    def up(y: float) -> float:
        return (HEIGHT - BOTTOM) - (HEIGHT - BOTTOM - 10) * (y - low) / (high - low)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="accuracy over {escape(words)}">']
    for tick in MaxNLocator(5).tick_values(100 * low, 100 * high):
        if 100 * low <= tick <= 100 * high:
            y = up(tick / 100)
            parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g} %</text>')
    for tick in _ticks(name, xs, left, right):
        parts.append(f'<text x="{across(tick):.1f}" y="{HEIGHT - 34}" text-anchor="middle">{tick:g}</text>')
    middle = (LEFT + WIDTH) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(words)}</text>')
    ann = up(frontier.ann_accuracy)
    span = f'x1="{LEFT}" x2="{WIDTH - 10}" y1="{ann:.1f}" y2="{ann:.1f}"'
    parts.append(f'<line class="bar" stroke-dasharray="2 4" {span}/>')
    for number, (point, x, (least, most)) in enumerate(zip(frontier.points, xs, ends), 1):
        at = across(x)
        parts.append(f'<line class="bar" x1="{at:.1f}" x2="{at:.1f}" y1="{up(least):.1f}" y2="{up(most):.1f}"/>')
        told = f"point {number}: T = {point.timesteps}, {100 * point.accuracy:.2f} %, {words} {x:.3g}"
        start = ' class="start"' if point.start else ""
        parts.append(
            f'<circle{start} data-point="{number}" tabindex="0" cx="{at:.1f}" cy="{up(point.accuracy):.1f}" r="7">'
            f"<title>{escape(told)}</title></circle>"
        )
    return "".join(parts) + "</svg>"


def _ticks(name: str, xs: np.ndarray, left: float, right: float) -> list[float]:
    """What an axis is marked with: timesteps where there are points, as far as there is room."""
    own = np.unique(xs)
    if name == "latency" and len(own) <= MOST_TICKS:
        return own.tolist()
    ticks = MaxNLocator(6, integer=name == "latency", min_n_ticks=1).tick_values(left, right)
    return [tick for tick in ticks if left <= tick <= right]


def _padded(low: float, high: float) -> tuple[float, float]:
    room = 0.06 * (high - low) or 0.06 * max(abs(high), 1e-9)
    return low - room, high + room


def _detail(folder: Path, frontier: Frontier, number: int, point: Point) -> str:
    """All of one point; that of the first is shown until another is picked."""
    spikes = [(layer, f"{count:,.0f}") for layer, count in zip(frontier.layers, point.spikes)]
    energies = [(kind, f"{value:,.3f}") for kind, value in point.energy.items()]
    place = shlex.quote(str(folder))
    correct, interval, energy = row_of(frontier, number, point)[2:5]
    facts = f"{correct} ({interval}), {energy} uJ {frontier.energy_kind}"
    training = ", ".join(f"{WORDS.get(name, name)} {value:.4g}" for name, value in point.training.items())
    return (
        f'<div class="detail" id="point-{number}"{"" if number == 1 else " hidden"}>'
        f"<h3>Point {number}: {point.timesteps} timesteps, {escape(facts)}</h3>"
        f"<p><code>python -m jaxsnn.evaluate {escape(place)} --point {number}</code><br>"
        f"<code>python -m jaxsnn.export {escape(place)} --point {number} --to nir</code></p>"
        + html.quiet(f"Objectives on training images, less is better: {training}.")
        + html.table(("arithmetic", "microjoules an image"), energies, numbers=(1,))
        + html.table(("layer", "spikes an image"), spikes, numbers=(1,))
        + "</div>"
    )
