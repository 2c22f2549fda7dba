"""Find layerwise thresholds that reach the accuracy in the fewest timesteps: python -m jaxsnn.optimize"""

import functools
import hashlib
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import data
import evo
from jaxsnn import command, cost, figures, runfolder
from jaxsnn.codec import Codec
from jaxsnn.convert import fold
from jaxsnn.errors import UserError
from jaxsnn.evaluation import check_data, compare_on_test, describe_device, versions
from jaxsnn.latency import latency
from jaxsnn.limit import limit_correct
from jaxsnn.network import Network, layer_shapes
from jaxsnn.presets import preset
from jaxsnn.report import comparison_table
from jaxsnn.search import LEADERS, Generation, Racing, evolve, select, subsets
from jaxsnn.simulate import Observables, Plan, observe
from jaxsnn.snn import SNN, Dynamics, Genes, check_genes
from jaxsnn.thresholds import Calibration, calibrate
from jaxsnn.weights import embedded_path, load_weights, to_device

Preset = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the preset's)")]
PresetFloat = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: the preset's)")]


@dataclass(frozen=True)
class OptimizeConfig:
    """Search the thresholds of a converted spiking network with differential evolution.

    Without arguments: the embedded network on the embedded CIFAR-10 images, in about a minute and a half on two
    cores. The result is a table, and a folder with the thresholds, the curves and figures. Ctrl-C stops after the
    current generation and still reports what was found.
    """

    preset: str = "demo"
    """demo, or a row of the paper's Table I: cifar10, cifar100-vgg15, cifar100-vgg11, imagenet, cifar10-attack,
    cifar100-attack."""
    weights: Path | None = None
    """Trained ANN, a .safetensors file of jaxsnn.train; default: the embedded network."""
    data: str = "embedded"
    """Dataset: embedded, cifar10, cifar100, fashion_mnist, mnist, imagefolder or tfds:NAME."""
    data_dir: Path | None = None
    """Folder of the dataset; default $JAXSNN_DATA or ~/.cache/jaxsnn/data."""
    out: Path | None = None
    """Folder of the run; default runs/<preset>-<time>."""
    seed: int = 0

    population: Preset = None
    """Number of candidates P, at least 4."""
    generations: Preset = None
    """Generations behind the initial population, at most."""
    images: Preset = None
    """Training images that a candidate is evaluated on."""
    timesteps: Preset = None
    """Timesteps T of the search, layer delay included."""
    test_timesteps: Preset = None
    """Timesteps of the final comparison on the test images."""
    test_images: int | None = None
    """Test images of the final comparison; default: all."""
    finalists: Preset = None
    """Best candidates that are compared again at the end on more training images, up to 8; 1 for none."""
    final_images: Preset = None
    """Training images of that comparison, at most as many as there are."""
    calibration_images: int = 500
    """Training images from which the percentiles are read."""

    alpha: PresetFloat = None
    """Weight of the step of steepest accuracy gain, eq. 11."""
    beta: PresetFloat = None
    """Weight of 1 - that slope, eq. 11."""
    gamma: PresetFloat = None
    """Weight of 1 - the final accuracy, eq. 11."""
    area: PresetFloat = None
    """Weight of the area above the accuracy curve, in steps; not in the paper."""
    limit: PresetFloat = None
    """Weight of 1 - the accuracy as T goes to infinity, from the ANN clipped at the thresholds (eq. 6); not in the
    paper."""
    limit_images: Preset = None
    """Training images for that, at most as many as there are."""
    spike_weight: float = 0.0
    """Cost of a thousand spikes per image."""
    synop_weight: float = 0.0
    """Cost of a million synaptic operations per image."""
    energy_weight: float = 0.0
    """Cost of a microjoule per image, at 0.9 pJ a synaptic operation."""
    peak_weight: float = 0.0
    """Cost of one spike per neuron and step in the busiest layer."""

    percentile: PresetFloat = None
    """Percentile of the ANN's activations that is the baseline's threshold."""
    std: PresetFloat = None
    """Spread of the initial population around the baseline, in units of the search."""
    space: Literal["normalised", "percentile"] = "normalised"
    """Search thresholds relative to the baseline's, or percentiles."""
    low: PresetFloat = None
    """Lowest threshold, relative to the baseline's."""
    high: PresetFloat = None
    """Highest threshold, relative to the baseline's."""
    search: tuple[Literal["threshold", "v0", "leak"], ...] = ("threshold",)
    """Genes to search, one per layer each."""

    engine: str = "scipy"
    """scipy, evosax, jax, lshade, or evosax:NAME (only differential evolution is the paper's)."""
    strategy: str | None = None
    """Strategy of the engine; default best1bin, SciPy's and so the paper's (its eq. 7 is rand1bin)."""
    mutation: tuple[float, float] = (0.5, 1.5)
    """Range from which each generation's mutation factor is drawn."""
    crossover: float = 0.7
    subset: Literal["fixed", "resample"] = "fixed"
    """Draw the training images once (Algorithm 1) or again for every generation."""
    race: float | None = None
    """Stop evaluating trials that are losing at this confidence, in (0.5, 1]; 1 is exact for a fixed subset.
    Not together with --limit. Default: no racing."""
    tol: PresetFloat = None
    """Stop when the costs' standard deviation is at most this share of their mean."""

    delay: Literal["layer", "none"] = "layer"
    """Count one step of delay per layer (the paper) or none."""
    comparison: Literal[">", ">="] = ">"
    """Fire when the membrane is above the threshold, or at it too."""
    v0: float = 0.0
    """Initial membrane as a fraction of the threshold, where it is not searched."""
    leak: float = 1.0
    """Factor on the membrane at each step, where it is not searched."""
    rows: int = 192
    """Candidates x images that go through the device at once: lower it where memory is short."""
    debug: bool = False
    """Show where an error came from."""


