"""Find layerwise thresholds that reach the accuracy in the fewest timesteps: python -m jaxsnn.optimize"""

import math
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
from rich.console import Console

import data
import evo
from jaxsnn.analysis.adversarial import ann_victim, perturb
from jaxsnn.analysis.comparison import compare_on_test
from jaxsnn.cli import command
from jaxsnn.conversion.calibration import Calibration, calibrate
from jaxsnn.conversion.loading import check_data, load_snn
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import SNN, Dynamics, check_genes
from jaxsnn.records import run_folder
from jaxsnn.records.thresholds_file import genes_to_json, thresholds_record
from jaxsnn.reports import figures, tensorboard_log
from jaxsnn.reports.tables import comparison_table
from jaxsnn.runtime import processes
from jaxsnn.runtime.files import plain, read_json, write_json
from jaxsnn.runtime.memory import peak_bytes
from jaxsnn.runtime.provenance import code_version, describe_device, digest, versions
from jaxsnn.search import checkpoint
from jaxsnn.search.checkpoint import Checkpoint
from jaxsnn.search.evolve import Generation, select, subsets
from jaxsnn.search.job import evaluations_of, history_row, make_codec, make_engine, restored, search_steps
from jaxsnn.search.objective import Objective, search_plan
from jaxsnn.search.settings import (
    HOSTS,
    MOVABLE,
    OptimizeConfig,
    attack_in,
    from_record,
    resolve,
    to_record,
    views,
)
from jaxsnn.simulation.backends import describe
from jaxsnn.simulation.plan_table import print_plan


def resumed(config: OptimizeConfig) -> OptimizeConfig:
    """The configuration of the run in ``--resume``, in whose folder it goes on."""
    folder = config.resume
    for name, default in vars(OptimizeConfig()).items():
        if name not in (*MOVABLE, "resume", "debug", *HOSTS) and getattr(config, name) != default:
            raise UserError(
                f"--{name.replace('_', '-')} cannot be given with --resume, which goes on with the settings in "
                f"{folder}/config.json: leave it out, or start a new run"
            )
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no run of jaxsnn.optimize (no config.json): nothing to resume")
    run_folder.check_folder(folder)
    held = from_record(read_json(folder / "config.json"), folder / "config.json")
    given = {
        name: getattr(config, name) for name in MOVABLE if getattr(config, name) != getattr(OptimizeConfig(), name)
    }
    return replace(held, **given, out=folder, debug=config.debug)


def optimize(config: OptimizeConfig) -> dict:
    """Run the command; returns results.json."""
    started = time.perf_counter()
    folder = config.resume or config.out or Path("runs") / f"{config.preset}-{datetime.now():%Y%m%d-%H%M%S}"
    held = ("config.json", "results.json", "checkpoints/*.checkpoint")
    with processes.joined(config), processes.workplace(folder, held) as mine:
        return _optimize(replace(config, resume=config.resume and mine, out=config.out and mine), mine, started)


def _optimize(config: OptimizeConfig, folder: Path, started: float) -> dict:
    """The command in its folder; the configuration is that of the command line."""
    console = Console(quiet=not processes.first())
    with ExitStack() as stack:
        with processes.together():
            if config.resume is not None:
                config = resumed(config)
                if (folder / "results.json").exists():
                    sentence = f"{folder} is finished, there is nothing to resume: nothing was changed"
                    console.print(sentence, highlight=False, soft_wrap=True)
                    return read_json(folder / "results.json")
            config = resolve(config)
            train = data.load(config.data, "train", config.data_dir)
            test = data.load(config.data, "test", config.data_dir, limit=config.test_images)
            snn, sha256 = load_snn(config.weights, config.network, train.images.shape[1:], console.out)
            _check(config, snn, train, test)
            subset = next(subsets(train.labels, config.calibration_images, "fixed", 0))
            calibration = calibrate(snn.network, snn.params, train.images[subset])
            check_genes(snn.network, make_codec(config, calibration).baseline())
            identity = {
                "weights_sha256": sha256,
                "train_sha256": train.content_hash(),
                "test_sha256": test.content_hash(),
            }
            stamp = {"versions": versions(), "device": describe_device()}
            record = plain(to_record(config) | identity)
            what = {key: value for key, value in record.items() if key not in MOVABLE}
            what |= {"code": code_version()}
        same = {
            "explain_plan": config.explain_plan,
            "calibration": calibration.threshold(config.percentile).tolist(),
        }
        processes.check_same(what | same)
        if config.explain_plan:
            dynamics = Dynamics(config.comparison, config.delay)
            plan = search_plan(config)
            print_plan(console, snn, plan, dynamics, config.timesteps, config.population, config.images)
            return {}
        with processes.together():
            run_folder.check_folder(folder)
            stack.enter_context(run_folder.locked(folder))
            run_folder.open_run(folder, record | stamp, free=MOVABLE)
            run_folder.sweep(folder)

        def goodbye() -> None:
            console.print(
                f"stopped by SIGTERM; python -m jaxsnn.optimize --resume {folder} goes on",
                highlight=False,
                soft_wrap=True,
            )

        termination = stack.enter_context(command.leave_on_termination(goodbye))
        # several processes leave together, behind a generation, or not at all
        termination.deferred = not processes.alone()
        return _search(
            config, console, started, train, test, snn, calibration, folder, what, identity, stamp, termination
        )


