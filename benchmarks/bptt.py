"""The search against backpropagation through time: the paper's Fig. 4 and Fig. 5.

python -m benchmarks.bptt --part accuracy     # Fig. 4 on the embedded network, about 4 minutes on two cores
python -m benchmarks.bptt --part memory       # Fig. 5, about 3 minutes on two cores
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import data
from benchmarks.problem import macs, random_params
from jaxsnn import command, figures, runfolder, xla
from jaxsnn.architectures import architecture
from jaxsnn.codec import Codec
from jaxsnn.errors import UserError
from jaxsnn.evaluation import describe_device
from jaxsnn.finetune import Unrolling, make_optimizer, make_step, step_bytes
from jaxsnn.latency import latency
from jaxsnn.linear import MATRIX_POSITIONS
from jaxsnn.network import Network, shapes_of
from jaxsnn.objective import Objective
from jaxsnn.optimize import generations
from jaxsnn.presets import preset
from jaxsnn.pretrained import load_snn
from jaxsnn.search import select, subsets
from jaxsnn.settings import OptimizeConfig, resolve
from jaxsnn.simulate import observe
from jaxsnn.snn import Dynamics, Genes
from jaxsnn.thresholds import Calibration

IMAGENET_TRAIN = 1_281_167
MEASURED_STEPS = 25
"""Longest run that is timed on small images; time goes with T from there."""
BPTT_EPOCHS = 20
"""The paper's assumption, from its reference 10."""
PAPER = (
    "the paper, T = 5: 2.9 times less memory and 42 times less time, at batches of 21, 2, 2 and 1 for its four T"
)


@dataclass(frozen=True)
class Config:
    """The search of thresholds against fine-tuning by BPTT: accuracy (Fig. 4), memory and time (Fig. 5).

    Fig. 4: Acc(t) on the same test images of the converted network, of the search, of BPTT from the same start, of
    BPTT with few timesteps, and of a search behind BPTT, whose cost includes that BPTT's. Each command runs in a
    process of its own; a run that is there already is read. Images are those that were simulated, each as often as
    it was; image steps add one for each pass of the clipped ANN, which the search's cost takes beside them. Peak
    memory is the process's, Python and JAX included, before it comes to the test images where the run says so.

    Fig. 5: VGG15 at 224 x 224. Memory is what XLA plans for the compiled step (arguments, results, temporaries) on
    this device; nothing is run at that size. Each T gets the largest batch with which BPTT fits into --memory, and
    the search simulates one candidate on the same batch. Time is eq. 19, tau x training cost x D_train / B, with
    eq. 17's cost for the search and 20 epochs for BPTT. Tau is measured on a smaller image and carried over by the
    number of multiply-accumulates, unless --measure full runs the real thing. Images are synthetic and weights
    random: neither changes memory or time.
    """

    part: Literal["both", "accuracy", "memory"] = "both"
    out: Path = Path("runs/bptt")
    """Folder for the runs, tables (bptt.json) and figures."""
    data: str = "embedded"
    data_dir: Path | None = None
    weights: Path | None = None
    """Trained ANN; default: the embedded network."""
    search: Path | None = None
    """Folder of a finished jaxsnn.optimize run to compare with; default: make one."""
    test_images: int | None = None
    test_timesteps: int = 60
    population: int | None = None
    generations: int | None = None
    """Of both searches; default: the preset's."""
    epochs: int = 2
    """Epochs of each BPTT run."""
    batch: int = 50
    images: int = 2000
    """Training images of each BPTT run."""
    timesteps: int = 42
    """T of BPTT, layer delay included; the short run trains with 8 steps and the delay."""

    memory: float = 16.0
    """GiB that BPTT must fit into."""
    unrolled: tuple[int, ...] = (5, 25, 50, 75)
    """Timesteps of Fig. 5."""
    network: str = "vgg15"
    side: int = 224
    classes: int = 1000
    measure: Literal["none", "small", "full"] = "small"
    """Measure the time of a batch: not, on images of --measure-side, or at full size (needs that much memory)."""
    measure_side: int = 64
    repeats: int = 2
    """Batches that a time is the median of."""
    debug: bool = False
    """Show where an error came from."""


