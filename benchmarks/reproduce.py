"""The paper's CIFAR-10 result with one's own network: Table II's block and Fig. 3(a), and what saves more.

    python -m benchmarks.reproduce cifar10 --data-dir DIR --weights FILE --network vgg15-bn

For every seed, and for every further set of search dimensions, `python -m jaxsnn.optimize` finds genes on training
images; then the 99.7-percentile network and all of these are run once on all test images. The weights of eq. 11,
strategy, initial population and bounds are those of Table I; population, generations, images and timesteps are
smaller by default (reproduce.json says by how much), so that two cores finish within hours. With `--qcfs` a
network of `python -m jaxsnn.train --activation qcfs` joins them, with its learned ceilings as thresholds and with
searched ones; with `--control` one trained equally long from the same weights but with ReLUs, to tell what the
training did from what the activations do. Searches and tests that are there already are read, so that the command
can be interrupted.
"""

import functools
import hashlib
import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import data
from benchmarks import command
from benchmarks.improvement import summarise
from benchmarks.runs import run_once
from jaxsnn.analysis.comparison import ann_right
from jaxsnn.analysis.latency import latency
from jaxsnn.cli.options import DebugOptions
from jaxsnn.conversion.loading import load_snn
from jaxsnn.errors import UserError
from jaxsnn.networks.activations import SHIFT, ceiling
from jaxsnn.networks.json_format import to_json
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.optimize import OptimizeConfig
from jaxsnn.reports import figures
from jaxsnn.runtime.checks import at_least
from jaxsnn.runtime.files import write_atomically, write_json
from jaxsnn.runtime.provenance import describe_device
from jaxsnn.simulation.observe import observe_images

PAPER = (
    "the paper on CIFAR-10: 91.03 % after 91 timesteps at the 99.7 percentile, 91.05 % after 42 optimised "
    "(53.8 % saved)"
)


ORDINARY, HALF_FULL, CEILINGS, CONTROL = "99.7 percentile", "99.7, v0 = 1/2", "QCFS", "control, v0 = 1/2"


GIVEN = "given"


NETWORK = {"qcfs": "qcfs", "qcfs-v0": "qcfs", "control-v0": "control"}
"""Whose network a search is about, where it is not the given one."""


AT = (4, 8, 16, 32, 64)
"""Timesteps, without delay, whose accuracy is printed."""


COLOURS = {
    ORDINARY: ("99.7 percentile", "black"),
    HALF_FULL: ("99.7 percentile, half full", "grey"),
    "threshold": ("thresholds optimised", "#c44e52"),
    "v0": ("thresholds and v0 optimised", "#4c72b0"),
    "leak": ("thresholds and leak optimised, half full", "#dd8452"),
    CEILINGS: ("QCFS, ceilings, half full", "#55a868"),
    "qcfs": ("QCFS, thresholds optimised, half full", "#8172b3"),
    "qcfs-v0": ("QCFS, thresholds and v0 optimised", "#da8bc3"),
}
"""Label and colour in the figure, which leaves the control to the tables."""


@dataclass(frozen=True)
class Config(DebugOptions):
    """Reproduce a block of Table II."""

    what: Annotated[Literal["cifar10"], tyro.conf.Positional]
    weights: Path | None = None
    """Trained ANN; default: the embedded network."""
    network: str | None = None
    """Network of a file that does not describe it."""
    qcfs: Path | None = None
    """weights.safetensors of jaxsnn.train --activation qcfs, for three further rows."""
    control: Path | None = None
    """weights.safetensors of the same training with ReLUs, for two further rows."""
    data: str = "cifar10"
    data_dir: Path | None = None
    seeds: int = 3
    rows: tuple[Literal["threshold", "v0", "leak"], ...] = ("threshold", "v0", "leak")
    """threshold: as in the paper; v0: initial membranes are searched as well; leak: leaks are, and membranes start
    half full."""
    half_full_timesteps: int = 26
    """Timesteps of the searches whose membranes start half full, all but the row threshold: they need fewer."""
    test_timesteps: int = 100
    baseline_timesteps: int = 200
    """Timesteps of the 99.7-percentile network, which is slower."""
    half_full_test_timesteps: int = 60
    """Timesteps of the networks that start half full, which are faster."""
    test_images: int | None = None
    """Test images; default: all."""
    out: Path = Path("runs/reproduce-cifar10")
    job: OptimizeConfig = field(
        default_factory=lambda: OptimizeConfig.of(
            "cifar10",
            population=16,
            generations=15,
            images=200,
            timesteps=60,
            final_images=500,
            precision="int8",
        )
    )
    """The search; its data, weights, seed and folder are set by the options above."""


