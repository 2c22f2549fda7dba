"""Tables and figures of benchmarks.throughput."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.contenders import entries
from benchmarks.problem import Case, neurons


class Report:
    """What goes to the terminal, and what was left out and why."""

    def __init__(self):
        console = Console()
        self.console = console if console.is_terminal else Console(width=120)
        self.left_out: list[str] = []

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, style="dim")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table whose first column is text and whose others are numbers."""
        if not rows:
            return
        table = Table(title=title, title_justify="left")
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if not index else "right", no_wrap=not index)
        for row in rows:
            table.add_row(*row)
        self.console.print(table)


def figure_of(value: float | None, digits: int = 3) -> str:
    """A number with about so many significant digits, "-" for None."""
    if value is None:
        return "-"
    if value == 0 or abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def ranged(values: dict[str, float], digits: int = 3) -> str:
    """Median and range."""
    return f"{figure_of(values['median'], digits)} ({range_of(values, digits)})"


def range_of(values: dict[str, float], digits: int = 3) -> str:
    """Least to greatest."""
    return f"{figure_of(values['min'], digits)}-{figure_of(values['max'], digits)}"


def share_of(value: float | None, best: float | None) -> str:
    """A share of the best in per cent, "-" where one of them is not known."""
    return "-" if value is None or not best else f"{100 * value / best:.0f} %"


def show_peaks(report: Report, peaks: dict) -> None:
    """The machine and the best that it can do."""
    facts = peaks["facts"]
    dots = ", ".join(f"{name} {rate:.0f}" for name, rate in peaks["best_dot_gflops"].items())
    report.console.print(f"{facts['cpu']}, {facts['cores']} cores", highlight=False)
    report.console.print(f"best dot product, GFLOP/s: {dots}", highlight=False)
    report.console.print(f"best additions in cache, G/s: {peaks['best_gigaadditions']:.0f}", highlight=False)


def show_rows(report: Report, title: str, rows: list[dict], peaks: dict) -> None:
    """Rates and time of every row, then memory and arithmetic."""
    body, detail = [], []
    for row in rows:
        setting = [row["contender"], str(row["population"]), str(row["timesteps"]), str(row["executed_steps"])]
        body.append(
            [
                *setting,
                figure_of(row["executed_itc_per_second"]["median"]),
                range_of(row["executed_itc_per_second"]),
                figure_of(row["nominal_itc_per_second"]),
                figure_of(row["seconds"]["median"]),
                figure_of(row["compile_seconds"], 2),
                figure_of(row["peak_mb"]),
                *([figure_of(row["device_peak_mb"])] if row["device_peak_mb"] else []),
            ]
        )
        detail.append(
            [
                *setting,
                figure_of(row["dense_equivalent_gflops"]),
                figure_of(row["executed_gflops"]),
                share_of(row["executed_gflops"], peaks["best_dot_gflops"].get(row["precision"])),
                figure_of(row["gigaadditions"]),
                share_of(row["gigaadditions"], peaks["best_gigaadditions"]),
            ]
        )
    device = ["GPU\nMB"] if any(row["device_peak_mb"] for row in rows) else []
    columns = ["", "P", "T", "steps"]
    rates = ["executed\nitc/s", "range", "nominal\nitc/s", "seconds", "compile\nseconds", "peak\nMB"]
    report.table(title, columns + rates + device, body)
    work = [
        "dense-equivalent\nGFLOP/s",
        "executed\nGFLOP/s",
        "of best\ndot",
        "additions\nG/s",
        "of best\nadditions",
    ]
    report.table(f"{title}: arithmetic", columns + work, detail)


def show_comparison(report: Report, title: str, checks: list[dict], rows: list[dict]) -> None:
    """Agreement with the reference, and how many times faster ours are, round by round."""
    body = [
        [c["contender"], f"{c['differing']} of {c['images']}", f"{c['error']:.1e} ({c['of']})"] for c in checks
    ]
    report.table(f"{title}: agreement with the reference", ["", "predictions differ", "largest difference"], body)
    names = [row["contender"] for row in rows if row["contender"] in entries.OURS]
    body = []
    for row in rows:
        setting = str(row.get("batch", "")) + (" channels-last" if row.get("channels_last") else "")
        ratios = [ranged(row["ours_over_theirs"][n], 3) if n in row["ours_over_theirs"] else "" for n in names]
        body.append([row["contender"], setting, ranged(row["executed_itc_per_second"]), *ratios])
    columns = ["", "best batch", "itc/s executed", *(f"{name} is faster by" for name in names)]
    report.table(f"{title}: equal executed steps, in turns", columns, body)
    body = []
    for row in rows:
        if row["contender"] in entries.PEERS:
            shifted = [
                ours["nominal_itc_per_second"] / row["nominal_itc_per_second"]
                for ours in rows
                if ours["contender"] in names
            ]
            body.append([row["contender"], *(figure_of(ratio) for ratio in shifted)])
    timesteps = rows[0]["timesteps"] if rows else 0
    columns = ["", *(f"{name}" for name in names)]
    report.table(f"{title}: the delay shift counted, nominal T = {timesteps}, faster by", columns, body)