def check(config: Config) -> None:
    """Raise ``UserError`` for settings that cannot be; those of the runs are checked by their commands."""
    for name in ("side", "classes", "measure_side", "repeats"):
        if getattr(config, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(config, name)}, expected at least 1")
    if not 0 < config.memory < float("inf"):
        raise UserError(f"--memory is {config.memory}, expected above 0 and finite")
    if not config.unrolled or min(config.unrolled) < 1:
        raise UserError("--unrolled needs numbers of timesteps, each at least 1")


def run_apart(out: Path, name: str, module: str, arguments: Sequence[str]) -> dict:
    """Run a command in a process of its own; its results.json with that process's peak memory, in bytes.

    Linux counts what this process holds at its start as the other's too: large data is loaded afterwards.
    """
    folder, record = out / name, out / f"{name}.process.json"
    called = [module, *arguments]
    if not (record.exists() and (folder / "results.json").exists()):
        if (folder / "results.json").exists():
            raise UserError(f"{folder} holds a run that was not made here: delete it, or choose another --out")
        folder.parent.mkdir(parents=True, exist_ok=True)
        child = subprocess.Popen([sys.executable, "-m", *called, "--out", str(folder)])
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise UserError(f"python -m {' '.join(called)} ended with exit code {child.returncode}")
        scale = 1 if sys.platform == "darwin" else 1024
        runfolder.write_json(record, {"command": called, "peak_rss": usage.ru_maxrss * scale})
    held = runfolder.read_json(record)
    if held["command"] != called:
        raise UserError(
            f"{folder} holds a run with other settings: delete it and {record}, or choose another --out"
        )
    results = runfolder.read_json(folder / "results.json")
    if results["stopped_early"]:
        raise UserError(f"{folder} holds a run that was stopped early: delete it and {record}")
    return results | {"peak_rss": held["peak_rss"]}


class Centred(Calibration):
    """A calibration whose every percentile is one given set of thresholds, so that a search starts there."""

    def __init__(self, centre: np.ndarray):
        super().__init__(centre, np.ones((len(centre), 2)), 0)

    def threshold(self, percentile):
        return self.maxima


def search_behind(config: Config, folder: Path, train: data.Dataset, test: data.Dataset) -> dict:
    """The default search around the thresholds of a fine-tuned run, on its weights.

    Returns:
        accuracy (on test images), image_evaluations, limit_passes, timesteps (without layer delay), seconds, and
        the thresholds.
    """
    started = time.perf_counter()
    found = runfolder.read_thresholds(folder)
    snn, _ = load_snn(folder / "weights.safetensors")
    dynamics = Dynamics(found["comparison"], found["delay"])
    settings = OptimizeConfig(
        data=config.data, data_dir=config.data_dir, comparison=dynamics.comparison, delay=dynamics.delay
    )
    settings = resolve(replace(settings, population=config.population, generations=config.generations))
    codec = Codec(Centred(found["thresholds"]), std=settings.std, low=settings.low, high=settings.high)
    objective = Objective(settings, snn, train)
    last = None
    for generation in generations(settings, codec, objective, train.labels):
        last = generation
    leaders = last.leaders[: settings.finalists]
    images = last.image_evaluations
    if len(leaders) > 1:
        indices = next(subsets(train.labels, min(settings.final_images, len(train)), "fixed", settings.seed + 1))
        leaders = select(leaders, codec, objective.terms, objective, indices)
        images += len(leaders) * len(indices)
    seconds = time.perf_counter() - started
    genes = codec.decode(leaders[0].vector[None])
    observed = observe(snn, genes, test.images, test.labels, config.test_timesteps, dynamics)
    return {
        "accuracy": observed.accuracy[0].tolist(),
        "image_evaluations": images,
        "limit_passes": objective.limit_passes,
        "timesteps": settings.timesteps - dynamics.silent_steps(snn.network),
        "seconds": seconds,
        "thresholds": genes.threshold[0].tolist(),
    }


