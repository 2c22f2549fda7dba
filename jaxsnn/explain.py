"""Explain a run's thresholds, as sections IV.A and IV.B of the paper do: python -m jaxsnn.explain RUN"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console

import data
from jaxsnn.analysis.adversarial import Attack, ann_victim, attack_of, perturb
from jaxsnn.analysis.correlation import correlations, verdict
from jaxsnn.analysis.sensitivity import ann_sensitivity, snn_sensitivity
from jaxsnn.analysis.significance import significance
from jaxsnn.cli import command
from jaxsnn.cli.options import DebugOptions
from jaxsnn.cli.run_options import RunOptions
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import check_single
from jaxsnn.records.finished_run import FinishedRun, read_run
from jaxsnn.records.run_config import RunConfig
from jaxsnn.reports import figures, html_report
from jaxsnn.reports.run_pages import spared
from jaxsnn.runtime.checks import at_least, in_range
from jaxsnn.runtime.entries import Entries
from jaxsnn.runtime.files import write_csv, write_json
from jaxsnn.search.evolve import Candidate, subsets
from jaxsnn.search.job import calibrated_on, make_codec, make_job
from jaxsnn.search.objective import Objective

WEIGHTS = ("alpha", "beta", "gamma")
"""The weights of eq. 11."""


@dataclass(frozen=True)
class ExplainConfig(RunOptions, DebugOptions):
    """Explain a run's thresholds: principal components, noise sensitivity, what each weight of eq. 11 does.

    Only training images are used. Writes explain.json, figures with their numbers as CSV, and report.html into the
    run's folder.
    """

    images: int = 1000
    """Training images for the principal components."""
    variance: float = 0.999
    """Share of the variance that the components are to explain, R of eq. 13."""
    squared: bool = False
    """Sum squared eigenvalues, as eq. 13 is printed, instead of eigenvalues (explained variance, eq. 12)."""
    attack: Literal["fgsm", "pgd"] = "fgsm"
    """Attack for the noise sensitivity, crafted on the ANN."""
    epsilon: float = 8.0
    """Strength of the attack in grey levels, 1/255 of the pixel range."""
    attack_images: int = 200
    """Training images for the noise sensitivity."""
    timesteps: int | None = None
    """Timesteps over which spikes are summed; default: as many as the run was tested with."""
    sweep: bool = True
    """Search again with other weights of eq. 11."""
    sweep_factors: tuple[float, ...] = (0.0, 4.0)
    """Each weight times each of these, one search for each."""
    sweep_population: int = 8
    """Candidates of such a search."""
    sweep_generations: int = 3
    """Its generations after the initial population."""
    sweep_images: int = 60
    """Training images on which it compares candidates."""
    held_out_images: int = 200
    """Further training images on which the curves of its results are drawn."""

    def checked(self) -> "ExplainConfig":
        """The same options; raises ``UserError`` where one is out of its range."""
        at_least(self, images=1, attack_images=1, sweep_population=4, sweep_generations=1)
        at_least(self, sweep_images=1, held_out_images=1, timesteps=1)
        in_range(self, "(0, 1]", "variance")
        in_range(self, "[0, inf)", "sweep_factors")
        return self

    @property
    def images_wanted(self) -> int:
        """Training images that are needed."""
        return max(self.images, self.attack_images, self.sweep * (self.sweep_images + self.held_out_images))


def explain(config: ExplainConfig) -> dict:
    """Run the command; returns explain.json."""
    console = command.TextConsole()
    attack = attack_of(config.checked().attack, config.epsilon)
    run = read_run(config.run, "train", None, config.weights, config.data_dir, console.out)
    check_single(run.dynamics, "jaxsnn.explain is")
    if config.images_wanted > len(run.dataset):
        raise UserError(
            f"{config.images_wanted} training images were asked for, but {run.config.data} has only "
            f"{len(run.dataset)}"
        )
    components = _significance(config, run, console)
    sensitivity = _sensitivity(config, run, attack, console)
    result = {
        "layers": run.layers,
        "percentiles": list(run.percentiles),
        "significance": components,
        "sensitivity": sensitivity,
        "correlations": correlations(run.percentiles, components["change_percent"], sensitivity),
        "sweep": _sweep(config, run, console) if config.sweep else None,
    }
    write_json(run.folder / "explain.json", result)
    for row in result["correlations"]:
        console.print(verdict(row), highlight=False, soft_wrap=True)
    _write_numbers(run.folder / "figures", run, result)
    _draw(console, run.folder / "figures", run, result)
    with spared(partial(command.warn, console), run.folder / "report.html"):
        console.print(f"-> {html_report.write(run.folder)}", soft_wrap=True)
    return result


def _significance(config: ExplainConfig, run: FinishedRun, console: Console) -> dict:
    """Principal components of every layer."""
    console.print(f"principal components on {config.images} training images")
    train = run.dataset
    shown = train.images[data.balanced(train.labels, config.images, 0, "the training split")]
    found = significance(run.snn.network, run.snn.params, shown, config.variance, 2 if config.squared else 1)
    return {
        "images": config.images,
        "variance": config.variance,
        "squared": config.squared,
        "components": found.components,
        "change_percent": found.change,
    }


def _sensitivity(config: ExplainConfig, run: FinishedRun, attack: Attack, console: Console) -> dict:
    """Noise sensitivity of the ANN and of both SNNs."""
    console.print(f"noise sensitivity on {config.attack_images} training images under {attack}")
    chosen = data.balanced(run.dataset.labels, config.attack_images, 1, "the training split")
    some = run.dataset.select(chosen)
    clean, attacked = some.images, perturb(ann_victim(run.snn), attack, some.images, some.labels)
    timesteps = config.timesteps or run.tested.timesteps
    return {
        "images": config.attack_images,
        "timesteps": timesteps,
        "attack": attack.record(),
        "ann": ann_sensitivity(run.snn, clean, attacked),
        "baseline": snn_sensitivity(run.snn, run.baseline, clean, attacked, timesteps, run.dynamics),
        "optimized": snn_sensitivity(run.optimized_snn, run.optimized, clean, attacked, timesteps, run.dynamics),
    }


def _sweep(config: ExplainConfig, run: FinishedRun, console: Console) -> dict:
    """Small searches with eq. 11 alone, one of its weights changed at a time; as in Fig. 1.

    All start from the same candidates and see the same images. The accuracies of their best candidates are
    measured on other training images, which is fair to all of them.
    """
    small = _small(config, run.config)
    own = {name: getattr(run.config, name) for name in WEIGHTS}
    settings = _settings(own, config.sweep_factors)
    curves = {}
    for setting, candidate, accuracy in _searched(config, run, small, settings, console):
        curves[tuple(setting.items())] = {"accuracy": accuracy.tolist(), "cost_parts": candidate.parts}
    weights = {}
    for name in WEIGHTS:
        values = sorted({own[name], *(factor * own[name] for factor in config.sweep_factors)})
        weights[name] = [{"weight": v} | curves[tuple((own | {name: v}).items())] for v in values]
    attack = small.attack_used
    return {
        "own": own,
        "weights": weights,
        "population": config.sweep_population,
        "generations": config.sweep_generations,
        "images": config.sweep_images,
        "held_out_images": config.held_out_images,
        "timesteps": small.timesteps,
        "attack": None if attack is None else f"{small.attack_mix} images, {attack}",
    }


def _small(config: ExplainConfig, run: RunConfig) -> RunConfig:
    """The run's settings for a small search with eq. 11 alone."""
    return replace(
        run,
        population=config.sweep_population,
        generations=config.sweep_generations,
        images=config.sweep_images,
        engine="scipy",
        strategy=None,
        subset="fixed",
        race=None,
        finalists=1,
        tol=0,
        area=0,
        limit=0,
        spike_weight=0,
        synop_weight=0,
        energy_weight=0,
        peak_weight=0,
    )