def _check(config: OptimizeConfig, snn: SNN, train: data.Dataset, test: data.Dataset) -> None:
    """Raise ``UserError`` where a resolved configuration does not fit its network, data or installation."""
    if config.tensorboard:
        tensorboard_log.check_installed()
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


def _search(
    config: OptimizeConfig,
    console: Console,
    started: float,
    train: data.Dataset,
    test: data.Dataset,
    snn: SNN,
    calibration: Calibration,
    folder: Path,
    what: dict,
    identity: dict,
    stamp: dict,
    termination: command.Termination,
) -> dict:
    """The command from where its folder is open: search, or go on with one, compare, and write the results.

    Args:
        started: ``time.perf_counter`` at the start of this process.
        what: what a checkpoint of this run is of.
        identity, stamp: content hashes, and versions and device, for results.json.
    """
    saved = checkpoint.newest(folder, console.out)
    processes.check_same({"generation": None if saved is None else saved.generation.number})
    if saved is not None:
        checkpoint.check_identity(saved.identity, what, folder)
        started -= saved.seconds
    console.print(
        f"[bold]{snn.network.name}[/] on {config.data}: {len(snn.network.spiking)} spiking layers, "
        f"{config.population} candidates x {config.images} training images x {config.timesteps} timesteps, "
        f"at most {evaluations_of(config)} evaluations, on {stamp['device']}, "
        f"{describe(search_plan(config), snn.network)}",
        highlight=False,
    )
    rows: list[dict] = []
    stopped = False
    codec = make_codec(config, calibration)
    engine = make_engine(config, codec)
    saver = checkpoint.Saver(folder, config.checkpoint_every)
    board = tensorboard_log.Scalars(folder / "tensorboard" if config.tensorboard else None)
    with command.stop_on_interrupt(console, "generation") as asked, command.progress_bar(console) as bar:
        # the first generation scores no parents; the last step compares the finalists
        work = config.population * config.images * (1 if config.subset == "fixed" else 2) * views(config)
        final_images = min(config.final_images, len(train))
        finals = config.finalists * final_images * views(config) if config.finalists > 1 else 0
        task = bar.add_task("search", total=work * (config.generations + 1) + finals, note="compiling")

        def on_images(count: int) -> None:
            bar.update(task, advance=count)
            if termination.asked:  # what is not yet on the disk should not wait for the end of a generation
                saver.write()

        objective = Objective(config, snn, train, on_images)
        if saved is None:
            generation, start = None, engine.init(config.seed)
        else:
            generation, rows = saved.generation, saved.rows
            start = restored(saved, config, codec, objective, engine)
            run_folder.write_history(folder, rows)
            bar.update(task, completed=generation.image_evaluations)
            bar.console.print(f"going on behind generation {generation.number}", highlight=False)
        steps = search_steps(config, codec, objective, train.labels, engine, start, generation)
        termination.deferred = True
        for generation, state in steps:
            _check_costs(generation, config, bar.console)
            # the latency shown is to a target that these images can tell: where the first best curve ends
            target = rows[0]["accuracy"] if rows else generation.best.accuracy[-1]
            rows.append(history_row(generation, target))
            bar.update(task, note=_note(generation, config, rows))
            seconds = time.perf_counter() - started
            arrays = evo.state_arrays(state)
            processes.check_same({"candidates": digest(arrays)})
            stop, leave = processes.either(bool(asked), termination.asked)
            with processes.together():
                run_folder.write_history(folder, rows)
                board.write(rows[-1])
                saver.take(Checkpoint(what, generation, arrays, objective.memory(), [*rows], seconds))
                if stop or leave or generation.last:
                    saver.write()
            if leave:
                termination.leave()
            if stop and not generation.last:
                stopped = True
                break
        termination.deferred = not processes.alone()
        leaders = generation.leaders[: config.finalists]
        image_evaluations = generation.image_evaluations
        if len(leaders) > 1:
            bar.update(task, note=f"comparing the best {len(leaders)} on {final_images} training images")
            indices = next(subsets(train.labels, final_images, "fixed", config.seed + 1))
            leaders = select(leaders, codec, objective.terms, objective, indices)
            image_evaluations += len(leaders) * final_images * views(config)
        best = leaders[0]
        bar.update(task, completed=work * (config.generations + 1) + finals)
        seconds, memory = time.perf_counter() - started, peak_bytes()
        optimized = codec.decode(best.vector[None])
        baseline = codec.baseline()
        layers = [layer.name for layer in snn.network.spiking]
        weights, sha256 = config.weights, identity["weights_sha256"]
        dynamics = Dynamics(config.comparison, config.delay)
        thresholds = thresholds_record(snn.network, weights, sha256, optimized, dynamics) | {
            "architecture": config.network,
            "percentile": config.percentile,
            **{f"baseline_{k}": v for k, v in genes_to_json(baseline).items()},
            "percentiles": calibration.percentile(optimized.threshold)[0].tolist(),
        }
        with processes.together():
            write_json(folder / "thresholds.json", thresholds)

        attack = attack_in(config)
        work = 2 * len(test) * (1 if attack is None else 2)
        task = bar.add_task("test", total=work, note=f"{len(test)} test images, {config.test_timesteps} steps")

        def on_test(images: np.ndarray) -> dict:
            return compare_on_test(
                snn,
                baseline,
                optimized,
                images,
                test.labels,
                config.test_timesteps,
                dynamics,
                config.plan(),
                lambda n: bar.update(task, advance=n),
            )

        tested = on_test(test.images)
        if attack is not None:
            clean = tested
            clean["baseline"]["percentile"] = config.percentile
            tested = on_test(perturb(ann_victim(snn), attack, test.images, test.labels))
            tested |= {"clean": clean, "attack": attack.record() | {"crafted_on": "ann", "mix": config.attack_mix}}
    results = tested | {
        "preset": config.preset,
        "data": config.data,
        "seed": config.seed,
        "network": snn.network.name,
        "layers": layers,
        "stopped_early": stopped,
        "converged": generation.converged,
        "generations": generation.number,
        "nfe": generation.evaluations,
        # eq. 17 counts simulated images, and here an attack's gradient passes, each as one image; a pass of the
        # clipped ANN (--limit) costs one timestep, not T
        "training_cost_epochs": (image_evaluations + objective.gradient_passes) / len(train),
        "gradient_passes": objective.gradient_passes,
        "limit_passes": objective.limit_passes,
        "search_seconds": seconds,
        "peak_bytes": memory,
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
    run_folder.write_curves(
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
    # the last file: a run is finished once it is there
    write_json(folder / "results.json", results)
    checkpoint.clear(folder)
    if "clean" in results:
        console.print(comparison_table(results["clean"]))
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


def _check_costs(generation: Generation, config: OptimizeConfig, console: Console) -> None:
    """Say so where the objective cannot tell candidates apart; ``UserError`` where no cost is finite."""
    if not math.isfinite(generation.best.cost):
        raise UserError(
            f"no candidate of generation {generation.number} has a finite cost: lower the weights of the cost's "
            "parts"
        )
    if not math.isfinite(generation.mean):
        console.print(
            f"generation {generation.number}: some candidates have no finite cost and count as the worst"
        )
    elif generation.spread == 0:
        console.print(
            f"generation {generation.number}: all candidates cost the same, {generation.mean:g}, so the search is "
            f"stuck; if that is too early, give it more --images (now {config.images}) or --timesteps"
        )


def _note(generation: Generation, config: OptimizeConfig, rows: list[dict]) -> str:
    """Progress line behind a generation; latency and accuracy are of the best on its training images."""
    before = rows[-2]["image_evaluations"] if len(rows) > 1 else 0
    simulated = (generation.image_evaluations - before) * config.timesteps
    rate = simulated / generation.seconds if generation.seconds else 0
    reached = rows[-1]["latency"]
    of_all = "" if config.engine == "lshade" else f"/{config.generations}"  # L-SHADE's generations shrink
    return (
        f"generation {generation.number}{of_all}, cost {generation.best.cost:.2f}, "
        f"accuracy {100 * generation.best.accuracy[-1]:.1f} %, latency {reached or '-'}, {rate:,.0f} itc/s"
    )


if __name__ == "__main__":
    command.main(OptimizeConfig, optimize, "jaxsnn.optimize")
