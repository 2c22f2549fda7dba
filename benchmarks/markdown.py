"""A table of the terminal as Markdown, for a page of results."""

from rich.console import Console
from rich.table import Table


def markdown(table: Table) -> str:
    """The table's title, head, rows and caption; lines within a cell become one, with semicolons."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join("; ".join(cell.split("\n")) for cell in cells) + " |"

    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    head = [
        line([str(column.header) for column in table.columns]),
        "| " + " | ".join(["---"] * len(columns)) + " |",
    ]
    body = [line(list(row)) for row in zip(*columns)]
    around = [str(text).replace("\n", " ") for text in (table.title, table.caption) if text]
    return "\n".join([*around[:1], "", *head, *body, "", *around[1:]])


def printed(console: Console, table: Table, as_markdown: bool) -> None:
    """Print a table as it is, or as Markdown."""
    if as_markdown:
        console.print(markdown(table), highlight=False, markup=False, soft_wrap=True)
    else:
        console.print(table)
