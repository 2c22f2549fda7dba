"""Compare thresholds with the baseline on test images: python -m jaxsnn.evaluate RUN_OR_THRESHOLDS"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress

import data
from jaxsnn.analysis.comparison import compare_networks
from jaxsnn.analysis.energy import energy_of, read_costs
from jaxsnn.analysis.neurobench import neurobench
from jaxsnn.analysis.results import TestResult
from jaxsnn.cli import command
from jaxsnn.cli.early_exit import ExitInputs, ExitOptions, evaluate_exits
from jaxsnn.cli.encoding import Encoded, EncodingOptions, encoded
from jaxsnn.cli.inputs import kept
from jaxsnn.cli.options import DebugOptions, PlanOptions
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.conversion.loading import check_data, load_named
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import SNN, Dynamics, Genes, check_single
from jaxsnn.networks.spiking_input import has_spiking_input
from jaxsnn.records.exported_run import TIMESTEPS, timesteps_of
from jaxsnn.records.finished_run import located_folder, located_record, network_of
from jaxsnn.records.frontier import thresholds_of
from jaxsnn.records.run_config import config_beside
from jaxsnn.records.thresholds_file import GENES, dynamics_of
from jaxsnn.reports import figures
from jaxsnn.reports.energy import energy_table
from jaxsnn.reports.run_pages import spared
from jaxsnn.reports.tables import comparison_table
from jaxsnn.runtime.checks import at_least, in_range
from jaxsnn.runtime.entries import Entries
from jaxsnn.runtime.files import read_json, write_json
from jaxsnn.runtime.provenance import describe_device, versions
from jaxsnn.search.evolve import subsets
from jaxsnn.simulation.plan_table import print_plan


@dataclass(frozen=True)
class EvaluateConfig(EncodingOptions, ExitOptions, PlanOptions, DebugOptions):
    """Evaluate a run's thresholds, or those of a JSON file, on test images, beside the baseline's.

    The file needs a list "thresholds" (one per spiking layer, in units of the ANN's activations); jaxsnn.optimize
    writes such a thresholds.json into its run's folder.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run, or a file of thresholds."""
    point: int | None = None
    """Of a run's frontier, the point of this number; default: its most accurate one."""
    weights: Path | None = None
    """Trained ANN; default: the one that the thresholds name, or the embedded network."""
    network: str | None = None
    """Network of weights that do not describe it, a name or FILE.json; default: the one the thresholds name."""
    data: str | None = None
    """Dataset: embedded, cifar10, cifar100, fashion_mnist, mnist, imagefolder or tfds:NAME; default: the run's,
    or embedded for a file of thresholds alone."""
    data_dir: Path | None = None
    """Folder of the dataset; default: the run's, $JAXSNN_DATA or ~/.cache/jaxsnn/data."""
    image_size: int | None = None
    """Side of the square that images of imagefolder and tfds:NAME are resized and cropped to; default: the
    run's."""
    resize: int | None = None
    """Length of their shorter side before they are cropped; default: the run's, or 8 / 7 of --image-size."""
    images: int | None = None
    """Test images; default: all."""
    timesteps: int | None = None
    """T, counted as --delay says; default: 100, with --early-exit or --point the run's own."""
    percentile: float = 99.7
    """Percentile of the baseline, where the file has no thresholds of its own for it."""
    calibration_images: int = 500
    """Training images from which percentiles are read, where they are needed."""
    delay: Literal["layer", "none"] | None = None
    """Count one step of delay per layer or none; default: as in the file, or per layer."""
    comparison: Literal[">", ">="] | None = None
    """Fire above the threshold, or at it too; default: as in the file, or above."""
    energy: Path | None = None
    """TOML file of one's own picojoules an operation, to be counted beside the usual ones."""
    neurobench: int | None = None
    """Also give the measures of NeuroBench on so many of the test images."""
    out: Path | None = None
    """Also write results.json and the figure of the accuracies into this folder; with --early-exit early_exit.json
    and its figure, which otherwise go into the run's folder."""


@dataclass(frozen=True)
class Source:
    """Which images: a dataset's name, its folder where that is not the usual one, and sizes of ``data.load``."""

    name: str
    folder: Path | None
    size: int | None = None
    resize: int | None = None

    def load(self, split: str, limit: int | None = None, keep: int = data.KEPT) -> data.Dataset:
        size = "auto" if self.size is None else self.size
        return data.load(self.name, split, self.folder, limit=limit, size=size, resize=self.resize, keep=keep)


def evaluate(config: EvaluateConfig) -> dict:
    """Run the command; returns the results."""
    console = command.TextConsole()
    at_least(config, timesteps=1, calibration_images=1, neurobench=1, exit_images=1)
    in_range(config, "(0, 100]", "percentile")
    in_range(config, "[0, 100]", "exit_change")
    if config.encoding == "poisson" and (config.early_exit or config.neurobench is not None):
        raise UserError("--early-exit and --neurobench know no random spikes: take --encoding rate")
    plan, costs = config.plan(), read_costs(config.energy)
    if config.out is not None and (config.out / "config.json").exists():
        raise UserError(f"--out {config.out} is a run's folder, whose results would be lost: choose another")
    found = thresholds_of(config.run, config.point)
    source = source_of(config)
    test = source.load("test", config.images, kept(config.memory_limit))
    snn, sha256 = load_named(
        located_record(found, _folder(config), config.weights),
        config.run,
        config.weights,
        config.network,
        test.images.shape[1:],
        console.out,
    )
    check_data(snn.network, test.images, len(test.classes), f"{test.name} ({test.split})")
    _check_lengths(config.run, found, snn)
    dynamics = dynamics_of(found, config.run, config.comparison, config.delay)
    for name in ("early_exit", "neurobench"):
        if getattr(config, name):
            check_single(dynamics, f"--{name.replace('_', '-')} is")
    own = network_of(found, _folder(config), snn), Genes.from_record(found)
    if config.early_exit:
        return _early_exit(config, console, found, snn, encoded(config, dynamics, plan, own), source, test)
    timesteps = config.timesteps or (TIMESTEPS if config.point is None else timesteps_of(config.run, found))
    baseline, percentile = baseline_of(config, found, snn, source, dynamics.most)
    coded = encoded(config, dynamics, plan, (snn, baseline), own)
    if config.explain_plan:
        print_plan(console, coded.pairs[0][0], coded.plan, dynamics, timesteps, 2, len(test))
        return {}
    with Progress(console=console) as bar:
        task = bar.add_task(f"{len(test)} test images", total=2 * len(test))
        tested = compare_networks(
            coded.pairs[0],
            coded.pairs[1],
            test.images,
            test.labels,
            timesteps,
            coded.dynamics,
            coded.plan,
            lambda n: bar.update(task, advance=n),
            cell=coded.cells,
        )
    tested = replace(tested, baseline=replace(tested.baseline, percentile=percentile))
    results = tested.to_json()
    network = coded.pairs[0][0].network
    results |= {"energy": energy_of(network, results, costs)} | {
        "encoding": config.encoding or ("rate" if has_spiking_input(network) else "constant"),
        "data": source.name,
        "network": snn.network.name,
        "weights_sha256": sha256,
        "test_sha256": test.content_hash(),
        "versions": versions(),
        "device": describe_device(),
    }
    if config.neurobench is not None:
        some = np.asarray(test.images[: config.neurobench])
        results["neurobench"] = _neurobench(
            dict(zip(("baseline", "optimized"), coded.pairs)), some, timesteps, dynamics
        )
    report(config, console, tested, results)
    return results


def _early_exit(
    config: EvaluateConfig,
    console: Console,
    found: dict[str, Any],
    ann: SNN,
    coded: Encoded,
    source: Source,
    test: data.Dataset,
) -> dict[str, Any]:
    """The command with --early-exit."""
    folder = config.out or _folder(config)
    held = config_beside(config.run)
    usual = config.timesteps or timesteps_of(config.run, found)
    ((snn, genes),) = coded.pairs
    timesteps = usual - coded.dynamics.silent_steps(snn.network)
    if timesteps < 1:
        raise UserError(f"--timesteps must be above the layer delay of {snn.network.delay} steps")
    inputs = ExitInputs(
        snn,
        genes,
        ann,
        timesteps,
        coded.dynamics.comparison,
        coded.plan,
        source.load("train"),
        test,
        0 if held is None else held.seed,
    )
    costs = read_costs(config.energy)
    return evaluate_exits(config, inputs, costs, folder, console, partial(command.warn, console))


def _neurobench(
    pairs: dict[str, tuple[SNN, Genes]], images: np.ndarray, timesteps: int, dynamics: Dynamics
) -> dict[str, Any]:
    """NeuroBench's measures of networks, without layer delay."""
    found: dict[str, Any] = {"images": len(images)}
    for name, (snn, genes) in pairs.items():
        steps = max(1, timesteps - dynamics.silent_steps(snn.network))
        measured = neurobench(snn, genes, images, timesteps=steps, comparison=dynamics.comparison)
        found[name] = measured.to_json()
    return found


def report(config: EvaluateConfig, console: Console, tested: TestResult, results: dict) -> None:
    """Print the table, and write what ``--out`` asks for: the numbers before the figure."""
    console.print(comparison_table(tested))
    console.print(energy_table(results["energy"]))
    for name in ("baseline", "optimized") if "neurobench" in results else ():
        measures = ", ".join(f"{key} {value:,.4g}" for key, value in results["neurobench"][name].items())
        console.print(f"NeuroBench, {name}: {measures}", highlight=False, soft_wrap=True)
    if config.out is not None:
        write_json(config.out / "results.json", results)
        with spared(partial(command.warn, console), path := config.out / "accuracy.png"):
            figures.accuracy_curves(tested, path)


def source_of(config: EvaluateConfig) -> Source:
    """The images that the options name, else those of the run in whose folder the thresholds are."""
    record = _folder(config) / "config.json"
    is_run = config.run.is_dir() or config.run.name == "thresholds.json"
    held = read_json(record) if is_run and record.is_file() else {}
    for name in ("data", "data_dir"):
        if not isinstance(held.get(name), str | None):
            raise UserError(f"{record}: {name} is {held[name]!r}, expected a string"[:500])
    for name in ("image_size", "resize"):
        if type(held.get(name)) not in (int, type(None)):
            raise UserError(f"{record}: {name} is {held[name]!r}, expected a whole number"[:500])
    name = config.data or held.get("data") or "embedded"
    folder = config.data_dir
    if folder is None and name == held.get("data") and held.get("data_dir") is not None:
        folder = located_folder(Path(held["data_dir"]), _folder(config))
    sizes = config.image_size, config.resize
    if sizes == (None, None) and name == held.get("data"):
        sizes = held.get("image_size"), held.get("resize")
    return Source(name, folder, *sizes)


def _folder(config: EvaluateConfig) -> Path:
    return config.run if config.run.is_dir() else config.run.parent


def _check_lengths(where: Path, found: dict, snn: SNN) -> None:
    """Raise ``UserError`` where a list of genes has not one entry per spiking layer."""
    layers = len(snn.network.spiking)
    for key in GENES:
        if found.get(key) is not None and len(found[key]) != layers:
            raise UserError(
                f"{where}: {key} has {len(found[key])} entries, network {snn.network.name} has {layers} "
                "spiking layers"
            )


def baseline_of(
    config: EvaluateConfig, found: dict[str, Any], snn: SNN, source: Source, most: int
) -> tuple[Genes, float]:
    """The baseline of a file of thresholds and its percentile; read from training images where it has none."""
    if found.get("baseline_thresholds") is not None:
        held = Entries({"percentile": config.percentile} | found, str(config.run))
        return Genes.from_record(found, "baseline_"), held.number("percentile")
    train = source.load("train")
    if config.calibration_images > len(train):
        raise UserError(
            f"--calibration-images is {config.calibration_images}, but {source.name} has only {len(train)} "
            "training images"
        )
    subset = next(subsets(train.labels, config.calibration_images, "fixed", 0))
    usual = calibrate(snn.network, snn.params, train.images[subset], most=most).threshold(config.percentile)
    own = Genes.from_record(found | {"baseline_thresholds": usual}, "baseline_")
    return own, config.percentile


if __name__ == "__main__":
    command.main(EvaluateConfig, evaluate, "jaxsnn.evaluate")
