"""How many timesteps thresholds alone save, over seeds: `--preset thresholds`, the paper's way on a small scale.

    python -m benchmarks.improvement                              # on the embedded test images
    python -m benchmarks.improvement --data cifar10 --data-dir DIR   # and on all 10,000

Runs `python -m jaxsnn.optimize --preset thresholds` once for every seed, then tests the baseline and the
thresholds of all seeds together on each test set. Reported is the median over the seeds; its interval is a paired
bootstrap over the test images (all seeds on the same draw). About 90 s a seed on two cores, and 8 minutes for
10,000 images.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import data
from benchmarks import command
from benchmarks.runs import run_once
from jaxsnn.analysis.comparison import ann_right
from jaxsnn.analysis.latency import TARGETS, bootstrap_latencies, improvement, interval, latency
from jaxsnn.cli.options import DebugOptions
from jaxsnn.conversion.loading import load_snn
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.optimize import OptimizeConfig
from jaxsnn.runtime.checks import at_least
from jaxsnn.runtime.files import write_json
from jaxsnn.runtime.provenance import describe_device
from jaxsnn.simulation.observe import observe_images


@dataclass(frozen=True)
class Config(DebugOptions):
    """Median improvement of the preset thresholds over several seeds."""

    seeds: int = 5
    data: str = "embedded"
    """Further test set: embedded (none further) or cifar10."""
    data_dir: Path | None = None
    """Folder of the further test set."""
    test_timesteps: int = 80
    out: Path = Path("runs/improvement")
    job: OptimizeConfig = field(default_factory=OptimizeConfig)
    """The job; its seed and folder are set here."""


def run_seeds(config: Config, sha256: str) -> list[dict]:
    """results.json of every seed; a seed that is there already is read.

    Args:
        sha256: of the file of weights.
    """
    jobs = (
        replace(config.job, seed=seed, out=config.out / f"seed{seed}", test_images=100)
        for seed in range(config.seeds)
    )
    return [run_once(job, sha256) for job in jobs]


def median_improvement(config: Config, snn: SNN, runs: list[dict], dataset: data.Dataset) -> dict:
    """Median over the seeds of each target's improvement on one test set, in both delay conventions."""
    genes = Genes(np.array([runs[0]["baseline"]["thresholds"], *(run["optimized"]["thresholds"] for run in runs)]))
    delay = config.job.delay
    _, right = observe_images(
        snn,
        genes,
        dataset.images,
        dataset.labels,
        timesteps=config.test_timesteps,
        dynamics=Dynamics(config.job.comparison, delay),
        plan=config.job.plan(),
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
    report: dict[str, list[dict]] = {}
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


def table_of(report: dict, delay: str) -> Table:
    """Timesteps to every target on one test set, in one delay convention."""
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
    return table


def main(config: Config) -> None:
    """Run, print the tables and write improvement.json."""
    at_least(config, seeds=1, test_timesteps=2)
    console = Console()
    snn, sha256 = load_snn(config.job.weights, config.job.network)
    tests = [data.load("embedded", "test")]
    if config.data != "embedded":
        tests.append(data.load(config.data, "test", config.data_dir))
    runs = run_seeds(config, sha256)
    reports = [median_improvement(config, snn, runs, test) for test in tests]
    for report in reports:
        for delay in ("layer", "none"):
            if delay in report:
                console.print(table_of(report, delay))
    seconds = [run["search_seconds"] for run in runs]
    path = config.out / "improvement.json"
    write_json(path, {"device": describe_device(), "search_seconds": seconds, "reports": reports})
    console.print(f"search without the test: {np.median(seconds):.0f} s a seed (median) -> {path}")


if __name__ == "__main__":
    command.run(Config, main, "improvement", __doc__)
