"""Train an ANN for conversion: python -m jaxsnn.train"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

import data
from jaxsnn.cli import command
from jaxsnn.cli.inputs import telling
from jaxsnn.cli.options import DataOptions, DebugOptions
from jaxsnn.cli.training import run_training, training_session
from jaxsnn.conversion.loading import check_data, load_network
from jaxsnn.errors import UserError
from jaxsnn.networks.json_format import MOST_LEVELS
from jaxsnn.records import training_run
from jaxsnn.records.run_config import to_record
from jaxsnn.runtime.checks import at_least, at_most, in_range
from jaxsnn.runtime.marks import Unrecorded, Where, marked
from jaxsnn.runtime.memory import peak_bytes
from jaxsnn.runtime.provenance import describe_device, versions
from jaxsnn.training.ann import ANN
from jaxsnn.training.loop import (
    AnnDescent,
    Batches,
    Place,
    accuracy,
    doubts,
    in_bfloat16,
    make_optimizer,
)
from jaxsnn.training.recipes import CHOICES, RECIPES, Recipe, recipe_of
from jaxsnn.training.start import drawn_ann, load_images, network_for, trained_ann, with_activation

WAIT = 10
"""Steps after which the loss is looked at: a device that is waited for after every step idles in between."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DebugOptions, DataOptions):
    """Train an ANN and write its weights, ready for jaxsnn.optimize --weights.

    Stochastic gradient descent with random crops (padded by 4, reflected) and flips. The run can be stopped at any
    moment; the same command resumes it, after its last epoch or, after SIGTERM, its last step.
    """

    network: str | None = None
    """Architecture: vgg11-slim (small, and the default), vgg8 (the embedded one), vgg15 (the paper's), vgg15-bn,
    vgg16-bn, resnet18, resnet20, vgg4, vgg5, vgg9 or vgg11. With --weights, that of a file that does not describe
    it."""
    weights: Where[Path | None] = None
    """Start from these weights, a file as --weights of jaxsnn.optimize takes, instead of random ones."""
    recipe: Literal["fast", "strong", "paper-cifar", "paper-imagenet"] = "fast"
    """fast: one cycle of the learning rate, Nesterov momentum, label smoothing, clipped gradients. strong: the
    same for longer, in larger batches, with cutout. paper-cifar and paper-imagenet: rates, batches and epochs of
    the paper's authors. Sets the defaults of --epochs, --batch, --learning-rate, --weight-decay,
    --label-smoothing, --cutout and --cutmix."""
    width: float = 1.0
    """Factor on the features of every layer but the last."""
    norm: Literal["none", "batch", "scale"] | None = None
    """Normalisation: none, batch (BatchNorm, which leaves a bias on conversion) or scale (which leaves none);
    default: the architecture's."""
    activation: Literal["relu", "qcfs"] | None = None
    """relu, or qcfs: quantised steps up to a learned ceiling (Bu et al. 2022). Then thresholds.json is written
    too, for jaxsnn.evaluate: the ceilings are the thresholds, half of them the initial membranes. Default: as in
    --weights, otherwise relu."""
    levels: int | None = None
    """Steps of qcfs: about the timesteps in which the spiking network is meant to answer. Default: as in
    --weights, otherwise 8."""
    holdout: str = "none"
    """Validate on images that are left out of the training: those of this dataset's training split, or so many,
    drawn evenly over the classes (the same for every seed); "none" trains on all."""
    out: Unrecorded[Path] = Path("runs/train")
    """Folder of the run: weights.safetensors (of the last epoch), best.safetensors (of the best one on --holdout),
    history.jsonl, config.json, results.json. One that holds this run, unfinished, is resumed."""
    epochs: int | None = None
    """Times that every training image is seen."""
    batch: int | None = None
    """Images of one step."""
    learning_rate: float | None = None
    """The peak of the one cycle, after a fifth of the steps, or the rate at first."""
    weight_decay: float | None = None
    """In kernels only."""
    label_smoothing: float | None = None
    """Share of the target that is spread over all classes."""
    cutout: int | None = None
    """Side in pixels of a square of mean colour in every training image; 0 for none."""
    cutmix: float | None = None
    """Share of the training images that get a box of another one, whose label then counts by area."""
    adversarial: float | None = None
    """Train on images that are changed to raise the loss, by so many grey levels of 255 at most, such as 8: one
    step of the gradient's sign from a random start; 0 for none. Twice the time."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the linear maps; auto: bfloat16 on a GPU or TPU, float32 on a CPU, where bfloat16 is slower."""
    seed: int = 0

    def used(self) -> Recipe:
        """The recipe, with what the user changed of it."""
        return recipe_of(self.recipe, **{name: getattr(self, name) for name in CHOICES})

    def checked(self) -> "TrainConfig":
        """The configuration with the recipe's values filled in; raises ``UserError`` where one is out of range."""
        used = asdict(self.used())
        config = replace(self, **{name: used[name] for name in CHOICES})
        config = replace(config, precision="bfloat16" if in_bfloat16(self.precision) else "float32")
        if config.weights is None:
            config = replace(config, network=config.network or "vgg11-slim")
        elif config.norm is not None or config.width != 1:
            raise UserError("--weights brings its own network: leave --norm and --width out")
        else:  # a run may be read from another folder
            config = replace(config, weights=config.weights.absolute())
        if config.data_dir is not None:
            config = replace(config, data_dir=config.data_dir.absolute())
        in_range(config, "[0, inf)", "learning_rate", "weight_decay")
        in_range(config, "[0, 1)", "label_smoothing")
        in_range(config, "[0, 1]", "cutmix")
        in_range(config, "[0, 255]", "adversarial")
        in_range(config, "(0, inf)", "width")
        at_least(config, seed=0, epochs=1, batch=1, levels=1, cutout=0)
        at_most(config, levels=MOST_LEVELS)
        return config


