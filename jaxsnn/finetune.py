"""Fine-tune a converted network by backpropagation through time: python -m jaxsnn.finetune"""

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import data
from jaxsnn.analysis.comparison import ann_right, comparison
from jaxsnn.cli import command
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.conversion.loading import check_data, load_named, load_snn
from jaxsnn.errors import UserError
from jaxsnn.networks.description import Network
from jaxsnn.networks.spiking import SNN, Dynamics, Genes, check_genes
from jaxsnn.networks.weights import save_weights
from jaxsnn.records import run_folder
from jaxsnn.records.thresholds_file import genes_to_json, read_thresholds, thresholds_record
from jaxsnn.reports.tables import comparison_table
from jaxsnn.runtime.files import plain, write_json
from jaxsnn.runtime.memory import peak_bytes
from jaxsnn.runtime.provenance import describe_device, versions
from jaxsnn.search.evolve import subsets
from jaxsnn.search.settings import MOST, Preset, to_record
from jaxsnn.simulation import surrogate
from jaxsnn.simulation.observe import observe_images
from jaxsnn.simulation.plan import Plan
from jaxsnn.training.bptt import (
    TRAINABLE,
    Descent,
    Unrolling,
    genes_of,
    make_optimizer,
    make_step,
    parts_of,
    step_bytes,
)

PRESETS = {
    "demo": {"epochs": 2, "timesteps": 42, "images": 2000, "batch": 50, "test_timesteps": 60},
    # Section V.C; the paper leaves out the optimiser, its rate, the batch and the loss
    "paper": {"epochs": 25, "timesteps": 70, "images": None, "batch": 64, "test_timesteps": 100},
}


@dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tune a converted spiking network by backpropagation through time.

    The rival of jaxsnn.optimize: gradients instead of a search, through the surrogate of eq. 18. Without
    arguments: the embedded network and images, in about a minute and a half on two cores. The result is a table,
    and a folder with the weights and thresholds, which jaxsnn.evaluate reads and which are saved behind every
    epoch. Ctrl-C stops after the current step and still reports.
    """

    preset: str = "demo"
    """demo, or paper: 25 epochs on all training images with T = 70."""
    weights: Path | None = None
    """Trained ANN; default: the one that --start names, or the embedded network."""
    network: str | None = None
    """Network of a file that does not describe it: an architecture by name, or a description, FILE.json."""
    start: Path | None = None
    """Folder of a run, or a file of thresholds, to start from; default: the percentile's thresholds."""
    data: str = "embedded"
    """Dataset: embedded, cifar10, cifar100, fashion_mnist, mnist, imagefolder or tfds:NAME."""
    data_dir: Path | None = None
    """Folder of the dataset; default $JAXSNN_DATA or ~/.cache/jaxsnn/data."""
    out: Path | None = None
    """Folder of the run; default runs/finetune-<preset>-<time>."""
    seed: int = 0

    train: tuple[str, ...] = ("weights", "thresholds")
    """What is trained: any of weights, thresholds, leak, v0."""
    epochs: Preset = None
    batch: Preset = None
    images: Preset = None
    """Training images, at most as many as there are; the paper preset takes all."""
    augment: bool = False
    """Random crops and flips of the training images."""
    timesteps: Preset = None
    """Timesteps T of training, layer delay included."""
    loss: Literal["mean", "final"] = "mean"
    """Cross-entropy of scores / t, its mean over all steps t, or at the last step alone."""
    learning_rate: float = 1e-4
    """Adam's rate for the weights at the start; it falls to 0 along a cosine."""
    neuron_rate: float = 1e-2
    """The same for thresholds (relative to where they start), leaks and v0."""
    surrogate: str = "triangle"
    """Derivative of a spike: triangle (eq. 18), arctan or sigmoid."""
    scale: float = 0.15
    """Factor on that derivative: gamma of eq. 18. Within few steps, little of the gradient comes through many
    layers at 0.15: benchmarks.bptt trains T = 8 at 1."""
    checkpoint: bool = False
    """Keep only every few steps for the way back and compute those between again: less memory, more time."""
    truncate: int | None = None
    """Let gradients reach back over windows of so many steps only, layer delay not counted; saves memory together
    with --checkpoint."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the maps that carry spikes, in training; the test is in float32."""

    percentile: float = 99.7
    """Percentile of the ANN's activations that is the threshold at the start."""
    calibration_images: int = 500
    """Training images from which the percentiles are read."""
    test_timesteps: Preset = None
    """Timesteps of the comparison on the test images."""
    test_images: int | None = None
    """Test images; default: all."""
    delay: Literal["layer", "none"] | None = None
    """Count one step of delay per layer (the paper) or none; default: as in --start, or per layer."""
    comparison: Literal[">", ">="] | None = None
    """Fire above the threshold, or at it too; default: as in --start, or above."""
    rows: int = 192
    """Images that go through the device at once in the test."""
    debug: bool = False
    """Show where an error came from."""


