"""Attack a run's networks, as section V of the paper does (Table III, Fig. 3): python -m jaxsnn.attack RUN"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console

import data
from jaxsnn.analysis.adversarial import Attack, Victim, ann_victim, attack_of, other_classes, perturb, snn_victim
from jaxsnn.analysis.comparison import ann_right, compare_on_test
from jaxsnn.analysis.paper_results import HEADINGS, PAPER
from jaxsnn.cli import command
from jaxsnn.cli.options import PlanOptions
from jaxsnn.errors import UserError
from jaxsnn.records.finished_run import FinishedRun, read_run
from jaxsnn.reports import figures, html_report
from jaxsnn.reports.tables import _tables
from jaxsnn.runtime.files import read_json, write_csv, write_json
from jaxsnn.simulation.observe import observe
from jaxsnn.simulation.plan import Plan
from jaxsnn.simulation.plan_table import print_plan


@dataclass(frozen=True)
class AttackConfig(PlanOptions):
    """Attack the networks of a run on test images: the ANN, and the SNN with baseline and optimised thresholds.

    Images are attacked on the ANN, and some of them also on each SNN through the surrogate gradient of eq. 18, to
    see how attacks transfer. Adds to attack.json, figures with their numbers as CSV, and report.html in the run's
    folder; run it again for another attack.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a finished run."""
    weights: Path | None = None
    """The run's weights file, where it has moved."""
    data_dir: Path | None = None
    """Folder of the run's dataset, where it has moved."""
    attack: Literal["fgsm", "pgd"] = "fgsm"
    """FGSM (eq. 16), or projected gradient descent from a random start."""
    epsilon: float = 8.0
    """Strength of the attack in grey levels, 1/255 of the pixel range."""
    steps: int = 10
    """Steps of pgd, of epsilon / 4 each."""
    targeted: bool = False
    """Drive each image towards another class, drawn at random, in place of away from its own."""
    images: int = 500
    """Test images, the networks' curves are drawn over."""
    transfer_images: int = 100
    """Test images that are also attacked on the SNNs; 0 for none."""
    timesteps: int | None = None
    """Timesteps of the SNNs; default: as many as the run was tested with."""
    seed: int = 0
    """Of the random starts and targets."""
    batch: int = 25
    """Images that are attacked on an SNN at once; its gradient keeps the membranes of all timesteps."""
    debug: bool = False
    """Show where an error came from."""


def attack(config: AttackConfig) -> dict:
    """Run the command; returns what it added to attack.json."""
    console = Console()
    for name, low in (("images", 1), ("transfer_images", 0), ("batch", 1), ("seed", 0)):
        if getattr(config, name) < low:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(config, name)}, expected at least {low}")
    if config.transfer_images > config.images:
        raise UserError(
            f"--transfer-images is {config.transfer_images}, expected at most --images, {config.images}"
        )
    how = attack_of(config.attack, config.epsilon, steps=config.steps, seed=config.seed)
    run = read_run(config.run, "test", config.images, config.weights, config.data_dir, console.out)
    test, plan = run.dataset, config.plan()
    timesteps = config.timesteps or run.results["timesteps"]
    if timesteps <= run.dynamics.silent_steps(run.snn.network):
        raise UserError(
            f"--timesteps is {timesteps}, expected more than the layer delay of "
            f"{run.dynamics.silent_steps(run.snn.network)} steps"
        )
    if config.explain_plan:
        print_plan(console, run.snn, plan, run.dynamics, timesteps, 2, len(test))
        return {}
    victims = _victims(run, timesteps, plan.precision) if config.transfer_images else {}
    targets = other_classes(test.labels, run.snn.network.classes, config.seed) if config.targeted else None

    console.print(f"{how}{' (targeted)' * config.targeted} on {len(test)} test images, {timesteps} timesteps")
    attacked = perturb(ann_victim(run.snn), how, test.images, test.labels, targets)
    kinds = {
        name: compare_on_test(
            run.snn,
            run.baseline,
            run.optimized,
            images,
            test.labels,
            timesteps,
            run.dynamics,
            plan,
        )
        for name, images in (("clean", test.images), ("attacked", attacked))
    }
    result = {
        "name": f"{config.attack}-{config.epsilon:g}{'-targeted' * config.targeted}",
        "title": f"{how}{' (targeted)' * config.targeted}",
        "attack": how.record() | {"targeted": config.targeted},
        "data": test.name,
        "images": len(test),
        "timesteps": timesteps,
        "percentile": run.config.percentile,
        "targets_reached": None if targets is None else _reached(run, attacked, targets),
        "table": {"headings": HEADINGS, "rows": [*PAPER, *our_rows(run, how, kinds["attacked"])]},
        "transfer": None,
        **kinds,
    }
    if config.transfer_images:
        few = test.select(np.arange(config.transfer_images))
        result["transfer"] = _transfer(
            run, victims, how, few, None if targets is None else targets[: len(few)], timesteps, plan, config.batch
        )
    _write(run, result)
    for table in _tables(result):
        console.print(table)
    console.print(f"-> {html_report.write(run.folder)}", highlight=False, soft_wrap=True)
    return result