class Entry(NamedTuple):
    """A spiking network that meets the test images: one candidate."""

    row: str
    seed: int | None
    snn: SNN
    sha256: str
    genes: Genes
    timesteps: int
    precision: str

    @property
    def name(self) -> str:
        return self.row if self.seed is None else f"{self.row}, seed {self.seed}"


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
    half_full = {"v0": SHIFT, "timesteps": config.half_full_timesteps}
    membranes = half_full | {"search": ("threshold", "v0")}
    # percentile 100 of quantised activations: the ceilings
    quantised = {"weights": config.qcfs, "network": None, "percentile": 100.0}
    different = {
        "threshold": {},
        "v0": membranes,
        "leak": half_full | {"search": ("threshold", "leak"), "precision": "float32"},  # int8 cannot leak
        "qcfs": half_full | quantised,
        "qcfs-v0": membranes | quantised,
        "control-v0": membranes | {"weights": config.control, "network": None},
    }
    rows = (*config.rows, *(row for row, name in NETWORK.items() if getattr(config, name)))
    return {
        row: [
            replace(config.job, **common | different[row], seed=seed, out=config.out / f"{row}-seed{seed}")
            for seed in range(config.seeds)
        ]
        for row in rows
    }


def genes_of(part: dict) -> Genes:
    """The genes of a network in results.json, with one candidate."""
    return Genes.from_record(part).map(lambda part: part.astype(np.float32))


def half_full(threshold: np.ndarray) -> Genes:
    """Genes of these thresholds, (1, L), with membranes that start half full."""
    return Genes(threshold, np.full_like(threshold, SHIFT))


def load(config: Config) -> dict[str, tuple[SNN, str]]:
    """The networks that the user gave, each with its file's sha256."""
    found = {GIVEN: load_snn(config.weights, config.network)}
    first = found[GIVEN][0].network
    for name in ("qcfs", "control"):
        path = getattr(config, name)
        if path is None:
            continue
        found[name] = load_snn(path)
        other = found[name][0].network
        quantised = [layer.levels is not None for layer in other.spiking]
        if name == "qcfs" and not all(quantised):
            raise UserError(f"{path} was not trained with --activation qcfs")
        if name == "control" and any(quantised):
            raise UserError(f"{path} was trained with --activation qcfs: the control has ReLUs")
        if (first.delay, first.classes, first.input_shape) != (other.delay, other.classes, other.input_shape):
            raise UserError(f"{path} has other layers, classes or images than the network of --weights")
    return found


def networks(config: Config, given: dict[str, tuple[SNN, str]], searches: dict[str, list[dict]]) -> list[Entry]:
    """The baseline, empty and half full, the further networks without a search, and what every search found."""

    def percentile(row: str) -> Genes:
        return genes_of(searches[row][0]["baseline"])._replace(v0=None, leak=None)

    ordinary = percentile(config.rows[0])
    precision, few = config.job.precision, config.half_full_test_timesteps
    found = [
        Entry(ORDINARY, None, *given[GIVEN], ordinary, config.baseline_timesteps, precision),
        Entry(HALF_FULL, None, *given[GIVEN], half_full(ordinary.threshold), few, precision),
    ]
    if config.control:
        start = half_full(percentile("control-v0").threshold)
        found.append(Entry(CONTROL, None, *given["control"], start, few, precision))
    if config.qcfs:
        snn = given["qcfs"][0]
        ceilings = np.array([[ceiling(layer, snn.params) for layer in snn.network.spiking]], np.float32)
        found.append(Entry(CEILINGS, None, *given["qcfs"], half_full(ceilings), few, precision))
    for row, results in searches.items():
        for seed, result in enumerate(results):
            found.append(
                Entry(
                    row,
                    seed,
                    *given[NETWORK.get(row, GIVEN)],
                    genes_of(result["optimized"]),
                    config.test_timesteps if row == "threshold" else few,
                    "float32" if row == "leak" else precision,
                )
            )
    return found


