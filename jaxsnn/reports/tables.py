"""Tables at the end of a command; each fits 80 columns and cuts no number."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from jaxsnn.analysis.latency import LatencyRow
from jaxsnn.analysis.paper_results import PaperRow
from jaxsnn.analysis.results import TestResult
from jaxsnn.reports import labels


def comparison_table(results: TestResult | dict) -> Table:
    """Baseline against optimised: timesteps at each target in both conventions, accuracy at equal time, spikes.

    Args:
        results: of the comparison, or the contents of a results.json.
    """
    result = TestResult.of(results)
    ann = f"ANN {100 * result.ann_accuracy:.2f} %"
    table = Table(
        title=f"{result.test_images:,} test images{labels.under(result.attack)}, {ann} (targets in points below)",
        caption=labels.few(result.test_images) or None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", no_wrap=True)
    for heading in (*labels.columns(result), "change", "95 % range"):
        table.add_column(heading, justify="right", no_wrap=True)
    _latency_rows(table, result, result.latency, result.delay)
    _latency_rows(table, result, result.latency_other_delay, labels.other(result.delay))
    _accuracy_rows(table, result)
    table.add_section()
    _total_row(table, "k spikes an image", [network.spikes_per_image / 1e3 for network in result.networks])
    _total_row(table, "M synops an image", [network.synops_per_image / 1e6 for network in result.networks])
    return table


def _latency_rows(table: Table, result: TestResult, rows: Sequence[LatencyRow], delay: str) -> None:
    table.add_section()
    table.add_row(f"[bold]steps, {labels.CONVENTIONS[delay]}[/]")
    horizon = result.horizon(delay)
    for row in rows:
        gain, least, ends = row.improvement_percent, row.saved_at_least(horizon), row.ci95
        change = "" if gain is None else f"{-gain:+.1f} %".replace("-0.0", "0.0").replace("+0.0", "0.0")
        table.add_row(
            f"  {labels.for_table(row.target_name)} ({100 * row.target:.1f} %)",
            labels.steps(row.baseline_timesteps, horizon),
            *(
                labels.steps(result.steps_to(network, row.target, delay), horizon)
                for network in result.networks[1:-1]
            ),
            labels.steps(row.optimized_timesteps, horizon),
            change if least is None else f"< {-least:+.1f} %",
            "" if ends is None else f"{-ends[1]:+.0f}..{-ends[0]:+.0f} %",
        )


def _accuracy_rows(table: Table, result: TestResult) -> None:
    table.add_section()
    table.add_row(f"[bold]correct, {labels.CONVENTIONS[result.delay]}[/]")
    for step in iso_times(result) if result.half_full is None else doubling_times(result):
        accuracies = [100 * network.accuracy[step - 1] for network in result.networks]
        ends = None if result.accuracy_gain_ci95 is None else result.accuracy_gain_ci95[step - 1]
        table.add_row(
            f"  after {step} step{'s' * (step > 1)}",
            *(f"{accuracy:.2f} %" for accuracy in accuracies),
            f"{accuracies[-1] - accuracies[0]:+.2f} pt",
            "" if ends is None else f"{ends[0]:+.1f}..{ends[1]:+.1f}",
        )


def _total_row(table: Table, label: str, values: Sequence[float]) -> None:
    change = f"{100 * (values[-1] / values[0] - 1):+.1f} %" if values[0] else ""
    table.add_row(label, *(f"{value:.1f}" for value in values), change)


def doubling_times(result: TestResult) -> list[int]:
    """The steps 1, 2, 4, ... after the silence of a layer delay, and the last."""
    silent = result.delay_steps if result.delay == "layer" else 0
    powers = (2**k + silent for k in range(result.timesteps.bit_length()))
    return sorted({step for step in powers if step < result.timesteps} | {result.timesteps})


def iso_times(result: TestResult) -> list[int]:
    """The steps at which accuracies are compared: where the optimised network reaches a target, and the last."""
    reached = {row.optimized_timesteps for row in result.latency if row.optimized_timesteps is not None}
    return sorted(reached | {result.timesteps})


def attack_tables(result: dict) -> list[Table]:
    """What ``jaxsnn.attack`` found, one entry of attack.json: Table III, and how attacks transfer."""
    tables = [table_iii(result)]
    if result["transfer"]:
        tables.append(transfer_table(result["transfer"]))
    return tables


def table_iii(result: dict) -> Table:
    """The rows of the paper and of this run, each in two lines; ours with the intervals of their accuracies."""
    images = result["images"]
    table = Table(
        title=f"Table III of the paper, and {labels.for_table(result['title'])} on {images:,} test images",
        caption=labels.few(images) or "Below this run's accuracies: their 95 % intervals.",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("network and thresholds", overflow="fold")
    for heading in ("ANN %", "SNN %", "timesteps"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = [PaperRow(*values) for values in result["table"]["rows"]]
    for before, row in zip([None, *rows], rows):
        if row.own and before is not None and not before.own:
            table.add_section()
        table.add_row(
            "\n  ".join(labels.for_table(line) for line in row.lines()),
            *(_with_interval(percent, images if row.own else None) for percent in (row.ann, row.snn)),
            "-" if row.timesteps is None else str(row.timesteps),
        )
    return table


def _with_interval(percent: float, images: int | None) -> str:
    """An accuracy and, below it, its interval on so many images; side by side they would not fit."""
    if images is None:
        return f"{percent:.2f}"
    return f"{percent:.2f}\n{labels.accuracy_interval(percent / 100, images)}"


def transfer_table(transfer: dict) -> Table:
    """Accuracy of each network on images attacked on each of them, with its interval."""
    images = transfer["images"]
    table = Table(
        title=f"accuracy in % on {images} images attacked on ..., after {transfer['timesteps']} timesteps",
        caption=labels.few(images) or None,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("attacked on", no_wrap=True)
    for heading in ("ANN", "SNN, baseline", "SNN, optimised"):
        table.add_column(heading, justify="right", no_wrap=True)
    for source, row in transfer["accuracy"].items():
        cells = (_with_interval(100 * row[name], images) for name in ("ann", "baseline", "optimized"))
        table.add_row(labels.NETWORKS[source], *cells)
    return table