def behind_once(config: Config, folder: Path, train: data.Dataset, test: data.Dataset) -> dict:
    """``search_behind``, or what it found before for the same run, images and settings."""
    path = config.out / "behind.json"
    settings = {
        "weights_sha256": runfolder.read_thresholds(folder)["weights_sha256"],
        "train_sha256": train.content_hash(),
        "test_sha256": test.content_hash(),
        "test_timesteps": config.test_timesteps,
        "population": config.population,
        "generations": config.generations,
    }
    if not path.exists():
        runfolder.write_json(path, search_behind(config, folder, train, test) | {"settings": settings})
    found = runfolder.read_json(path)
    if found.get("settings") != settings:
        raise UserError(f"{path} is of other runs or settings: delete it, or choose another --out")
    return found


def sizes(config: Config) -> list[str]:
    """The searches' options."""
    pairs = [(f"--{name}", getattr(config, name)) for name in ("population", "generations")]
    return [str(part) for flag, value in pairs if value is not None for part in (flag, value)]


def find_search(config: Config, common: Sequence[str]) -> tuple[dict, int]:
    """Results of the search that is compared with, and its timesteps, layer delay included."""
    if config.search is None:
        folder = config.out / "search"
        results = run_apart(config.out, "search", "jaxsnn.optimize", [*common, *sizes(config)])
    else:
        folder = config.search
        results = runfolder.read_json(folder / "results.json") | {"peak_rss": None}
    settings = runfolder.read_json(folder / "config.json")
    if "population" not in settings or "nfe" not in results:
        raise UserError(f"{folder} is no finished run of jaxsnn.optimize: give another as --search")
    if results["timesteps"] != config.test_timesteps:
        raise UserError(
            f"{folder} was tested for {results['timesteps']} timesteps: give it as --test-timesteps, or another "
            "--search"
        )
    return results, settings["timesteps"]


