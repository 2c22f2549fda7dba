"""Train an ANN for conversion: python -m jaxsnn.train"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

import data
from jaxsnn.cli import command
from jaxsnn.conversion.loading import check_data, load_network
from jaxsnn.errors import UserError
from jaxsnn.networks.activations import SHIFT, ceiling
from jaxsnn.networks.architectures import NORMS, architecture
from jaxsnn.networks.description import Network, Params
from jaxsnn.networks.forward import preprocess
from jaxsnn.networks.json_format import MOST_LEVELS
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.networks.weights import save_weights
from jaxsnn.records.thresholds_file import thresholds_record
from jaxsnn.runtime.files import read_json, write_atomically, write_json
from jaxsnn.training.ann import ANN
from jaxsnn.training.loop import accuracy, in_bfloat16, load_checkpoint, save_checkpoint, train_step
from jaxsnn.training.recipes import RECIPES

WAIT = 10
"""Steps behind which the loss is looked at: a device that is waited for after every step idles in between."""


@dataclass(frozen=True)
class TrainConfig:
    """Train an ANN and write its weights, ready for jaxsnn.optimize --weights.

    Stochastic gradient descent with random crops (padded by 4, reflected) and flips. The run can be stopped at any
    moment and goes on from its last epoch when the same command is given again.
    """

    network: str | None = None
    """Architecture: vgg11-slim (the embedded one, and the default), vgg15 (the paper's), vgg15-bn, vgg16-bn,
    resnet18, resnet20, vgg4, vgg5, vgg9 or vgg11. With --weights, that of a file that says none."""
    weights: Path | None = None
    """Go on from these weights, a file as --weights of jaxsnn.optimize takes, instead of random ones."""
    recipe: Literal["fast", "paper-cifar", "paper-imagenet"] = "fast"
    """fast: one cycle of the learning rate, Nesterov momentum, label smoothing, clipped gradients. paper-cifar and
    paper-imagenet: rates, batches and epochs of the paper's authors. Options that say "by recipe" are the recipe's
    unless they are given."""
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
    data: str = "embedded"
    """Dataset: embedded, cifar10, cifar100, fashion_mnist, mnist, imagefolder or tfds:NAME."""
    data_dir: Path | None = None
    """Folder of the dataset; default $JAXSNN_DATA or ~/.cache/jaxsnn/data."""
    holdout: str = "none"
    """Leave out the images of this dataset's training split and validate on them; "none" trains on all."""
    out: Path = Path("runs/train")
    """Folder of the run: weights.safetensors (of the last epoch), best.safetensors (of the best one on --holdout),
    history.jsonl, config.json, checkpoint.safetensors."""
    epochs: int | None = None
    """By recipe 30, 200 or 100."""
    batch: int | None = None
    """By recipe 128, 256 or 128."""
    learning_rate: float | None = None
    """By recipe 0.1, 0.05 or 0.01: the peak of the one cycle, after a fifth of the steps, or the rate at first."""
    weight_decay: float | None = None
    """By recipe 5e-4, 1e-4 or 1e-4; in kernels only."""
    label_smoothing: float | None = None
    """By recipe 0.1, 0 or 0."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the linear maps; auto: bfloat16 on a GPU or TPU, float32 on a CPU, where bfloat16 is slower."""
    seed: int = 0
    debug: bool = False
    """Show where an error came from."""


def make_optimizer(ann: ANN, config: TrainConfig, steps: int) -> nnx.Optimizer:
    """The recipe's gradient descent for a resolved configuration; weights decay in kernels only."""
    recipe = RECIPES[config.recipe]
    transform = optax.chain(
        optax.identity() if recipe.clip is None else optax.clip_by_global_norm(recipe.clip),
        optax.add_decayed_weights(config.weight_decay, mask=lambda p: jax.tree.map(lambda a: a.ndim > 1, p)),
        optax.sgd(recipe.schedule(config.learning_rate, steps), momentum=0.9, nesterov=recipe.nesterov),
    )
    return nnx.Optimizer(ann, transform, wrt=nnx.Param)


def rows_behind(folder: Path, epochs: int) -> list[dict]:
    """The first ``epochs`` lines of the folder's history.jsonl; drops what an interrupted epoch left behind."""
    path = folder / "history.jsonl"
    if not epochs or not path.exists():
        path.unlink(missing_ok=True)
        return []
    lines = path.read_text().splitlines(keepends=True)[:epochs]
    write_atomically(path, "".join(lines).encode())
    return [json.loads(line) for line in lines]


def load_data(config: TrainConfig) -> tuple[data.Dataset, data.Dataset | None, data.Dataset]:
    """Training images, held-out training images or None, and test images."""
    train = data.load(config.data, "train", config.data_dir)
    test = data.load(config.data, "test", config.data_dir)
    if config.holdout == "none":
        return train, None, test
    held = data.load(config.holdout, "train", config.data_dir)
    rest = data.split_out(train, held)
    if len(rest) == len(train):
        raise UserError(f"none of the images of {config.holdout} is in {config.data}: nothing to hold out")
    if not len(rest):
        raise UserError(f"all images of {config.data} are in {config.holdout}: nothing is left to train on")
    return rest, held, test


def with_activation(network: Network, config: TrainConfig) -> Network:
    """The network with the activations that the user chose, or its own."""
    own = network.spiking[0].levels if network.spiking else None
    quantised = own is not None if config.activation is None else config.activation == "qcfs"
    if config.levels is not None and not quantised:
        raise UserError("--levels are those of quantised activations: give --activation qcfs")
    levels = (config.levels or own or 8) if quantised else None
    spiking = tuple(replace(layer, levels=levels) for layer in network.spiking)
    return replace(network, layers=(*spiking, network.layers[-1]))


def network_for(config: TrainConfig, train: data.Dataset) -> Network:
    """The architecture for these images, with their mean and standard deviation per channel."""
    levels = np.arange(256) / 255
    counts = [np.bincount(train.images[..., c].ravel(), minlength=256) for c in range(train.images.shape[-1])]
    mean = [float(np.average(levels, weights=count)) for count in counts]
    std = [float(np.sqrt(np.average((levels - m) ** 2, weights=count))) for m, count in zip(mean, counts)]
    chosen = {} if config.norm is None else {"norm": NORMS[config.norm]}
    if config.width != 1:
        chosen["width"] = config.width
    network = architecture(
        config.network,
        **chosen,
        classes=len(train.classes),
        input_shape=train.images.shape[1:],
        mean=[round(m, 4) for m in mean],
        std=[round(s, 4) for s in std],
    )
    return with_activation(network, config)


def start(config: TrainConfig, training: data.Dataset, say: Callable[[str], None]) -> ANN:
    """The ANN to begin with: of the weights that the user gave, or drawn."""
    some = np.random.default_rng(config.seed).permutation(len(training))[: config.batch]
    first = jnp.asarray(training.images[some])
    key = jax.random.key(config.seed)
    half = in_bfloat16(config.precision)
    if config.weights is None:
        network = network_for(config, training)
        ann = ANN(network, config.seed, RECIPES[config.recipe].start == "fan_out", half)
        if RECIPES[config.recipe].start == "lsuv":
            nnx.jit(ANN.start_scales)(ann, preprocess(network, first), key)
        given: Params = {}
    else:
        found, given = load_network(config.weights, config.network, training.images.shape[1:], say)
        check_data(found, training.images, len(training.classes), config.data)
        network = with_activation(found, config)
        ann = ANN(network, config.seed, half=half)
        ann.set_params(given)
    if ann.ceilings and not any(name.endswith(".ceiling") for name in given):
        nnx.jit(ANN.start_ceilings)(ann, preprocess(network, first), key)
    return ann


def save(path: Path, ann: ANN, notes: dict[str, str]) -> None:
    """Write the ANN's weights and, beside those of a quantised one, its ceilings as thresholds.json."""
    network, params = ann.network, {name: np.asarray(value) for name, value in ann.params().items()}
    save_weights(path, network, params, notes)
    if ann.ceilings:
        prefix = "" if path.stem == "weights" else f"{path.stem}-"
        ceilings = np.array([[ceiling(layer, params) for layer in network.spiking]])
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        genes = Genes(ceilings, np.full_like(ceilings, SHIFT))
        record = thresholds_record(network, path, sha256, genes, Dynamics())
        write_json(path.with_name(f"{prefix}thresholds.json"), record)


def resolve(config: TrainConfig) -> TrainConfig:
    """The configuration with the recipe's values filled in and every setting checked."""
    chosen, given = asdict(RECIPES[config.recipe]), asdict(config)
    config = replace(config, **{k: v for k, v in chosen.items() if k in given and given[k] is None})
    config = replace(config, precision="bfloat16" if in_bfloat16(config.precision) else "float32")
    if config.weights is None:
        config = replace(config, network=config.network or "vgg11-slim")
    elif config.norm is not None or config.width != 1:
        raise UserError("--weights brings its own network: leave --norm and --width out")
    if not (np.isfinite(config.learning_rate) and 0 <= config.label_smoothing < 1 and config.weight_decay >= 0):
        raise UserError("--learning-rate must be finite, --label-smoothing in [0, 1), --weight-decay at least 0")
    for name, low in (("seed", 0), ("epochs", 1), ("batch", 1), ("learning_rate", 0.0)):
        if not getattr(config, name) >= low:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(config, name)}, expected at least {low}")
    if config.levels is not None and not 1 <= config.levels <= MOST_LEVELS:
        raise UserError(f"--levels is {config.levels}, expected 1 to {MOST_LEVELS}")
    return config