def _settings(own: dict[str, float], factors: Sequence[float]) -> list[dict[str, float]]:
    """The weights of eq. 11 of every search: the run's own, then one of them times each factor; each once."""
    changed = [own | {name: factor * own[name]} for name in WEIGHTS for factor in factors]
    return [dict(items) for items in dict.fromkeys(tuple(one.items()) for one in (own, *changed))]


def _searched(
    config: ExplainConfig,
    run: FinishedRun,
    small: RunConfig,
    settings: Sequence[dict[str, float]],
    console: Console,
) -> list[tuple[dict[str, float], Candidate, np.ndarray]]:
    """The best candidate of a search with each of the settings, and its Acc(t), (T,), on held-out images."""
    train, plan = run.dataset, run.config.plan()
    calibration = calibrated_on(run.config, run.snn, train)
    best = []
    for number, setting in enumerate(settings, 1):
        words = ", ".join(f"{name} {value:g}" for name, value in setting.items())
        console.print(f"search {number} of {len(settings)}: {words}", highlight=False)
        job = make_job(replace(small, **setting), run.snn, train, calibration, plan=plan)
        best.append(job.last().best)
    # a smaller draw is the start of a larger one: what follows the search's images was not seen by it
    order = next(subsets(train.labels, config.sweep_images + config.held_out_images, "fixed", small.seed))
    genes = make_codec(small, calibration).decode(np.stack([candidate.vector for candidate in best]))
    observed = Objective(small, run.snn, train, plan=plan)(genes, order[config.sweep_images :])
    return list(zip(settings, best, observed.accuracy))


