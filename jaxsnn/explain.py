"""Explain a run's thresholds, as sections IV.A and IV.B of the paper do: python -m jaxsnn.explain RUN"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console

import data
from jaxsnn.analysis.adversarial import Attack, ann_victim, attack_of, perturb
from jaxsnn.analysis.correlation import correlations, verdict
from jaxsnn.analysis.sensitivity import ann_sensitivity, snn_sensitivity
from jaxsnn.analysis.significance import significance
from jaxsnn.cli import command
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.errors import UserError
from jaxsnn.records.finished_run import FinishedRun, read_run
from jaxsnn.reports import figures, html_report
from jaxsnn.runtime.files import write_csv, write_json
from jaxsnn.search.evolve import subsets
from jaxsnn.search.job import generations, make_codec
from jaxsnn.search.objective import Objective
from jaxsnn.search.settings import attack_in

WEIGHTS = ("alpha", "beta", "gamma")


@dataclass(frozen=True)
class ExplainConfig:
    """Explain a run's thresholds: principal components, noise sensitivity, what each weight of eq. 11 does.

    Only training images are used. Writes explain.json, figures with their numbers as CSV, and report.html into the
    run's folder.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a finished run."""
    weights: Path | None = None
    """The run's weights file, where it has moved."""
    data_dir: Path | None = None
    """Folder of the run's dataset, where it has moved."""
    images: int = 1000
    """Training images for the principal components."""
    variance: float = 0.999
    """Share of the variance that the components are to explain, R of eq. 13."""
    squared: bool = False
    """Sum squared eigenvalues, as eq. 13 is printed, in place of eigenvalues (explained variance, eq. 12)."""
    attack: Literal["fgsm", "pgd"] = "fgsm"
    """Attack behind the noise sensitivity, crafted on the ANN."""
    epsilon: float = 8.0
    """Strength of the attack in grey levels, 1/255 of the pixel range."""
    attack_images: int = 200
    """Training images for the noise sensitivity."""
    timesteps: int | None = None
    """Timesteps over which spikes are summed; default: as many as the run was tested with."""
    sweep_factors: tuple[float, ...] = (0.0, 4.0)
    """Search again with each weight of eq. 11 times each of these; none for no such searches."""
    sweep_population: int = 8
    """Candidates of such a search."""
    sweep_generations: int = 3
    """Its generations behind the initial population."""
    sweep_images: int = 60
    """Training images on which it compares candidates."""
    held_out_images: int = 200
    """Further training images on which the curves of its results are drawn."""
    debug: bool = False
    """Show where an error came from."""


def explain(config: ExplainConfig) -> dict:
    """Run the command; returns explain.json."""
    console = Console()
    least = {"images": 1, "attack_images": 1, "sweep_population": 4, "sweep_generations": 1}
    for name, low in (least | {"sweep_images": 1, "held_out_images": 1}).items():
        if getattr(config, name) < low:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(config, name)}, expected at least {low}")
    if not all(0 <= factor < float("inf") for factor in config.sweep_factors):
        raise UserError(f"--sweep-factors are {config.sweep_factors}, expected at least 0 and finite")
    attack = attack_of(config.attack, config.epsilon)
    run = read_run(config.run, "train", None, config.weights, config.data_dir, console.out)
    train = run.dataset
    wanted = max(config.images, config.attack_images, config.sweep_images + config.held_out_images)
    if wanted > len(train):
        raise UserError(f"{wanted} training images were asked for, but {run.config.data} has only {len(train)}")
    percentiles = run.results["optimized"]["percentiles"]

    console.print(f"principal components on {config.images} training images")
    shown = train.images[data.balanced(train.labels, config.images, 0, "the training split")]
    found = significance(run.snn.network, run.snn.params, shown, config.variance, 2 if config.squared else 1)
    console.print(f"noise sensitivity on {config.attack_images} training images under {attack}")
    sensitivity = _sensitivity(config, run, attack)
    result = {
        "layers": run.layers,
        "percentiles": percentiles,
        "significance": {
            "images": config.images,
            "variance": config.variance,
            "squared": config.squared,
            "components": found.components,
            "change_percent": found.change,
        },
        "sensitivity": sensitivity,
        "correlations": correlations(percentiles, found.change, sensitivity),
        "sweep": None,
    }
    if config.sweep_factors:
        result["sweep"] = _sweep(config, run, console)
    write_json(run.folder / "explain.json", result)
    _draw(run, result)
    _numbers_of_the_run(run)
    for row in result["correlations"]:
        console.print(verdict(row), highlight=False, soft_wrap=True)
    console.print(f"-> {html_report.write(run.folder)}", highlight=False, soft_wrap=True)
    return result