def accuracy_rows(config: Config) -> dict:
    """Fig. 4: a row for each method, on the same test images."""
    common = ["--data", config.data, "--test-timesteps", str(config.test_timesteps)]
    for name in ("data_dir", "weights", "test_images"):
        if getattr(config, name) is not None:
            common += [f"--{name.replace('_', '-')}", str(getattr(config, name))]
    search, search_timesteps = find_search(config, common)
    delay = search["delay_steps"] if search["delay"] == "layer" else 0
    bptt = [*common, "--epochs", str(config.epochs), "--batch", str(config.batch), "--images", str(config.images)]
    bptt += ["--delay", search["delay"]]
    long = run_apart(config.out, "bptt", "jaxsnn.finetune", [*bptt, "--timesteps", str(config.timesteps)])
    # membranes that start half full: the rise comes in about half the steps
    half = ["--v0", "0.5", "--timesteps", str(delay + 14), "--delay", search["delay"]]
    half = run_apart(config.out, "search-half", "jaxsnn.optimize", [*common, *sizes(config), *half])
    # a network that answers within 8 steps needs membranes that do not start empty
    short = [*bptt, "--timesteps", str(delay + 8), "--train", "weights", "thresholds", "v0"]
    short = run_apart(
        config.out, "bptt-short", "jaxsnn.finetune", [*short, "--neuron-rate", "0.03", "--scale", "1"]
    )
    train = data.load(config.data, "train", config.data_dir)
    test = data.load(config.data, "test", config.data_dir, limit=config.test_images)
    for results in (search, half, long, short):
        if (results["test_sha256"], results["delay"]) != (test.content_hash(), search["delay"]):
            raise UserError("the runs differ in test images or delay: delete them or choose another --out")
        if results["baseline"]["thresholds"] != search["baseline"]["thresholds"]:
            raise UserError("the runs do not start from the same thresholds: give the same --weights and --data")
    behind = behind_once(config, config.out / "bptt", train, test)

    def row(name: str, results: dict, timesteps: int) -> dict:
        images = round(results["training_cost_epochs"] * len(train))
        return {
            "name": name,
            "accuracy": results["optimized"]["accuracy"],
            "image_evaluations": images,
            "image_steps": images * timesteps + results.get("limit_passes", 0),
            "seconds": results["search_seconds"],
            "peak_bytes": results.get("peak_bytes", results["peak_rss"]),
        }

    def start(name: str, results: dict) -> dict:
        free = {"image_evaluations": 0, "image_steps": 0, "seconds": 0.0, "peak_bytes": None}
        return {"name": name, "accuracy": results["baseline"]["accuracy"]} | free

    percentile = f"{search['baseline']['percentile']:g} percentile"
    first = row(f"BPTT, T = {long['train_timesteps']}", long, long["train_timesteps"])
    second = {
        "name": "search after BPTT",
        "accuracy": behind["accuracy"],
        "image_evaluations": first["image_evaluations"] + behind["image_evaluations"],
        "image_steps": first["image_steps"]
        + behind["image_evaluations"] * behind["timesteps"]
        + behind["limit_passes"],
        "seconds": first["seconds"] + behind["seconds"],
        "peak_bytes": None,
    }
    return {
        "device": describe_device(),
        "test_images": len(test),
        "delay": search["delay"],
        "delay_steps": delay,
        "ann_accuracy": search["ann_accuracy"],
        "rows": [
            start(percentile, search),
            row("search", search, search_timesteps - delay),
            start(f"{percentile}, v0 = 1/2", half),
            row("search, v0 = 1/2", half, 14),
            first,
            row("BPTT, T = 8, with v0", short, short["train_timesteps"]),
            second,
        ],
    }


def accuracy_tables(report: dict) -> tuple[Table, Table]:
    """Fig. 4 in numbers: how accurate, and at what cost."""
    delay, ann = report["delay_steps"], report["ann_accuracy"]
    title = f"{report['test_images']:,} test images, ANN {100 * ann:.2f} %; t without layer delay"
    shape = {"box": box.SIMPLE, "pad_edge": False, "padding": (0, 1, 0, 0)}  # fits 80 columns
    accuracy, cost = Table(title=title, **shape), Table(**shape)
    steps = [t for t in (4, 8, 16, 24, 32, 48) if t + delay <= len(report["rows"][0]["accuracy"])]
    accuracy.add_column("accuracy [%]", no_wrap=True)
    for heading in (*(f"t={t}" for t in steps), "end", "to ANN-2"):
        accuracy.add_column(heading, justify="right", no_wrap=True)
    cost.add_column("cost", no_wrap=True)
    for heading in ("images", "M image steps", "s", "peak MB"):
        cost.add_column(heading, justify="right", no_wrap=True)
    for row in report["rows"]:
        curve = np.array(row["accuracy"])
        reached = int(latency(curve, ann - 0.02 - 1e-9))
        shown = [*(curve[t + delay - 1] for t in steps), curve[-1]]
        accuracy.add_row(
            row["name"], *(f"{100 * a:.1f}" for a in shown), str(reached - delay) if reached else "never"
        )
        if row["image_evaluations"]:
            cost.add_row(
                row["name"],
                f"{row['image_evaluations']:,}",
                f"{row['image_steps'] / 1e6:.2f}",
                f"{row['seconds']:.0f}",
                f"{row['peak_bytes'] / 1e6:,.0f}" if row["peak_bytes"] else "",
            )
    return accuracy, cost


