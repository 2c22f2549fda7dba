"""The paper's CIFAR-10 result with one's own network: Table II's block and Fig. 3(a).

    python -m benchmarks.reproduce cifar10 --data-dir DIR --weights FILE --network vgg15-bn

For every seed, and for every further set of search dimensions, `python -m jaxsnn.optimize` finds thresholds on
training images; then the 99.7-percentile network and all of these are run once on all test images. Table I's
weights of eq. 11, strategy, initial population and bounds are used; population, generations, images and timesteps
are smaller by default, so that two cores finish within about an hour (the table says by how much). Searches that
are there already are read, so that the command can be interrupted.
"""

import functools
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import matplotlib.pyplot as plt
import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import data
from benchmarks.improvement import summarise
from jaxsnn import figures, runfolder
from jaxsnn.errors import UserError
from jaxsnn.evaluation import ann_right, describe_device, stack
from jaxsnn.optimize import optimize
from jaxsnn.pretrained import load_snn
from jaxsnn.settings import OptimizeConfig, resolve
from jaxsnn.simulate import observe_images
from jaxsnn.snn import Dynamics, Genes

PAPER = "the paper: 91.03 % after 91 timesteps at the 99.7 percentile, 91.05 % after 42 optimised (53.8 % saved)"


@dataclass(frozen=True)
class Config:
    """Reproduce a block of Table II."""

    what: Annotated[Literal["cifar10"], tyro.conf.Positional]
    weights: Path | None = None
    """Trained ANN; default: the embedded network."""
    network: str | None = None
    """Network of a file that does not describe it."""
    data: str = "cifar10"
    data_dir: Path | None = None
    seeds: int = 3
    rows: tuple[Literal["threshold", "v0"], ...] = ("threshold", "v0")
    """threshold: as in the paper; v0: initial membranes are searched as well."""
    v0_timesteps: int = 35
    """Timesteps of the searches of the row v0: membranes that start half full need about half of them."""
    test_timesteps: int = 100
    baseline_timesteps: int = 200
    """Timesteps of the 99.7-percentile network, which is slower."""
    v0_test_timesteps: int = 60
    """Timesteps of the networks that start half full, which are faster."""
    test_images: int | None = None
    """Test images; default: all."""
    out: Path = Path("runs/reproduce-cifar10")
    job: OptimizeConfig = field(
        default_factory=lambda: OptimizeConfig(
            preset="cifar10",
            population=16,
            generations=15,
            images=200,
            timesteps=60,
            final_images=500,
            precision="int8",
        )
    )
    """The search; its data, weights, seed and folder are set by the options above."""


def jobs(config: Config) -> dict[str, list[OptimizeConfig]]:
    """The searches of every row."""
    common = {
        "weights": config.weights,
        "network": config.network,
        "data": config.data,
        "data_dir": config.data_dir,
        "test_images": 100,
        "test_timesteps": config.job.timesteps + 1,
    }
    found: dict[str, list[OptimizeConfig]] = {}
    for row in config.rows:
        extra = {"search": ("threshold", "v0"), "v0": 0.5, "timesteps": config.v0_timesteps} if row == "v0" else {}
        found[row] = [
            replace(config.job, **common, **extra, seed=seed, out=config.out / f"{row}-seed{seed}")
            for seed in range(config.seeds)
        ]
    return found


def run(job: OptimizeConfig) -> dict:
    """results.json of a search, which is run where it is not there yet."""
    if not (job.out / "results.json").exists():
        optimize(job)
    held = runfolder.read_json(job.out / "config.json")
    moved = ("weights", "data_dir")  # the files may lie elsewhere now
    settings = {k: v for k, v in asdict(resolve(job)).items() if k in held and k not in moved}
    wanted = runfolder.plain({k: str(v) if isinstance(v, Path) else v for k, v in settings.items()})
    if any(held[key] != value for key, value in wanted.items()):
        raise UserError(f"{job.out} holds a run with other settings: delete it")
    return json.loads((job.out / "results.json").read_text())


def genes_of(part: dict) -> Genes:
    """The genes of a network in results.json, with one candidate."""
    values = (part.get(key) for key in ("thresholds", "v0", "leak"))
    return Genes(*(None if value is None else np.array([value], np.float32) for value in values))