def our_rows(run: FinishedRun, how: Attack, attacked: dict) -> list[tuple]:
    """Baseline and optimised as rows of Table III, in percent, from ``compare_on_test`` on attacked images.

    The timesteps are those from which the SNN stays within a number of points of the ANN under the same attack,
    and its accuracy is the one at that step: of the targets that both SNNs reach, and that a network which has not
    spoken yet does not, the one closest to the ANN. Where there is none, the timesteps are None, and the accuracy
    is the one at the last step.
    """
    networks = (("baseline", f"{run.config.percentile:g} percentile"), ("optimized", "optimised"))
    silent = max(attacked[name]["accuracy"][0] for name, _ in networks)
    both = (
        row
        for row in attacked["latency"]
        if row["target"] > silent and all(row[f"{name}_timesteps"] for name, _ in networks)
    )
    closest = next(both, None)
    rows = []
    for name, method in networks:
        steps, accuracy = closest and closest[f"{name}_timesteps"], attacked[name]["accuracy"]
        method += f", to {closest['target_name']}" if closest else ""
        percent = (round(100 * a, 2) for a in (attacked["ann_accuracy"], accuracy[(steps or len(accuracy)) - 1]))
        rows.append((run.config.data, "this run", str(how), method, run.snn.network.name, *percent, steps))
    return rows


def _reached(run: FinishedRun, images: np.ndarray, targets: np.ndarray) -> float:
    """Share of the images that the ANN takes for their targets."""
    return float(ann_right(run.snn.network, run.snn.params, images, targets).mean())


def _victims(run: FinishedRun, timesteps: int, precision: str) -> dict[str, Victim]:
    """The networks of a run that can be attacked, by the names that jaxsnn.reports.html_report knows."""
    own = (timesteps, run.dynamics, precision)
    return {
        "ann": ann_victim(run.snn),
        "baseline": snn_victim(run.snn, run.baseline, *own),
        "optimized": snn_victim(run.snn, run.optimized, *own),
    }


def _transfer(
    run: FinishedRun,
    victims: dict[str, Victim],
    how: Attack,
    test: data.Dataset,
    targets: np.ndarray | None,
    timesteps: int,
    plan: Plan,
    batch: int,
) -> dict:
    """Accuracy of each network on images attacked on each of them."""
    rows = {}
    for name in ("clean", *victims):
        images = test.images
        if name in victims:
            images = perturb(victims[name], how, images, test.labels, targets, batch=batch)
        rows[name] = {"ann": float(ann_right(run.snn.network, run.snn.params, images, test.labels).mean())}
        for target, genes in (("baseline", run.baseline), ("optimized", run.optimized)):
            observed = observe(run.snn, genes, images, test.labels, timesteps, run.dynamics, plan)
            rows[name][target] = float(observed.accuracy[0, -1])
    return {"images": len(test), "timesteps": timesteps, "accuracy": rows}


def _write(run: FinishedRun, result: dict) -> None:
    """attack.json, which keeps the results of other attacks, the figure, and the numbers as CSV."""
    path = run.folder / "attack.json"
    kept = read_json(path) if path.exists() else {}
    write_json(path, kept | {result["name"]: result})
    figure = run.folder / "figures" / f"attack-{result['name']}.png"
    panels = {"clean": result["clean"], result["title"]: result["attacked"]}
    figures.clean_and_attacked(panels, f"{result['percentile']:g} percentile", figure)
    curves = [
        (kind, name, step, accuracy)
        for kind in ("clean", "attacked")
        for name in ("baseline", "optimized")
        for step, accuracy in enumerate(result[kind][name]["accuracy"], 1)
    ]
    write_csv(figure.with_suffix(".csv"), ("images", "thresholds", "timestep", "accuracy"), curves)
    write_csv(figure.with_name(f"{figure.stem}-table.csv"), HEADINGS, result["table"]["rows"])
    if result["transfer"]:
        rows = [(source, *row.values()) for source, row in result["transfer"]["accuracy"].items()]
        header = ("attacked_on", "ann", "snn_baseline", "snn_optimized")
        write_csv(figure.with_name(f"{figure.stem}-transfer.csv"), header, rows)


if __name__ == "__main__":
    command.main(AttackConfig, attack, "jaxsnn.attack")
