"""benchmarks.bptt, first part: accuracy over time after conversion, search and BPTT."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import data
from benchmarks.bptt_config import Config, sizes
from jaxsnn.conversion.calibration import Calibration
from jaxsnn.conversion.loading import load_snn
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import Dynamics
from jaxsnn.optimize import OptimizeConfig
from jaxsnn.records.thresholds_file import read_thresholds
from jaxsnn.runtime.files import read_json, write_json
from jaxsnn.runtime.provenance import describe_device
from jaxsnn.search.job import make_job
from jaxsnn.simulation.observe import observe

HALF_FULL_STEPS = 14
"""Timesteps of the search whose membranes start half full, layer delay left out."""


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

    def threshold(self, percentile: float | np.ndarray) -> np.ndarray:
        return self.maxima


def search_after(config: Config, folder: Path, train: data.Dataset, test: data.Dataset) -> dict:
    """The default search around the thresholds of a fine-tuned run, on its weights.

    Returns:
        accuracy (on test images), image_evaluations, limit_passes, timesteps (without layer delay), seconds, and
        the thresholds.
    """
    started = time.perf_counter()
    found = read_thresholds(folder)
    snn, _ = load_snn(folder / "weights.safetensors")
    dynamics = Dynamics(found["comparison"], found["delay"])
    given: dict[str, Any] = {"population": config.population, "generations": config.generations}
    given = {name: value for name, value in given.items() if value is not None}
    given |= {"comparison": dynamics.comparison, "delay": dynamics.delay}
    settings = OptimizeConfig(data=config.data, data_dir=config.data_dir, **given).checked()
    job = make_job(settings, snn, train, Centred(found["thresholds"]))
    last = job.last()
    leaders, final_images = job.final(last)
    seconds = time.perf_counter() - started
    genes = job.codec.decode(leaders[0].vector[None])
    observed = observe(snn, genes, test.images, test.labels, timesteps=config.test_timesteps, dynamics=dynamics)
    return {
        "accuracy": observed.accuracy[0].tolist(),
        "image_evaluations": last.image_evaluations + final_images,
        "limit_passes": job.objective.limit_passes,
        "timesteps": settings.timesteps - dynamics.silent_steps(snn.network),
        "seconds": seconds,
        "thresholds": genes.threshold[0].tolist(),
    }


def search_after_once(config: Config, folder: Path, train: data.Dataset, test: data.Dataset) -> dict:
    """``search_after``, or what it found earlier for the same run, images and settings."""
    path = config.out / "search-after.json"
    settings = {
        "weights_sha256": read_thresholds(folder)["weights_sha256"],
        "train_sha256": train.content_hash(),
        "test_sha256": test.content_hash(),
        "test_timesteps": config.test_timesteps,
        "population": config.population,
        "generations": config.generations,
    }
    if not path.exists():
        write_json(path, search_after(config, folder, train, test) | {"settings": settings})
    found = read_json(path)
    if found.get("settings") != settings:
        raise UserError(f"{path} holds a search of other runs or settings: delete it, or choose another --out")
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
        raise UserError(f"{folder} is not a finished run of jaxsnn.optimize: give another as --search")
    if results["timesteps"] != config.test_timesteps:
        raise UserError(
            f"{folder} was tested for {results['timesteps']} timesteps: give it as --test-timesteps, or another "
            "--search"
        )
    return results, settings["timesteps"]


def options_of(config: Config) -> list[str]:
    """The options that all runs share, as they are typed."""
    common = ["--data", config.data, "--test-timesteps", str(config.test_timesteps)]
    for name in ("data_dir", "weights", "test_images"):
        if getattr(config, name) is not None:
            common += [f"--{name.replace('_', '-')}", str(getattr(config, name))]
    return common


def tuned(config: Config, common: Sequence[str], delay: str, delay_steps: int) -> tuple[dict, dict]:
    """Results of BPTT with T = --timesteps, and with 8 steps and those of the layer delay."""
    bptt = [*common, "--epochs", str(config.epochs), "--batch", str(config.batch), "--images", str(config.images)]
    bptt += ["--delay", delay]
    long = run_apart(config.out, "bptt", "jaxsnn.finetune", [*bptt, "--timesteps", str(config.timesteps)])
    # a network that answers within 8 steps needs membranes that do not start empty
    short = [*bptt, "--timesteps", str(delay_steps + 8), "--train", "weights", "thresholds", "v0"]
    short += ["--neuron-rate", "0.03", "--scale", "1"]
    return long, run_apart(config.out, "bptt-short", "jaxsnn.finetune", short)


def check_comparable(runs: Sequence[dict], test_sha256: str) -> None:
    """Raise ``UserError`` where runs differ from the first in test images, delay or start."""
    for results in runs:
        if (results["test_sha256"], results["delay"]) != (test_sha256, runs[0]["delay"]):
            raise UserError("the runs differ in test images or delay: delete them or choose another --out")
        if results["baseline"]["thresholds"] != runs[0]["baseline"]["thresholds"]:
            raise UserError("the runs do not start from the same thresholds: give the same --weights and --data")


def row_of(name: str, results: dict, timesteps: int, train_images: int) -> dict:
    """The row of a run that simulated ``timesteps`` of every image, layer delay left out."""
    images = round(results["training_cost_epochs"] * train_images)
    return {
        "name": name,
        "accuracy": results["optimized"]["accuracy"],
        "image_evaluations": images,
        "image_steps": images * timesteps + results.get("limit_passes", 0),
        "seconds": results["search_seconds"],
        "peak_bytes": results.get("peak_bytes", results["peak_rss"]),
    }


def start_of(name: str, results: dict) -> dict:
    """The row of a run's baseline, which costs nothing."""
    free = {"image_evaluations": 0, "image_steps": 0, "seconds": 0.0, "peak_bytes": None}
    return {"name": name, "accuracy": results["baseline"]["accuracy"]} | free