def resolve(config: FinetuneConfig) -> FinetuneConfig:
    """The configuration with the preset's values filled in and every setting checked."""
    if config.preset not in PRESETS:
        raise UserError(f"unknown preset {config.preset!r}: the presets are {', '.join(PRESETS)}")
    config = replace(config, **{k: v for k, v in PRESETS[config.preset].items() if getattr(config, k) is None})
    unknown = [name for name in config.train if name not in TRAINABLE]
    if unknown or not config.train:
        raise UserError(f"--train cannot be {unknown[0] if unknown else 'empty'}: any of {', '.join(TRAINABLE)}")
    least = {"seed": 0, "epochs": 1, "batch": 1, "timesteps": 1, "test_timesteps": 1, "calibration_images": 1}
    for name, low in (least | {"rows": 1, "images": 1, "test_images": 1}).items():
        if getattr(config, name) is not None and getattr(config, name) < low:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(config, name)}, expected at least {low}")
    for name in ("timesteps", "test_timesteps"):
        if getattr(config, name) > MOST:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(config, name)}, expected at most {MOST}")
    for name in ("learning_rate", "neuron_rate"):
        if not 0 < getattr(config, name) < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} is {getattr(config, name)}, expected above 0 and finite")
    if not 0 < config.percentile <= 100:
        raise UserError(f"--percentile is {config.percentile}, expected in (0, 100]")
    return config


def unrolling_of(config: FinetuneConfig, dynamics: Dynamics, network: Network) -> Unrolling:
    """The unrolling of a resolved configuration.

    Raises:
        UserError: no step is left when the layer delay is over, or settings that cannot be.
    """
    steps = config.timesteps - dynamics.silent_steps(network)
    if min(steps, config.test_timesteps - dynamics.silent_steps(network)) < 1:
        raise UserError(
            f"--timesteps {config.timesteps} and --test-timesteps {config.test_timesteps} must be above the layer "
            f"delay of {network.delay} steps: nothing reaches the read-out before"
        )
    surrogate.check(steps, config.surrogate, config.scale, config.truncate, config.precision)
    same = ("loss", "surrogate", "scale", "checkpoint", "truncate", "precision")
    return Unrolling(steps, dynamics.comparison, **{name: getattr(config, name) for name in same})


def load_start(config: FinetuneConfig, train: data.Dataset, say: Callable) -> tuple[SNN, str, Genes, Dynamics]:
    """The network to fine-tune, its file's sha256, one candidate's genes (1, L), and the dynamics.

    Raises:
        UserError: thresholds, weights and data that do not fit each other.
    """
    found = {} if config.start is None else read_thresholds(config.start)
    snn, sha256 = load_named(found, config.start, config.weights, config.network, train.images.shape[1:], say)
    check_data(snn.network, train.images, len(train.classes), f"{train.name} ({train.split})")
    dynamics = Dynamics(
        config.comparison or found.get("comparison") or ">", config.delay or found.get("delay") or "layer"
    )
    if found:
        parts = (found.get(name) for name in ("thresholds", "v0", "leak"))
        genes = Genes(*(None if part is None else part[None] for part in parts))
        layers = len(snn.network.spiking)
        if genes.threshold.shape[1] != layers:
            raise UserError(
                f"{config.start} has {genes.threshold.shape[1]} thresholds, network {snn.network.name} has "
                f"{layers} spiking layers: give the weights that they belong to as --weights"
            )
    else:
        if config.calibration_images > len(train):
            raise UserError(
                f"--calibration-images is {config.calibration_images}, but {config.data} has only {len(train)} "
                "training images"
            )
        subset = next(subsets(train.labels, config.calibration_images, "fixed", 0))
        genes = Genes(calibrate(snn.network, snn.params, train.images[subset]).threshold(config.percentile)[None])
    check_genes(snn.network, genes)
    return snn, sha256, genes, dynamics


