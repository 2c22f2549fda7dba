"""report.html: a run on one page that needs nothing else, not even a network."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from jaxsnn.analysis.correlation import verdict
from jaxsnn.analysis.latency import LatencyRow
from jaxsnn.analysis.paper_results import PaperRow
from jaxsnn.analysis.results import NetworkResult, TestResult
from jaxsnn.errors import UserError
from jaxsnn.reports import html_elements as html
from jaxsnn.reports import labels
from jaxsnn.reports.energy import energy_section
from jaxsnn.runtime.entries import Entries
from jaxsnn.runtime.files import read_json, write_atomically
from jaxsnn.search.cost import PICOJOULE_PER_ADD

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
        "Above, the search makes the best candidate's cost fall; a mean far above it is a population that is "
        "still spread out. Below, the parts that add up to the best cost, each on an axis of its own: one may "
        "rise where another falls by more.",
    ),
    "layers": (
        "How closely each layer follows the ANN.",
        "Errors of its spikes, averaged over the timesteps that the network is calibrated for, against the ANN's "
        "activations. Above, what a bias can take back; below, what is left: rounding, and the order in which "
        "spikes arrive.",
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

STEPS = (1, 2, 4, 8, 16, 32)
"""Timesteps at which accuracies are given, those of the literature on few timesteps."""


def write(folder: Path) -> Path:
    """Write report.html into the folder of a finished run, from what lies there; returns its path.

    Needs results.json and config.json; shows the figures, and what jaxsnn.explain and jaxsnn.attack have found, as
    far as they are there.

    Raises:
        UserError: results.json or config.json is missing or holds something else.
    """
    path = folder / "report.html"
    write_atomically(path, build(folder).encode())
    return path


def build(folder: Path) -> str:
    """The page of a finished run, with what jaxsnn.explain and jaxsnn.attack have found so far."""
    results, config = (read_json(folder / name) for name in ("results.json", "config.json"))
    result = TestResult.from_json(results, str(folder / "results.json"))
    entries = Entries(results, str(folder / "results.json"))
    sections = [
        _summary(folder, result, entries),
        _layers(folder, result, entries),
        *([f"<h2>Energy</h2>{energy_section(entries.entries('energy'))}"] if entries.known("energy") else []),
        _search(folder, entries.entries("optimized")),
    ]
    sections += _found(folder / "explain.json", _explanation)
    sections += _found(folder / "attack.json", _attacks)
    sections.append(_configuration(config))
    title = f"{entries.text('network')} on {entries.text('data')}: {folder.resolve().name}"
    return html.page(title, sections)


def _found(path: Path, sections: Callable[[Path, dict], list[str]]) -> list[str]:
    """Sections on what another command has written, where it has; ``UserError`` where it is not what it writes."""
    if not path.exists():
        return []
    found = read_json(path)
    try:
        return sections(path.parent, found)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise UserError(
            f"{path} does not hold what jaxsnn.{path.stem} writes ({error!r}): remove it, and run that again"
        ) from error


def _summary(folder: Path, result: TestResult, entries: Entries) -> str:
    convention = labels.CONVENTIONS[result.delay]
    images = result.test_images
    spent = (
        f"{entries.count('nfe'):,} candidates were evaluated in {entries.count('generations')} generations, "
        f"{entries.number('training_cost_epochs'):.2f} epochs by eq. 17, {entries.number('seconds'):.0f} s on "
        f"{escape(entries.text('device'))}."
    )
    text = (
        f"<h2>Result</h2><p>ANN accuracy {_accuracy(result.ann_accuracy, images)} on {images:,} test "
        f"images{escape(labels.under(result.attack))}. Timesteps are counted with {convention}; the other "
        f"convention stands below. {spent}</p>"
    )
    text += html.quiet(labels.few(images)) if labels.few(images) else ""
    text += html.quiet(
        "Timesteps from which the accuracy stays at or above a target, in points below the ANN; > 48: not in 48."
    )
    text += _latencies(result.delay, result.latency, result)
    text += _latencies(labels.other(result.delay), result.latency_other_delay, result)
    if entries.known("clean"):
        clean = TestResult.from_json(entries.entries("clean").record, f"{entries.where}: clean")
        text += _latencies(result.delay, clean.latency, result, ", clean images")
    return text + _accuracies(result) + _totals(result) + html.figure(*_figure(folder, "accuracy"))


def _names(result: TestResult) -> tuple[str, str]:
    return labels.baseline_name(result.baseline), labels.optimized_name(result.optimized)


def _latencies(delay: str, rows: Sequence[LatencyRow], result: TestResult, kind: str = "") -> str:
    words, horizon = labels.CONVENTIONS[delay] + kind, result.horizon(delay)
    headings = (words, *_names(result), "saved", "95 % interval")
    return html.table(headings, [_latency_row(row, horizon) for row in rows], numbers=range(1, 5))


def _latency_row(row: LatencyRow, horizon: int) -> tuple[str, ...]:
    gain, least, ends = row.improvement_percent, row.saved_at_least(horizon), row.ci95
    saved = "" if gain is None else f"{gain:.1f} %"
    return (
        row.target_name.replace(" ", "\u00a0"),
        labels.steps(row.baseline_timesteps, horizon),
        labels.steps(row.optimized_timesteps, horizon),
        saved if least is None else f"> {least:.1f} %",
        "" if ends is None else f"{ends[0]:.0f} to {ends[1]:.0f} %",
    )


def _accuracy(share: float | None, images: int) -> str:
    """An accuracy with its interval; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.2f} % ({labels.accuracy_interval(share, images)})"


