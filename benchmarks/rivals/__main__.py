"""The systems of the paper's tables, and newer ones, on one network, the same images and the same timesteps.

    python -m benchmarks.rivals embedded --json rivals.json
    python -m benchmarks.rivals cifar10 --data-dir DIR --weights W --json rivals.json

Each row is a system, prepared for T steps without layer delay from training images of one seed; with a delay of
one step per layer the same answers come so many steps later as the heading says. Systems that are converted see
`--images` training images without labels, those that are trained see `--training-images` with labels. What is
known of a system's source, how this one differs, and what was published of it stands in
`benchmarks/rivals/systems.py` and below the table.

With `--json` a row is kept as soon as it is there, and read again unless the code that it depends on has changed;
figures of accuracy over timesteps and over energy lie beside it.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from rich.console import Console

import data
from benchmarks import command
from benchmarks.few_timesteps import Inputs, held_rows
from benchmarks.markdown import printed
from benchmarks.rivals.figure import draw
from benchmarks.rivals.rows import code, row_of
from benchmarks.rivals.system import Job, Labelled, System
from benchmarks.rivals.systems import SYSTEMS
from benchmarks.rivals.table import published_table, sentences, table_of
from jaxsnn.analysis.comparison import ann_right
from jaxsnn.analysis.energy import HOROWITZ, ann_energy
from jaxsnn.cli.command import progress_bar
from jaxsnn.cli.options import DataOptions, DebugOptions, WeightsOptions
from jaxsnn.conversion.loading import check_data, load_snn
from jaxsnn.errors import UserError
from jaxsnn.runtime.checks import at_least, at_most, in_range
from jaxsnn.runtime.files import plain, write_json
from jaxsnn.runtime.provenance import describe_device, versions
from jaxsnn.simulation.plan import Plan

MOST_TIMESTEPS = 1024


@dataclass(frozen=True, kw_only=True)
class Config(DebugOptions, DataOptions, WeightsOptions):
    """Rivals side by side on one network."""

    data: tyro.conf.Positional[str] = "embedded"
    """Dataset: embedded, cifar10, cifar100, or another that jaxsnn.optimize --data takes."""
    timesteps: tuple[int, ...] = (4, 8, 16, 32, 64)
    """T, without layer delay."""
    systems: tuple[str, ...] = ()
    """By name; default: all, those that are trained only with --training-images."""
    seeds: int = 1
    """Of systems that draw."""
    images: int = 512
    """Training images without labels, evenly over the classes, for systems that are converted."""
    training_images: int = 0
    """Training images with labels for systems that are trained; 0 leaves these out."""
    epochs: int | None = None
    """Of every system that is trained; default: each its own, between 2 and 15."""
    batch: int = 100
    """Images of a training step."""
    distillation: int = 0
    """Steps of gradient descent of ours, distilled; 0 leaves it out."""
    test_images: int | None = None
    """Test images; default: all."""
    precision: Literal["int8", "float32"] = "int8"
    """Of the package's simulator; other neurons are simulated in float32."""
    ltb_batches: int = 1000
    """Batches of 100 images for LTB."""
    ftbc_rounds: int = 10
    """Rounds over all calibration images for FTBC."""
    minutes: float = 1e6
    """Begin no row after so many."""
    json: Path | None = None
    """Keep the rows in this file, and draw figures beside it."""
    markdown: bool = False
    """Print the tables as Markdown."""

    def settings(self) -> dict[str, Any]:
        """What rows of one file have in common."""
        names = ("images", "training_images", "epochs", "batch", "distillation", "precision")
        return {name: getattr(self, name) for name in (*names, "ltb_batches", "ftbc_rounds")}


def chosen(config: Config) -> dict[str, System]:
    """The systems that the options name, in the order of the table."""
    for name in config.systems:
        if name not in SYSTEMS:
            raise UserError(f"--systems {name} is unknown: the systems are {', '.join(SYSTEMS)}")
        if SYSTEMS[name].trained and not config.training_images:
            raise UserError(f"--systems {name} is trained: say on how many images with --training-images")
        if name == "ours-distilled" and not config.distillation:
            raise UserError(f"--systems {name} needs --distillation, its steps of gradient descent, such as 2000")

    def usual(system: System) -> bool:
        if system.name == "ours-distilled":
            return config.distillation > 0
        return not system.trained or config.training_images > 0

    return {n: s for n, s in SYSTEMS.items() if n in config.systems or (not config.systems and usual(s))}