def make_descent(
    config: FinetuneConfig, snn: SNN, start: Genes, unrolling: Unrolling, train: data.Dataset, chosen: np.ndarray
) -> Descent:
    """The descent from ``start`` on the training images ``chosen``."""
    parts = parts_of(snn, start)
    trained = {name: jax.tree.map(jnp.copy, parts[name]) for name in config.train}
    fixed = {name: part for name, part in parts.items() if name not in trained}
    steps = config.epochs * (len(chosen) // config.batch)
    optimizer = make_optimizer(trained, config.learning_rate, config.neuron_rate, steps)
    state, base = optimizer.init(trained), jnp.asarray(start.threshold[0], jnp.float32)
    batch = (train.images[chosen[: config.batch]], train.labels[chosen[: config.batch]])
    step = make_step(snn.network, unrolling, optimizer, config.augment)
    step = step.lower(trained, fixed, state, base, *batch, jax.random.key(config.seed)).compile()
    return Descent(step, trained, fixed, state, base)


def epochs(
    config: FinetuneConfig,
    train: data.Dataset,
    chosen: np.ndarray,
    descent: Descent,
    asked: list,
    progress: Callable[[float], None],
) -> Iterator[tuple[dict, dict]]:
    """Gradient descent; behind each epoch all parts, trained and fixed, and a row of history.jsonl.

    Args:
        chosen: indices of the training images, shuffled anew for every epoch.
        asked: not empty when the user wants to stop.
        progress: called with the loss of each step.

    Raises:
        UserError: the loss is not finite any more.
    """
    step, trained, fixed, state, base = descent
    per_epoch, steps = len(chosen) // config.batch, 0
    for epoch in range(config.epochs):
        started = time.perf_counter()
        order = chosen[np.random.default_rng((config.seed, epoch)).permutation(len(chosen))]
        keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), epoch), per_epoch)
        losses, right = [], 0
        for index, key in enumerate(keys):
            batch = order[index * config.batch : (index + 1) * config.batch]
            images, labels = train.images[batch], train.labels[batch]
            trained, state, loss, hits = step(trained, fixed, state, base, images, labels, key)
            if not np.isfinite(loss):
                kept = f"; the run's folder holds what epoch {epoch} ended with" if epoch else ""
                raise UserError(
                    f"the loss is {float(loss)} in epoch {epoch + 1}: lower --learning-rate or --neuron-rate{kept}"
                )
            losses.append(float(loss))
            right += int(hits)
            progress(losses[-1])
            if asked:
                break
        steps += len(losses)
        yield (
            fixed | trained,
            {
                "epoch": epoch + 1,
                "steps": steps,
                "loss": float(np.mean(losses)),
                "accuracy": right / (len(losses) * config.batch),
                "seconds": time.perf_counter() - started,
            },
        )
        if asked:
            return


def write_tuned(
    folder: Path, snn: SNN, sha256: str, start: Genes, parts: dict, config: FinetuneConfig, dynamics: Dynamics
) -> tuple[SNN, Genes]:
    """Write weights.safetensors and thresholds.json; returns the fine-tuned network and its genes (1, L)."""
    path = folder / "weights.safetensors"
    params = {name: np.asarray(value) for name, value in parts["weights"].items()}
    notes = {"finetuned_from_sha256": sha256, "data": config.data, "trained": " ".join(config.train)}
    save_weights(path, snn.network, params, notes)
    tuned, tuned_sha256 = load_snn(path)
    genes = genes_of(parts, np.float32(start.threshold[0]))
    unset = Genes(None, *(name not in config.train and getattr(start, name) is None for name in ("v0", "leak")))
    genes = Genes(*(None if off else np.asarray(part, np.float64)[None] for off, part in zip(unset, genes)))
    thresholds = thresholds_record(snn.network, path, tuned_sha256, genes, dynamics)
    write_json(folder / "thresholds.json", thresholds)
    return tuned, genes


def compare_tuned(
    config: FinetuneConfig,
    start: tuple[SNN, Genes],
    tuned: tuple[SNN, Genes],
    test: data.Dataset,
    dynamics: Dynamics,
    progress: Callable[[int], None],
) -> dict:
    """The test part of results.json: both networks, each with weights of its own, on all test images, once."""
    on_test = functools.partial(
        observe_images,
        images=test.images,
        labels=test.labels,
        timesteps=config.test_timesteps,
        dynamics=dynamics,
        plan=Plan(rows=config.rows),
        progress=progress,
    )
    observed, right = zip(on_test(*start), on_test(*tuned))
    network = start[0].network
    ann, tuned_ann = (ann_right(network, snn.params, test.images, test.labels) for snn, _ in (start, tuned))
    tested = comparison(network, ann, [(o, 0) for o in observed], np.concatenate(right), test.labels, dynamics)
    tested["baseline"] |= ({} if config.start else {"percentile": config.percentile}) | genes_to_json(start[1])
    tested["optimized"] |= genes_to_json(tuned[1])
    return tested | {"tuned_ann_accuracy": float(tuned_ann.mean())}


