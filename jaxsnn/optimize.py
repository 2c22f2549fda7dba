"""Find layerwise thresholds that reach the accuracy in the fewest timesteps: python -m jaxsnn.optimize"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

import evo
from jaxsnn.analysis.adversarial import ann_victim, perturb
from jaxsnn.analysis.comparison import compare_networks
from jaxsnn.analysis.energy import energy_of, read_costs
from jaxsnn.cli import command, frontier, limits
from jaxsnn.cli.inputs import Inputs, load_inputs
from jaxsnn.cli.open_run import OpenRun
from jaxsnn.cli.options import DebugOptions, HostOptions, Mesh, PlanOptions
from jaxsnn.cli.search_notes import check_costs, note_of, timesteps_in_words
from jaxsnn.conversion.start import Start
from jaxsnn.errors import UserError
from jaxsnn.records import run_folder
from jaxsnn.records.calibrated_network import calibration_record, load_start, save_start
from jaxsnn.records.listing import check_made_by, how_to_resume, resumable
from jaxsnn.records.outcome import SearchResult, results_of, write_results, write_thresholds
from jaxsnn.records.run_config import RunConfig, from_record, to_record
from jaxsnn.reports import energy, run_pages, tensorboard_log
from jaxsnn.reports.limits import limits_table
from jaxsnn.reports.tables import comparison_table
from jaxsnn.runtime import processes
from jaxsnn.runtime.files import plain, read_json
from jaxsnn.runtime.marks import Unrecorded, Where, marked
from jaxsnn.runtime.memory import peak_bytes
from jaxsnn.runtime.provenance import code_version, describe_device, digest, versions
from jaxsnn.search import checkpoint
from jaxsnn.search.checkpoint import Checkpoint
from jaxsnn.search.cost import UpperLimit
from jaxsnn.search.evolve import Candidate, Generation
from jaxsnn.search.job import Job, calibrated_start, calibration_work, history_row, make_codec, make_job
from jaxsnn.search.objective import search_plan
from jaxsnn.search.presets import DEFAULT, preset_values
from jaxsnn.simulation.backends import describe
from jaxsnn.simulation.dense import make_mesh
from jaxsnn.simulation.events.ahead import compiling
from jaxsnn.simulation.plan_table import print_plan


@dataclass(frozen=True, kw_only=True)
class OptimizeConfig(DebugOptions, HostOptions, PlanOptions, RunConfig):
    """Search the thresholds of a converted spiking network with differential evolution.

    Without arguments: the embedded network on the embedded CIFAR-10 images, in about a minute on two cores. The
    result is a table, and a folder with the thresholds, the curves and figures. Ctrl-C stops after the current
    generation and still reports what was found. SIGTERM saves and leaves; --resume continues, also after a crash,
    with the same result as if nothing had happened.
    """

    mesh: Where[Mesh | None] = None
    """Devices of this process to spread candidates and images over, such as pop=4,data=2; default: one device."""
    out: Unrecorded[Path | None] = None
    """Folder of the run; default runs/<preset>-<time>. One that holds this run, unfinished, is resumed."""
    resume: Unrecorded[Path | None] = None
    """Resume the run in this folder, with the settings it was started with; only where and how it computes can be
    given again: --weights, --data-dir, --rows, --block, --memory-limit, --mesh, --threads, --checkpoint-every,
    --tensorboard, --energy, and the other processes."""
    energy: Unrecorded[Path | None] = None
    """TOML file of one's own picojoules an operation, beside the usual ones; results.json holds them."""


MOVABLE = marked(OptimizeConfig, "where")
"""Settings that may change when a run is resumed."""


def resumed(config: OptimizeConfig) -> OptimizeConfig:
    """The configuration of the run in ``--resume``, in whose folder it continues."""
    folder = config.resume
    if folder is None:
        raise ValueError("not a run to resume")
    usual = OptimizeConfig.of(config.preset)
    free = {*MOVABLE, "resume", "debug", "energy", *vars(HostOptions())}
    given = {name: value for name, value in vars(config).items() if value != getattr(usual, name)}
    if config.preset not in (DEFAULT, OptimizeConfig().preset):
        given["preset"] = config.preset
    for name in given:
        if name not in free:
            raise UserError(
                f"--{name.replace('_', '-')} cannot be given with --resume, which uses the settings in "
                f"{folder}/config.json: leave it out, or start a new run"
            )
    check_made_by(folder, "jaxsnn.optimize")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no run of jaxsnn.optimize (no config.json): nothing to resume")
    run_folder.check_folder(folder)
    held = from_record(read_json(folder / "config.json"), folder / "config.json", OptimizeConfig)
    moved = {name: value for name, value in given.items() if name in MOVABLE}
    return replace(held, **moved, out=folder, debug=config.debug, energy=config.energy)