def accuracy_figure(report: dict, path: Path) -> None:
    """Acc(t) of every method, with what it cost in the legend."""
    colors = (figures.BASELINE, figures.OPTIMIZED, "#64b5cd", "#da8bc3", "#55a868", "#8172b3", "#dd8452")
    with plt.rc_context(figures.STYLE):
        figure, axes = plt.subplots(figsize=(7, 4.6))
        for row, color in zip(report["rows"], colors):
            cost = f"{row['image_evaluations']:,} images, {row['seconds']:.0f} s"
            memory = f", {row['peak_bytes'] / 1e6:,.0f} MB" if row["peak_bytes"] else ""
            label = f"{row['name']}: {cost}{memory}" if row["image_evaluations"] else row["name"]
            steps = np.arange(1, len(row["accuracy"]) + 1)
            axes.plot(steps, 100 * np.array(row["accuracy"]), color=color, label=label)
        ann = 100 * report["ann_accuracy"]
        axes.axhline(ann, color=figures.ANN, linewidth=1, linestyle=":", label=f"ANN, {ann:.2f} %")
        convention = "one step of delay per layer" if report["delay"] == "layer" else "no layer delay"
        axes.set_xlabel(f"timesteps ({convention})")
        axes.set_ylabel(f"accuracy on {report['test_images']:,} test images [%]")
        axes.set_xlim(0, len(steps))
        axes.set_ylim(0, 100)
        axes.legend(fontsize=8, loc="lower right")
        figures.save(figure, path)


OPTIMIZER = make_optimizer(("weights", "thresholds"), 1e-4, 1e-2, 100)


def synthetic(network: Network, batch: int) -> tuple[jax.Array, jax.Array]:
    """Random images and labels."""
    images = jax.random.randint(jax.random.key(0), (batch, *network.input_shape), 0, 256).astype(np.uint8)
    return images, jnp.zeros(batch, np.int32)


def bptt_inputs(network: Network, batch: int, params: dict) -> tuple:
    """The inputs of a step of BPTT that trains weights and thresholds."""
    count = len(network.spiking)
    trained = {"weights": params, "thresholds": jnp.ones(count)}
    fixed = {"leak": jnp.ones(count), "v0": jnp.zeros(count)}
    return trained, fixed, OPTIMIZER.init(trained), jnp.ones(count), *synthetic(network, batch), jax.random.key(0)


def search_inputs(network: Network, batch: int, params: dict) -> tuple:
    """The inputs of the simulation of one candidate."""
    return params, Genes(jnp.ones((1, len(network.spiking)))), *synthetic(network, batch), jnp.ones(batch, bool)


def shapes(inputs, network: Network, batch: int) -> tuple:
    """``inputs`` of ``bptt_inputs`` or ``search_inputs`` as shapes, with nothing allocated."""
    params = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes_of(network).items()}
    return jax.eval_shape(lambda params: inputs(network, batch, params), params)


def compiled_bptt(network: Network, timesteps: int, batch: int, checkpoint: bool = False):
    """The compiled step of BPTT."""
    unrolling = Unrolling(timesteps, loss="final", scale=0.15, checkpoint=checkpoint)
    step = make_step(network, unrolling, OPTIMIZER)
    return step.lower(*shapes(bptt_inputs, network, batch)).compile()


def compiled_search(network: Network, timesteps: int, batch: int):
    """The compiled simulation of one candidate."""
    fixed = (network, Dynamics(delay="none"), timesteps, False, "float32", None, 1)
    return xla.simulate.lower(*fixed, *shapes(search_inputs, network, batch)).compile()


def largest_batch(needed: Callable[[int], int], limit: float) -> tuple[int, int]:
    """The largest batch whose step needs at most ``limit`` bytes (0 for none), and what it needs.

    Memory is nearly affine in the batch, so that a line through two of them leads to the answer.
    """
    known = {1: needed(1)}
    if known[1] > limit:
        return 0, known[1]
    fits, fails, batch = 1, None, 4
    while fails is None or fails - fits > 1:
        known[batch] = needed(batch)
        if known[batch] <= limit:
            fits = batch
        else:
            fails = batch
        each = (known[batch] - known[1]) / (batch - 1)
        guess = 1 + int((limit - known[1]) / each)
        batch = max(fits + 1, guess if fails is None else min(guess, fails - 1))
    return fits, known[fits]


