"""Train an ANN for conversion: python -m jaxsnn.train"""

import hashlib
import json
import time
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
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

import data
from jaxsnn import command
from jaxsnn.activation import LEAST_CEILING, SHIFT
from jaxsnn.ann import ANN
from jaxsnn.architectures import NORMS, architecture
from jaxsnn.convert import preprocess
from jaxsnn.errors import UserError
from jaxsnn.network import Network
from jaxsnn.runfolder import write_json
from jaxsnn.weights import Params, save_weights, write_atomically


@dataclass(frozen=True)
class TrainConfig:
    """Train an ANN and write its weights, ready for jaxsnn.optimize --weights.

    One-cycle SGD with Nesterov momentum, label smoothing, random crops (padded by 4, reflected) and flips. The
    run can be stopped at any moment and goes on from its last epoch when the same command is given again.
    """

    network: str = "vgg11-slim"
    """Architecture: vgg11-slim (the embedded one), vgg15 (the paper's), vgg15-bn, vgg16-bn, resnet18, resnet20,
    vgg4, vgg5, vgg9 or vgg11."""
    width: float = 1.0
    """Factor on the features of every layer but the last."""
    norm: Literal["none", "batch", "scale"] | None = None
    """Normalisation: none, batch (BatchNorm, which leaves a bias on conversion) or scale (which leaves none);
    default: the architecture's."""
    activation: Literal["relu", "qcfs"] = "relu"
    """relu, or qcfs: quantised steps up to a learned ceiling (Bu et al. 2022). Then thresholds.json is written
    too, for jaxsnn.evaluate: the ceilings are the thresholds, half of them the initial membranes."""
    levels: int = 8
    """Steps of qcfs: about the timesteps in which the spiking network is meant to answer."""
    data: str = "embedded"
    """Dataset: embedded, cifar10, cifar100, fashion_mnist, mnist, imagefolder or tfds:NAME."""
    data_dir: Path | None = None
    """Folder of the dataset; default $JAXSNN_DATA or ~/.cache/jaxsnn/data."""
    holdout: str = "none"
    """Leave out the images of this dataset's training split and validate on them; "none" trains on all."""
    out: Path = Path("runs/train")
    """Folder of the run: weights.safetensors, history.jsonl, config.json, checkpoint.safetensors."""
    epochs: int = 30
    batch: int = 128
    learning_rate: float = 0.1
    """Peak of the one-cycle schedule, reached after a fifth of the steps."""
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    seed: int = 0
    debug: bool = False
    """Show where an error came from."""


def augment(key: jax.Array, images: jax.Array) -> jax.Array:
    """Random crops after reflecting 4 pixels at each side, and random horizontal flips; uint8 (N, H, W, C)."""
    crop, flip = jax.random.split(key)
    n, h, w, c = images.shape
    padded = jnp.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
    corners = jax.random.randint(crop, (n, 2), 0, 9)
    images = jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), (h, w, c)))(
        padded, corners
    )
    return jnp.where(jax.random.bernoulli(flip, 0.5, (n, 1, 1, 1)), images[:, :, ::-1], images)


@nnx.jit(static_argnames="smoothing")
def train_step(ann: ANN, optimizer: nnx.Optimizer, images, labels, key, smoothing: float) -> jax.Array:
    """One step of gradient descent on uint8 images (N, H, W, C); returns the mean loss."""
    key, dropout = jax.random.split(key)
    x = preprocess(ann.network, augment(key, images))
    target = optax.smooth_labels(jax.nn.one_hot(labels, ann.network.classes), smoothing)

    def loss(ann: ANN) -> jax.Array:
        return optax.softmax_cross_entropy(ann(x, dropout), target).mean()

    value, gradient = nnx.value_and_grad(loss)(ann)
    optimizer.update(ann, gradient)
    return value


@nnx.jit
def _predict(ann: ANN, images) -> jax.Array:
    return ann(preprocess(ann.network, images)).argmax(-1)


def accuracy(ann: ANN, dataset: data.Dataset, batch: int = 500) -> float:
    """Share of the dataset that the ANN classifies right."""
    right = 0
    for start in range(0, len(dataset), batch):
        right += int(
            (
                np.asarray(_predict(ann, dataset.images[start : start + batch]))
                == dataset.labels[start : start + batch]
            ).sum()
        )
    return right / len(dataset)


def make_optimizer(ann: ANN, config: TrainConfig, steps: int) -> nnx.Optimizer:
    """SGD with Nesterov momentum 0.9, clipped gradients, decay on kernels only, one cycle of the learning rate."""
    schedule = optax.cosine_onecycle_schedule(steps, config.learning_rate, 0.2, 25, 1e4)
    transform = optax.chain(
        optax.clip_by_global_norm(5.0),
        optax.add_decayed_weights(config.weight_decay, mask=lambda p: jax.tree.map(lambda a: a.ndim > 1, p)),
        optax.sgd(schedule, momentum=0.9, nesterov=True),
    )
    return nnx.Optimizer(ann, transform, wrt=nnx.Param)


def save_checkpoint(path: Path, ann: ANN, optimizer: nnx.Optimizer, epoch: int) -> None:
    """Everything that training needs to go on behind ``epoch`` epochs, in one file written atomically."""
    leaves = jax.tree.leaves(nnx.state((ann, optimizer)))
    arrays = {f"{index:05d}": np.asarray(leaf) for index, leaf in enumerate(leaves)}
    write_atomically(path, save(arrays | {"epoch": np.asarray([epoch])}))


