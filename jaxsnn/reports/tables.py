"""The table at the end of a run."""

from rich.table import Table

from jaxsnn.analysis.paper_results import HEADINGS
from jaxsnn.reports.labels import CONVENTIONS, NETWORKS


def _tables(result: dict) -> list[Table]:
    title = f"Table III of the paper, and {result['title']} on {result['images']:,} test images"
    table = Table(title=title, title_justify="left")
    # in 80 columns there is no room for references
    shown = [i for i, heading in enumerate(HEADINGS) if heading not in ("reference", "attack")]
    for i in shown:
        table.add_column(HEADINGS[i], no_wrap=True)
    for row in result["table"]["rows"]:
        table.add_row(*("-" if row[i] is None else str(row[i]) for i in shown))
    if not result["transfer"]:
        return [table]
    return [table, _transfer_table(result["transfer"])]


def _transfer_table(transfer: dict) -> Table:
    table = Table(
        title=f"accuracy on {transfer['images']} images attacked on ..., after {transfer['timesteps']} timesteps",
        title_justify="left",
    )
    for heading in ("attacked on", "ANN", "SNN, baseline", "SNN, optimised"):
        table.add_column(heading)
    for source, row in transfer["accuracy"].items():
        table.add_row(NETWORKS[source], *(f"{100 * value:.1f} %" for value in row.values()))
    return table


def comparison_table(results: dict) -> Table:
    """Baseline against optimised: timesteps at each target in both conventions, accuracy at equal time, spikes.

    Fits 80 columns.
    """
    baseline, optimized = results["baseline"], results["optimized"]
    attack = results.get("attack")
    under = f" under {attack['method'].upper()} {attack['epsilon_grey_levels']:g}/255" if attack else ""
    table = Table(
        title=f"{results['test_images']:,} test images{under}, ANN {100 * results['ann_accuracy']:.2f} % "
        "(targets in points below)",
        title_justify="left",
    )
    table.add_column("", no_wrap=True)
    name = f"{baseline['percentile']:g} pct." if baseline.get("percentile") else "baseline"
    for heading in (name, "optimised", "change", "95 % range"):
        table.add_column(heading, justify="right", no_wrap=True)
    other = "none" if results["delay"] == "layer" else "layer"
    _latency_rows(table, results["latency"], results["delay"])
    _latency_rows(table, results["latency_other_delay"], other)
    table.add_section()
    table.add_row("[bold]accuracy[/]")
    for t in iso_times(results):
        pair = [100 * net["accuracy"][t - 1] for net in (baseline, optimized)]
        change = f"{pair[1] - pair[0]:+.2f} pt"
        table.add_row(f"  at {t} timesteps", *(f"{a:.2f} %" for a in pair), change)
    table.add_section()
    for key, label, scale in (("spikes_per_image", "k spikes", 1e3), ("synops_per_image", "M synops", 1e6)):
        pair = [net[key] / scale for net in (baseline, optimized)]
        change = f"{100 * (pair[1] / pair[0] - 1):+.1f} %" if pair[0] else ""
        table.add_row(f"{label} an image", *(f"{v:.1f}" for v in pair), change)
    return table


def _latency_rows(table: Table, rows: list[dict], delay: str) -> None:
    table.add_section()
    table.add_row(f"[bold]timesteps, {CONVENTIONS[delay]}[/]")
    for row in rows:
        gain, interval = row["improvement_percent"], row["ci95"]
        pair = [row[f"{name}_timesteps"] for name in ("baseline", "optimized")]
        table.add_row(
            f"  to {row['target_name']} ({100 * row['target']:.1f} %)",
            *("never" if value is None else str(value) for value in pair),
            "" if gain is None else f"{-gain:+.1f} %".replace("-0.0", "0.0"),
            "" if interval is None else f"{-interval[1]:+.0f}..{-interval[0]:+.0f} %",
        )


def iso_times(results: dict) -> list[int]:
    """The steps at which accuracies are compared: where the optimised network reaches a target, and the last."""
    reached = {row["optimized_timesteps"] for row in results["latency"]} - {None}
    return sorted(reached | {results["timesteps"]})