def optimize(config: OptimizeConfig) -> dict:
    """Run the command; returns results.json."""
    started = time.perf_counter()
    folder = config.resume or config.out or Path("runs") / f"{config.preset}-{datetime.now():%Y%m%d-%H%M%S}"
    held = ("config.json", "results.json", "checkpoints/*.checkpoint")
    with processes.joined(config), processes.workplace(folder, held) as mine:
        return _optimize(replace(config, resume=config.resume and mine, out=config.out and mine), mine, started)


def _optimize(config: OptimizeConfig, folder: Path, started: float) -> dict:
    """The command in its folder; the configuration is that of the command line."""
    console = command.TextConsole(quiet=not processes.first())
    with ExitStack() as stack:
        with processes.together():
            if config.resume is not None:
                config = resumed(config)
                if (folder / "results.json").exists():
                    return _finished(folder, console)
            config = config.checked()
            if config.weights is not None:  # a run may be read from another folder
                config = replace(config, weights=config.weights.absolute())
            read_costs(config.energy)  # what is wrong with it is said before the search
            if config.tensorboard:
                tensorboard_log.check_installed()
            make_mesh(config.mesh)
            inputs = load_inputs(config, console)
            _job(config, inputs)  # what does not fit is said before the folder is made
            hashes = inputs.identity()
            stamp = {"versions": versions(), "device": describe_device()}
            record = plain(to_record(config) | hashes)
            identity = {key: value for key, value in record.items() if key not in MOVABLE}
            identity |= {"code": code_version()}
        same = {
            "explain_plan": config.explain_plan,
            "calibration": inputs.calibration.threshold(config.percentile).tolist(),
        }
        processes.check_same(identity | same)
        if config.explain_plan:
            plan = search_plan(config, config.plan())
            print_plan(
                console, inputs.snn, plan, config.dynamics, config.timesteps, config.population, config.images
            )
            return {}
        with processes.together():
            check_made_by(folder, "jaxsnn.optimize")
            run_folder.check_folder(folder)
            stack.enter_context(run_folder.locked(folder))
            stack.enter_context(resumable(folder, "jaxsnn.optimize"))
            run_folder.open_run(folder, record | stamp, free=MOVABLE)
            run_folder.sweep(folder)

        def goodbye() -> None:
            console.print(
                f"stopped by SIGTERM; {how_to_resume(folder, 'jaxsnn.optimize')} continues",
                highlight=False,
                soft_wrap=True,
                markup=False,
            )

        termination = stack.enter_context(command.leave_on_termination(goodbye))
        # several processes leave together, after a generation, or not at all
        termination.deferred = not processes.alone()
        run = OpenRun(config, folder, console, inputs, identity, stamp | hashes, termination, started)
        return frontier.search_frontier(run) if config.objectives else _search(run)


def _finished(folder: Path, console: Console) -> dict:
    """Results of a run that has them; what a process that was killed behind them left to do is done."""
    results = read_json(folder / "results.json")
    if not processes.first():  # whose copy of the folder holds the results alone
        return results
    if (folder / "report.html").exists() and not run_folder.leftovers(folder) and not checkpoint.files(folder):
        sentence = f"{folder} is finished, there is nothing to resume: nothing was changed"
    else:
        with run_folder.locked(folder):
            run_folder.sweep(folder)
            checkpoint.clear(folder)
            if not (folder / "report.html").exists():
                rows = run_folder.read_history(folder / "history.jsonl")
                run_pages.draw(folder, results, rows, partial(command.warn, console))
        sentence = f"{folder} has its results: what had been cut short behind them is done"
    console.print(sentence, highlight=False, soft_wrap=True, markup=False)
    return results


def _draw(folder: Path, results: dict, say: Callable[[str], object]) -> None:
    """Figures and page of a finished run."""
    if "frontier" in results:
        frontier.draw(folder, results, say)
    else:
        run_pages.draw(folder, results, run_folder.read_history(folder / "history.jsonl"), say)


def _job(
    config: OptimizeConfig,
    inputs: Inputs,
    start: Start | None = None,
    progress: Callable[[int], None] | None = None,
) -> Job:
    return make_job(
        config, inputs.snn, inputs.train, inputs.calibration, start=start, plan=config.plan(), progress=progress
    )


