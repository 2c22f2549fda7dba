"""Tables and sentences of a report of ``benchmarks.attacks``."""

from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.rivals.rows import right_of
from jaxsnn.analysis.latency import gain_intervals
from jaxsnn.analysis.paper_results import HEADINGS, PAPER

Report = dict[str, Any]
Key = tuple[str, str, str]
"""Space, attack, and the network that it is crafted on."""
TITLES = {
    "ann": "ANN",
    "percentile": "99.7 percentile (Lu and Sengupta)",
    "half-full": "99.7 percentile, half full",
    "lee": "direct (Sharmin et al.), random spikes",
    "hybrid": "hybrid (Sharmin et al.), random spikes",
    "ours": "ours, calibrated",
}
SPACES = {"pixels": "in pixels", "normalised": "in normalised space"}


def right(report: Report, *key: str) -> np.ndarray | None:
    """Which images a row (network, system, space, attack, crafted) has right; None where it is not there."""
    names = ("network", "system", "space", "attack", "crafted")
    found = next((row for row in report["rows"] if tuple(row[name] for name in names) == key), None)
    return None if found is None else right_of(found, found["images"])


def columns_of(report: Report, space: str) -> list[Key]:
    """Space, attack and what it is crafted on of each column: no attack, then those of a space."""
    found = {(row["space"], row["attack"], row["crafted"]) for row in report["rows"]}
    return sorted(key for key in found if key[0] in ("", space))


def table_of(report: Report, space: str) -> Table:
    """Accuracy under each attack of a space, and below it what ours has more."""
    columns, settings = columns_of(report, space), report["settings"]
    table = Table(
        "",
        "T",
        *(described(key, "\n") for key in columns),
        title=f"{report['network']} under attack, {report['epsilon']:g}/255 {SPACES[space]}: accuracy in %, "
        "and what ours has more (95 %, paired bootstrap)",
        caption=f"{settings['test_images']:,} test images, the first {settings['own_images']:,} where the attack "
        "is crafted on the network itself; no layer delay.",
    )
    seen = {(row["network"], row["system"]): row["timesteps"] for row in report["rows"]}
    networks = list(dict.fromkeys(network for network, _ in seen))
    for network, system in ((n, s) for n in networks for s in TITLES if (n, s) in seen):
        steps = seen[network, system]
        cells = [cell(report, network, system, key) for key in columns]
        table.add_row(f"{TITLES[system]}\n{network}", "" if steps is None else str(steps), *cells)
    return table


def paper_table() -> Table:
    """Table III as the paper prints it."""
    table = Table(*HEADINGS, title="Table III of the paper, 8/255")
    for row in PAPER:
        table.add_row(*map(str, row))
    return table


def described(key: Key, between: str = " ") -> str:
    """An attack and what it is crafted on."""
    _, attack, crafted = key
    return f"{attack}{between}on {'the ANN' if crafted == 'ann' else 'itself'}" if attack else "clean"


def more(report: Report, network: str, system: str, key: Key) -> tuple[float, float, float] | None:
    """Points that ours is above a system under an attack, and the ends of the 95 % interval."""
    rival, own = (right(report, network, name, *key) for name in (system, "ours"))
    if rival is None or own is None or system == "ours":
        return None
    ((low, high),) = gain_intervals(rival[:, None], own[:, None])
    return 100 * float(own.mean() - rival.mean()), low, high


def sentences(report: Report) -> list[str]:
    """How much less an epsilon in normalised space is, and where a spiking rival is ahead of ours."""
    levels = ", ".join(f"{report['epsilon'] * std:.2f}" for std in report["std"])
    found = [
        f"{report['epsilon']:g}/255 in normalised space is {levels} grey levels, by channel; the table has the "
        "nearest whole number."
    ]
    networks = dict.fromkeys(row["network"] for row in report["rows"])
    for key in dict.fromkeys(key for space in SPACES for key in columns_of(report, space)):
        for network in networks:
            for system in TITLES:
                gain = more(report, network, system, key)
                if gain is not None and gain[0] < 0 and system != "ann":
                    found.append(
                        f"{described(key)}, {network}: {TITLES[system]} is ahead of ours by {-gain[0]:.1f} points "
                        f"({-gain[2]:.1f} to {-gain[1]:.1f}), {'surely' if gain[2] < 0 else 'not surely'}."
                    )
    return found


def cell(report: Report, network: str, system: str, key: Key) -> str:
    """Accuracy, and ours less it with its interval."""
    rival, gain = right(report, network, system, *key), more(report, network, system, key)
    if rival is None:
        return ""
    return f"{100 * rival.mean():.1f}" + ("" if gain is None else "\n{:+.1f} ({:+.1f} to {:+.1f})".format(*gain))