def draw(report: dict, path: Path) -> None:
    """Acc(t) of every network, one colour a row, as in Fig. 3(a)."""
    colours = {"99.7 percentile": "black", "99.7, v0 = 1/2": "grey", "threshold": "#c44e52", "v0": "#4c72b0"}
    with plt.rc_context(figures.STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 4.2))
        for name, curve in report["curves"].items():
            row, _, seed = name.partition(", seed ")
            label = {"threshold": "thresholds optimised", "v0": "thresholds and v0 optimised"}.get(row, row)
            style = {"linewidth": 1, "alpha": 0.8} if seed else {"linewidth": 1.5}
            shown = label if seed in ("", "0") else None
            axes.plot(range(1, len(curve) + 1), 100 * np.array(curve), color=colours[row], label=shown, **style)
        ann = 100 * report["ann_accuracy"]
        axes.axhline(ann, color=figures.ANN, linestyle=":", linewidth=1, label=f"ANN, {ann:.2f} %")
        axes.set(
            xlabel="timesteps (one step of delay per layer)",
            ylabel=f"accuracy on {report['test_images']:,} test images [%]",
            xlim=(0, max(map(len, report["curves"].values()))),
        )
        axes.legend(loc="lower right", fontsize=8)
        figures.save(figure, path)


def main(config: Config) -> dict:
    """Run what is missing, print the table, write reproduce.json and the figure."""
    console = Console()
    searches = {row: [run(job) for job in each] for row, each in jobs(config).items()}
    test = data.load(config.data, "test", config.data_dir, limit=config.test_images)
    snn, _ = load_snn(config.weights, config.network)
    first = next(iter(searches.values()))[0]
    ordinary = genes_of(first["baseline"] | {"v0": None})
    searched = {row: [genes_of(result["optimized"]) for result in found] for row, found in searches.items()}
    half_full = [ordinary._replace(v0=np.full_like(ordinary.threshold, 0.5)), *searched.get("v0", [])]
    parts = [
        (ordinary, config.baseline_timesteps),
        (functools.reduce(stack, half_full), config.v0_test_timesteps),
    ]
    if "threshold" in searched:
        parts.append((functools.reduce(stack, searched["threshold"]), config.test_timesteps))
    rights: list[np.ndarray] = []
    with Progress(console=console) as bar:
        work = sum(len(part.threshold) * steps for part, steps in parts) * len(test)
        task = bar.add_task(f"{len(test)} test images", total=work)
        for part, steps in parts:
            _, right = observe_images(
                snn,
                part,
                test.images,
                test.labels,
                steps,
                Dynamics(config.job.comparison, "layer"),
                replace(config.job.plan(), rows=250),
                lambda n, steps=steps: bar.update(task, advance=n * steps),
            )
            rights += list(right)
    ann = ann_right(snn.network, snn.params, test.images, test.labels)
    report = {
        "network": snn.network.name,
        "test_images": len(test),
        "ann_accuracy": float(ann.mean()),
        "device": describe_device(),
        "search": {
            k: getattr(resolve(config.job), k) for k in ("population", "generations", "images", "timesteps")
        },
        "half_full_baseline": summarise(rights[:2], ann, snn.network.delay),
        "rows": {},
        "curves": {
            name: right.mean(0).tolist() for name, right in zip(("99.7 percentile", "99.7, v0 = 1/2"), rights)
        },
    }
    table = Table("row", "target", "99.7 pct.", "optimised (seeds)", "saved", "95 %", "saved, no delay")
    for name, found in searches.items():
        at = 2 if name == "v0" else 1 + len(half_full)
        mine = rights[at : at + len(found)]
        report["rows"][name] = summarise([rights[0], *mine], ann, snn.network.delay) | {
            "search_seconds": [result["search_seconds"] for result in found],
            "training_cost_epochs": [result["training_cost_epochs"] for result in found],
        }
        for seed in range(len(found)):
            report["curves"][f"{name}, seed {seed}"] = mine[seed].mean(0).tolist()
    rows = {"v0 = 1/2 alone": report["half_full_baseline"]} | report["rows"]
    for name, each in rows.items():
        for layer, none in zip(each["layer"], each["none"]):
            table.add_row(
                name,
                layer["target"],
                str(layer["baseline_timesteps"] or "never"),
                " ".join(str(v or "never") for v in layer["optimized_timesteps"]),
                "never" if layer["median"] is None else f"{layer['median']:.1f} %",
                "" if layer["ci95"] is None else "{:.1f} to {:.1f} %".format(*layer["ci95"]),
                "never" if none["median"] is None else f"{none['median']:.1f} %",
            )
    console.print(f"{snn.network.name}, ANN {100 * ann.mean():.2f} % on {len(test):,} test images")
    console.print(table)
    console.print(PAPER)
    (config.out / "reproduce.json").write_text(json.dumps(report, indent=2) + "\n")
    draw(report, config.out / "accuracy.png")
    console.print(f"-> {config.out}")
    return report


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m benchmarks.reproduce", description=__doc__))