def _search(run: OpenRun) -> dict:
    """The command from where its folder is open: search, or resume, compare, write and report the results."""
    config, console, folder = run.config, run.console, run.folder
    saved = checkpoint.newest(folder, console.out)
    processes.check_same({"generation": None if saved is None else saved.generation.number})
    if saved is not None:
        checkpoint.check_identity(saved.identity, run.identity, folder)
        run = replace(run, started=run.started - saved.seconds)
    _introduce(run)
    with command.stop_on_interrupt(console, "generation") as asked, command.progress_bar(console) as bar:
        start = None if config.start == "percentile" else _calibrated(run, bar)
        found, rows = _find(run, start, saved, bar, asked)
        with processes.together():
            write_thresholds(folder, config, run.inputs.snn, run.inputs.sha256, found, start is not None)
        tested = _test(run, start, found, bar)
        if found.limits and start is not None:
            task = bar.add_task("limit", total=2 * len(run.inputs.test), note="beside the calibrated network")
            tested["limits"] = limits.limited(
                run, start, found.optimized, found.limits, lambda n: bar.update(task, advance=n)
            )
    results = results_of(config, run.inputs.snn, tested, found, run.stamp, run.seconds)
    results["energy"] = energy_of(run.inputs.snn.network, tested, read_costs(config.energy))
    if start is not None:
        results["calibration"] = calibration_record(start)
    write_results(folder, results, found)
    checkpoint.clear(folder)
    run_pages.draw(folder, results, rows, partial(command.warn, console))
    if "clean" in results:
        console.print(comparison_table(results["clean"]))
    console.print(comparison_table(results), energy.energy_table(results["energy"]))
    if "limits" in results:
        if found.best.parts["over_limit"] > 0:
            command.warn(console, "no candidate keeps the limits; give more --generations, or save less")
        console.print(limits_table(results["limits"]))
    ended = " (stopped)" if found.stopped_early else " (converged)" if found.last.converged else ""
    weights = "" if start is None else f"weights {' and '.join(start.changed) or 'folded only'}; "
    console.print(
        f"{weights}{found.last.number} generations{ended}, {found.last.evaluations} evaluations "
        f"({found.epochs:.2f} epochs, eq. 17), best cost {found.best.cost:.3f}, "
        f"{results['seconds']:.0f} s in all -> {folder}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    return results


def _introduce(run: OpenRun) -> None:
    config, network = run.config, run.inputs.snn.network
    steps = timesteps_in_words(config, network)
    run.console.print(
        f"{network.name} on {config.data}: {len(network.spiking)} spiking layers, "
        f"{config.population} candidates x {config.images} training images x {steps}, "
        f"at most {config.evaluations} evaluations, on {run.stamp['device']}, "
        f"{describe(search_plan(config, config.plan()), network, config.dynamics)}",
        highlight=False,
        markup=False,
    )


def _calibrated(run: OpenRun, bar: Progress) -> Start:
    """The network to search around, calibrated for the run's timesteps, or read again where a run is resumed."""
    config, inputs, seconds = run.config, run.inputs, time.perf_counter()
    start = load_start(run.folder, inputs.snn)
    if start is None:
        total = calibration_work(config, inputs.snn.network)
        task = bar.add_task("calibrate", total=total, note=f"{config.calibration_images} training images")
        with compiling(inputs.snn, config.plan(), config.dynamics):
            start = calibrated_start(
                config, inputs.snn, inputs.train, lambda count: bar.update(task, advance=count)
            )
        with processes.together():
            save_start(run.folder, start)
        bar.update(task, note=f"{config.calibration_images} images, {time.perf_counter() - seconds:.0f} s")
    arrays = {name: np.asarray(value) for name, value in start.snn.params.items()}
    processes.check_same({"calibrated": digest(arrays)})
    return start


def _find(
    run: OpenRun, start: Start | None, saved: Checkpoint | None, bar: Progress, asked: list
) -> tuple[SearchResult, list[dict]]:
    """Search, or resume from a checkpoint, and choose among the finalists; with the lines of history.jsonl."""
    config = run.config
    task = bar.add_task("search", note="compiling")
    saver = checkpoint.Saver(run.folder, config.checkpoint_every)

    def on_images(count: int) -> None:
        bar.update(task, advance=count)
        if run.termination.asked:  # what is not yet on the disk should not wait for the end of a generation
            saver.write()

    job = _job(config, run.inputs, start, on_images)
    # the first generation scores no parents; the last step compares the finalists
    work = config.population * config.images * (1 if config.subset == "fixed" else 2) * config.views
    finals = config.finalists * job.final_images * config.views if config.finalists > 1 else 0
    total = work * (config.generations + 1) + finals
    bar.update(task, total=total)
    rows: list[dict] = []
    generation = None
    if saved is not None:
        (generation, state), rows = job.restored(saved), [*saved.rows]
        run_folder.write_history(run.folder, rows)
        bar.update(task, completed=generation.image_evaluations)
        bar.console.print(f"resuming after generation {generation.number}", highlight=False)
    else:
        state = job.start()
    run.termination.deferred = True
    last, stopped = _generations(
        run, job, state, generation, rows, saver, lambda note: bar.update(task, note=note), asked
    )
    run.termination.deferred = not processes.alone()
    bar.update(task, note=f"comparing the best {config.finalists} on {job.final_images} training images")
    leaders, image_evaluations = job.final(last)
    bar.update(task, completed=total)
    return _result(run, job, last, leaders[0], image_evaluations, stopped), rows


def _generations(
    run: OpenRun,
    job: Job,
    start: Any,
    after: Generation | None,
    rows: list[dict],
    saver: checkpoint.Saver,
    note: Callable[[str], None],
    asked: list,
) -> tuple[Generation, bool]:
    """Run the generations and record each; returns the last one, and whether somebody stopped the search."""
    config, board = (
        run.config,
        tensorboard_log.Scalars(run.folder / "tensorboard" if run.config.tensorboard else None),
    )
    generation, stopped = after, False
    for generation, state in job.generations(start, after):
        check_costs(generation, config, run.console)
        # the latency shown is to a target that these images can tell: where the first best curve ends
        rows.append(history_row(generation, rows[0]["accuracy"] if rows else generation.best.accuracy[-1]))
        note(note_of(generation, config, rows))
        arrays = evo.state_arrays(state)
        processes.check_same({"candidates": digest(arrays)})
        stop, leave = processes.either(bool(asked), run.termination.asked)
        with processes.together():
            run_folder.write_history(run.folder, rows)
            board.write(rows[-1])
            saver.take(Checkpoint(run.identity, generation, arrays, job.objective.memory(), [*rows], run.seconds))
            if stop or leave or generation.last:
                saver.write()
        if leave:
            run.termination.leave()
        if stop and not generation.last:
            stopped = True
            break
    if generation is None:
        raise ValueError("a search without a generation")
    return generation, stopped


def _result(
    run: OpenRun, job: Job, last: Generation, best: Candidate, final_evaluations: int, stopped: bool
) -> SearchResult:
    if best.genes is None:
        raise ValueError("the best candidate has no genes")
    # each layer is simulated twice on the calibration images: to fit its channels, and to fire
    calibrating = 2 * run.config.calibration_images if run.config.start == "calibrated" else 0
    # and a step of distillation is a forward and a backward pass of each image in its batch
    calibrating += 2 * run.config.distillation * run.config.distillation_batch
    return SearchResult(
        last=last,
        best=best,
        baseline=make_codec(run.config, run.inputs.calibration).baseline(),
        percentiles=run.inputs.calibration.percentile(best.genes.threshold)[0].tolist(),
        stopped_early=stopped,
        train_images=len(run.inputs.train),
        image_evaluations=last.image_evaluations + final_evaluations + calibrating,
        gradient_passes=job.objective.gradient_passes,
        limit_passes=job.objective.limit_passes,
        seconds=run.seconds,
        peak_bytes=peak_bytes(),
        limits={t.name: t.limit for t in job.objective.terms if isinstance(t, UpperLimit)},
    )


def _test(run: OpenRun, start: Start | None, found: SearchResult, bar: Progress) -> dict:
    """Baseline and optimised network on the test images; under attack, with ``clean`` beside it."""
    config, snn, test = run.config, run.inputs.snn, run.inputs.test
    attack = config.attack_used
    work = (2 if start is None else 3) * len(test) * (1 if attack is None else 2)
    task = bar.add_task("test", total=work, note=f"{len(test)} test images, {config.test_timesteps} steps")

    optimized = snn if start is None else start.snn

    def on_test(images: np.ndarray) -> dict:
        return compare_networks(
            (snn, found.baseline),
            (optimized, found.optimized),
            images,
            test.labels,
            config.test_timesteps,
            config.dynamics,
            config.plan(),
            lambda count: bar.update(task, advance=count),
            half_full=start is not None,
        ).to_json()

    tested = on_test(test.images)
    if attack is None:
        return tested
    clean = tested
    clean["baseline"]["percentile"] = config.percentile
    tested = on_test(perturb(ann_victim(snn), attack, test.images, test.labels))
    return tested | {"clean": clean, "attack": attack.record() | {"crafted_on": "ann", "mix": config.attack_mix}}


def parse(arguments: list[str] | None = None) -> OptimizeConfig:
    """The command line's configuration: the options given, and the preset's values."""
    return command.parse_with_preset(OptimizeConfig, preset_values, "jaxsnn.optimize", arguments, usual=DEFAULT)


if __name__ == "__main__":
    command.main(OptimizeConfig, optimize, "jaxsnn.optimize", parse)