def row_after(first: dict, found: dict) -> dict:
    """The row of what ``search_after`` found, with the cost of the BPTT before it, whose row is ``first``."""
    steps = found["image_evaluations"] * found["timesteps"] + found["limit_passes"]
    return {
        "name": "search after BPTT",
        "accuracy": found["accuracy"],
        "image_evaluations": first["image_evaluations"] + found["image_evaluations"],
        "image_steps": first["image_steps"] + steps,
        "seconds": first["seconds"] + found["seconds"],
        "peak_bytes": None,
    }


def accuracy_rows(config: Config) -> dict:
    """Fig. 4: a row for each method, on the same test images."""
    common = options_of(config)
    search, search_timesteps = find_search(config, common)
    delay = search["delay_steps"] if search["delay"] == "layer" else 0
    long, short = tuned(config, common, search["delay"], delay)
    # membranes that start half full: the rise comes in about half the steps
    options = ["--v0", "0.5", "--timesteps", str(delay + HALF_FULL_STEPS), "--delay", search["delay"]]
    half = run_apart(config.out, "search-half", "jaxsnn.optimize", [*common, *sizes(config), *options])
    train = data.load(config.data, "train", config.data_dir)
    test = data.load(config.data, "test", config.data_dir, limit=config.test_images)
    check_comparable((search, half, long, short), test.content_hash())
    found = search_after_once(config, config.out / "bptt", train, test)
    percentile = f"{search['baseline']['percentile']:g} percentile"
    unrolled = row_of(f"BPTT, T = {long['train_timesteps']}", long, long["train_timesteps"], len(train))
    return {
        "device": describe_device(),
        "test_images": len(test),
        "delay": search["delay"],
        "delay_steps": delay,
        "ann_accuracy": search["ann_accuracy"],
        "rows": [
            start_of(percentile, search),
            row_of("search", search, search_timesteps - delay, len(train)),
            start_of(f"{percentile}, v0 = 1/2", half),
            row_of("search, v0 = 1/2", half, HALF_FULL_STEPS, len(train)),
            unrolled,
            row_of("BPTT, T = 8, with v0", short, short["train_timesteps"], len(train)),
            row_after(unrolled, found),
        ],
    }