def _sensitivity(config: ExplainConfig, run: FinishedRun, attack: Attack) -> dict:
    chosen = data.balanced(run.dataset.labels, config.attack_images, 1, "the training split")
    some = run.dataset.select(chosen)
    clean, attacked = some.images, perturb(ann_victim(run.snn), attack, some.images, some.labels)
    timesteps = config.timesteps or run.results["timesteps"]
    networks = {
        name: snn_sensitivity(run.snn, genes, clean, attacked, timesteps, run.dynamics)
        for name, genes in (("baseline", run.baseline), ("optimized", run.optimized))
    }
    return {
        "images": config.attack_images,
        "timesteps": timesteps,
        "attack": attack.record(),
        "ann": ann_sensitivity(run.snn, clean, attacked),
        **networks,
    }


def _sweep(config: ExplainConfig, run: FinishedRun, console: Console) -> dict:
    """Small searches with eq. 11 alone, one of its weights changed at a time; as in Fig. 1.

    All start from the same candidates and see the same images. The accuracies of their best candidates are
    measured on other training images, which is fair to all of them.
    """
    train = run.dataset
    small = replace(
        run.config,
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
    own = {name: getattr(run.config, name) for name in WEIGHTS}
    settings = [own]
    for name in WEIGHTS:
        settings += [own | {name: factor * own[name]} for factor in config.sweep_factors]
    settings = [dict(items) for items in dict.fromkeys(tuple(s.items()) for s in settings)]
    chosen = next(subsets(train.labels, run.config.calibration_images, "fixed", 0))
    codec = make_codec(small, calibrate(run.snn.network, run.snn.params, train.images[chosen]))
    # a smaller draw is the start of a larger one: what follows the search's images was not seen by it
    order = next(subsets(train.labels, config.sweep_images + config.held_out_images, "fixed", small.seed))
    held_out = order[config.sweep_images :]
    best = []
    for number, setting in enumerate(settings, 1):
        words = ", ".join(f"{name} {value:g}" for name, value in setting.items())
        console.print(f"search {number} of {len(settings)}: {words}", highlight=False)
        searched = replace(small, **setting)
        *_, last = generations(searched, codec, Objective(searched, run.snn, train), train.labels)
        best.append(last.best)
    genes = codec.decode(np.stack([candidate.vector for candidate in best]))
    observed = Objective(small, run.snn, train)(genes, held_out)
    curves = {
        tuple(setting.items()): {"accuracy": accuracy.tolist(), "cost_parts": candidate.parts}
        for setting, accuracy, candidate in zip(settings, observed.accuracy, best)
    }
    weights = {}
    for name in WEIGHTS:
        values = sorted({own[name], *(factor * own[name] for factor in config.sweep_factors)})
        weights[name] = [{"weight": v} | curves[tuple((own | {name: v}).items())] for v in values]
    attack = attack_in(small)
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


def _draw(run: FinishedRun, result: dict) -> None:
    """The figures, and beside each its numbers as CSV."""
    folder = run.folder / "figures"
    layers, percentiles = result["layers"], result["percentiles"]
    base = run.config.percentile
    found, noise, sweep = result["significance"], result["sensitivity"], result["sweep"]
    figures.significance_and_thresholds(
        layers, found["change_percent"], percentiles, base, folder / "significance.png"
    )
    write_csv(
        folder / "significance.csv",
        ("layer", "components", "change_percent", "threshold_percentile"),
        zip(layers, found["components"], found["change_percent"], percentiles),
    )
    figures.sensitivity_and_thresholds(layers, noise, percentiles, base, folder / "sensitivity.png")
    write_csv(
        folder / "sensitivity.csv",
        ("layer", "ann", "snn_baseline", "snn_optimized", "threshold_percentile"),
        zip(layers, noise["ann"], noise["baseline"], noise["optimized"], percentiles),
    )
    if sweep is None:
        return
    figures.cost_sweep(sweep, folder / "cost_sweep.png")
    write_csv(
        folder / "cost_sweep.csv",
        ("changed", "weight", "timestep", "accuracy"),
        (
            (name, row["weight"], step, accuracy)
            for name, rows in sweep["weights"].items()
            for row in rows
            for step, accuracy in enumerate(row["accuracy"], 1)
        ),
    )


def _numbers_of_the_run(run: FinishedRun) -> None:
    """CSV files beside the figures that jaxsnn.optimize has drawn."""
    folder, results = run.folder / "figures", run.results
    base, found = results["baseline"], results["optimized"]
    write_csv(
        folder / "accuracy.csv",
        ("timestep", "baseline", "optimized"),
        zip(range(1, results["timesteps"] + 1), base["accuracy"], found["accuracy"]),
    )
    write_csv(
        folder / "thresholds.csv",
        ("layer", "baseline", "optimized", "optimized_percentile"),
        zip(run.layers, base["thresholds"], found["thresholds"], found["percentiles"]),
    )
    write_csv(
        folder / "cost.csv",
        ("generation", "best_cost", "mean_cost", *run.history[0]["parts"]),
        ((row["generation"], row["best_cost"], row["mean_cost"], *row["parts"].values()) for row in run.history),
    )


if __name__ == "__main__":
    command.main(ExplainConfig, explain, "jaxsnn.explain")
