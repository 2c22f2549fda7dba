"""Conversions for few timesteps side by side: published methods, and ours with each piece on and off.

    python -m benchmarks.few_timesteps --json few.json
    python -m benchmarks.few_timesteps --weights FILE --network NAME --data cifar10 --data-dir DIR --json few.json

Each row is a conversion of one network for T steps without layer delay, from the same training images without
labels, and its accuracy on test images, which no method sees. `benchmarks/few/` has a file a method, which says
what it does, where it deviates from what was published, and what was published. Weights change by folding only,
but in ours with reconstruct and in ours with distilled weights. The distilled rows need `--distillation STEPS`,
and a GPU for more than a hundred or so. Rows run in the package's simulator, in int8 unless `--precision` says
otherwise; those that it has no place for (FTBC's biases for each step, a start for each neuron, a delayed
read-out) are simulated by `benchmarks/few/layerwise.py` in float32, neurons that send several spikes in a step by
the package in float32. Seconds are those of the conversion, without what XLA took to compile.

With `--json` each row is kept as soon as it is there, and read when the command runs again; a figure of the
methods over T lies beside it.
"""

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import data
from benchmarks import command
from benchmarks.few import clock
from benchmarks.few.evaluate import CELLS, HERE, evaluate
from benchmarks.few.methods import methods
from benchmarks.few.ours import distillations
from benchmarks.few.task import Method, Task
from jaxsnn.analysis.comparison import ann_right
from jaxsnn.cli.command import progress_bar, warn
from jaxsnn.cli.options import DataOptions, DebugOptions, WeightsOptions
from jaxsnn.conversion.loading import check_data, load_snn
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import SNN
from jaxsnn.reports.few_figures import accuracy_over_timesteps
from jaxsnn.runtime.checks import at_least, at_most
from jaxsnn.runtime.files import plain, read_json, write_json
from jaxsnn.runtime.provenance import code_digest, describe_device, versions
from jaxsnn.simulation.plan import Plan

MOST_TIMESTEPS = 256
CODE = ("benchmarks/few", "jaxsnn/conversion", "jaxsnn/networks", "jaxsnn/simulation", "jaxsnn/training")
"""What a row depends on."""
EFFORTS = ("ltb_batches", "ftbc_rounds", "distillation", "distillation_batch", "reconstruct")
"""Options that say how much a method may do."""


@dataclass(frozen=True, kw_only=True)
class Config(DebugOptions, DataOptions, WeightsOptions):
    """Accuracy at few timesteps of several conversions of one network."""

    timesteps: tuple[int, ...] = (2, 4, 8, 16)
    """T, without layer delay; each conversion is made for its T."""
    seeds: int = 1
    """Draws of the calibration images; accuracies are medians over them."""
    images: int = 512
    """Calibration images, from the training split, evenly over its classes."""
    test_images: int | None = None
    """Test images; default: all."""
    rows: tuple[str, ...] = ()
    """Rows by name; default: all."""
    precision: Literal["int8", "float32"] = "int8"
    """Of the package's simulator."""
    ltb_batches: int = 1000
    """Batches of 100 images for LTB."""
    ftbc_rounds: int = 10
    """Rounds over all calibration images for FTBC."""
    distillation: int = 0
    """Steps of gradient descent in ours, distilled; 0 leaves these rows out."""
    distillation_batch: int = 128
    """Training images of each of these steps."""
    reconstruct: bool = True
    """Reconstruct weights, layer by layer, before they are distilled."""
    json: Path | None = None
    """Keep the rows in this file, and draw the methods beside it."""

    def settings(self) -> dict[str, Any]:
        """What rows of one file have in common."""
        return {name: getattr(self, name) for name in ("images", "precision", *EFFORTS)}


@dataclass(frozen=True)
class Inputs:
    """The network, the images, and what identifies them."""

    snn: SNN
    train: data.Dataset
    test: data.Dataset
    identity: dict[str, Any]