def _accuracies(result: TestResult) -> str:
    """Accuracy after few timesteps in both conventions, as far as they were simulated."""
    base, found = _names(result)
    kinds = (result.delay, labels.other(result.delay))
    headings = ("timesteps", *(f"{labels.CONVENTIONS[kind]}: {name}" for kind in kinds for name in (base, found)))
    rows = [
        (
            str(step),
            *(
                _accuracy(result.accuracy_at(network, step, kind), result.test_images)
                for kind in kinds
                for network in (result.baseline, result.optimized)
            ),
        )
        for step in sorted({*STEPS, result.timesteps})
    ]
    caption = (
        f"Accuracy with its 95 % interval (Wilson). A dash: the layer delay of {result.delay_steps} steps is not "
        f"over, or more than the {result.timesteps} timesteps that were simulated."
    )
    return html.table(headings, rows, caption, numbers=range(1, 5))


def _totals(result: TestResult) -> str:
    pair = (result.baseline, result.optimized)
    rows = [
        ("thousand spikes an image", *(f"{network.spikes_per_image / 1e3:.1f}" for network in pair)),
        ("million synaptic operations an image", *(f"{network.synops_per_image / 1e6:.1f}" for network in pair)),
        ("microjoules an image", *(f"{_microjoules(network.synops_per_image):.1f}" for network in pair)),
    ]
    caption = (
        f"Spikes and their cost after {result.timesteps} timesteps, at {PICOJOULE_PER_ADD:g} pJ a synaptic "
        "operation. The image, a constant input current, is not spikes and is not counted."
    )
    return html.table(("", *_names(result)), rows, caption, numbers=(1, 2))


def _microjoules(synops: float) -> float:
    return synops * PICOJOULE_PER_ADD * 1e-6


def _ratio(before: float, after: float) -> str:
    """``after`` relative to ``before``, of a file that may hold a zero."""
    return f"{after / before:.3f}" if before else "–"


def _layers(folder: Path, result: TestResult, entries: Entries) -> str:
    text = f"<h2>Thresholds and layers</h2>{html.figure(*_figure(folder, 'thresholds'))}"
    if entries.known("calibration"):
        text += html.figure(*_figure(folder, "layers"))
    base, found = result.baseline, result.optimized
    if base.thresholds is None or found.thresholds is None:
        return text
    count = len(found.thresholds)
    layers = _texts(entries, "layers", count)
    percentiles = entries.entries("optimized").numbers("percentiles", count)
    v0 = [network.v0 or (0.0,) * count for network in (base, found)]
    columns = zip(layers, base.thresholds, found.thresholds, percentiles, *v0)
    rows = [
        (layer, f"{low:.4g}", f"{high:.4g}", _ratio(low, high), f"{percentile:.3f}", f"{one:.3g}", f"{two:.3g}")
        for layer, low, high, percentile, one, two in columns
    ]
    name = "baseline" if base.percentile is None else f"{base.percentile:g} percentile"
    headings = ("layer", name, "optimised", "ratio", "percentile", "v0, baseline", "v0, optimised")
    caption = (
        "Thresholds in the units of the ANN's activations; initial membranes, v0, as fractions of the thresholds."
    )
    text += html.details("Thresholds and v0", html.table(headings, rows, caption, range(1, 7)), shown=True)
    spent = _spent(layers, base, found)
    return text + (html.details("Spikes and energy", spent, shown=True) if spent else "")


