"""Compare thresholds with the baseline on test images: python -m jaxsnn.evaluate RUN_OR_THRESHOLDS"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress

import data
from jaxsnn.analysis.comparison import compare_on_test
from jaxsnn.cli import command
from jaxsnn.cli.options import PlanOptions
from jaxsnn.conversion.calibration import Calibration, calibrate
from jaxsnn.conversion.loading import check_data, load_named
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.records.thresholds_file import GENES, genes_to_json, read_thresholds
from jaxsnn.reports import figures
from jaxsnn.reports.tables import comparison_table
from jaxsnn.runtime.files import write_json
from jaxsnn.runtime.provenance import describe_device, versions
from jaxsnn.search.evolve import subsets
from jaxsnn.simulation.plan_table import print_plan


@dataclass(frozen=True)
class EvaluateConfig(PlanOptions):
    """Evaluate a run's thresholds, or those of a JSON file, on test images, beside the baseline's.

    The file needs a list "thresholds" (one per spiking layer, in units of the ANN's activations); jaxsnn.optimize
    writes such a thresholds.json into its run's folder.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run, or a file of thresholds."""
    weights: Path | None = None
    """Trained ANN; default: the one that the thresholds name, or the embedded network."""
    network: str | None = None
    """Network of weights that do not describe it, a name or FILE.json; default: the one the thresholds name."""
    data: str = "embedded"
    """Dataset: embedded, cifar10, cifar100, fashion_mnist, mnist, imagefolder or tfds:NAME."""
    data_dir: Path | None = None
    """Folder of the dataset; default $JAXSNN_DATA or ~/.cache/jaxsnn/data."""
    images: int | None = None
    """Test images; default: all."""
    timesteps: int = 100
    percentile: float = 99.7
    """Percentile of the baseline, where the file has no thresholds of its own for it."""
    calibration_images: int = 500
    """Training images from which percentiles are read, where they are needed."""
    delay: Literal["layer", "none"] | None = None
    """Count one step of delay per layer or none; default: as in the file, or per layer."""
    comparison: Literal[">", ">="] | None = None
    """Fire above the threshold, or at it too; default: as in the file, or above."""
    out: Path | None = None
    """Also write results.json and the figure of the accuracies into this folder."""
    debug: bool = False
    """Show where an error came from."""


def evaluate(config: EvaluateConfig) -> dict:
    """Run the command; returns the results."""
    console = Console()
    for name, low in (("timesteps", 1), ("calibration_images", 1)):
        if getattr(config, name) < low:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(config, name)}, expected at least {low}")
    plan = config.plan()
    if not 0 < config.percentile <= 100:
        raise UserError(f"--percentile is {config.percentile}, expected in (0, 100]")
    if config.out is not None and (config.out / "config.json").exists():
        raise UserError(f"--out {config.out} is a run's folder, whose results would be lost: choose another")
    found = read_thresholds(config.run)
    test = data.load(config.data, "test", config.data_dir, limit=config.images)
    shape = test.images.shape[1:]
    snn, sha256 = load_named(found, config.run, config.weights, config.network, shape, console.out)
    check_data(snn.network, test.images, len(test.classes), f"{test.name} ({test.split})")
    layers = len(snn.network.spiking)
    for key in GENES:
        if found.get(key) is not None and len(found[key]) != layers:
            raise UserError(
                f"{config.run}: {key} has {len(found[key])} entries, network {snn.network.name} has {layers} "
                "spiking layers"
            )

    def calibration() -> Calibration:
        train = data.load(config.data, "train", config.data_dir)
        if config.calibration_images > len(train):
            raise UserError(
                f"--calibration-images is {config.calibration_images}, but {config.data} has only {len(train)} "
                "training images"
            )
        subset = next(subsets(train.labels, config.calibration_images, "fixed", 0))
        return calibrate(snn.network, snn.params, train.images[subset])

    def genes(thresholds: np.ndarray, v0, leak) -> Genes:
        return Genes(*(None if part is None else np.asarray(part)[None] for part in (thresholds, v0, leak)))

    percentile = found.get("percentile", config.percentile)
    baseline = found.get("baseline_thresholds")
    if baseline is None:
        baseline, percentile = calibration().threshold(config.percentile), config.percentile
    if not isinstance(percentile, int | float) or not math.isfinite(percentile):
        raise UserError(f"{config.run}: percentile is {percentile!r}, expected a number")
    delay = config.delay or found.get("delay") or "layer"
    dynamics = Dynamics(config.comparison or found.get("comparison") or ">", delay)
    optimized = genes(found["thresholds"], found.get("v0"), found.get("leak"))
    reference = genes(baseline, found.get("baseline_v0"), found.get("baseline_leak"))
    if config.explain_plan:
        print_plan(console, snn, plan, dynamics, config.timesteps, 2, len(test))
        return {}
    with Progress(console=console) as bar:
        task = bar.add_task(f"{len(test)} test images", total=2 * len(test))
        results = compare_on_test(
            snn,
            reference,
            optimized,
            test.images,
            test.labels,
            config.timesteps,
            dynamics,
            plan,
            lambda n: bar.update(task, advance=n),
        )
    results |= {"data": config.data, "network": snn.network.name, "weights_sha256": sha256}
    results |= {"test_sha256": test.content_hash(), "versions": versions(), "device": describe_device()}
    results["baseline"] |= {"percentile": percentile} | genes_to_json(reference)
    results["optimized"] |= genes_to_json(optimized)
    console.print(comparison_table(results))
    if config.out is not None:
        write_json(config.out / "results.json", results)
        figures.accuracy_curves(results, config.out / "accuracy.png")
    return results


if __name__ == "__main__":
    command.main(EvaluateConfig, evaluate, "jaxsnn.evaluate")
