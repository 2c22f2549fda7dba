"""The table at the end of a run."""

from rich.table import Table

CONVENTIONS = {"layer": "one step of delay per layer", "none": "no layer delay"}


def comparison_table(results: dict) -> Table:
    """Baseline against optimised: timesteps at each target in both conventions, accuracy at equal time, spikes."""
    baseline, optimized = results["baseline"], results["optimized"]
    table = Table(
        title=f"{results['test_images']:,} test images, ANN {100 * results['ann_accuracy']:.2f} %",
        title_justify="left",
    )
    table.add_column("", no_wrap=True)
    table.add_column(f"{baseline['percentile']:g} percentile" if baseline.get("percentile") else "baseline")
    for name in ("optimised", "change", "95 % interval"):
        table.add_column(name)
    for column in table.columns[1:]:
        column.justify = "right"
    other = "none" if results["delay"] == "layer" else "layer"
    _latency_rows(table, results["latency"], results["delay"], results["timesteps"])
    shift = results["delay_steps"] if results["delay"] == "none" else -results["delay_steps"]
    _latency_rows(table, results["latency_other_delay"], other, results["timesteps"] + shift)
    table.add_section()
    for t in iso_times(results):
        pair = [100 * net["accuracy"][t - 1] for net in (baseline, optimized)]
        change = f"{pair[1] - pair[0]:+.2f} points"
        table.add_row(f"accuracy at {t} timesteps", *(f"{a:.2f} %" for a in pair), change)
    for key, label, scale in (
        ("spikes_per_image", "thousand spikes", 1e3),
        ("synops_per_image", "million synops", 1e6),
    ):
        pair = [net[key] / scale for net in (baseline, optimized)]
        change = f"{100 * (pair[1] / pair[0] - 1):+.1f} %" if pair[0] else ""
        table.add_row(f"{label} per image", *(f"{value:.2f}" for value in pair), change)
    return table


def _latency_rows(table: Table, rows: list[dict], delay: str, timesteps: int) -> None:
    table.add_section()
    table.add_row(f"[bold]timesteps, {CONVENTIONS[delay]}[/]")
    for row in rows:
        gain, interval = row["improvement_percent"], row["ci95"]
        pair = [row[f"{name}_timesteps"] for name in ("baseline", "optimized")]
        table.add_row(
            f"  to {row['target_name']} ({100 * row['target']:.1f} %)",
            *(f"not in {timesteps}" if value is None else str(value) for value in pair),
            "" if gain is None else f"{gain:.1f} % fewer" if gain >= 0 else f"{-gain:.1f} % more",
            "" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f} %",
        )


def iso_times(results: dict) -> list[int]:
    """The steps at which accuracies are compared: where the optimised network reaches a target, and the last."""
    reached = {row["optimized_timesteps"] for row in results["latency"]} - {None}
    return sorted(reached | {results["timesteps"]})
