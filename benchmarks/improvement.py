"""How many timesteps the default job saves, over seeds: the README's table.

    python -m benchmarks.improvement                              # on the embedded test images
    python -m benchmarks.improvement --data cifar10 --data-dir DIR   # and on all 10,000

Runs `python -m jaxsnn.optimize` once per seed, then evaluates the baselines and the thresholds found on every
test set in one go. Reported is the median over the seeds; its interval is a paired bootstrap over the test
images (all seeds on the same draw). About 90 s a seed on two cores, and 8 minutes for 10,000 images.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import data
from jaxsnn.evaluation import ann_right, describe_device
from jaxsnn.latency import TARGETS, bootstrap_latencies, improvement, interval, latency
from jaxsnn.optimize import OptimizeConfig, load_snn, optimize
from jaxsnn.simulate import Plan, observe_images
from jaxsnn.snn import Dynamics, Genes


@dataclass(frozen=True)
class Config:
    """Median improvement of the default job over several seeds."""

    seeds: int = 5
    data: str = "embedded"
    """Further test set: embedded (none further) or cifar10."""
    data_dir: Path | None = None
    test_timesteps: int = 100
    out: Path = Path("runs/improvement")
    job: OptimizeConfig = field(default_factory=OptimizeConfig)
    """The job; its seed and folder are set here."""


def run_seeds(config: Config) -> list[dict]:
    """results.json of every seed; a seed that is there already is read."""
    found = []
    for seed in range(config.seeds):
        folder = config.out / f"seed{seed}"
        if not (folder / "results.json").exists():
            job = OptimizeConfig(**{**vars(config.job), "seed": seed, "out": folder, "test_images": 100})
            optimize(job)
        found.append(json.loads((folder / "results.json").read_text()))
    return found


def median_improvement(config: Config, runs: list[dict], dataset: data.Dataset) -> dict:
    """Median over the seeds of each target's improvement on one test set, in both delay conventions."""
    snn, _ = load_snn(config.job.weights)
    first = runs[0]["baseline"]["thresholds"]
    # each seed reads its percentiles from images of its own, so each has its own baseline
    rows = [run[name]["thresholds"] for run in runs for name in ("baseline", "optimized")]
    genes = Genes(np.array(rows).reshape(-1, len(first)))
    delay = config.job.delay
    _, right = observe_images(
        snn,
        genes,
        dataset.images,
        dataset.labels,
        config.test_timesteps,
        Dynamics(delay=delay),
        Plan(config.job.rows),
    )
    ann = ann_right(snn.network, snn.params, dataset.images, dataset.labels)
    steps = snn.network.delay
    views = {"layer": right, "none": right[:, :, steps:]} if delay == "layer" else {"none": right}
    report = {"test_set": f"{dataset.name}, {len(dataset)} images", "ann_accuracy": float(ann.mean())}
    for name, view in views.items():
        drawn = bootstrap_latencies(list(view), ann, samples=1000)
        report[name] = []
        for points, draws in zip(TARGETS, drawn):
            target = ann.mean() - points / 100 - 1e-9
            pairs = np.array([latency(v.mean(0), target) for v in view]).reshape(-1, 2)
            saved = np.median([improvement(d[0], d[1]) for d in draws.reshape(-1, 2, draws.shape[-1])], axis=0)
            each = improvement(pairs[:, 0], pairs[:, 1])
            middle = float(np.median(each))
            report[name].append(
                {
                    "target": f"ANN - {points:g}",
                    "baseline_timesteps": [int(p) or None for p in pairs[:, 0]],
                    "optimized_timesteps": [int(p) or None for p in pairs[:, 1]],
                    "improvement_percent": [float(e) if np.isfinite(e) else None for e in each],
                    "median": middle if np.isfinite(middle) else None,
                    "ci95": interval(saved),
                }
            )
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
                    " ".join(str(v) for v in row["baseline_timesteps"]),
                    " ".join(str(v) for v in row["optimized_timesteps"]),
                    "never" if row["median"] is None else f"{row['median']:.1f} %",
                    "" if bounds is None else f"{bounds[0]:.1f} to {bounds[1]:.1f} %",
                )
            console.print(table)
    seconds = [run["seconds"] for run in runs]
    summary = {"device": describe_device(), "seconds_per_seed": seconds, "reports": reports}
    (config.out / "improvement.json").write_text(json.dumps(summary, indent=2) + "\n")
    console.print(
        f"search and report: {np.median(seconds):.0f} s a seed (median) -> {config.out / 'improvement.json'}"
    )


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m benchmarks.improvement", description=__doc__))