def show_sweep(report: Report, title: str, rows: list[dict]) -> None:
    """Time and spikes as the thresholds grow."""
    body = [
        [
            row["contender"],
            f"{row['scale']:g}",
            figure_of(row["spikes_per_image_step"]),
            ranged(row["seconds"]),
            figure_of(row["executed_itc_per_second"]["median"]),
        ]
        for row in sorted(rows, key=lambda row: row["contender"])
    ]
    columns = ["", "thresholds x", "spikes/image-step", "seconds", "itc/s executed"]
    report.table(f"{title}: time against spikes", columns, body)


def show_density(report: Report, case: Case, rows: list[dict]) -> None:
    """Spikes per neuron and step of each layer, where the run was longest."""
    with_density = [row for row in rows if "density" in row]
    if with_density:
        row = max(with_density, key=lambda row: row["executed_steps"])
        layers = [f"{layer.name} {100 * d:.1f} %" for layer, d in zip(case.network.spiking, row["density"])]
        whole = 100 * row["spikes_per_image_step"] / neurons(case.network).sum()
        where = f"{case.name}: spikes per neuron and step over {row['executed_steps']} steps"
        report.console.print(f"{where}: {', '.join(layers)}; all {whole:.1f} %", highlight=False)


def draw(rows: list[dict], folder: Path) -> None:
    """itc/s against P and against T, memory against P, one line per network and contender."""
    import matplotlib.pyplot as plt

    from jaxsnn.reports.figures import STYLE, save

    def lines(axes, along: str, value) -> None:
        other = "timesteps" if along == "population" else "population"
        for index, key in enumerate(dict.fromkeys((row["network"], row["contender"]) for row in rows)):
            own = [row for row in rows if (row["network"], row["contender"]) == key]
            counts = {fixed: sum(row[other] == fixed for row in own) for fixed in {row[other] for row in own}}
            fixed = max(counts, key=lambda fixed: (counts[fixed], fixed))
            drawn = sorted((row for row in own if row[other] == fixed), key=lambda row: row[along])
            letter = "T" if other == "timesteps" else "P"
            x = [row[along] for row in drawn]
            for name, style, ys in value(drawn):
                label = f"{key[0]}, {key[1]}, {letter} = {fixed}{name}"
                axes.plot(x, ys, style, marker="o", color=f"C{index}", label=label)
        axes.set_xscale("log")
        ticks = sorted({row[along] for row in rows})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("candidates P" if along == "population" else "nominal timesteps T")
        if axes.get_yscale() == "linear":
            axes.set_ylim(bottom=0)
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))

    def rates(drawn):
        yield ", executed", "-", [row["executed_itc_per_second"]["median"] for row in drawn]
        yield ", nominal", "--", [row["nominal_itc_per_second"] for row in drawn]

    def memory(drawn):
        yield "", "-", [row["peak_mb"] for row in drawn]

    for name, along, value, label in (
        ("population", "population", rates, "images x steps x candidates / s"),
        ("timesteps", "timesteps", rates, "images x steps x candidates / s"),
        ("memory", "population", memory, "peak memory of the process [MB]"),
    ):
        with plt.rc_context(STYLE):
            figure, axes = plt.subplots(figsize=(7, 4.2))
            if value is rates:
                axes.set_yscale("log")
            lines(axes, along, value)
            axes.set_ylabel(label)
            save(figure, folder / f"{name}.png")


def draw_sweep(rows: list[dict], path: Path) -> None:
    """Seconds against spikes, one line per network and contender, the unscaled thresholds marked."""
    import matplotlib.pyplot as plt

    from jaxsnn.reports.figures import STYLE, save

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 4.2))
        for key in dict.fromkeys((row["network"], row["contender"]) for row in rows):
            own = [row for row in rows if (row["network"], row["contender"]) == key]
            points = sorted((row["spikes_per_image_step"], row["seconds"]["median"], row["scale"]) for row in own)
            [line] = axes.plot(*list(zip(*points))[:2], marker="o", label=", ".join(key))
            for spikes, seconds, scale in points:
                if scale == 1:
                    axes.plot(spikes, seconds, "o", markersize=11, fillstyle="none", color=line.get_color())
        axes.set_xlabel("spikes of an image and step (circle: thresholds as calibrated)")
        axes.set_ylabel("seconds")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7)
        save(figure, path)


def as_csv(sections: dict[str, list[dict]]) -> bytes:
    """All rows as one table; medians with their range in columns of their own."""
    flat = []
    for section, rows in sections.items():
        for row in rows:
            line: dict = {"section": section}
            for key, value in row.items():
                if isinstance(value, dict) and value.keys() == {"median", "min", "max"}:
                    line |= {f"{key}_{part}": number for part, number in value.items()}
                elif isinstance(value, list):
                    line[key] = " ".join(f"{number:.6g}" for number in value)
                elif isinstance(value, dict):
                    line |= {f"{key}_{name}": found["median"] for name, found in value.items()}
                else:
                    line[key] = value
            flat.append(line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for line in flat for key in line)))
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().encode()
