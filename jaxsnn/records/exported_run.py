"""The network of a run's folder or of a file of thresholds, ready to be exported: no images are read."""

from collections.abc import Callable
from pathlib import Path

from jaxsnn.conversion.loading import load_named
from jaxsnn.errors import UserError
from jaxsnn.exports.converted import Converted
from jaxsnn.networks.spiking import Genes
from jaxsnn.records.finished_run import located_record, network_of
from jaxsnn.records.frontier import thresholds_of
from jaxsnn.records.run_config import config_beside
from jaxsnn.records.thresholds_file import dynamics_of
from jaxsnn.runtime.entries import Entries

TIMESTEPS = 100
"""T for a file of thresholds that belongs to no run, as in jaxsnn.evaluate."""


def read_converted(
    run: Path,
    weights: Path | None = None,
    network: str | None = None,
    baseline: bool = False,
    timesteps: int | None = None,
    say: Callable[[str], None] | None = None,
    point: int | None = None,
) -> Converted:
    """The network that ``run``, a folder or a file of thresholds, describes.

    Args:
        weights, network: in place of those that it names.
        baseline: its baseline, not what the search found.
        timesteps: T; None is the search's.
        say: gets a sentence for everything that was assumed about the weights.
        point: of a frontier, counted from 1.

    Raises:
        UserError: no such run, or its weights are not to be found.
    """
    found = thresholds_of(run, point)
    folder = run if run.is_dir() else run.parent
    snn, _ = load_named(located_record(found, folder, weights), run, weights, network, None, say)
    if baseline and found.get("baseline_thresholds") is None:
        raise UserError(f"{run} has no baseline: it has no list baseline_thresholds")
    if timesteps is None:
        timesteps = timesteps_of(run, found)
    return Converted(
        snn if baseline else network_of(found, folder, snn),
        Genes.from_record(found, "baseline_" if baseline else ""),
        dynamics_of(found, run),
        timesteps,
    )


def timesteps_of(run: Path, found: dict) -> int:
    """T of a run or of a file of thresholds: what it says itself, what the run searched at, or the usual.

    Raises:
        UserError: it says something else than a whole number.
    """
    if found.get("timesteps") is not None:
        return Entries(found, str(run)).count("timesteps", 1)
    config = config_beside(run)
    return TIMESTEPS if config is None else config.timesteps