def load(config: Config, console: Console) -> Inputs:
    """Load what checked options name."""
    train, test = config.load("train"), config.load("test", config.test_images)
    snn, sha256 = load_snn(config.weights, config.network, train.images.shape[1:], console.out)
    for dataset in (train, test):
        check_data(snn.network, dataset.images, len(dataset.classes), f"{dataset.name} ({dataset.split})")
    for name in ("images", "training_images"):
        if getattr(config, name) > len(train):
            option = f"--{name.replace('_', '-')} is {getattr(config, name)}"
            raise UserError(f"{option}, but {config.data} has only {len(train)} training images")
    identity = {
        "weights_sha256": sha256,
        "train_sha256": train.content_hash(),
        "test_sha256": test.content_hash(),
        "test_images": len(test),
    }
    return Inputs(snn, train, test, plain(config.settings() | identity))


@dataclass(frozen=True)
class Bench:
    """What all rows of a run share; ``shared`` is what systems keep for other T, by seed."""

    config: Config
    inputs: Inputs
    shared: dict[int, dict] = field(default_factory=dict)

    def job(self, timesteps: int, seed: int) -> Job:
        """The job of every system at T."""
        config, train = self.config, self.inputs.train
        few = data.balanced(train.labels, config.images, seed, "the training split")
        many = few
        if config.training_images:
            many = np.random.default_rng(seed).permutation(len(train))[: config.training_images]
        return Job(
            snn=self.inputs.snn,
            images=train.images[few],
            timesteps=timesteps,
            seed=seed,
            plan=Plan(precision=config.precision),
            ltb_batches=config.ltb_batches,
            ftbc_rounds=config.ftbc_rounds,
            distillation=config.distillation,
            pool=train.images[many],
            shared=self.shared.setdefault(seed, {}),
            labelled=Labelled(train.images[many], train.labels[many]),
            epochs=config.epochs,
            batch=config.batch,
            longest=max(config.timesteps),
        )


def run(config: Config, inputs: Inputs, console: Console) -> dict[str, Any]:
    """Run the rows that are missing and keep each; returns the report with all rows of this code."""
    held = held_rows(config.json, inputs.identity)
    rows = [row for row in held if row["system"] in SYSTEMS and row["code"] == code(SYSTEMS[row["system"]])]
    if len(rows) < len(held):
        console.print(f"{len(held) - len(rows)} rows are of other code and will run again", highlight=False)
    there = {(row["system"], row["timesteps"], row["seed"]) for row in rows}
    network, test = inputs.snn.network, inputs.test
    ann = ann_right(network, inputs.snn.params, test.images, test.labels)
    report = {
        "network": network.name,
        "delay": network.delay,
        "ann_accuracy": float(ann.mean()),
        "ann_microjoules": sum(ann_energy(network, HOROWITZ["FP32"])) * 1e-6,
        "settings": inputs.identity,
        "device": describe_device(),
        "versions": versions(),
        "rows": rows,
    }
    missing = [
        (seed, system, steps)
        for seed in range(config.seeds)
        for system in chosen(config).values()
        for steps in config.timesteps
        if (system.lucky or not seed) and (system.name, steps, seed) not in there
    ]
    bench, started = Bench(config, inputs), time.monotonic()
    with progress_bar(console) as bar:
        bar_task = bar.add_task("rows", total=len(missing), note="")
        for seed, system, steps in missing:
            if time.monotonic() - started > 60 * config.minutes:
                console.print("the minutes are over: the same command goes on", highlight=False)
                break
            note = f"{system.name}, T = {steps}, seed {seed}"
            bar.update(bar_task, note=note)
            if not console.is_terminal:  # where a bar does not move, a line a row says how far it is
                console.print(note, highlight=False)
            rows.append(plain(row_of(system, bench.job(steps, seed), test)))
            if config.json is not None:
                write_json(config.json, report)
            bar.update(bar_task, advance=1)
    return report


def main(config: Config) -> dict[str, Any]:
    """Run what is missing, print the tables, keep the rows."""
    at_least(config, timesteps=1, seeds=1, images=1, training_images=0, distillation=0, batch=1)
    at_least(config, test_images=1, ltb_batches=1, ftbc_rounds=1, epochs=1)
    at_most(config, timesteps=MOST_TIMESTEPS)
    in_range(config, "(0, inf)", "minutes")
    systems = chosen(config)
    console = Console()
    inputs = load(config, console)
    report = run(config, inputs, console)
    for table in (table_of(report, systems, config.timesteps), published_table(report, systems)):
        printed(console, table, config.markdown)
    for sentence in sentences(report, systems, config.timesteps):
        console.print(sentence, highlight=False, soft_wrap=config.markdown)
    if config.json is not None:
        write_json(config.json, report)
        figure = config.json.with_suffix(".png")
        draw(report, systems, figure)
        console.print(f"-> {config.json} and {figure}")
    return report


if __name__ == "__main__":
    command.run(Config, main, "rivals", __doc__)