def load_checkpoint(path: Path, ann: ANN, optimizer: nnx.Optimizer) -> int:
    """Put the checkpoint's arrays into ``ann`` and ``optimizer``; returns its number of epochs."""
    leaves, tree = jax.tree.flatten(nnx.state((ann, optimizer)))
    try:
        stored = load_file(path)
        new = [stored[f"{index:05d}"] for index in range(len(leaves))]
        epoch = int(stored["epoch"][0])
    except (SafetensorError, KeyError, OSError) as error:
        raise UserError(f"{path} is not a checkpoint of this run ({error}); delete it to start again") from error
    if any(a.shape != b.shape for a, b in zip(leaves, new)):
        raise UserError(f"{path} is the checkpoint of another network; delete it or choose another --out")
    nnx.update((ann, optimizer), jax.tree.unflatten(tree, [jnp.asarray(a) for a in new]))
    return epoch


def load_data(config: TrainConfig) -> tuple[data.Dataset, data.Dataset | None, data.Dataset]:
    """Training images, held-out training images or None, and test images."""
    train = data.load(config.data, "train", config.data_dir)
    test = data.load(config.data, "test", config.data_dir)
    if config.holdout == "none":
        return train, None, test
    held = data.load(config.holdout, "train")
    rest = data.split_out(train, held)
    if len(rest) == len(train):
        raise UserError(f"none of the images of {config.holdout} is in {config.data}: nothing to hold out")
    return rest, held, test


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
    if config.activation == "relu":
        return network
    quantised = tuple(replace(layer, levels=config.levels) for layer in network.spiking)
    return replace(network, layers=(*quantised, network.layers[-1]))


def write_ceilings(path: Path, weights: Path, network: Network, params: Params) -> None:
    """The learned ceilings as a file of thresholds for ``jaxsnn.evaluate``, initial membranes at half of them."""
    layers = [layer.name for layer in network.spiking]
    thresholds = {
        "network": network.name,
        "weights": str(weights),
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "layers": layers,
        "thresholds": [max(float(params[f"{name}.ceiling"][0]), LEAST_CEILING) for name in layers],
        "v0": [SHIFT] * len(layers),
    }
    write_json(path, thresholds)


def check(config: TrainConfig) -> None:
    """Raise ``UserError`` for settings that cannot be."""
    if not (np.isfinite(config.learning_rate) and 0 <= config.label_smoothing < 1 and config.weight_decay >= 0):
        raise UserError("--learning-rate must be finite, --label-smoothing in [0, 1), --weight-decay at least 0")
    for name, low in (("seed", 0), ("epochs", 1), ("batch", 1), ("levels", 1), ("learning_rate", 0.0)):
        if not getattr(config, name) >= low:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(config, name)}, expected at least {low}")


def train(config: TrainConfig) -> None:
    """Run the command."""
    check(config)
    console = Console()
    training, held, test = load_data(config)
    if config.batch > len(training):
        raise UserError(f"--batch is {config.batch}, but there are only {len(training)} training images")
    network = network_for(config, training)
    ann = ANN(network, config.seed)
    per_epoch = len(training) // config.batch
    optimizer = make_optimizer(ann, config, config.epochs * per_epoch)

    settings = json.dumps(asdict(config) | {"out": None, "data_dir": None, "debug": None}, indent=2).encode()
    record, checkpoint = config.out / "config.json", config.out / "checkpoint.safetensors"
    if record.exists() and record.read_bytes() != settings:
        raise UserError(f"{config.out} holds a run with other settings; choose another --out or delete it")
    write_atomically(record, settings)
    done = load_checkpoint(checkpoint, ann, optimizer) if checkpoint.exists() else 0
    if done:
        console.print(f"going on behind epoch {done} of {config.epochs}")

    images, labels = jnp.asarray(training.images), jnp.asarray(training.labels)
    if config.activation == "qcfs" and not done:
        start = nnx.jit(ANN.start_ceilings)
        start(ann, preprocess(network, images[: config.batch]), jax.random.key(config.seed))
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
            total = 0.0
            for step, key in enumerate(keys):
                batch = order[step * config.batch : (step + 1) * config.batch]
                loss = train_step(ann, optimizer, images[batch], labels[batch], key, config.label_smoothing)
                total += float(loss)
                if not np.isfinite(total):
                    raise UserError(f"the loss is {float(loss)} in epoch {epoch + 1}: lower --learning-rate")
                bar.update(task, advance=1, note=f"epoch {epoch + 1}/{config.epochs}, loss {float(loss):.3f}")
            row = {"epoch": epoch + 1, "loss": total / per_epoch, "seconds": time.perf_counter() - started}
            if held is not None:
                row["held_out_accuracy"] = accuracy(ann, held)
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
    params = {name: np.asarray(value) for name, value in ann.params().items()}
    weights = config.out / "weights.safetensors"
    save_weights(weights, network, params, notes)
    if config.activation == "qcfs":
        write_ceilings(config.out / "thresholds.json", weights, network, params)
    console.print(f"test accuracy {100 * score:.2f} % on {len(test)} images -> {weights}")


if __name__ == "__main__":
    command.main(TrainConfig, train, "jaxsnn.train")
