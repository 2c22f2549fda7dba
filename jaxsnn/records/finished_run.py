"""A finished run of jaxsnn.optimize, read back from its folder."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import data
from jaxsnn.analysis.results import TestResult
from jaxsnn.conversion.loading import check_data, load_snn
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import SNN, Dynamics, Genes, check_genes
from jaxsnn.records import run_folder
from jaxsnn.records.calibrated_network import load_start
from jaxsnn.records.run_config import RunConfig, from_record
from jaxsnn.records.thresholds_file import dynamics_of, read_thresholds
from jaxsnn.runtime.entries import Entries
from jaxsnn.runtime.files import read_json

FILES = ("thresholds.json", "config.json", "results.json", "history.jsonl")
"""What makes the folder of a finished run."""


@dataclass(frozen=True)
class FinishedRun:
    """What a run's folder holds, and one split of the dataset it used.

    Attributes:
        config: resolved; settings that the run's version did not know have their defaults.
        thresholds: thresholds.json, lists of numbers as arrays.
        results: results.json; ``tested`` is its comparison on test images.
        percentiles: (L,) of the optimised thresholds among the ANN's activations.
        history: the lines of history.jsonl.
        dataset: the split that was asked for.
        snn: the converted network, of the baseline; ``optimized_snn`` is that of the optimised one, which was
            calibrated first or is the same.
        baseline, optimized: one candidate each.
    """

    folder: Path
    config: RunConfig
    thresholds: dict
    results: dict
    tested: TestResult
    percentiles: tuple[float, ...]
    history: list[dict]
    dataset: data.Dataset
    snn: SNN
    optimized_snn: SNN
    baseline: Genes
    optimized: Genes

    @property
    def dynamics(self) -> Dynamics:
        return dynamics_of(self.thresholds, self.folder / "thresholds.json")

    @property
    def layers(self) -> list[str]:
        """Names of the spiking layers."""
        return [layer.name for layer in self.snn.network.spiking]


def read_run(
    folder: Path | str,
    split: str = "test",
    limit: int | None = None,
    weights: Path | None = None,
    data_dir: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> FinishedRun:
    """Read a run's folder, and ``limit`` images (None: all) of the ``split`` of its dataset.

    Args:
        weights, data_dir: where the files have moved.
        say: gets a sentence for everything that was assumed about the weights.

    Raises:
        UserError: not the folder of a finished run, or its weights are not the ones it was made with.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder of a run of jaxsnn.optimize")
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}: it is not the folder of a finished run of jaxsnn.optimize")
    if (folder / "frontier.json").is_file():
        raise UserError(f"{folder} holds a frontier: use jaxsnn.evaluate or jaxsnn.export with --point on it")
    thresholds = read_thresholds(folder)
    config = from_record(read_json(folder / "config.json"), folder / "config.json")
    results = read_json(folder / "results.json")
    where = data_dir or located_folder(config.data_dir, folder)
    dataset = replace(config, data_dir=where).load(split, limit)
    path = weights or located_weights(config.weights, folder)
    snn, sha256 = load_snn(
        path, located_network(config.network, folder), dataset.images.shape[1:], say, config.encoding
    )
    check_data(snn.network, dataset.images, len(dataset.classes), f"{dataset.name} ({dataset.split})")
    if thresholds.get("weights_sha256") not in (None, sha256):
        raise UserError(
            f"{path or 'the embedded network'} is not the file that {folder} was made with: "
            f"its sha256 is {sha256}, expected {thresholds['weights_sha256']}; give the right one as --weights"
        )
    optimized_snn = network_of(thresholds, folder, snn)
    optimized = Entries(results, str(folder / "results.json")).entries("optimized")
    return FinishedRun(
        folder=folder,
        config=config,
        thresholds={"comparison": config.comparison, "delay": config.delay} | thresholds,
        results=results,
        tested=TestResult.from_json(results, str(folder / "results.json")),
        percentiles=optimized.numbers("percentiles", len(snn.network.spiking)),
        history=run_folder.read_history(folder / "history.jsonl"),
        dataset=dataset,
        snn=snn,
        optimized_snn=optimized_snn,
        baseline=_genes(folder, thresholds, "baseline_", snn),
        optimized=_genes(folder, thresholds, "", optimized_snn),
    )


def network_of(thresholds: dict, folder: Path, snn: SNN) -> SNN:
    """The network that the thresholds of a run belong to: the calibrated one in its folder, or ``snn``.

    Raises:
        UserError: there should be a calibrated one, but there is none.
    """
    if not thresholds.get("calibrated"):
        return snn
    name = thresholds["calibrated"]
    if not isinstance(name, str) or Path(name).name != name:
        raise UserError(f"{folder}: calibrated is {name!r}, expected the name of a file in it"[:500])
    start = load_start(folder, snn, name)
    if start is None:
        raise UserError(f"{folder} has no {name}, the network that its thresholds belong to")
    return start.snn


def _genes(folder: Path, thresholds: dict, prefix: str, snn: SNN) -> Genes:
    """The candidate whose lists in thresholds.json have names with this prefix."""
    if thresholds.get(f"{prefix}thresholds") is None:
        raise UserError(f"{folder}/thresholds.json has no list {prefix}thresholds")
    found = Genes.from_record(thresholds, prefix)
    check_genes(snn.network, found)
    return found


def located_weights(named: Path | None, folder: Path) -> Path | None:
    """The file of weights that a run in ``folder`` names; None is the embedded network.

    A relative path is that of the folder in which the run was started, which is not recorded: it is looked for
    from the current folder, then from the run's own folder and those above it. A file that has moved together with
    the run's folder is found in it.

    Raises:
        UserError: no such file in any of these places.
    """
    if named is None:
        return None
    found = _first(named, folder, Path.is_file)
    if found is None:
        raise UserError(
            f"{folder} was made with the weights {named}, which are neither there nor beside the run: "
            "give the file as --weights"
        )
    return found


def located_network(named: str | None, folder: Path) -> str | None:
    """The network that a run names: an architecture stays as it is, FILE.json is looked for like weights."""
    if named is None or not named.endswith(".json"):
        return named
    return str(_first(Path(named), folder, Path.is_file) or named)


def located_record(found: dict, folder: Path, weights: Path | None) -> dict:
    """What a file of thresholds in ``folder`` names, with weights and network looked for also beside it.

    Args:
        weights: what the user gave in place of the file's, if anything.
    """
    if weights is not None or not isinstance(found.get("weights"), str):
        return found
    architecture = found.get("architecture")
    if isinstance(architecture, str):
        architecture = located_network(architecture, folder)
    return found | {"weights": str(located_weights(Path(found["weights"]), folder)), "architecture": architecture}


def located_folder(named: Path | None, folder: Path) -> Path | None:
    """The folder of the dataset that a run names, looked for like weights; as it is named where there is none."""
    return None if named is None else _first(named, folder, Path.is_dir) or named


def _first(named: Path, folder: Path, there: Callable[[Path], bool]) -> Path | None:
    """The first of the places of ``located_weights`` where something is."""
    whole = folder.resolve()
    around = () if named.is_absolute() else (place / named for place in (whole, *whole.parents))
    return next((path for path in (named, *around, whole / named.name) if there(path)), None)