def _texts(entries: Entries, name: str, count: int) -> list[str]:
    """A list of ``count`` names."""
    found = entries.record.get(name)
    if not isinstance(found, list) or len(found) != count or not all(isinstance(one, str) for one in found):
        raise entries.wrong(name, f"{count} names")
    return found


def _spent(layers: Sequence[str], base: NetworkResult, found: NetworkResult) -> str:
    """Spikes, synaptic operations and energy of each layer; nothing of runs of earlier versions."""
    columns = []
    for network in (base, found):
        if network.spikes_per_image_by_layer is None or network.synops_per_image_by_layer is None:
            return ""
        columns.append((network.spikes_per_image_by_layer, network.synops_per_image_by_layer))
    (spikes, synops), (fewer, less) = columns
    rows = [
        (
            layer,
            *(f"{n / 1e3:,.2f}" for n in (s0, s1)),
            *(f"{n / 1e6:,.3f}" for n in (o0, o1)),
            *(f"{_microjoules(n):,.3f}" for n in (o0, o1)),
        )
        for layer, s0, s1, o0, o1 in zip(layers, spikes, fewer, synops, less, strict=True)
    ]
    kinds = ("thousand spikes", "million synops", "µJ")
    headings = ("layer", *(f"{kind}, {which}" for kind in kinds for which in ("baseline", "optimised")))
    return html.table(headings, rows, "An image, by the layer that spikes.", numbers=range(1, 7))


def _search(folder: Path, optimized: Entries) -> str:
    parts = optimized.entries("cost_parts")
    terms = ", ".join(f"{escape(name)} {parts.number(name):.3g}" for name in parts.record)
    text = f"<h2>Search</h2><p>The best cost is {optimized.number('cost'):.3f}: {terms}.</p>"
    return text + html.figure(*_figure(folder, "cost"))


PERMUTATION = html.quiet("Spearman's rank correlation; p from a two-sided permutation test.")


def _explanation(folder: Path, found: dict) -> list[str]:
    first, *others, depth = (escape(verdict(row)) for row in found["correlations"])
    sections = [_significance(folder, found, [first, depth]), _sensitivity(folder, found, [*others, depth])]
    return [*sections, _sweep(folder, found["sweep"])] if found["sweep"] else sections