def resolve(config: OptimizeConfig) -> OptimizeConfig:
    """The configuration with the preset's values filled in and every setting checked."""
    chosen = asdict(preset(config.preset))
    config = replace(config, **{k: v for k, v in chosen.items() if getattr(config, k) is None})
    least = {
        "seed": 0,
        "population": 4,
        "generations": 1,
        "images": 1,
        "timesteps": 2,
        "test_timesteps": 2,
        "rows": 1,
        "finalists": 1,
        "limit_images": 1,
    }
    for name, low in (least | {"calibration_images": 1}).items():
        if getattr(config, name) < low:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(config, name)}, expected at least {low}")
    for name in (
        "alpha",
        "beta",
        "gamma",
        "area",
        "limit",
        "spike_weight",
        "synop_weight",
        "energy_weight",
        "peak_weight",
    ):
        if not 0 <= getattr(config, name) < float("inf"):
            raise UserError(
                f"--{name.replace('_', '-')} is {getattr(config, name)}, expected at least 0 and finite"
            )
    if config.finalists > LEADERS:
        raise UserError(f"--finalists is {config.finalists}, expected at most {LEADERS}")
    if config.race is not None:
        if not 0.5 < config.race <= 1:
            raise UserError(f"--race is {config.race}, expected in (0.5, 1]")
        if config.limit:
            raise UserError("--race knows no bound of the accuracy as T grows: leave it out, or set --limit 0")
        if config.engine.startswith("evosax:"):
            raise UserError(
                f"--race needs greedy selection, which {config.engine} does not do; leave one of them out"
            )
    if not 0 < config.low < 1 < config.high:
        raise UserError(
            f"--low {config.low} and --high {config.high} must be above 0, with 1, the baseline, between them"
        )
    if not 0 <= config.v0 < 1 or not 0 < config.leak <= 1:
        raise UserError(f"--v0 is {config.v0}, expected in [0, 1); --leak is {config.leak}, expected in (0, 1]")
    return config


def cost_terms(config: OptimizeConfig, network: Network) -> list[cost.Term]:
    """Eq. 11 and the terms that have a weight."""
    neurons = tuple(int(np.prod(shape)) for shape in layer_shapes(network)[:-1])
    extra = [
        (config.area, lambda weight: cost.Area(weight)),
        (config.limit, lambda weight: cost.Limit(weight)),
        (config.spike_weight, lambda weight: cost.Spikes(weight)),
        (config.synop_weight, lambda weight: cost.SynapticOperations(weight)),
        (config.energy_weight, lambda weight: cost.Energy(weight)),
        (config.peak_weight, lambda weight: cost.PeakActivity(weight, neurons)),
    ]
    first = cost.AccuracyLatency(config.alpha, config.beta, config.gamma)
    return [first, *(make(weight) for weight, make in extra if weight)]