def load(config: Config, console: Console) -> Inputs:
    """Load what checked options name."""
    train, test = config.load("train"), config.load("test", config.test_images)
    snn, sha256 = load_snn(config.weights, config.network, train.images.shape[1:], console.out)
    for dataset in (train, test):
        check_data(snn.network, dataset.images, len(dataset.classes), f"{dataset.name} ({dataset.split})")
    if config.images > len(train):
        raise UserError(f"--images is {config.images}, but {config.data} has only {len(train)} training images")
    identity = {
        "weights_sha256": sha256,
        "train_sha256": train.content_hash(),
        "test_sha256": test.content_hash(),
        "test_images": len(test),
    }
    return Inputs(snn, train, test, plain(config.settings() | identity))


def chosen(config: Config) -> dict[str, tuple[str, Method]]:
    """Rows that the options name, in the order of the table."""
    known = methods()
    for name in config.rows:
        if name not in known:
            raise UserError(f"--rows {name} is unknown: the rows are {', '.join(known)}")
        if name in distillations() and not config.distillation:
            raise UserError(f"--rows {name} needs --distillation, its steps of gradient descent, such as 2000")
    wanted = config.rows or [name for name in known if config.distillation or name not in distillations()]
    return {name: row for name, row in known.items() if name in wanted}


def held_rows(path: Path | None, identity: dict[str, Any]) -> list[dict]:
    """The rows in a file of an earlier call.

    Raises:
        UserError: it holds rows of another network, other images or other settings.
    """
    if path is None or not path.exists():
        return []
    held = read_json(path)
    for key, value in identity.items():
        found = held.get("settings", {}).get(key)
        if found != value:
            raise UserError(f"{path} holds rows with {key} {found}, not {value}: choose another --json")
    return held["rows"]


@functools.cache
def code() -> str:
    """A hash of the sources that a row depends on."""
    root = Path(__file__).parents[1]
    return code_digest({name: root / name for name in CODE})


def measure(inputs: Inputs, name: str, method: Method, task: Task) -> dict[str, Any]:
    """One row: the conversion, timed, and its accuracy after each step."""
    started = clock.seconds()
    converted = method(task)
    seconds = clock.seconds() - started + converted.shared_seconds
    started = clock.seconds()
    seen = evaluate(converted, task, inputs.test.images, inputs.test.labels)
    return {
        "row": name,
        "timesteps": task.timesteps,
        "seed": task.seed,
        "accuracy": seen.right.mean(0).tolist(),
        "seconds": seconds,
        "images": len(task.images),
        "simulated": seen.simulated,
        "note": converted.note,
        "code": code(),
        "test_seconds": clock.seconds() - started,
        "layers": [asdict(layer) for layer in converted.layers],
    }


def run(config: Config, inputs: Inputs, console: Console) -> dict[str, Any]:
    """Run the rows that are missing and keep each; returns the report with all that the file holds."""
    wanted = chosen(config)
    rows = held_rows(config.json, inputs.identity)
    stale = sum(row["code"] != code() for row in rows)
    if stale:
        warn(console, f"{stale} rows of {config.json} are from other code: delete the file to run all again")
    there = {(row["row"], row["timesteps"], row["seed"]) for row in rows}
    snn, test = inputs.snn, inputs.test
    report = {
        "network": snn.network.name,
        "ann_accuracy": float(ann_right(snn.network, snn.params, test.images, test.labels).mean()),
        "settings": inputs.identity,
        "device": describe_device(),
        "versions": versions(),
        "rows": rows,
    }
    plan = Plan(precision=config.precision)
    missing = [
        (seed, name, steps)
        for seed in range(config.seeds)
        for name in wanted
        for steps in config.timesteps
        if (name, steps, seed) not in there
    ]
    shared: dict[int, dict] = {seed: {} for seed in range(config.seeds)}
    with progress_bar(console) as bar:
        bar_task = bar.add_task("rows", total=len(missing), note="")
        for seed, name, steps in missing:
            note_progress(bar, bar_task, f"{name}, T = {steps}, seed {seed}")
            indices = data.balanced(inputs.train.labels, config.images, seed, "the training split")
            pool, own = inputs.train.images, {name: getattr(config, name) for name in EFFORTS}
            task = Task(snn, pool[indices], steps, seed, plan, pool=pool, shared=shared[seed], **own)
            rows.append(plain(measure(inputs, name, wanted[name][1], task)))
            if config.json is not None:
                write_json(config.json, report)
            bar.update(bar_task, advance=1)
    return report


