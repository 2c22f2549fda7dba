"""A finished run of jaxsnn.optimize, read back from its folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import data
from jaxsnn.conversion.loading import check_data, load_snn
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import SNN, Dynamics, Genes, check_genes
from jaxsnn.records import run_folder
from jaxsnn.records.thresholds_file import read_thresholds
from jaxsnn.runtime.files import read_json
from jaxsnn.search.settings import OptimizeConfig, from_record


@dataclass(frozen=True)
class FinishedRun:
    """What a run's folder holds, and one split of the dataset it used.

    Attributes:
        config: resolved; settings that the run's version did not know have their defaults.
        thresholds: thresholds.json, lists of numbers as arrays.
        history: the lines of history.jsonl.
        dataset: the split that was asked for.
        baseline, optimized: one candidate each.
    """

    folder: Path
    config: OptimizeConfig
    thresholds: dict
    results: dict
    history: list[dict]
    dataset: data.Dataset
    snn: SNN
    baseline: Genes
    optimized: Genes

    @property
    def dynamics(self) -> Dynamics:
        return Dynamics(self.thresholds["comparison"], self.thresholds["delay"])

    @property
    def layers(self) -> list[str]:
        """Names of the spiking layers."""
        return [layer.name for layer in self.snn.network.spiking]


def read_run(
    folder: Path,
    split: str,
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
        UserError: no folder of a finished run, or its weights are not the ones it was made with.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give the folder of a run of jaxsnn.optimize")
    for name in ("thresholds.json", "config.json", "results.json", "history.jsonl"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}: it is not the folder of a finished run of jaxsnn.optimize")
    thresholds = read_thresholds(folder)
    config = from_record(read_json(folder / "config.json"), folder / "config.json")
    dataset = data.load(config.data, split, data_dir or config.data_dir, limit=limit)
    snn, sha256 = load_snn(weights or config.weights, config.network, dataset.images.shape[1:], say)
    check_data(snn.network, dataset.images, len(dataset.classes), f"{dataset.name} ({dataset.split})")
    if thresholds.get("weights_sha256") not in (None, sha256):
        raise UserError(
            f"{weights or config.weights or 'the embedded network'} is not the file that {folder} was made with: "
            f"its sha256 is {sha256}, expected {thresholds['weights_sha256']}; give the right one as --weights"
        )

    def genes(prefix: str) -> Genes:
        if thresholds.get(f"{prefix}thresholds") is None:
            raise UserError(f"{folder}/thresholds.json has no list {prefix}thresholds")
        parts = (thresholds.get(f"{prefix}{name}") for name in ("thresholds", "v0", "leak"))
        found = Genes(*(None if part is None else part[None] for part in parts))
        check_genes(snn.network, found)
        return found

    return FinishedRun(
        folder,
        config,
        {"comparison": config.comparison, "delay": config.delay} | thresholds,
        read_json(folder / "results.json"),
        run_folder.read_history(folder / "history.jsonl"),
        dataset,
        snn,
        genes("baseline_"),
        genes(""),
    )
