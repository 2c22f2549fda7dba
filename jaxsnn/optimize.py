"""Find layerwise thresholds that reach the accuracy in the fewest timesteps: python -m jaxsnn.optimize"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import data
import evo
from jaxsnn import command, figures, runfolder
from jaxsnn.codec import Codec
from jaxsnn.errors import UserError
from jaxsnn.evaluation import check_data, compare_on_test, describe_device, versions
from jaxsnn.latency import latency
from jaxsnn.objective import Objective
from jaxsnn.pretrained import load_snn
from jaxsnn.report import comparison_table
from jaxsnn.runfolder import genes_to_json
from jaxsnn.search import Generation, Racing, evolve, select, subsets
from jaxsnn.settings import OptimizeConfig, resolve
from jaxsnn.simulate import Plan
from jaxsnn.snn import Dynamics, check_genes
from jaxsnn.thresholds import Calibration, calibrate


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
