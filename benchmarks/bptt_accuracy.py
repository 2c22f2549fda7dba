"""benchmarks.bptt, first part: accuracy over time after conversion, search and BPTT."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich import box
from rich.table import Table

import data
from benchmarks.bptt_config import Config
from benchmarks.bptt_memory import sizes
from jaxsnn.analysis.latency import latency
from jaxsnn.conversion.calibration import Calibration
from jaxsnn.conversion.loading import load_snn
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import Dynamics
from jaxsnn.records.thresholds_file import read_thresholds
from jaxsnn.reports import figures
from jaxsnn.runtime.files import read_json, write_json
from jaxsnn.runtime.provenance import describe_device
from jaxsnn.search.evolve import select, subsets
from jaxsnn.search.job import generations
from jaxsnn.search.objective import Objective
from jaxsnn.search.settings import OptimizeConfig, resolve
from jaxsnn.search.space import Codec
from jaxsnn.simulation.observe import observe


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
        write_json(record, {"command": called, "peak_rss": usage.ru_maxrss * scale})
    held = read_json(record)
    if held["command"] != called:
        raise UserError(
            f"{folder} holds a run with other settings: delete it and {record}, or choose another --out"
        )
    results = read_json(folder / "results.json")
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
    found = read_thresholds(folder)
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
        "weights_sha256": read_thresholds(folder)["weights_sha256"],
        "train_sha256": train.content_hash(),
        "test_sha256": test.content_hash(),
        "test_timesteps": config.test_timesteps,
        "population": config.population,
        "generations": config.generations,
    }
    if not path.exists():
        write_json(path, search_behind(config, folder, train, test) | {"settings": settings})
    found = read_json(path)
    if found.get("settings") != settings:
        raise UserError(f"{path} is of other runs or settings: delete it, or choose another --out")
    return found


def find_search(config: Config, common: Sequence[str]) -> tuple[dict, int]:
    """Results of the search that is compared with, and its timesteps, layer delay included."""
    if config.search is None:
        folder = config.out / "search"
        results = run_apart(config.out, "search", "jaxsnn.optimize", [*common, *sizes(config)])
    else:
        folder = config.search
        results = read_json(folder / "results.json") | {"peak_rss": None}
    settings = read_json(folder / "config.json")
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