def key_of(entry: Entry, comparison: str, test: data.Dataset) -> str:
    """Name of the file that keeps which test images a network gets right."""
    run = (entry.timesteps, entry.precision, comparison)
    parts = [entry.sha256, str(run), to_json(entry.snn.network)]
    arrays = [test.images, test.labels, *(np.zeros(0) if gene is None else gene for gene in entry.genes)]
    digest = hashlib.sha256("".join(parts).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes() + b"|")
    return digest.hexdigest()[:20]


def test_all(config: Config, found: list[Entry], test: data.Dataset, console: Console) -> list[np.ndarray]:
    """Whether each network is right about each test image at each step, bool (B, T) each; kept in files."""
    folder = config.out / "tests"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{key_of(each, config.job.comparison, test)}.npz" for each in found]
    missing = [index for index, path in enumerate(paths) if not path.exists()]
    groups: dict[tuple, list[int]] = {}
    for index in missing:  # candidates of one network that run equally long are simulated together
        each = found[index]
        groups.setdefault((each.sha256, each.timesteps, each.precision), []).append(index)
    with Progress(console=console, disable=not missing) as bar:
        work = sum(found[index].timesteps for index in missing) * len(test)
        task = bar.add_task(f"{len(test)} test images", total=work)
        for members in groups.values():
            first = found[members[0]]
            _, right = observe_images(
                first.snn,
                functools.reduce(Genes.stack, [found[index].genes for index in members]),
                test.images,
                test.labels,
                timesteps=first.timesteps,
                dynamics=Dynamics(config.job.comparison, "layer"),
                plan=replace(config.job.plan(), rows=250, precision=first.precision),
                progress=lambda n, steps=first.timesteps: bar.update(task, advance=n * steps),
            )
            for index, each in zip(members, right):
                packed = io.BytesIO()
                np.savez_compressed(packed, right=np.packbits(each, axis=1))
                write_atomically(paths[index], packed.getvalue())
    return [
        np.unpackbits(np.load(path)["right"], axis=1, count=each.timesteps).astype(bool)
        for path, each in zip(paths, found)
    ]


def draw(report: dict, path: Path) -> None:
    """Acc(t) of every network, one colour a row, as in Fig. 3(a) but for the logarithmic axis."""
    with plt.rc_context(figures.STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 4.2))
        for name, curve in report["curves"].items():
            row, _, seed = name.partition(", seed ")
            if row not in COLOURS:
                continue
            label, colour = COLOURS[row]
            style: dict[str, Any] = {"linewidth": 1, "alpha": 0.8} if seed else {"linewidth": 1.5}
            shown = label if seed in ("", "0") else None
            axes.plot(range(1, len(curve) + 1), 100 * np.array(curve), color=colour, label=shown, **style)
        ann = 100 * report["ann_accuracy"]
        axes.axhline(ann, color=figures.ANN, linestyle=":", linewidth=1, label=f"ANN, {ann:.2f} %")
        axes.set(
            xlabel="timesteps (one step of delay per layer)",
            ylabel=f"accuracy on {report['test_images']:,} test images [%]",
            xscale="log",  # networks that start half full are several times faster
            xlim=(max(report["delay_steps"], 1), max(map(len, report["curves"].values()))),
        )
        low, high = axes.get_xlim()
        ticks = [t for t in (2, 5, 10, 15, 20, 30, 50, 100, 200, 500) if low <= t <= high]
        axes.set_xticks(ticks, list(map(str, ticks)))
        axes.minorticks_off()
        axes.legend(loc="lower right", fontsize=8)
        figures.save(figure, path)


