"""Tables of benchmarks.optimizers."""

from rich.console import Console
from rich.table import Table

from benchmarks.optimizers_runners import DIMENSION, POPULATION


def show_costs(console: Console, comparison: list[dict]) -> None:
    """One table per budget, a column per objective, and one for the cost on fresh images where it is known."""
    for budget in dict.fromkeys(row["budget"] for row in comparison):
        rows = [row for row in comparison if row["budget"] == budget]
        names = list(dict.fromkeys(row["objective"] for row in rows))
        table = Table(
            title=f"best cost after {budget} evaluations: median and quartiles, {rows[0]['seeds']} seeds"
        )
        table.add_column("optimiser")
        for column in (*names, *(["on fresh images"] if "fresh" in rows[0] else [])):
            table.add_column(column, justify="right")
        for optimizer in dict.fromkeys(row["optimizer"] for row in rows):
            own = [row for row in rows if row["optimizer"] == optimizer]
            cells = [*own, *(row["fresh"] for row in own if "fresh" in row)]
            table.add_row(optimizer, *(show(cell) for cell in cells))
        console.print(table)


def show(cell: dict, digits: int = 3) -> str:
    """Median and quartiles."""
    low, high = cell["quartiles"]
    return f"{cell['median']:.{digits}g} [{low:.{digits}g}, {high:.{digits}g}]"


def show_overhead(console: Console, overheads: list[dict]) -> None:
    """A table of what a generation costs without an objective."""
    table = Table(title=f"overhead per generation, P = {POPULATION}, D = {DIMENSION}, warm")
    for column in ("engine", "form", "ms"):
        table.add_column(column)
    for row in overheads:
        table.add_row(row["engine"], row["form"], f"{row['milliseconds']:.3f}")
    console.print(table)


def show_races(console: Console, rows: list[dict]) -> None:
    """A table of the races beside the plain search."""
    title = f"racing, {rows[0]['evaluations']} evaluations, {rows[0]['seeds']} seeds: median and quartiles"
    table = Table(title=title)
    columns = (
        "",
        "limit's weight",
        "images simulated",
        "share",
        "final cost",
        "same end",
        "limit passes",
        "seconds",
    )
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        images, share, cost, passes, seconds = (
            show(row[name], 4) for name in ("images", "share", "cost", "limit_passes", "seconds")
        )
        same = f"{row['same_end']}/{row['seeds']}"
        table.add_row(row["race"], f"{row['limit']:g}", images, share, cost, same, passes, seconds)
    console.print(table)