def note_progress(bar: Progress, task: Any, note: str) -> None:
    """Say what is being done, or has been."""
    bar.update(task, note=note)
    if not bar.console.is_terminal:  # where a bar does not move, a line a row says how far it is
        bar.console.print(note, highlight=False, soft_wrap=True)


def table_of(config: Config, report: dict[str, Any], titles: dict[str, str]) -> Table:
    """Median accuracy in per cent at each T, and the conversion's seconds, by row."""
    table = Table(
        "",
        *(f"T = {steps}" for steps in config.timesteps),
        "seconds",
        title=f"{report['network']}, ANN {100 * report['ann_accuracy']:.2f} %, no layer delay: accuracy in %",
        caption=f"{config.images} calibration images, {report['settings']['test_images']:,} test images, "
        f"{config.precision}; *: float32. Seconds at " + ", ".join(f"T = {steps}" for steps in config.timesteps),
    )
    for name, title in titles.items():
        each = [
            [row for row in report["rows"] if (row["row"], row["timesteps"]) == (name, steps)]
            for steps in config.timesteps
        ]
        if all(each):
            mark = " *" if any(row["simulated"] in (HERE, CELLS) for rows in each for row in rows) else ""
            table.add_row(title + mark, *map(_accuracy, each), ", ".join(map(_seconds, each)))
    return table


def _accuracy(rows: Sequence[dict]) -> str:
    found = [100 * row["accuracy"][-1] for row in rows]
    spread = f"\n{min(found):.2f} to {max(found):.2f}" if len(found) > 1 else ""
    return f"{np.median(found):.2f}{spread}"


def _seconds(rows: Sequence[dict]) -> str:
    return f"{np.median([row['seconds'] for row in rows]):.1f}"


def draw(config: Config, report: dict[str, Any], titles: dict[str, str], path: Path) -> None:
    """The methods, and ours without its variants, over T."""
    curves = {}
    for name, title in titles.items():
        found = {
            steps: [r["accuracy"][-1] for r in report["rows"] if (r["row"], r["timesteps"]) == (name, steps)]
            for steps in sorted(set(config.timesteps))
        }
        if name == "ours" or not name.startswith("ours"):
            curves[title] = (list(found), [float(np.median(each)) for each in found.values()])
    label = f"accuracy on {report['settings']['test_images']:,} test images [%]"
    accuracy_over_timesteps(curves, report["ann_accuracy"], label, path, bold=("ours",))


def main(config: Config) -> dict[str, Any]:
    """Run what is missing, print the table, keep the rows."""
    at_least(config, timesteps=1, seeds=1, images=1, test_images=1, ltb_batches=1, ftbc_rounds=1)
    at_least(config, distillation=0, distillation_batch=1)
    at_most(config, timesteps=MOST_TIMESTEPS)
    wanted = chosen(config)
    console = Console()
    inputs = load(config, console)
    report = run(config, inputs, console)
    titles = {name: title for name, (title, _) in wanted.items()}
    console.print(table_of(config, report, titles))
    if config.json is not None:
        write_json(config.json, report)
        draw(config, report, titles, config.json.with_suffix(".png"))
        console.print(f"-> {config.json} and {config.json.with_suffix('.png')}")
    return report


if __name__ == "__main__":
    command.run(Config, main, "few_timesteps", __doc__)
