"""How many timesteps the default job saves, over seeds: the README's table.

    python -m benchmarks.improvement                              # on the embedded test images
    python -m benchmarks.improvement --data cifar10 --data-dir DIR   # and on all 10,000

Runs `python -m jaxsnn.optimize` once per seed, then evaluates the baseline and the thresholds found on every
test set in one go. Reported is the median over the seeds; its interval is a paired bootstrap over the test
images (all seeds on the same draw). About 90 s a seed on two cores, and 8 minutes for 10,000 images.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import data
from jaxsnn.analysis.comparison import ann_right
from jaxsnn.analysis.latency import TARGETS, bootstrap_latencies, improvement, interval, latency
from jaxsnn.conversion.loading import load_snn
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.optimize import optimize
from jaxsnn.runtime.files import plain, read_json
from jaxsnn.runtime.provenance import describe_device
from jaxsnn.search.settings import OptimizeConfig, resolve
from jaxsnn.simulation.observe import observe_images


@dataclass(frozen=True)
class Config:
    """Median improvement of the default job over several seeds."""

    seeds: int = 5
    data: str = "embedded"
    """Further test set: embedded (none further) or cifar10."""
    data_dir: Path | None = None
    test_timesteps: int = 80
    out: Path = Path("runs/improvement")
    job: OptimizeConfig = field(default_factory=OptimizeConfig)
    """The job; its seed and folder are set here."""


def run_seeds(config: Config) -> list[dict]:
    """results.json of every seed; a seed that is there already is read."""
    found = []
    for seed in range(config.seeds):
        folder = config.out / f"seed{seed}"
        job = replace(config.job, seed=seed, out=folder, test_images=100)
        if not (folder / "results.json").exists():
            optimize(job)
        held = read_json(folder / "config.json")
        wanted = plain({k: v for k, v in asdict(resolve(job)).items() if k in held and k != "weights"})
        if any(held[key] != value for key, value in wanted.items()):
            raise UserError(f"{folder} holds a run with other settings: delete it")
        found.append(json.loads((folder / "results.json").read_text()))
    return found


def median_improvement(config: Config, runs: list[dict], dataset: data.Dataset) -> dict:
    """Median over the seeds of each target's improvement on one test set, in both delay conventions."""
    snn, _ = load_snn(config.job.weights, config.job.network)
    genes = Genes(np.array([runs[0]["baseline"]["thresholds"], *(run["optimized"]["thresholds"] for run in runs)]))
    delay = config.job.delay
    _, right = observe_images(
        snn,
        genes,
        dataset.images,
        dataset.labels,
        config.test_timesteps,
        Dynamics(config.job.comparison, delay),
        config.job.plan(),
    )
    ann = ann_right(snn.network, snn.params, dataset.images, dataset.labels)
    report = {"test_set": f"{dataset.name}, {len(dataset)} images", "ann_accuracy": float(ann.mean())}
    return report | summarise(list(right), ann, snn.network.delay if delay == "layer" else 0)


def summarise(rights: list[np.ndarray], ann: np.ndarray, silent: int) -> dict[str, list[dict]]:
    """Latency of the baseline, rights[0], and of every seed, at each target, with and without the layer delay.

    Args:
        rights: (B, T) each, whether each image is right at each step.
        silent: steps of layer delay in ``rights``.
    """
    report = {}
    views = {"layer": rights} if silent else {}
    for delay, view in (views | {"none": [right[:, silent:] for right in rights]}).items():
        rows = []
        for points, draws in zip(TARGETS, bootstrap_latencies(view, ann, samples=1000)):
            target = ann.mean() - points / 100 - 1e-9
            steps = [int(latency(v.mean(0), target)) for v in view]
            each = improvement(np.array(steps[0]), np.array(steps[1:]))
            with np.errstate(invalid="ignore"):  # a median between never (-inf) and a baseline never (inf)
                saved = np.median([improvement(draws[0], found) for found in draws[1:]], axis=0)
                middle = float(np.median(each))
            rows.append(
                {
                    "target": f"ANN - {points:g}",
                    "baseline_timesteps": steps[0] or None,
                    "optimized_timesteps": [step or None for step in steps[1:]],
                    "improvement_percent": [float(e) if np.isfinite(e) else None for e in each],
                    "median": middle if np.isfinite(middle) else None,
                    "ci95": interval(saved),
                }
            )
        report[delay] = rows
    return report


def main(config: Config) -> None:
    """Run, print the tables and write improvement.json."""
    console = Console()
    runs = run_seeds(config)
    tests = [data.load("embedded", "test")]
    if config.data != "embedded":
        tests.append(data.load(config.data, "test", config.data_dir))
    reports = [median_improvement(config, runs, test) for test in tests]
    for report in reports:
        for delay in ("layer", "none"):
            if delay not in report:
                continue
            title = f"{report['test_set']}, ANN {100 * report['ann_accuracy']:.2f} %, delay {delay!r}"
            table = Table("target", "baseline", "optimised", "median saved", "95 %", title=title)
            for row in report[delay]:
                bounds = row["ci95"]
                table.add_row(
                    row["target"],
                    str(row["baseline_timesteps"] or "never"),
                    " ".join(str(v or "never") for v in row["optimized_timesteps"]),
                    "never" if row["median"] is None else f"{row['median']:.1f} %",
                    "" if bounds is None else f"{bounds[0]:.1f} to {bounds[1]:.1f} %",
                )
            console.print(table)
    seconds = [run["search_seconds"] for run in runs]
    summary = {"device": describe_device(), "search_seconds": seconds, "reports": reports}
    (config.out / "improvement.json").write_text(json.dumps(summary, indent=2) + "\n")
    console.print(
        f"search without the test: {np.median(seconds):.0f} s a seed (median) -> {config.out / 'improvement.json'}"
    )


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m benchmarks.improvement", description=__doc__))
