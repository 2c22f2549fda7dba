"""Fine-tune a converted network by backpropagation through time: python -m jaxsnn.finetune"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

import data
from jaxsnn.analysis.comparison import ann_right, compare_networks
from jaxsnn.analysis.results import TestResult
from jaxsnn.cli import command
from jaxsnn.cli.inputs import telling
from jaxsnn.cli.options import DataOptions
from jaxsnn.cli.training import run_training, training_session
from jaxsnn.cli.tuning import RATES, BpttOptions, Start, StartOptions, load_start
from jaxsnn.conversion.loading import check_data
from jaxsnn.errors import UserError
from jaxsnn.records import run_folder, training_run
from jaxsnn.records.run_config import to_record
from jaxsnn.reports.tables import comparison_table
from jaxsnn.runtime.checks import at_least, in_range
from jaxsnn.runtime.marks import Unrecorded, Where, marked
from jaxsnn.runtime.memory import peak_bytes
from jaxsnn.runtime.provenance import describe_device, versions
from jaxsnn.simulation.plan import Plan
from jaxsnn.training.bptt import BpttDescent, Tuning, Unrolling, genes_of, step_bytes
from jaxsnn.training.loop import Batches, Place, doubts
from jaxsnn.training.recipes import tuning_preset


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(BpttOptions, DataOptions, StartOptions):
    """Fine-tune a converted spiking network by backpropagation through time.

    The rival of jaxsnn.optimize: gradients instead of a search, through the surrogate of eq. 18. Without
    arguments: the embedded network and images, in about a minute and a half on two cores. The result is a table,
    and a folder with the weights and thresholds, which jaxsnn.evaluate reads and which are saved after every
    epoch. Ctrl-C stops after the current step and still reports. SIGTERM saves and leaves; the same command, with
    --out, resumes the run.
    """

    out: Unrecorded[Path | None] = None
    """Folder of the run; default runs/finetune-<preset>-<time>. An unfinished run in it is resumed."""
    test_images: int | None = None
    """Test images; default: all."""
    rows: Where[int] = 192
    """Images that go through the device at once in the test."""

    def checked(self) -> "FinetuneConfig":
        """The configuration with the preset's values filled in; raises ``UserError`` where one is out of range."""
        config = replace(self, **asdict(self.used()))
        # a run may be read from another folder
        paths = {name: getattr(self, name) for name in ("weights", "start", "data_dir")}
        config = replace(config, **{name: path and path.absolute() for name, path in paths.items()})
        config.check()
        at_least(config, calibration_images=1, test_images=1, rows=1)
        in_range(config, "(0, 100]", "percentile")
        return config


def write(config: FinetuneConfig, folder: Path, start: Start, descent: BpttDescent) -> None:
    """Write the network as it is trained by now; genes that neither start nor training set stay unset."""
    params = {name: np.asarray(value) for name, value in descent.parts["weights"].items()}
    notes = {"finetuned_from_sha256": start.sha256, "data": config.data, "trained": " ".join(config.train)}
    thresholds = start.genes.threshold[0].astype(np.float32)
    genes = genes_of(descent.parts, thresholds).map(lambda part: np.asarray(part, np.float64)[None])
    unset = {
        name: None for name in ("v0", "leak") if name not in config.train and getattr(start.genes, name) is None
    }
    genes = genes._replace(**unset)
    training_run.write_snn(folder, start.snn.network, params, genes, start.dynamics, notes)


def row_of(place: Place, batches: Batches) -> dict:
    """The line of history.jsonl for an epoch, or what was done of it."""
    return {
        "epoch": place.epoch,
        "steps": place.steps(batches),
        "loss": place.loss,
        "accuracy": float(place.scalars[:, 1].sum() / (len(place.scalars) * batches.batch)),
        "seconds": place.seconds,
    }


def prepare(
    config: FinetuneConfig, console: Console
) -> tuple[data.Dataset, data.Dataset, Start, Unrolling, np.ndarray]:
    """Load what a checked configuration names: all training and test images, the network to start from, how the
    gradient is computed, and the indices of the training images that are used.

    Raises:
        UserError: the parts do not fit each other.
    """
    used = config.used()
    with telling(console, config.data):
        train, test = config.load("train"), config.load("test", config.test_images)
        start = load_start(config, train, console.out)
    check_data(start.snn.network, test.images, len(test.classes), f"{test.name} ({test.split})")
    unrolling = config.unrolling(start.dynamics, start.snn.network)
    count = len(train) if used.images is None else min(used.images, len(train))
    if used.batch > count:
        raise UserError(f"--batch is {used.batch}, but there are only {count} training images")
    return train, test, start, unrolling, data.balanced(train.labels, count, config.seed, "the training split")


