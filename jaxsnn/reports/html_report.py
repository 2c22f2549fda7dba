"""report.html: a run on one page that needs nothing else, not even a network."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from jaxsnn.analysis.correlation import verdict
from jaxsnn.reports.labels import CONVENTIONS, NETWORKS
from jaxsnn.runtime.files import read_json, write_atomically

STYLE = """
:root { color-scheme: light dark; --page: #f4f4f2; --card: #ffffff; --text: #1c1c1c; --quiet: #5c5c5c;
  --line: #dcdcd8; --strong: #1a5fb4; }
@media (prefers-color-scheme: dark) { :root { --page: #0d0d0d; --card: #191919; --text: #e6e6e6; --quiet: #a3a3a3;
  --line: #383838; --strong: #8ab4f8; }
  /* figures are drawn on white: turned over, hues kept, their ground becomes the card's */
  figure img { filter: invert(0.9) hue-rotate(180deg); } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0.5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 0.5rem; }
h3 { font-size: 1rem; margin: 1rem 0 0.25rem; }
p { margin: 0.5rem 0; }
.quiet, figcaption { color: var(--quiet); font-size: 0.9rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 0.5rem; padding: 1rem;
  margin: 1rem 0; }
figure { margin: 1rem 0 0; }
figcaption { margin-top: 0.25rem; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.table { overflow-x: auto; margin-bottom: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.75rem 0.25rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; }
tr.own td { font-weight: 600; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
.value { overflow-wrap: anywhere; }
li { margin: 0.25rem 0; }
@media (max-width: 40rem) { body { padding: 0.5rem; } section { padding: 0.75rem; } table { font-size: 0.8rem; }
  th, td { padding-right: 0.5rem; } }
summary { cursor: pointer; color: var(--strong); }
"""


FIGURES = {
    "accuracy": (
        "Accuracy over time.",
        "Read it from left to right: the network whose curve rises first needs fewer timesteps. The dashed line "
        "joins equal accuracies, the dotted one equal times; the grey line is the ANN, which neither has to beat.",
    ),
    "thresholds": (
        "Thresholds of every layer.",
        "Above, a bar below 1 is a layer that fires earlier and more often than in the baseline. Below, the same "
        "thresholds as percentiles of what the ANN's neurons do: at 100 nothing is clipped.",
    ),
    "cost": (
        "Cost over generations.",
        "The coloured bands are the parts of the best candidate's cost; the search makes their sum fall. A line "
        "far above them is a population that is still spread out.",
    ),
    "cost_sweep": (
        "What each weight of the cost does, as in Fig. 1.",
        "Each curve is the result of a small search of its own with one weight changed and the rest as in this "
        "run; the broad grey curve has the run's own. Curves that lie apart show what the weight trades; where "
        "they lie together, a search of this size does not feel it.",
    ),
    "significance": (
        "Principal components and thresholds, as in Fig. 2(a).",
        "A bar above zero is a layer that spreads its input over more directions than the layer before. If the "
        "paper is right, the green thresholds go up and down with the bars.",
    ),
    "sensitivity": (
        "Adversarial noise sensitivity and thresholds, as in Fig. 2(b).",
        "The higher a layer's point, the more the attack changes what it passes on. If the paper is right, the "
        "green thresholds are low where the sensitivity is high, and the red line lies below the blue one.",
    ),
}
"""By file name: what a figure shows, and how to read it."""


def write(folder: Path) -> Path:
    """Write report.html into a run's folder, from what lies there; returns its path."""
    path = folder / "report.html"
    write_atomically(path, build(folder).encode())
    return path


def build(folder: Path) -> str:
    """The page of a finished run, with what jaxsnn.explain and jaxsnn.attack have found so far."""
    results = read_json(folder / "results.json")
    config = read_json(folder / "config.json")
    sections = [_summary(folder, results), _thresholds(folder, results), _search(folder, results)]
    if (folder / "explain.json").exists():
        sections += _explanation(folder, read_json(folder / "explain.json"))
    if (folder / "attack.json").exists():
        sections += [_attack(folder, one) for one in read_json(folder / "attack.json").values()]
    sections.append(_configuration(config))
    title = escape(f"{results['network']} on {results['data']}: {folder.resolve().name}")
    body = "\n".join(f"<section>{section}</section>" for section in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n{body}\n</body></html>\n"
    )


def _summary(folder: Path, results: dict) -> str:
    attack = results.get("attack")
    under = f" under {attack['method'].upper()} at {attack['epsilon_grey_levels']:g}/255" if attack else ""
    convention = CONVENTIONS[results["delay"]]
    text = (
        f"<h2>Result</h2><p>ANN accuracy {100 * results['ann_accuracy']:.2f} % on {results['test_images']:,} test "
        f"images{under}. Timesteps are counted with {convention}; the other convention stands below. "
        f"{results['nfe']:,} candidates were evaluated in {results['generations']} generations, "
        f"{results['training_cost_epochs']:.2f} epochs by eq. 17, {results['seconds']:.0f} s on "
        f"{escape(results['device'])}.</p>"
    )
    other = CONVENTIONS["none" if results["delay"] == "layer" else "layer"]
    tables = [(results["latency"], convention), (results["latency_other_delay"], other)]
    if "clean" in results:
        tables.append((results["clean"]["latency"], f"{convention}, clean images"))
    meaning = "Timesteps from which the accuracy stays at or above a target, in points below the ANN."
    text += f'<p class="quiet">{meaning}</p>'
    for rows, words in tables:
        headings = (words, "baseline", "optimised", "saved", "95 % interval")
        text += _table(headings, [_latency_row(row) for row in rows], numbers=range(1, 5))
    totals = [
        (label, *(f"{results[name][key] / scale:.1f}" for name in ("baseline", "optimized")))
        for key, label, scale in (
            ("spikes_per_image", "thousand spikes an image", 1e3),
            ("synops_per_image", "million synaptic operations an image", 1e6),
        )
    ]
    last = [f"{100 * results[name]['accuracy'][-1]:.2f} %" for name in ("baseline", "optimized")]
    totals.insert(0, (f"accuracy after {results['timesteps']} timesteps", *last))
    text += _table(("", "baseline", "optimised"), totals, numbers=(1, 2))
    return text + _figure(folder, "accuracy")


def _latency_row(row: dict) -> tuple[str, ...]:
    gain, interval = row["improvement_percent"], row["ci95"]
    steps = (row[f"{name}_timesteps"] for name in ("baseline", "optimized"))
    return (
        row["target_name"].replace(" ", "\u00a0"),
        *("never" if value is None else str(value) for value in steps),
        "" if gain is None else f"{gain:.1f} %",
        "" if interval is None else f"{interval[0]:.0f} to {interval[1]:.0f} %",
    )


def _thresholds(folder: Path, results: dict) -> str:
    base, found = results["baseline"], results["optimized"]
    rows = [
        (layer, f"{low:.4g}", f"{high:.4g}", f"{high / low:.3f}", f"{percentile:.3f}")
        for layer, low, high, percentile in zip(
            results["layers"], base["thresholds"], found["thresholds"], found["percentiles"]
        )
    ]
    table = _table(
        ("layer", f"{base['percentile']:g} percentile", "optimised", "ratio", "percentile"),
        rows,
        "Thresholds in the units of the ANN's activations",
        numbers=range(1, 5),
    )
    return (
        f"<h2>Thresholds</h2>{_figure(folder, 'thresholds')}<details><summary>Numbers</summary>{table}</details>"
    )


def _search(folder: Path, results: dict) -> str:
    parts = ", ".join(f"{escape(name)} {value:.3g}" for name, value in results["optimized"]["cost_parts"].items())
    text = f"<h2>Search</h2><p>The best cost is {results['optimized']['cost']:.3f}: {parts}.</p>"
    return text + _figure(folder, "cost")


def _explanation(folder: Path, found: dict) -> list[str]:
    first, *others, depth = (escape(verdict(row)) for row in found["correlations"])
    permutation = '<p class="quiet">Spearman\'s rank correlation; p from a two-sided permutation test.</p>'
    significance, sensitivity = found["significance"], found["sensitivity"]
    power = "squared eigenvalues, as eq. 13 is printed" if significance["squared"] else "eigenvalues (eq. 12)"
    rows = [
        (layer, str(k), "" if change is None else f"{change:+.1f} %", f"{percentile:.3f}")
        for layer, k, change, percentile in zip(
            found["layers"], significance["components"], significance["change_percent"], found["percentiles"]
        )
    ]
    components = _table(
        ("layer", "components", "change", "threshold's percentile"),
        rows,
        f"Components that explain {100 * significance['variance']:g} % of the variance",
        numbers=(1, 2, 3),
    )
    rows = [
        (layer, *("undefined" if value is None else f"{value:.3f}" for value in values))
        for layer, *values in zip(
            found["layers"], *(sensitivity[name] for name in ("ann", "baseline", "optimized"))
        )
    ]
    noise = _table(
        ("layer", "ANN", "SNN, baseline", "SNN, optimised"),
        rows,
        f"Relative change of a layer's activation under attack, over {sensitivity['timesteps']} timesteps",
        numbers=(1, 2, 3),
    )
    how = sensitivity["attack"]
    noted = f"<ul>{''.join(f'<li>{line}</li>' for line in (*others, depth))}</ul>"
    sections = [
        f"<h2>Thresholds and the significance of layers</h2><p>Principal components of the sums in front of each "
        f"activation on {significance['images']:,} training images, by "
        f"{power}.</p><ul><li>{first}</li><li>{depth}</li></ul>{permutation}"
        f"{_figure(folder, 'significance')}<details><summary>Numbers</summary>{components}</details>",
        f"<h2>Thresholds and noise</h2><p>{how['method'].upper()} at {how['epsilon_grey_levels']:g}/255, crafted "
        f"on the ANN, on {sensitivity['images']:,} training images.</p>{noted}{permutation}"
        f"{_figure(folder, 'sensitivity')}<details><summary>Numbers</summary>{noise}</details>",
    ]
    if found["sweep"]:
        sweep = found["sweep"]
        under = f" ({escape(sweep['attack'])})" if sweep["attack"] else ""
        text = (
            f"<h2>The cost</h2><p>Searches with eq. 11 alone: {sweep['population']} candidates, "
            f"{sweep['generations']} generations, {sweep['images']} training images{under}, the same first "
            f"candidates for all. The curves are of the best candidate on {sweep['held_out_images']} training "
            "images that its search did not see.</p>"
        )
        sections.append(text + _figure(folder, "cost_sweep"))
    return sections


def _attack(folder: Path, found: dict) -> str:
    rows = found["table"]["rows"]
    name = f"attack-{found['name']}"
    caption = (
        "Above clean images, below the same images under attack. The dotted line is the ANN, attacked alike; a "
        "curve above it is a spiking network that the attack, crafted on the ANN, misleads less."
    )
    text = (
        f"<h2>{escape(found['title'])}</h2><p>{found['images']:,} test images, {found['timesteps']} timesteps, "
        "attacked on the ANN with their true labels. Attacked images are real ones: whole grey levels.</p>"
    )
    if found["targets_reached"] is not None:
        text += f"<p>The ANN takes {100 * found['targets_reached']:.1f} % of the images for their targets.</p>"
    text += _png(folder, name, "Accuracy over time, clean and attacked, as in Fig. 3.", caption)
    cells = []
    for dataset, reference, attack, method, architecture, ann, snn, steps in rows:
        what = f"{reference}: {method}, {architecture} on {dataset}, {attack}"
        cells.append((what, f"{ann:.2f}", f"{snn:.2f}", "-" if steps is None else str(steps)))
    text += _table(
        ("", *found["table"]["headings"][-3:]),
        cells,
        "Table III of the paper (FGSM at 8/255) and this run. Our timesteps are those from which the SNN stays "
        "within that many points of the ANN under the same attack, at the closest target that both SNNs reach; a "
        f"dash, and the accuracy after {found['timesteps']} timesteps, where there is none.",
        numbers=(1, 2, 3),
        own=range(len(rows) - 2, len(rows)),
    )
    if found["transfer"]:
        transfer = found["transfer"]
        text += _table(
            ("attacked on", "ANN", "SNN, baseline", "SNN, optimised"),
            [
                (NETWORKS[source], *(f"{100 * row[n]:.1f} %" for n in ("ann", "baseline", "optimized")))
                for source, row in transfer["accuracy"].items()
            ],
            f"Accuracy on {transfer['images']} test images after {transfer['timesteps']} timesteps. The SNNs are "
            "attacked through the surrogate gradient of eq. 18; off the diagonal an attack is transferred.",
            numbers=(1, 2, 3),
        )
    return text


def _configuration(config: dict) -> str:
    rows = [(key, str(value)) for key, value in config.items() if not isinstance(value, dict)]
    rows += [(f"{name} version", version) for name, version in config.get("versions", {}).items()]
    cells = "".join(
        f'<tr><td>{escape(key)}</td><td class="value">{escape(value)}</td></tr>' for key, value in rows
    )
    return (
        "<h2>Configuration</h2><details><summary>Everything that the run was told</summary>"
        f'<div class="table"><table>{cells}</table></div></details>'
    )


def _figure(folder: Path, name: str) -> str:
    return _png(folder, name, *FIGURES[name])


def _png(folder: Path, name: str, title: str, reading: str) -> str:
    """A figure of the run with its caption; nothing where it was not drawn."""
    path = folder / "figures" / f"{name}.png"
    if not path.is_file():
        return ""
    image = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{image}">'
        f"<figcaption><b>{escape(title)}</b> {escape(reading)}</figcaption></figure>"
    )


def _table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    numbers: Iterable[int] = (),
    own: Iterable[int] = (),
) -> str:
    """``numbers`` are the columns that are set to the right, ``own`` the rows that stand out."""
    right, bold = set(numbers), set(own)

    def cells(tag: str, values: Sequence[str]) -> str:
        classes = (' class="number"' if i in right else "" for i in range(len(values)))
        return "".join(f"<{tag}{c}>{escape(str(v))}</{tag}>" for c, v in zip(classes, values))

    classes = ('<tr class="own">' if i in bold else "<tr>" for i in range(len(rows)))
    body = "".join(f"{start}{cells('td', row)}</tr>" for start, row in zip(classes, rows))
    note = f'<p class="quiet">{escape(caption)}</p>' if caption else ""
    return f'{note}<div class="table"><table><tr>{cells("th", headings)}</tr>{body}</table></div>'