def _draw(console: Console, folder: Path, run: FinishedRun, result: dict) -> None:
    """The figures of what was found."""
    layers, percentiles, base = result["layers"], result["percentiles"], run.tested.baseline
    change, noise = result["significance"]["change_percent"], result["sensitivity"]
    with spared(partial(command.warn, console), path := folder / "significance.png"):
        figures.significance_and_thresholds(layers, change, percentiles, base, path)
    with spared(partial(command.warn, console), path := folder / "sensitivity.png"):
        figures.sensitivity_and_thresholds(layers, noise, percentiles, base, path)
    if result["sweep"] is not None:
        with spared(partial(command.warn, console), path := folder / "cost_sweep.png"):
            figures.cost_sweep(result["sweep"], path)


def _write_numbers(folder: Path, run: FinishedRun, result: dict) -> None:
    """The numbers of every figure as CSV, those that jaxsnn.optimize has drawn included."""
    layers, percentiles = result["layers"], result["percentiles"]
    found, noise = result["significance"], result["sensitivity"]
    write_csv(
        folder / "significance.csv",
        ("layer", "components", "change_percent", "threshold_percentile"),
        zip(layers, found["components"], found["change_percent"], percentiles),
    )
    write_csv(
        folder / "sensitivity.csv",
        ("layer", "ann", "snn_baseline", "snn_optimized", "threshold_percentile"),
        zip(layers, noise["ann"], noise["baseline"], noise["optimized"], percentiles),
    )
    if result["sweep"] is not None:
        weights = result["sweep"]["weights"]
        curves = ((name, row["weight"], row["accuracy"]) for name, rows in weights.items() for row in rows)
        write_csv(
            folder / "cost_sweep.csv",
            ("changed", "weight", "timestep", "accuracy"),
            ((*which, step, value) for *which, curve in curves for step, value in enumerate(curve, 1)),
        )
    base, optimized = run.tested.baseline, run.tested.optimized
    write_csv(
        folder / "accuracy.csv",
        ("timestep", "baseline", "optimized"),
        zip(range(1, run.tested.timesteps + 1), base.accuracy, optimized.accuracy),
    )
    write_csv(
        folder / "thresholds.csv",
        ("layer", "baseline", "optimized", "optimized_percentile"),
        zip(run.layers, run.baseline.threshold[0], run.optimized.threshold[0], run.percentiles),
    )
    _write_costs(folder / "cost.csv", run)


def _write_costs(path: Path, run: FinishedRun) -> None:
    """The cost of every generation's best candidate, its parts and the population's mean."""
    history = [Entries(row, str(run.folder / "history.jsonl")) for row in run.history]
    names = list(history[0].entries("parts").record) if history else []
    rows = []
    for row in history:
        parts = row.entries("parts")
        mean = row.number("mean_cost") if row.known("mean_cost") else None
        costs = (row.number("best_cost"), mean, *(parts.number(name) for name in names))
        rows.append((row.count("generation"), *costs))
    write_csv(path, ("generation", "best_cost", "mean_cost", *names), rows)


if __name__ == "__main__":
    command.main(ExplainConfig, explain, "jaxsnn.explain")