def finetune(config: FinetuneConfig) -> dict:
    """Run the command; returns results.json."""
    started = time.perf_counter()
    console = command.TextConsole()
    config = config.checked()
    used, rates = config.used(), config.rates()
    command.warn(
        console, *doubts(config.precision, **{name: (rates[name], usual) for name, usual in RATES.items()})
    )
    train, test, start, unrolling, chosen = prepare(config, console)
    batches = Batches(len(chosen), used.batch, config.seed)
    planned = used.epochs * batches.steps
    tuning = Tuning(config.train, **rates, steps=planned, batch=used.batch, augment=config.augment)
    folder = config.out or Path("runs") / f"finetune-{config.preset}-{datetime.now():%Y%m%d-%H%M%S}"
    identity = {
        "weights_sha256": start.sha256,
        "train_sha256": train.content_hash(),
        "test_sha256": test.content_hash(),
    }
    stamp = {"versions": versions(), "device": describe_device()}
    record, free = to_record(config) | identity | stamp, marked(FinetuneConfig, "where")
    with (
        training_session(console, folder, "jaxsnn.finetune", record, free) as termination,
        command.stop_on_interrupt(console, "step") as asked,
        command.progress_bar(console) as bar,
    ):
        console.print(
            f"{start.snn.network.name} on {config.data}: {' and '.join(config.train)} by BPTT, "
            f"{len(chosen)} training images, {used.epochs} epochs, {unrolling.timesteps} timesteps without layer "
            f"delay, on {stamp['device']}",
            highlight=False,
        )
        descent = BpttDescent(
            start.snn, start.genes, unrolling, tuning, train.images[chosen], train.labels[chosen]
        )

        def row_at(place: Place, rows: list[dict]) -> dict | None:
            write(config, folder, start, descent)
            return row_of(place, batches) if place.whole or asked else None

        rows, before = run_training(folder, descent, batches, used.epochs, bar, termination, row_at, asked)
        steps, spent = rows[-1]["steps"], time.perf_counter() - started + before
        tested, tuned_accuracy = on_test(config, start, folder, test, bar)
        results = tested.to_json() | {
            "tuned_ann_accuracy": tuned_accuracy,
            "method": "bptt",
            "preset": config.preset,
            "data": config.data,
            "seed": config.seed,
            "network": start.snn.network.name,
            "layers": [layer.name for layer in start.snn.network.spiking],
            "trained": list(config.train),
            "stopped_early": steps < planned,
            "steps": steps,
            "train_timesteps": unrolling.timesteps,
            "image_evaluations": steps * used.batch,
            # eq. 17's measure, an epoch of the whole training set
            "training_cost_epochs": steps * used.batch / len(train),
            "step_bytes": step_bytes(descent.compiled),
            "peak_bytes": peak_bytes(),
            "search_seconds": spent,
            "seconds": time.perf_counter() - started + before,
            **stamp,
            **identity,
        }
        curves = {name: np.array(results[name]["accuracy"]) for name in ("baseline", "optimized")}
        run_folder.write_curves(folder, **curves)
        training_run.finish(folder, results)
    report(console, tested, results, folder)
    return results


def on_test(
    config: FinetuneConfig, start: Start, folder: Path, test: data.Dataset, bar: Progress
) -> tuple[TestResult, float]:
    """The network at the start and that in the folder on the test images, and the tuned ANN's accuracy."""
    timesteps = config.used().test_timesteps
    task = bar.add_task("test", total=2 * len(test), note=f"{len(test)} images, {timesteps} steps")
    snn, genes = training_run.read_snn(folder)
    tested = compare_networks(
        (start.snn, start.genes),
        (snn, genes),
        test.images,
        test.labels,
        timesteps,
        start.dynamics,
        Plan(rows=config.rows),
        lambda count: bar.update(task, advance=count),
    )
    percentile = None if config.start else config.percentile
    tested = replace(tested, baseline=replace(tested.baseline, percentile=percentile))
    return tested, float(ann_right(snn.network, snn.params, test.images, test.labels).mean())


def report(console: Console, tested: TestResult, results: dict, folder: Path) -> None:
    """Print the table, and what the training took."""
    console.print(comparison_table(tested))
    console.print(
        f"{results['steps']} steps{' (stopped)' if results['stopped_early'] else ''}, "
        f"{results['image_evaluations']:,} images ({results['training_cost_epochs']:.2f} epochs, eq. 17), "
        f"{results['step_bytes'] / 2**20:.0f} MiB a step, {results['search_seconds']:.0f} s of "
        f"{results['seconds']:.0f} s in all -> {folder}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


def preset_values(name: str) -> dict[str, Any]:
    """The options that a preset sets."""
    return asdict(tuning_preset(name))


def parse(arguments: Sequence[str] | None = None) -> FinetuneConfig:
    """The command line's configuration: the options given, and the preset's values."""
    return command.parse_with_preset(FinetuneConfig, preset_values, "jaxsnn.finetune", arguments)


if __name__ == "__main__":
    command.main(FinetuneConfig, finetune, "jaxsnn.finetune", parse)