def make_engine(config: OptimizeConfig, codec: Codec) -> evo.Engine:
    """The engine, its initial population N(mean, std^2) with the baseline as one of its members."""
    if config.strategy and config.engine not in ("scipy", "evosax", "jax"):
        raise UserError(f"--strategy is for the engines scipy, evosax and jax; {config.engine} has none")
    options = {"strategy": config.strategy}
    if config.engine in ("scipy", "evosax", "jax"):
        options |= {"mutation": config.mutation, "crossover": config.crossover}
    if config.engine == "lshade":
        options |= {"evaluations": config.population * (config.generations + 1)}
    low, high, mean, std = (codec.spread(name) for name in ("low", "high", "mean", "std"))
    try:
        return evo.make_engine(
            config.engine, low, high, config.population, mean=mean, std=std, tol=config.tol, **options
        )
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error


def load_snn(weights: Path | None) -> tuple[SNN, str]:
    """The converted network of a weights file (None: the embedded one), and the file's sha256."""
    path = embedded_path() if weights is None else weights
    network, params, _ = load_weights(path)
    folded, params = fold(network, params)
    return SNN(folded, to_device(params)), hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def stop_on_interrupt(console: Console) -> Iterator[list]:
    """A list that gets an entry on the first Ctrl-C; the second one ends the program at once."""
    asked: list = []

    def handler(number, frame):
        asked.append(True)
        console.print("stopping after this generation; press Ctrl-C again to end at once")
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, previous)


def history_row(generation: Generation, target: float) -> dict:
    """One line of history.jsonl: what the generation did; ``latency`` is of the best on its training images."""
    return {
        "generation": generation.number,
        "best_cost": generation.best.cost,
        "parts": generation.best.parts,
        "mean_cost": generation.mean,
        "std_cost": generation.spread,
        "accuracy": float(generation.best.accuracy[-1]),
        "latency": int(latency(generation.best.accuracy, target)) or None,
        "nfe": generation.evaluations,
        "image_evaluations": generation.image_evaluations,
        "seconds": generation.seconds,
        "best": generation.best.vector.tolist(),
    }


def plan_of(config: OptimizeConfig) -> Plan:
    """How to simulate; where the population shrinks, groups of one size keep the compiled shape."""
    return Plan(config.rows, group=4 if config.race is not None or config.engine == "lshade" else None)


class Objective:
    """What the search minimises: a configuration's cost of genes on training images."""

    def __init__(self, config: OptimizeConfig, snn: SNN, train: data.Dataset, progress=None):
        """``progress`` is called with the candidates x images that have just been simulated."""
        self.terms = cost_terms(config, snn.network)
        self._observe = functools.partial(
            observe,
            snn,
            timesteps=config.timesteps,
            dynamics=Dynamics(config.comparison, config.delay),
            plan=plan_of(config),
            progress=progress,
        )
        self._snn = snn
        self._train = train
        self._limit_plan = plan_of(config)
        self.limit_passes = 0
        count = min(config.limit_images, len(train)) if config.limit else 0
        self._limit = data.balanced(train.labels, count, config.seed, "the training split") if count else None

    def __call__(self, genes: Genes, indices: np.ndarray) -> Observables:
        """Counts of P candidates on the training images ``indices``."""
        train = self._train
        observed = self._observe(genes, images=train.images[indices], labels=train.labels[indices])
        if self._limit is None:
            return observed
        images, labels = train.images[self._limit], train.labels[self._limit]
        self.limit_passes += len(genes.threshold) * len(labels)
        right = limit_correct(self._snn, genes, images, labels, self._limit_plan)
        return replace(observed, limit_correct=right, limit_images=len(labels))


def generations(
    config: OptimizeConfig, codec: Codec, objective: Objective, labels: np.ndarray
) -> Iterator[Generation]:
    """Algorithm 1 with a resolved configuration, one generation a step; ``labels`` are the training set's."""
    engine = make_engine(config, codec)
    subset = subsets(labels, config.images, config.subset, config.seed)
    steps = evolve(
        engine,
        engine.init(config.seed),
        codec,
        objective.terms,
        objective,
        subset,
        config.generations,
        resample=config.subset == "resample",
        racing=None if config.race is None else Racing(confidence=config.race),
        keep=config.finalists,
    )
    return (generation for generation, _ in steps)


