"""Attack a run's networks, as section V of the paper does (Table III, Fig. 3): python -m jaxsnn.attack RUN"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

import data
from jaxsnn.analysis.adversarial import Attack, Victim, ann_victim, attack_of, other_classes, perturb, snn_victim
from jaxsnn.analysis.comparison import ann_right, compare_networks
from jaxsnn.analysis.paper_results import HEADINGS, OURS, PAPER, PaperRow
from jaxsnn.analysis.results import TestResult
from jaxsnn.cli import command
from jaxsnn.cli.options import DebugOptions, PlanOptions
from jaxsnn.cli.run_options import RunOptions
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import check_single
from jaxsnn.records.finished_run import FinishedRun, read_run
from jaxsnn.reports import figures, html_report, labels
from jaxsnn.reports.run_pages import spared
from jaxsnn.reports.tables import attack_tables
from jaxsnn.runtime.checks import at_least
from jaxsnn.runtime.files import read_json, write_csv, write_json
from jaxsnn.simulation.observe import observe
from jaxsnn.simulation.plan import Plan
from jaxsnn.simulation.plan_table import print_plan


@dataclass(frozen=True)
class AttackConfig(RunOptions, PlanOptions, DebugOptions):
    """Attack the networks of a run on test images: the ANN, and the SNN with baseline and optimised thresholds.

    Images are attacked on the ANN, and some of them also on each SNN through the surrogate gradient of eq. 18, to
    see how attacks transfer. Adds to attack.json, figures with their numbers as CSV, and report.html in the run's
    folder; run it again for another attack.
    """

    attack: Literal["fgsm", "pgd"] = "fgsm"
    """FGSM (eq. 16), or projected gradient descent from a random start."""
    epsilon: float = 8.0
    """Strength of the attack in grey levels, 1/255 of the pixel range."""
    steps: int = 10
    """Steps of pgd, of epsilon / 4 each."""
    targeted: bool = False
    """Drive each image towards another class, drawn at random, instead of away from its own."""
    images: int = 500
    """Test images over which the networks' curves are drawn."""
    transfer_images: int = 100
    """Test images that are also attacked on the SNNs; 0 for none."""
    timesteps: int | None = None
    """Timesteps of the SNNs; default: as many as the run was tested with."""
    seed: int = 0
    """Of the random starts and targets."""
    batch: int = 25
    """Images that are attacked on an SNN at once; its gradient keeps the membranes of all timesteps."""

    def checked(self) -> "AttackConfig":
        """The same options; raises ``UserError`` where one is out of its range."""
        at_least(self, images=1, transfer_images=0, batch=1, seed=0, timesteps=1)
        if self.transfer_images > self.images:
            raise UserError(
                f"--transfer-images is {self.transfer_images}, expected at most --images, {self.images}"
            )
        return self