def open_folder(config: TrainConfig) -> None:
    """Write config.json, or check that the one that is there has the same settings."""
    settings = {k: v for k, v in asdict(config).items() if k not in ("out", "data_dir", "debug")}
    if config.weights is not None:
        settings["weights"] = hashlib.sha256(config.weights.read_bytes()).hexdigest()
    record = config.out / "config.json"
    if record.exists():
        held = read_json(record)
        changed = [k for k, v in settings.items() if held.get(k, v) != v]
        if changed:
            name, value = changed[0], held[changed[0]]
            why = f"holds a run with other settings ({name} was {value})"
            raise UserError(f"{config.out} {why}: choose another --out or delete it")
    write_json(record, settings)


def train(config: TrainConfig) -> None:
    """Run the command."""
    config = resolve(config)
    console = Console()
    training, held, test = load_data(config)
    if config.batch > len(training):
        raise UserError(f"--batch is {config.batch}, but there are only {len(training)} training images")
    ann = start(config, training, lambda note: console.print(note, highlight=False, markup=False))
    per_epoch = len(training) // config.batch
    optimizer = make_optimizer(ann, config, config.epochs * per_epoch)

    open_folder(config)
    checkpoint = config.out / "checkpoint.safetensors"
    done = load_checkpoint(checkpoint, ann, optimizer) if checkpoint.exists() else 0
    best = max((row.get("held_out_accuracy", 0.0) for row in rows_behind(config.out, done)), default=0.0)
    if done:
        console.print(f"going on behind epoch {done} of {config.epochs}")

    images, labels = jnp.asarray(training.images), jnp.asarray(training.labels)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("training", total=config.epochs * per_epoch, completed=done * per_epoch, note="")
        for epoch in range(done, config.epochs):
            started = time.perf_counter()
            order = np.random.default_rng((config.seed, epoch)).permutation(len(training))
            keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), epoch), per_epoch)
            losses: list[jax.Array] = []
            for step, key in enumerate(keys):
                batch = order[step * config.batch : (step + 1) * config.batch]
                losses.append(
                    train_step(ann, optimizer, images[batch], labels[batch], key, config.label_smoothing)
                )
                if len(losses) % WAIT and len(losses) < per_epoch:
                    continue
                recent = np.array(losses[-WAIT:])
                if not np.isfinite(recent).all():
                    raise UserError(f"the loss is {recent[-1]} in epoch {epoch + 1}: lower --learning-rate")
                note = f"epoch {epoch + 1}/{config.epochs}, loss {recent.mean():.3f}"
                bar.update(task, completed=epoch * per_epoch + len(losses), note=note)
            row = {
                "epoch": epoch + 1,
                "loss": float(np.mean(losses, dtype=float)),
                "seconds": time.perf_counter() - started,
            }
            if held is not None:
                row["held_out_accuracy"] = accuracy(ann, held)
                if row["held_out_accuracy"] > best:
                    best = row["held_out_accuracy"]
                    notes = {"data": config.data, "epoch": str(epoch + 1), "held_out_accuracy": f"{best:.4f}"}
                    save(config.out / "best.safetensors", ann, notes)
            with (config.out / "history.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            save_checkpoint(checkpoint, ann, optimizer, epoch + 1)
            console.print(", ".join(f"{k} {v:.4g}" for k, v in row.items()))

    score = accuracy(ann, test)
    notes = {
        "data": config.data,
        "test_accuracy": f"{score:.4f}",
        "test_images": str(len(test)),
        "seed": str(config.seed),
    }
    weights = config.out / "weights.safetensors"
    save(weights, ann, notes)
    console.print(f"test accuracy {100 * score:.2f} % on {len(test)} images -> {weights}")


if __name__ == "__main__":
    command.main(TrainConfig, train, "jaxsnn.train")