def latencies(rows: dict[str, dict]) -> Table:
    """Table II's block: timesteps to every target."""
    table = Table("row", "target", "99.7 pct.", "optimised (seeds)", "saved", "95 %", "saved, no delay")
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
    return table


def accuracies(report: dict) -> Table:
    """Accuracy in per cent after a few timesteps without delay, and the first from which ANN - 2 is kept."""
    table = Table("network", *map(str, AT), "to ANN - 2", title="accuracy at t, delay not counted")
    for name, curve in report["curves"].items():
        without = np.array(curve[report["delay_steps"] :])
        shown = [f"{100 * without[t - 1]:.2f}" if t <= len(without) else "" for t in AT]
        reached = int(latency(without, report["ann_accuracy"] - 0.02 - 1e-9))
        table.add_row(name, *shown, str(reached or "never"))
    return table


def rows_of(found: list[Entry], rights: list[np.ndarray], ann: np.ndarray, delay: int) -> dict[str, dict]:
    """Latencies of every row but the baseline's, by its name.

    Args:
        rights: (B, T) each, whether the networks in ``found`` are right about each image at each step.
        ann: (B,), whether the ANN is.
        delay: steps of layer delay in ``rights``.
    """
    members: dict[str, list[np.ndarray]] = {}
    for each, right in zip(found[1:], rights[1:]):
        members.setdefault(each.row, []).append(right)
    return {row: summarise([rights[0], *mine], ann, delay) for row, mine in members.items()}


def main(config: Config) -> dict:
    """Run what is missing, print the tables, write reproduce.json and the figure."""
    at_least(config, seeds=1, test_images=1)
    if not config.rows:
        raise UserError("--rows needs one row at least: the baseline is that of its search")
    console = Console()
    given = load(config)
    test = data.load(config.data, "test", config.data_dir, limit=config.test_images)
    wanted = jobs(config)
    searches = {
        row: [run_once(job, given[NETWORK.get(row, GIVEN)][1]) for job in each] for row, each in wanted.items()
    }
    found = networks(config, given, searches)
    rights = test_all(config, found, test, console)
    snn = given[GIVEN][0]
    ann = ann_right(snn.network, snn.params, test.images, test.labels)
    rows = rows_of(found, rights, ann, snn.network.delay)
    for row, results in searches.items():
        for key in ("search_seconds", "training_cost_epochs"):
            rows[row][key] = [result[key] for result in results]
        rows[row]["searched_timesteps"] = wanted[row][0].timesteps
    report = {
        "network": snn.network.name,
        "test_images": len(test),
        "ann_accuracy": float(ann.mean()),
        "delay_steps": snn.network.delay,
        "device": describe_device(),
        "search": {k: getattr(config.job, k) for k in ("population", "generations", "images", "timesteps")},
        "rows": rows,
        "curves": {each.name: right.mean(0).tolist() for each, right in zip(found, rights)},
    }
    console.print(f"{snn.network.name}, ANN {100 * ann.mean():.2f} % on {len(test):,} test images")
    for name, (further, _) in given.items():
        if name != GIVEN:
            own = ann_right(further.network, further.params, test.images, test.labels).mean()
            report[f"{name}_ann_accuracy"] = float(own)
            console.print(f"the ANN of --{name}: {100 * own:.2f} %; targets are those of --weights")
    console.print(latencies(rows))
    console.print(accuracies(report))
    console.print(PAPER)
    write_json(config.out / "reproduce.json", report)
    draw(report, config.out / "accuracy.png")
    console.print(f"-> {config.out}")
    return report


if __name__ == "__main__":
    command.run(Config, main, "reproduce", __doc__)