@dataclass(frozen=True)
class Scene:
    """A run's networks on its test images, and what is done to them.

    Attributes:
        targets: classes (B,) that the images are driven towards; None drives them away from their own.
        timesteps: of the SNNs.
    """

    run: FinishedRun
    how: Attack
    targets: np.ndarray | None
    timesteps: int
    plan: Plan

    @property
    def test(self) -> data.Dataset:
        return self.run.dataset

    @property
    def title(self) -> str:
        """The attack in words."""
        return str(self.how) if self.targets is None else f"{self.how} (targeted)"

    @property
    def name(self) -> str:
        """The attack in attack.json and in names of files."""
        suffix = "" if self.targets is None else "-targeted"
        return f"{self.how.method}-{self.how.epsilon * 255:.6g}{suffix}"

    def compared(self, images: np.ndarray) -> TestResult:
        """Both SNNs and the ANN on images of the test set."""
        run = self.run
        pair = (run.snn, run.baseline), (run.optimized_snn, run.optimized)
        found = compare_networks(*pair, images, self.test.labels, self.timesteps, run.dynamics, self.plan)
        return replace(found, baseline=replace(found.baseline, percentile=run.config.percentile))

    def ann_accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Share of the images that the ANN takes for ``labels``."""
        return float(ann_right(self.run.snn.network, self.run.snn.params, images, labels).mean())


def attack(config: AttackConfig) -> dict:
    """Run the command; returns what it added to attack.json."""
    console = command.TextConsole()
    how = attack_of(config.checked().attack, config.epsilon, steps=config.steps, seed=config.seed)
    run = read_run(config.run, "test", config.images, config.weights, config.data_dir, console.out)
    if config.transfer_images:
        check_single(run.dynamics, "give --transfer-images 0: attacks on a spiking network are")
    timesteps = config.timesteps or run.tested.timesteps
    silent = run.dynamics.silent_steps(run.snn.network)
    if timesteps <= silent:
        raise UserError(f"--timesteps is {timesteps}, expected more than the layer delay of {silent} steps")
    if config.explain_plan:
        print_plan(console, run.snn, config.plan(), run.dynamics, timesteps, 2, len(run.dataset))
        return {}
    classes, labels_of = run.snn.network.classes, run.dataset.labels
    targets = other_classes(labels_of, classes, config.seed) if config.targeted else None
    scene = Scene(run, how, targets, timesteps, config.plan())
    victims = _victims(scene) if config.transfer_images else {}

    console.print(
        f"{scene.title} on {len(scene.test)} test images, {timesteps} timesteps", highlight=False, markup=False
    )
    attacked = perturb(ann_victim(run.snn), how, scene.test.images, labels_of, targets)
    clean, under = scene.compared(scene.test.images), scene.compared(attacked)
    result = {
        "name": scene.name,
        "title": scene.title,
        "attack": how.record() | {"targeted": config.targeted},
        "data": scene.test.name,
        "images": len(scene.test),
        "timesteps": timesteps,
        "percentile": run.config.percentile,
        "targets_reached": None if targets is None else scene.ann_accuracy(attacked, targets),
        "table": {"headings": HEADINGS, "rows": [*PAPER, *our_rows(run, how, under)]},
        "transfer": _transfer(scene, victims, config.transfer_images, config.batch) if victims else None,
        "clean": clean.to_json(),
        "attacked": under.to_json(),
    }
    _keep(run, result)
    for table in attack_tables(result):
        console.print(table)
    _write_numbers(run, result)
    with spared(partial(command.warn, console), path := run.folder / "figures" / f"attack-{scene.name}.png"):
        figures.clean_and_attacked({"clean": clean, scene.title: under}, path)
    with spared(partial(command.warn, console), run.folder / "report.html"):
        console.print(f"-> {html_report.write(run.folder)}", soft_wrap=True)
    return result


def our_rows(run: FinishedRun, how: Attack, attacked: TestResult) -> list[PaperRow]:
    """Baseline and optimised as rows of Table III, from a comparison on attacked images.

    The timesteps are those from which the SNN stays within a number of points of the ANN under the same attack,
    and its accuracy is the one at that step: of the targets that both SNNs reach, and that a network which has not
    spoken yet does not, the one closest to the ANN. Where there is none, the timesteps are None, and the accuracy
    is the one at the last step.
    """
    silent = max(network.accuracy[0] for network in (attacked.baseline, attacked.optimized))
    both = (
        row
        for row in attacked.latency
        if row.target > silent and row.baseline_timesteps is not None and row.optimized_timesteps is not None
    )
    closest = next(both, None)
    rows = []
    for network, method, steps in (
        (attacked.baseline, labels.baseline_name(attacked.baseline), closest and closest.baseline_timesteps),
        (attacked.optimized, labels.optimized_name(attacked.optimized), closest and closest.optimized_timesteps),
    ):
        if closest is not None:
            method = f"{method}, to {closest.target_name}"
        ann, snn = (
            round(100 * a, 2) for a in (attacked.ann_accuracy, network.accuracy[(steps or attacked.timesteps) - 1])
        )
        rows.append(PaperRow(run.config.data, OURS, str(how), method, run.snn.network.name, ann, snn, steps))
    return rows


def _victims(scene: Scene) -> dict[str, Victim]:
    """The networks of a run that can be attacked, by the names in ``jaxsnn.reports.labels``."""
    run, own = scene.run, (scene.timesteps, scene.run.dynamics, scene.plan.precision)
    return {
        "ann": ann_victim(run.snn),
        "baseline": snn_victim(run.snn, run.baseline, *own),
        "optimized": snn_victim(run.optimized_snn, run.optimized, *own),
    }


def _transfer(scene: Scene, victims: dict[str, Victim], count: int, batch: int) -> dict:
    """Accuracy of each network on ``count`` images attacked on each of them."""
    run, few = scene.run, scene.test.select(np.arange(count))
    targets = None if scene.targets is None else scene.targets[:count]
    rows: dict[str, Any] = {}
    for name in ("clean", *victims):
        images = few.images
        if name in victims:
            images = perturb(victims[name], scene.how, images, few.labels, targets, batch=batch)
        rows[name] = {"ann": scene.ann_accuracy(images, few.labels)}
        networks = {"baseline": (run.snn, run.baseline), "optimized": (run.optimized_snn, run.optimized)}
        for target, (snn, genes) in networks.items():
            observed = observe(
                snn,
                genes,
                images,
                few.labels,
                timesteps=scene.timesteps,
                dynamics=run.dynamics,
                plan=scene.plan,
            )
            rows[name][target] = float(observed.accuracy[0, -1])
    return {"images": len(few), "timesteps": scene.timesteps, "accuracy": rows}


def _keep(run: FinishedRun, result: dict) -> None:
    """Add to attack.json, which keeps the results of other attacks."""
    path = run.folder / "attack.json"
    kept = read_json(path) if path.exists() else {}
    write_json(path, kept | {result["name"]: result})


def _write_numbers(run: FinishedRun, result: dict) -> None:
    """The numbers of the figure and of the tables as CSV."""
    folder, stem = run.folder / "figures", f"attack-{result['name']}"
    curves = [
        (kind, name, step, accuracy)
        for kind in ("clean", "attacked")
        for name in ("baseline", "optimized")
        for step, accuracy in enumerate(result[kind][name]["accuracy"], 1)
    ]
    write_csv(folder / f"{stem}.csv", ("images", "thresholds", "timestep", "accuracy"), curves)
    write_csv(folder / f"{stem}-table.csv", HEADINGS, result["table"]["rows"])
    if result["transfer"]:
        rows = [(source, *row.values()) for source, row in result["transfer"]["accuracy"].items()]
        header = ("attacked_on", "ann", "snn_baseline", "snn_optimized")
        write_csv(folder / f"{stem}-transfer.csv", header, rows)


if __name__ == "__main__":
    command.main(AttackConfig, attack, "jaxsnn.attack")
