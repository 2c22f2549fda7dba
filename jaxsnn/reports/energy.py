"""Energy as people read it: a table at the end of a command, and a section of report.html."""

from typing import Any

from rich import box
from rich.table import Table

from jaxsnn.reports import html_elements as html
from jaxsnn.reports import labels
from jaxsnn.runtime.entries import Entries

NAMES = {"ann": "ANN", "baseline": "baseline", "half_full": "half full", "optimized": "optimised"}
"""Networks as columns, in this order."""

SHARE = "of the ANN"


READING = (
    "The image's drive is multiplications, computed once; a spike is one addition at every weight it drives. With "
    "memory: the model of Lemaire et al. (2022), 32-bit integers, reading and writing included."
)


def energy_table(found: dict[str, Any]) -> Table:
    """Microjoules an image of each network, by kind of arithmetic; ``found`` is the energy of a results.json."""
    present, totals = _totals(Entries.of(found, "energy"))
    table = Table(title="microjoules an image", title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("", no_wrap=True)
    for which in (*(NAMES[which] for which in present), SHARE):
        table.add_column(which, justify="right", no_wrap=True)
    for name, cells in totals:
        table.add_row(labels.for_table(name), *cells)
    return table


def energy_section(found: Entries) -> str:
    """The same for report.html, and each layer; raises ``UserError`` for what is not such a record."""
    present, totals = _totals(found)
    headings = [NAMES[which] for which in present]
    numbers = range(1, len(present) + 2)
    rows = [(name, *cells) for name, cells in totals]
    text = html.table(("", *headings, SHARE), rows, f"Microjoules an image. {READING}", numbers)
    layers = found.record.get("layers")
    if not isinstance(layers, list) or not all(isinstance(layer, str) for layer in layers):
        raise found.wrong("layers", "a list of names")
    for name, _ in totals:
        kind = found.entries("kinds").entries(name)
        columns = [kind.numbers(which, len(layers)) for which in present]
        each = [(layer, *(f"{value:,.3f}" for value in values)) for layer, *values in zip(layers, *columns)]
        caption = f"Microjoules an image, {name}, by the layer that sends."
        text += html.details(f"By layer: {name}", html.table(("", *headings), each, caption, numbers))
    return text


def _totals(found: Entries) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The networks, the ANN first and the optimised one last, and by kind of arithmetic their totals as text."""
    totals = found.entries("totals")
    kinds = {name: totals.entries(name) for name in totals.record}
    present = [which for which in NAMES if all(kind.known(which) for kind in kinds.values())]
    rows = []
    for name, kind in kinds.items():
        values = [kind.number(which) for which in present]
        share = f"{100 * values[-1] / values[0]:.0f} %" if values and values[0] else ""
        rows.append((name, [*(f"{value:,.2f}" for value in values), share]))
    return present, rows