def start(config: TrainConfig, training: data.Dataset, say: Callable[[str], None]) -> ANN:
    """The ANN to begin with: of the weights that the user gave, or drawn."""
    recipe, half = config.used(), in_bfloat16(config.precision)
    first = training.images[np.random.default_rng(config.seed).permutation(len(training))[: recipe.batch]]
    if config.weights is None:
        network = network_for(config.network or "vgg11-slim", training, config.norm, config.width)
        network = with_activation(network, config.activation, config.levels)
        return drawn_ann(network, recipe, first, config.seed, half)
    network, params = load_network(config.weights, config.network, training.images.shape[1:], say)
    check_data(network, training.images, len(training.classes), config.data)
    network = with_activation(network, config.activation, config.levels)
    return trained_ann(network, params, first, config.seed, half)


def write(config: TrainConfig, name: str, ann: ANN, notes: dict[str, str]) -> Path:
    """Write the ANN's weights into the run's folder; returns their path."""
    params = {key: np.asarray(array) for key, array in ann.params().items()}
    training_run.write_ann(config.out / name, ann.network, params, {"data": config.data} | notes)
    return config.out / name


def row_of(
    config: TrainConfig, place: Place, rows: list[dict], ann: ANN, held: data.Dataset | None, console: Console
) -> dict:
    """The line of history.jsonl for an epoch; writes best.safetensors where it is the best on ``held`` so far."""
    row = {"epoch": place.epoch, "loss": place.loss, "seconds": place.seconds}
    if held is not None:
        row["held_out_accuracy"] = score = accuracy(ann, held)
        if score > max((row.get("held_out_accuracy", 0.0) for row in rows), default=0.0):
            notes = {"epoch": str(place.epoch), "held_out_accuracy": f"{score:.4f}"}
            write(config, "best.safetensors", ann, notes)
    console.print(", ".join(f"{name} {value:.4g}" for name, value in row.items()), highlight=False)
    return row


def train(config: TrainConfig) -> dict:
    """Run the command; returns results.json."""
    console = command.TextConsole()
    config = config.checked()
    recipe = config.used()
    usual = RECIPES[config.recipe].learning_rate
    command.warn(console, *doubts(config.precision, learning_rate=(recipe.learning_rate, usual)))
    with telling(console, config.data):
        training, held, test = load_images(config.data, config.holdout, config.data_dir, **config.geometry())
    if recipe.batch > len(training):
        raise UserError(f"--batch is {recipe.batch}, but there are only {len(training)} training images")
    ann = start(config, training, lambda note: console.print(note, highlight=False, markup=False))
    batches = Batches(len(training), recipe.batch, config.seed)
    optimizer = make_optimizer(ann, recipe, recipe.epochs * batches.steps)
    descent = AnnDescent(ann, optimizer, training, recipe)

    identity = {
        "weights_sha256": None if config.weights is None else training_run.sha256_of(config.weights),
        "train_sha256": training.content_hash(),
        "test_sha256": test.content_hash(),
    }
    stamp = {"versions": versions(), "device": describe_device()}
    record = to_record(config) | identity | stamp
    free = marked(TrainConfig, "where")
    with training_session(console, config.out, "jaxsnn.train", record, free) as termination:

        def row_at(place: Place, rows: list[dict]) -> dict | None:
            return row_of(config, place, rows, ann, held, console) if place.whole else None

        with command.progress_bar(console) as bar:
            rows, _ = run_training(
                config.out, descent, batches, recipe.epochs, bar, termination, row_at, wait=WAIT
            )
        score = accuracy(ann, test)
        notes = {"test_accuracy": f"{score:.4f}", "test_images": str(len(test)), "seed": str(config.seed)}
        weights = write(config, "weights.safetensors", ann, notes)
        results = {
            "network": ann.network.name,
            "data": config.data,
            "seed": config.seed,
            "epochs": recipe.epochs,
            "stopped_early": False,
            "test_accuracy": score,
            "test_images": len(test),
            "held_out_accuracy": max((row["held_out_accuracy"] for row in rows), default=None) if held else None,
            "seconds": sum(row["seconds"] for row in rows),
            "peak_bytes": peak_bytes(),
            **stamp,
            **identity,
        }
        training_run.finish(config.out, results)
    console.print(f"test accuracy {100 * score:.2f} % on {len(test)} images -> {weights}", soft_wrap=True)
    return results


def recipe_values(name: str) -> dict[str, Any]:
    """The options that a recipe sets."""
    values = asdict(recipe_of(name))
    return {choice: values[choice] for choice in CHOICES}


def parse(arguments: Sequence[str] | None = None) -> TrainConfig:
    """The command line's configuration: the options given, and the recipe's values."""
    return command.parse_with_preset(TrainConfig, recipe_values, "jaxsnn.train", arguments, "recipe")


if __name__ == "__main__":
    command.main(TrainConfig, train, "jaxsnn.train", parse)