def median_seconds(call, repeats: int) -> float:
    """Median time of ``call()`` behind one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))


def batch_seconds(network: Network, timesteps: int, batch: int, repeats: int) -> tuple[float, float]:
    """Seconds of a step of BPTT and of the simulation of one candidate."""
    images = np.asarray(synthetic(network, 4)[0])
    params = {name: jnp.asarray(value) for name, value in random_params(network, images, 0).items()}
    simulate, arguments = compiled_search(network, timesteps, batch), search_inputs(network, batch, params)
    search = median_seconds(lambda: simulate(*arguments), repeats)
    step = compiled_bptt(network, timesteps, batch)
    trained, fixed, state, *rest = bptt_inputs(network, batch, params)

    def call():  # the step overwrites its first and third argument
        nonlocal trained, state
        trained, state, *others = step(trained, fixed, state, *rest)
        return others

    return median_seconds(call, repeats), search


def memory_rows(config: Config, console: Console) -> dict:
    """Fig. 5: a row for each T."""
    network = architecture(config.network, classes=config.classes, input_shape=(config.side, config.side, 3))
    limit = config.memory * 2**30
    chosen = preset("imagenet")
    epochs = {
        "bptt": BPTT_EPOCHS,
        "search": chosen.images * chosen.population * chosen.generations / IMAGENET_TRAIN,  # eq. 17
    }
    small = architecture(
        config.network, classes=config.classes, input_shape=(config.measure_side, config.measure_side, 3)
    )
    rows, measured = [], {}
    for timesteps in config.unrolled:
        batch, needed = largest_batch(
            lambda batch, timesteps=timesteps: step_bytes(compiled_bptt(network, timesteps, batch)), limit
        )
        row = {"timesteps": timesteps, "batch": batch, "bptt_bytes": needed}
        shown = max(1, batch)
        row["checkpoint_bytes"] = step_bytes(compiled_bptt(network, timesteps, shown, checkpoint=True))
        row["search_bytes"] = step_bytes(compiled_search(network, timesteps, shown))
        if config.measure != "none":
            full = config.measure == "full"
            which, images = (network, shown) if full else (small, 2)
            steps = timesteps if full else min(timesteps, MEASURED_STEPS)
            if (full, images, steps) not in measured:
                measured[full, images, steps] = batch_seconds(which, steps, images, config.repeats)
            pair = measured[full, images, steps]
            work = [
                n * t * macs(net, fold=True, first=False, matrix_positions=MATRIX_POSITIONS)
                for net, n, t in ((network, shown, timesteps), (which, images, steps))
            ]
            row["extrapolated"] = not full
            row["measured"] = {
                "side": which.input_shape[0],
                "batch": images,
                "timesteps": steps,
                "bptt_s": pair[0],
                "search_s": pair[1],
            }
            for name, seconds in zip(("bptt", "search"), pair):
                tau = seconds * work[0] / work[1]
                row[f"{name}_batch_s"] = tau
                row[f"{name}_hours"] = tau * epochs[name] * IMAGENET_TRAIN / shown / 3600  # eq. 19
        rows.append(row)
        console.print(json.dumps(row), highlight=False, soft_wrap=True)
    return {
        "device": describe_device(),
        "network": f"{config.network}, {config.side} x {config.side}, {config.classes} classes",
        "limit_gib": config.memory,
        "training_cost_epochs": epochs,
        "measure": config.measure,
        "rows": rows,
    }


def memory_table(report: dict) -> Table:
    """Fig. 5 in numbers."""
    cost = report["training_cost_epochs"]
    table = Table(
        title=f"{report['network']}; largest batch of BPTT in {report['limit_gib']:g} GiB; eq. 19 with "
        f"{cost['bptt']:g} and {cost['search']:.2f} epochs",
        caption=PAPER,
    )
    for heading in ("T", "batch", "BPTT GB", "checkpointed GB", "search GB", "less memory"):
        table.add_column(heading, justify="right")
    timed = report["measure"] != "none"
    note = " (extrapolated)" if report["measure"] == "small" else ""
    for heading in (f"BPTT h{note}", f"search h{note}", "less time") if timed else ():
        table.add_column(heading, justify="right")
    for row in report["rows"]:
        sizes = [row[f"{name}_bytes"] for name in ("bptt", "checkpoint", "search")]
        cells = [str(row["timesteps"]), str(row["batch"] or "1 does not fit"), *(f"{s / 1e9:.2f}" for s in sizes)]
        cells.append(f"{sizes[0] / sizes[2]:.1f}x")
        if timed:
            hours = row["bptt_hours"], row["search_hours"]
            cells += [*(f"{h:,.0f}" for h in hours), f"{hours[0] / hours[1]:.0f}x"]
        table.add_row(*cells)
    return table


def memory_figure(report: dict, path: Path) -> None:
    """Memory and running time over T, as in Fig. 5."""
    rows = report["rows"]
    timed = report["measure"] != "none"
    with plt.rc_context(figures.STYLE):
        figure, panels = plt.subplots(1, 2 if timed else 1, figsize=(9 if timed else 5, 3.8), squeeze=False)
        places = np.arange(len(rows))
        left = panels[0, 0]
        kinds = (("bptt", "BPTT", "#55a868"), ("checkpoint", "BPTT, checkpointed", "#a3cfa9"))
        for shift, (name, label, color) in enumerate((*kinds, ("search", "search", figures.OPTIMIZED))):
            left.bar(
                places + 0.27 * (shift - 1),
                [row[f"{name}_bytes"] / 1e9 for row in rows],
                0.25,
                color=color,
                label=label,
            )
        left.set_ylabel("memory of a batch [GB]")
        if timed:
            right = panels[0, 1]
            for shift, (name, label, color) in enumerate((kinds[0], ("search", "search", figures.OPTIMIZED))):
                right.bar(
                    places + 0.4 * (shift - 0.5),
                    [row[f"{name}_hours"] for row in rows],
                    0.38,
                    color=color,
                    label=label,
                )
            right.set_yscale("log")
            extrapolated = ", extrapolated" if report["measure"] == "small" else ""
            right.set_ylabel(f"running time, eq. 19{extrapolated} [h]")
        for axes in panels[0]:
            axes.set_xticks(places, [f"{row['timesteps']}\n(batch {max(1, row['batch'])})" for row in rows])
            axes.set_xlabel("timesteps")
            axes.legend(fontsize=8)
        figures.save(figure, path)


def main(config: Config) -> None:
    """Run the parts asked for, print their tables and write bptt.json and the figures."""
    check(config)
    console = Console()
    parts = ("accuracy", "memory") if config.part == "both" else (config.part,)
    config.out.mkdir(parents=True, exist_ok=True)
    path = config.out / "bptt.json"
    report = runfolder.read_json(path) if path.exists() else {}
    if "accuracy" in parts:
        report["accuracy"] = accuracy_rows(config)
        runfolder.write_json(path, report)
        console.print(*accuracy_tables(report["accuracy"]), sep="\n")
        accuracy_figure(report["accuracy"], config.out / "accuracy.png")
    if "memory" in parts:
        report["memory"] = memory_rows(config, console)
        console.print(memory_table(report["memory"]))
        memory_figure(report["memory"], config.out / "memory.png")
        runfolder.write_json(path, report)
    console.print(f"-> {config.out}", highlight=False)


if __name__ == "__main__":
    command.main(Config, main, "benchmarks.bptt")