def finetune(config: FinetuneConfig) -> dict:
    """Run the command; returns results.json."""
    started = time.perf_counter()
    console = Console()
    config = resolve(config)
    train = data.load(config.data, "train", config.data_dir)
    test = data.load(config.data, "test", config.data_dir, limit=config.test_images)
    snn, sha256, start, dynamics = load_start(config, train, console.out)
    network = snn.network
    check_data(network, test.images, len(test.classes), f"{test.name} ({test.split})")
    unrolling = unrolling_of(config, dynamics, network)
    count = len(train) if config.images is None else min(config.images, len(train))
    if config.batch > count:
        raise UserError(f"--batch is {config.batch}, but there are only {count} training images")
    chosen = data.balanced(train.labels, count, config.seed, "the training split")
    planned = config.epochs * (count // config.batch)

    folder = config.out or Path("runs") / f"finetune-{config.preset}-{datetime.now():%Y%m%d-%H%M%S}"
    identity = {"weights_sha256": sha256, "train_sha256": train.content_hash(), "test_sha256": test.content_hash()}
    stamp = {"versions": versions(), "device": describe_device()}
    run_folder.check_folder(folder)
    with run_folder.locked(folder):
        run_folder.open_run(folder, plain(to_record(config) | identity) | stamp)
        console.print(
            f"[bold]{network.name}[/] on {config.data}: {' and '.join(config.train)} by BPTT, {count} training "
            f"images, {config.epochs} epochs, {unrolling.timesteps} timesteps without layer delay, on "
            f"{stamp['device']}",
            highlight=False,
        )
        rows: list[dict] = []
        with command.stop_on_interrupt(console, "step") as asked, command.progress_bar(console) as bar:
            task = bar.add_task("training", total=planned, note="compiling")
            descent = make_descent(config, snn, start, unrolling, train, chosen)

            def on_step(loss: float) -> None:
                bar.update(task, advance=1, note=f"loss {loss:.3f}")

            for parts, row in epochs(config, train, chosen, descent, asked, on_step):
                rows.append(row)
                tuned = write_tuned(folder, snn, sha256, start, parts, config, dynamics)
                run_folder.write_history(folder, rows)
            steps = rows[-1]["steps"]
            images = steps * config.batch
            spent = {
                "stopped_early": steps < planned,
                "steps": steps,
                "train_timesteps": unrolling.timesteps,
                "image_evaluations": images,
                # eq. 17's measure, an epoch of the whole training set
                "training_cost_epochs": images / len(train),
                "step_bytes": step_bytes(descent.step),
                "peak_bytes": peak_bytes(),
                "search_seconds": time.perf_counter() - started,
            }
            note = f"{len(test)} images, {config.test_timesteps} steps"
            testing = bar.add_task("test", total=2 * len(test), note=note)
            tested = compare_tuned(
                config, (snn, start), tuned, test, dynamics, lambda n: bar.update(testing, advance=n)
            )
        results = tested | {
            "method": "bptt",
            "preset": config.preset,
            "data": config.data,
            "seed": config.seed,
            "network": network.name,
            "layers": [layer.name for layer in network.spiking],
            "trained": list(config.train),
            **spent,
            "seconds": time.perf_counter() - started,
            **stamp,
            **identity,
        }
        curves = {name: np.array(results[name]["accuracy"]) for name in ("baseline", "optimized")}
        run_folder.write_curves(folder, **curves)
        # the last file: a run is finished once it is there
        write_json(folder / "results.json", results)
    console.print(comparison_table(results))
    console.print(
        f"{steps} steps{' (stopped)' if spent['stopped_early'] else ''}, {images:,} images "
        f"({spent['training_cost_epochs']:.2f} epochs, eq. 17), {spent['step_bytes'] / 2**20:.0f} MiB a step, "
        f"{spent['search_seconds']:.0f} s of {results['seconds']:.0f} s in all -> {folder}",
        highlight=False,
        soft_wrap=True,
    )
    return results


if __name__ == "__main__":
    command.main(FinetuneConfig, finetune, "jaxsnn.finetune")