def _points(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"


def _significance(folder: Path, found: dict, lines: Sequence[str]) -> str:
    significance = found["significance"]
    power = "squared eigenvalues, as eq. 13 is printed" if significance["squared"] else "eigenvalues (eq. 12)"
    rows = [
        (layer, str(k), "" if change is None else f"{change:+.1f} %", f"{percentile:.3f}")
        for layer, k, change, percentile in zip(
            found["layers"], significance["components"], significance["change_percent"], found["percentiles"]
        )
    ]
    components = html.table(
        ("layer", "components", "change", "threshold's percentile"),
        rows,
        f"Components that explain {100 * significance['variance']:g} % of the variance",
        numbers=(1, 2, 3),
    )
    return (
        f"<h2>Thresholds and the significance of layers</h2><p>Principal components of the sums in front of each "
        f"activation on {significance['images']:,} training images, by {power}.</p>{_points(lines)}{PERMUTATION}"
        f"{html.figure(*_figure(folder, 'significance'))}{html.details('Numbers', components)}"
    )


def _sensitivity(folder: Path, found: dict, lines: Sequence[str]) -> str:
    sensitivity = found["sensitivity"]
    how, names = sensitivity["attack"], ("ann", "baseline", "optimized")
    rows = [
        (layer, *("undefined" if value is None else f"{value:.3f}" for value in values))
        for layer, *values in zip(found["layers"], *(sensitivity[name] for name in names))
    ]
    noise = html.table(
        ("layer", "ANN", "SNN, baseline", "SNN, optimised"),
        rows,
        f"Relative change of a layer's activation under attack, over {sensitivity['timesteps']} timesteps",
        numbers=(1, 2, 3),
    )
    return (
        f"<h2>Thresholds and noise</h2><p>{escape(how['method'].upper())} at {how['epsilon_grey_levels']:g}/255, "
        f"crafted on the ANN, on {sensitivity['images']:,} training images.</p>{_points(lines)}{PERMUTATION}"
        f"{html.figure(*_figure(folder, 'sensitivity'))}{html.details('Numbers', noise)}"
    )


def _sweep(folder: Path, sweep: dict) -> str:
    under = f" ({escape(sweep['attack'])})" if sweep["attack"] else ""
    return (
        f"<h2>The cost</h2><p>Searches with eq. 11 alone: {sweep['population']:,} candidates, "
        f"{sweep['generations']:,} generations, {sweep['images']:,} training images{under}, the same first "
        f"candidates for all. The curves show the best candidate on {sweep['held_out_images']:,} training "
        f"images that its search did not see.</p>{html.figure(*_figure(folder, 'cost_sweep'))}"
    )


ATTACKED = (
    "Accuracy over time, clean and attacked, as in Fig. 3.",
    "Above clean images, below the same images under attack. The dotted line is the ANN, attacked alike; a curve "
    "above it is a spiking network that the attack, crafted on the ANN, misleads less.",
)


def _attacks(folder: Path, found: dict) -> list[str]:
    return [_attack(folder, one) for one in found.values()]


def _attack(folder: Path, found: dict) -> str:
    images = found["images"]
    text = (
        f"<h2>{escape(found['title'])}</h2><p>{images:,} test images, {found['timesteps']:,} timesteps, "
        "attacked on the ANN with their true labels. Attacked images remain valid 8-bit images.</p>"
    )
    text += html.quiet(labels.few(images)) if labels.few(images) else ""
    if found["targets_reached"] is not None:
        reached = _accuracy(found["targets_reached"], images)
        text += f"<p>The ANN takes {reached} of the images for their targets.</p>"
    if Path(found["name"]).name != found["name"]:
        raise ValueError(f"{found['name']!r} is no name of an attack")
    text += html.figure(folder / "figures" / f"attack-{found['name']}.png", *ATTACKED)
    text += _table_iii(found)
    return text + (_transfer(found["transfer"]) if found["transfer"] else "")


def _table_iii(found: dict) -> str:
    images = found["images"]
    rows = [PaperRow(*values) for values in found["table"]["rows"]]
    cells = [
        (
            f"{row.reference}: {row.method}, {row.architecture} on {row.dataset}, {row.attack}",
            *(_accuracy(a / 100, images) if row.own else f"{a:.2f} %" for a in (row.ann, row.snn)),
            "-" if row.timesteps is None else str(row.timesteps),
        )
        for row in rows
    ]
    return html.table(
        ("", "ANN", "SNN", "timesteps"),
        cells,
        "Table III of the paper (FGSM at 8/255) and this run, with 95 % intervals (Wilson). Our timesteps are "
        "those from which the SNN stays within that many points of the ANN under the same attack, at the closest "
        f"target that both SNNs reach; a dash, and the accuracy after {found['timesteps']} timesteps, where there "
        "is none.",
        numbers=(1, 2, 3),
        # what a try-out on a few images found does not stand out
        own=() if labels.few(images) else [index for index, row in enumerate(rows) if row.own],
    )


def _transfer(transfer: dict) -> str:
    images = transfer["images"]
    return html.table(
        ("attacked on", "ANN", "SNN, baseline", "SNN, optimised"),
        [
            (labels.NETWORKS[source], *(_accuracy(row[n], images) for n in ("ann", "baseline", "optimized")))
            for source, row in transfer["accuracy"].items()
        ],
        f"Accuracy on {images} test images after {transfer['timesteps']} timesteps. The SNNs are "
        "attacked through the surrogate gradient of eq. 18; off the diagonal an attack is transferred. "
        f"{labels.few(images)}",
        numbers=(1, 2, 3),
    )


def _configuration(config: dict) -> str:
    rows = [(key, str(value)) for key, value in config.items() if not isinstance(value, dict)]
    known = config.get("versions", {})
    rows += [(f"{name} version", version) for name, version in known.items()] if isinstance(known, dict) else []
    cells = "".join(
        f'<tr><td>{escape(key)}</td><td class="value">{escape(str(value))}</td></tr>' for key, value in rows
    )
    content = f'<div class="table"><table>{cells}</table></div>'
    return f"<h2>Configuration</h2>{html.details('Everything that the run was told', content)}"


def _figure(folder: Path, name: str) -> tuple[Path, str, str]:
    """A figure of the run, its title and how to read it."""
    return folder / "figures" / f"{name}.png", *FIGURES[name]