def make_codec(config: OptimizeConfig, calibration: Calibration) -> Codec:
    """The search vector of this configuration."""
    return Codec(
        calibration,
        config.space,
        config.percentile,
        config.std,
        config.low,
        config.high,
        tuple(config.search),
        config.v0,
        config.leak,
    )


def genes_to_json(genes: Genes) -> dict:
    """One candidate's genes as lists; v0 and leak are None where they are not set."""
    lists = [None if part is None else np.asarray(part, np.float64)[0].tolist() for part in genes]
    return dict(zip(("thresholds", "v0", "leak"), lists))


def optimize(config: OptimizeConfig) -> dict:
    """Run the command; returns results.json."""
    started = time.perf_counter()
    console = Console()
    config = resolve(config)
    train = data.load(config.data, "train", config.data_dir)
    test = data.load(config.data, "test", config.data_dir, limit=config.test_images)
    snn, sha256 = load_snn(config.weights)
    for dataset in (train, test):
        check_data(snn.network, dataset.images, len(dataset.classes), f"{dataset.name} ({dataset.split})")
    if max(config.images, config.calibration_images) > len(train):
        raise UserError(
            f"--images is {config.images} and --calibration-images {config.calibration_images}, "
            f"but {config.data} has only {len(train)} training images"
        )
    if config.finalists > 1 and config.final_images < config.images:
        raise UserError(f"--final-images is {config.final_images}, expected at least --images, {config.images}")
    if config.delay == "layer" and min(config.timesteps, config.test_timesteps) <= snn.network.delay:
        raise UserError(
            f"--timesteps {config.timesteps} and --test-timesteps {config.test_timesteps} must be above the layer "
            f"delay of {snn.network.delay} steps: nothing reaches the read-out before"
        )
    make_engine(config, make_codec(config, Calibration(np.ones(len(snn.network.spiking)), np.ones((1, 2)), 0)))
    subset = next(subsets(train.labels, config.calibration_images, "fixed", 0))
    calibration = calibrate(snn.network, snn.params, train.images[subset])
    check_genes(snn.network, make_codec(config, calibration).baseline())

    folder = config.out or Path("runs") / f"{config.preset}-{datetime.now():%Y%m%d-%H%M%S}"
    record = {
        k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items() if k not in ("out", "debug")
    }
    identity = {"weights_sha256": sha256, "train_sha256": train.content_hash(), "test_sha256": test.content_hash()}
    stamp = {"versions": versions(), "device": describe_device()}
    runfolder.open_run(folder, runfolder.plain(record | identity) | stamp)

    console.print(
        f"[bold]{snn.network.name}[/] on {config.data}: {len(snn.network.spiking)} spiking layers, "
        f"{config.population} candidates x {config.images} training images x {config.timesteps} timesteps, "
        f"at most {config.generations} generations, on {stamp['device']}",
        highlight=False,
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    rows: list[dict] = []
    stopped = False
    codec = make_codec(config, calibration)
    with stop_on_interrupt(console) as asked, Progress(*columns, console=console) as bar:
        # the first generation scores no parents; the last step compares the finalists
        work = config.population * config.images * (1 if config.subset == "fixed" else 2)
        final_images = min(config.final_images, len(train))
        finals = config.finalists * final_images if config.finalists > 1 else 0
        task = bar.add_task("search", total=work * (config.generations + 1) + finals, note="compiling")
        objective = Objective(config, snn, train, lambda n: bar.update(task, advance=n))
        for generation in generations(config, codec, objective, train.labels):
            # the latency shown is to a target that these images can tell: where the first best curve ends
            target = rows[0]["accuracy"] if rows else generation.best.accuracy[-1]
            rows.append(history_row(generation, target))
            runfolder.write_history(folder, rows)
            bar.update(task, note=_note(generation, config, rows))
            if asked and generation.number < config.generations:
                stopped = True
                break
        leaders = generation.leaders[: config.finalists]
        image_evaluations = generation.image_evaluations
        if len(leaders) > 1:
            bar.update(task, note=f"comparing the best {len(leaders)} on {final_images} training images")
            indices = next(subsets(train.labels, final_images, "fixed", config.seed + 1))
            leaders = select(leaders, codec, objective.terms, objective, indices)
            image_evaluations += len(leaders) * final_images
        best = leaders[0]
        bar.update(task, completed=work * (config.generations + 1) + finals)
        seconds = time.perf_counter() - started
        optimized = codec.decode(best.vector[None])
        baseline = codec.baseline()
        layers = [layer.name for layer in snn.network.spiking]
        thresholds = {
            "network": snn.network.name,
            "weights": None if config.weights is None else str(config.weights),
            "weights_sha256": sha256,
            "layers": layers,
            "percentile": config.percentile,
            **{f"baseline_{k}": v for k, v in genes_to_json(baseline).items()},
            "percentiles": calibration.percentile(optimized.threshold)[0].tolist(),
            "comparison": config.comparison,
            "delay": config.delay,
        }
        runfolder.write_json(folder / "thresholds.json", thresholds | genes_to_json(optimized))

        task = bar.add_task(
            "test", total=2 * len(test), note=f"{len(test)} test images, {config.test_timesteps} steps"
        )
        tested = compare_on_test(
            snn,
            baseline,
            optimized,
            test.images,
            test.labels,
            config.test_timesteps,
            Dynamics(config.comparison, config.delay),
            Plan(config.rows),
            lambda n: bar.update(task, advance=n),
        )
    results = tested | {
        "preset": config.preset,
        "data": config.data,
        "seed": config.seed,
        "network": snn.network.name,
        "layers": layers,
        "stopped_early": stopped,
        "converged": not stopped and generation.number < config.generations,
        "generations": generation.number,
        "nfe": generation.evaluations,
        # eq. 17 counts simulated images; a pass of the clipped ANN (--limit) costs one timestep, not T
        "training_cost_epochs": image_evaluations / len(train),
        "limit_passes": objective.limit_passes,
        "search_seconds": seconds,
        "seconds": time.perf_counter() - started,
        **stamp,
        **identity,
    }
    results["baseline"] |= {"percentile": config.percentile} | genes_to_json(baseline)
    results["optimized"] |= {
        "percentiles": thresholds["percentiles"],
        "cost": best.cost,
        "cost_parts": best.parts,
    } | genes_to_json(optimized)
    runfolder.write_json(folder / "results.json", results)
    runfolder.write_curves(
        folder,
        baseline=np.array(results["baseline"]["accuracy"]),
        optimized=np.array(results["optimized"]["accuracy"]),
        training=best.accuracy,
    )
    figures.accuracy_curves(results, folder / "figures" / "accuracy.png")
    figures.threshold_bars(
        layers, results["baseline"], results["optimized"], folder / "figures" / "thresholds.png"
    )
    figures.cost_history(rows, folder / "figures" / "cost.png")
    console.print(comparison_table(results))
    ended = " (stopped)" if stopped else " (converged)" if results["converged"] else ""
    console.print(
        f"{generation.number} generations{ended}, {generation.evaluations} evaluations "
        f"({results['training_cost_epochs']:.2f} epochs, eq. 17), best cost {best.cost:.3f}, "
        f"{results['seconds']:.0f} s in all -> {folder}",
        highlight=False,
        soft_wrap=True,
    )
    return results


def _note(generation: Generation, config: OptimizeConfig, rows: list[dict]) -> str:
    """Progress line behind a generation; latency and accuracy are of the best on its training images."""
    before = rows[-2]["image_evaluations"] if len(rows) > 1 else 0
    simulated = (generation.image_evaluations - before) * config.timesteps
    rate = simulated / generation.seconds if generation.seconds else 0
    reached = rows[-1]["latency"]
    return (
        f"generation {generation.number}/{config.generations}, cost {generation.best.cost:.2f}, "
        f"accuracy {100 * generation.best.accuracy[-1]:.1f} %, latency {reached or '-'}, {rate:,.0f} itc/s"
    )


if __name__ == "__main__":
    command.main(OptimizeConfig, optimize, "jaxsnn.optimize")
