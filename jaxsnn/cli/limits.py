"""What limits of energy and peak activity have cost: the calibrated network, and what keeps the limits.

Two ways to keep a limit of the energy stand beside each other: the thresholds that the search found below it, and
the calibrated network as it is, whose images stop early (``jaxsnn.analysis.early_exit``). The exit's thresholds
are those that change fewest answers on training images, of those that keep the limit there.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jaxsnn.analysis.comparison import compare_networks
from jaxsnn.analysis.early_exit import WISHES, chosen_rule, evaluated
from jaxsnn.analysis.energy import energy_of
from jaxsnn.analysis.operations import neurons
from jaxsnn.analysis.results import NetworkResult
from jaxsnn.cli.early_exit import ExitOptions
from jaxsnn.cli.open_run import OpenRun
from jaxsnn.conversion.start import Start
from jaxsnn.networks.spiking import Genes
from jaxsnn.search.evolve import subsets
from jaxsnn.simulation.exits import Trace, trace


def limited(
    run: OpenRun, start: Start, found: Genes, limits: Mapping[str, float], progress: Callable[[int], None]
) -> dict[str, Any]:
    """Each network on the test images after the timesteps of the search, for results.json.

    Args:
        limits: "energy" in microjoules an image and "peak", as far as the search had them.
        progress: called with the candidates x images that have just been simulated.
    """
    config, test, network = run.config, run.inputs.test, start.snn.network
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
    totals = energy_of(network, tested.to_json())["totals"][config.energy_kind]
    gains = tested.accuracy_gain_ci95 or ((0.0, 0.0),)
    steps = config.timesteps - config.dynamics.silent_steps(network)

    def row(one: NetworkResult, name: str) -> dict[str, Any]:
        share = np.array(one.spikes_per_image_by_layer) / (config.timesteps * np.array(neurons(network)))
        return {
            "accuracy": one.accuracy[-1],
            "mean_timesteps": steps,
            "microjoules": totals[name],
            "peak": float(share.max()),
        }

    rows = {
        "calibrated": row(tested.baseline, "baseline"),
        "found": row(tested.optimized, "optimized") | {"accuracy_gain_ci95": list(gains[-1])},
    }
    stopped = None if "energy" not in limits else _stopped(run, start, steps, limits["energy"])
    if stopped is not None:
        rows["early_exit"] = stopped
    return {"kind": config.energy_kind, "timesteps": config.timesteps, "limits": dict(limits), "networks": rows}


def _stopped(run: OpenRun, start: Start, steps: int, limit: float) -> dict[str, Any] | None:
    """The calibrated network with images that stop early; None where no rule keeps the limit."""
    config, train, test = run.config, run.inputs.train, run.inputs.test
    network, kind = start.snn.network, config.energy_kind

    def traced(images: np.ndarray) -> Trace:
        plan = replace(config.plan(), mesh=None)
        return trace(start.snn, start.genes, images, steps, config.comparison, plan)

    size = min(ExitOptions().exit_images, len(train))
    drawn = next(subsets(train.labels, size, "fixed", config.seed + 4))  # as in jaxsnn.evaluate --early-exit
    learned = traced(np.asarray(train.images[drawn]))
    for share in WISHES:
        rule = chosen_rule(learned.scores, "margin", share)
        if evaluated(network, learned, train.labels[drawn], rule, share).energy[kind] <= limit:
            break
    else:
        return None
    one = evaluated(network, traced(np.asarray(test.images[:])), test.labels, rule, share)
    return {
        "accuracy": one.accuracy,
        "accuracy_gain_ci95": list(one.gain_ci95),
        "mean_timesteps": one.mean_steps,
        "microjoules": one.energy[kind],
        "rule": one.to_json(),
    }
