"""What a limit of the energy has cost: the calibrated network and the one that was found below the limit."""

from collections.abc import Callable
from typing import Any

from jaxsnn.analysis.comparison import compare_networks
from jaxsnn.analysis.energy import energy_of
from jaxsnn.cli.open_run import OpenRun
from jaxsnn.conversion.start import Start
from jaxsnn.networks.spiking import Genes


def limited(
    run: OpenRun, start: Start, found: Genes, limit: float, progress: Callable[[int], None]
) -> dict[str, Any]:
    """Both networks on the test images after the timesteps of the search, for results.json.

    Args:
        limit: microjoules an image that the search was to stay below.
        progress: called with the candidates x images that have just been simulated.
    """
    config, test = run.config, run.inputs.test
    tested = compare_networks(
        (start.snn, start.genes),
        (start.snn, found),
        test.images[:],
        test.labels,
        config.timesteps,
        config.dynamics,
        config.plan(),
        progress,
    )
    totals = energy_of(start.snn.network, tested.to_json())["totals"][config.energy_kind]
    gains = tested.accuracy_gain_ci95 or ((0.0, 0.0),)
    return {
        "kind": config.energy_kind,
        "timesteps": config.timesteps,
        "microjoules": limit,
        "calibrated": {"accuracy": tested.baseline.accuracy[-1], "microjoules": totals["baseline"]},
        "found": {"accuracy": tested.optimized.accuracy[-1], "microjoules": totals["optimized"]},
        "accuracy_gain_ci95": list(gains[-1]),
    }


def sentence_of(record: dict[str, Any]) -> str:
    """The record in a line."""
    before, after = record["calibrated"], record["found"]
    low, high = record["accuracy_gain_ci95"]
    saved = 100 * (1 - after["microjoules"] / before["microjoules"])
    return (
        f"after {record['timesteps']} steps, on test images, {record['kind']}: {after['microjoules']:.3f} uJ "
        f"instead of the calibrated network's {before['microjoules']:.3f} ({saved:.0f} % less; limit "
        f"{record['microjoules']:.3f} on training images), {100 * after['accuracy']:.2f} % right instead of "
        f"{100 * before['accuracy']:.2f} % ({low:+.2f} to {high:+.2f} points)"
    )
