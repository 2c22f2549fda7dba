"""Names that people read, for networks, conventions and intervals; and names from files, made harmless."""

from rich.markup import escape

from jaxsnn.analysis.intervals import wilson
from jaxsnn.analysis.latency import LatencyRow
from jaxsnn.analysis.results import NetworkResult, TestResult

NETWORKS = {
    "clean": "nothing (clean)",
    "ann": "the ANN",
    "baseline": "the baseline SNN",
    "optimized": "the optimised SNN",
}

CONVENTIONS = {"layer": "layer delay", "none": "no delay"}

LONGEST = 40
"""Characters of a name in a figure."""


FEW = 100
"""Below so many images the 95 % interval of an accuracy may reach 10 points to either side."""


def other(delay: str) -> str:
    """The other convention."""
    return "none" if delay == "layer" else "layer"


def for_table(name: str) -> str:
    """A name from a file, as Rich prints it: brackets are no markup."""
    return escape(name)


def for_figure(name: str) -> str:
    """A name from a file, no longer than a figure has room for; the figures' style reads no formulas in it."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def baseline_name(network: NetworkResult) -> str:
    """The baseline by its percentile and its membranes: "99.7 percentile, v0 0.5"."""
    name = "baseline" if network.percentile is None else f"{network.percentile:g} percentile"
    return f"{name}, {network.membranes}" if network.membranes else name


def optimized_name(network: NetworkResult) -> str:
    """The optimised network by its membranes: "optimised, v0 0.5"."""
    return f"optimised, {network.membranes}" if network.membranes else "optimised"


def columns(result: TestResult) -> tuple[str, ...]:
    """All networks as headings of narrow columns, in lines of at most 13 characters."""
    base = result.baseline
    usual = "baseline" if base.percentile is None else f"{base.percentile:g} pct."
    names = (*(usual for _ in result.networks[:-1]), "optimised")
    states = (n.membranes.replace(", ", "\n").replace(" to ", "\nto ") for n in result.networks)
    return tuple(f"{name}\n{state}".rstrip() for name, state in zip(names, states))


def steps(count: int | None, horizon: int) -> str:
    """Timesteps to a target; "> 48" where it is not kept within the ``horizon`` of 48."""
    return f"> {horizon}" if count is None else str(count)


def saving(row: LatencyRow) -> str:
    """What the optimised network saves to one target, in a clause: "32 instead of 36 steps (11.1 % fewer)".

    Only where both reach it.
    """
    before, after, gain = row.baseline_timesteps, row.optimized_timesteps, row.improvement_percent
    if before == after or gain is None:
        return f"the same {after} steps"
    return f"{after} instead of {before} steps ({abs(gain):.1f} % {'fewer' if gain > 0 else 'more'})"


def accuracy_interval(share: float, images: int) -> str:
    """The 95 % interval of an accuracy on so many images, in percent: "84.5..87.5"."""
    low, high = wilson(share, images)
    return f"{100 * low:.1f}..{100 * high:.1f}"


def few(images: int) -> str:
    """A sentence where a comparison is on few images, else ""."""
    if images >= FEW:
        return ""
    return f"Only {images} image{'s' * (images != 1)}: mind the intervals, this is a try-out and no result."


def under(attack: dict | None) -> str:
    """The attack on a result's images, " under FGSM at 8/255"; "" where there was none."""
    return f" under {str(attack['method']).upper()} at {attack['epsilon_grey_levels']:g}/255" if attack else ""
