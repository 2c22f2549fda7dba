"""jaxsnn.optimize --objectives: calibrate for several timesteps, search the frontier, test its points, report."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

import evo
from jaxsnn.analysis.comparison import ann_right
from jaxsnn.analysis.energy import energy_record, read_costs
from jaxsnn.analysis.operations import Activity
from jaxsnn.cli import command
from jaxsnn.cli.open_run import OpenRun
from jaxsnn.conversion.start import Start
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import Genes
from jaxsnn.records import run_folder
from jaxsnn.records.calibrated_network import load_start, name_for, save_start
from jaxsnn.records.frontier import NAME, Frontier, Point, most_accurate, read_frontier
from jaxsnn.records.thresholds_file import thresholds_record
from jaxsnn.reports import frontier as report
from jaxsnn.reports.run_pages import spared
from jaxsnn.runtime import processes
from jaxsnn.runtime.checks import named
from jaxsnn.runtime.files import plain, write_json
from jaxsnn.runtime.provenance import digest
from jaxsnn.search import checkpoint
from jaxsnn.search.checkpoint import Checkpoint
from jaxsnn.search.evolve import Generation
from jaxsnn.search.front import Front, make_front
from jaxsnn.search.job import calibrated_start, calibration_work, make_codec
from jaxsnn.search.measures import measures
from jaxsnn.simulation.observe import observe


def search_frontier(run: OpenRun) -> dict:
    """The command from where its folder is open; returns results.json."""
    config, console, folder = run.config, run.console, run.folder
    silent = config.dynamics.silent_steps(run.inputs.snn.network)
    if config.front_timesteps[0] <= silent:
        raise UserError(
            f"{named(config, 'front_timesteps')} begins with {config.front_timesteps[0]}, expected more than the "
            f"layer delay of {silent} steps, or --delay none"
        )
    saved = checkpoint.newest(folder, console.out)
    processes.check_same({"generation": None if saved is None else saved.generation.number})
    if saved is not None:
        checkpoint.check_identity(saved.identity, run.identity, folder)
        run = replace(run, started=run.started - saved.seconds)
    console.print(
        f"{run.inputs.snn.network.name} on {config.data}: {' and '.join(config.objectives)}, at T = "
        f"{', '.join(map(str, config.front_timesteps))}, {config.population} candidates x {config.images} "
        f"training images, at most {config.evaluations} evaluations",
        soft_wrap=True,
    )
    with command.stop_on_interrupt(console, "generation") as asked, command.progress_bar(console) as bar:
        starts = _starts(run, bar)
        front, last, rows, stopped = _searched(run, starts, saved, bar, asked)
        vectors, measured, judged = front.final(last)
        frontier = _tested(run, front, vectors, measured, bar)
    calibrating = 2 * config.calibration_images * len(starts)
    best = most_accurate(frontier.points)
    with processes.together():
        write_json(folder / "thresholds.json", _thresholds(run, frontier.points[best]))
        write_json(folder / NAME, frontier.to_json())
    results = {
        "frontier": {
            "points": len(frontier.points),
            "accuracy": frontier.points[best].accuracy,
            "hypervolume": rows[-1]["hypervolume"],
        },
        "preset": config.preset,
        "data": config.data,
        "seed": config.seed,
        "network": run.inputs.snn.network.name,
        "layers": list(frontier.layers),
        "stopped_early": stopped,
        "converged": False,
        "generations": last.number,
        "nfe": last.evaluations,
        "training_cost_epochs": (last.image_evaluations + judged + calibrating) / len(run.inputs.train),
        "seconds": run.seconds,
        **run.stamp,
    }
    write_json(folder / "results.json", results)
    checkpoint.clear(folder)
    draw(folder, results, partial(command.warn, console))
    console.print(report.frontier_table(frontier))
    console.print(
        f"{last.number} generations{' (stopped)' if stopped else ''}, {last.evaluations} evaluations "
        f"({results['training_cost_epochs']:.2f} epochs, eq. 17), {len(frontier.points)} points cover "
        f"{100 * rows[-1]['hypervolume']:.1f} % of the box, {results['seconds']:.0f} s in all -> {folder}; look "
        "at report.html, and take a point with jaxsnn.evaluate or jaxsnn.export --point",
        soft_wrap=True,
    )
    return results


def draw(folder: Path, results: dict, say: Callable[[str], object]) -> None:
    """Figures and page of a frontier; its results are safe whatever becomes of them."""
    frontier, place = read_frontier(folder), folder / "figures"
    with spared(say, path := place / "frontier.png"):
        report.frontier_figure(frontier, path)
    with spared(say, path := place / "hypervolume.png"):
        report.volume_figure(run_folder.read_history(folder / "history.jsonl"), path)
    with spared(say, path := folder / "report.html"):
        report.write_page(folder, f"{results['network']} on {results['data']}: {folder.resolve().name}")


def _starts(run: OpenRun, bar: Progress) -> dict[int, Start]:
    """By timesteps the network calibrated for them, read again where the folder has it."""
    config, inputs = run.config, run.inputs
    each = calibration_work(config, inputs.snn.network)
    task = bar.add_task("calibrate", total=each * len(config.front_timesteps), note="")
    starts = {}
    for count, timesteps in enumerate(config.front_timesteps, 1):
        bar.update(task, note=f"for T = {timesteps}")
        start = load_start(run.folder, inputs.snn, name_for(timesteps))
        if start is None:
            own = replace(config, timesteps=timesteps)
            start = calibrated_start(own, inputs.snn, inputs.train, lambda n: bar.update(task, advance=n))
            with processes.together():
                save_start(run.folder, start, name_for(timesteps))
        bar.update(task, completed=count * each)
        arrays = {name: np.asarray(value) for name, value in start.snn.params.items()}
        processes.check_same({"calibrated": digest(arrays)})
        starts[timesteps] = start
    return starts


def _searched(
    run: OpenRun, starts: Mapping[int, Start], saved: Checkpoint | None, bar: Progress, asked: list
) -> tuple[Front, Generation, list[dict], bool]:
    """The search, the last generation, the lines of history.jsonl, and whether somebody stopped it."""
    config = run.config
    total = config.evaluations * config.images + config.population * min(
        config.final_images, len(run.inputs.train)
    )
    task = bar.add_task("search", total=total, note="compiling")
    saver = checkpoint.Saver(run.folder, config.checkpoint_every)

    def on_images(count: int) -> None:
        bar.update(task, advance=count)
        if run.termination.asked:  # what is not yet on the disk should not wait for the end of a generation
            saver.write()

    front = make_front(config, starts, run.inputs.train, config.plan(), on_images)
    rows: list[dict] = []
    generation, stopped = None, False
    begin = front.engine.init(config.seed)
    if saved is not None:
        (generation, begin), rows = front.restored(saved), [*saved.rows]
        run_folder.write_history(run.folder, rows)
        bar.update(task, completed=generation.image_evaluations)
        bar.console.print(f"resuming after generation {generation.number}", highlight=False)
    run.termination.deferred = True
    steps = front.generations(begin, generation, rows[0]["reference"] if rows else None)
    for generation, state, row in steps:
        rows.append(row)
        volume, seconds = row["hypervolume"], max(row["seconds"], 1e-9)
        note = f"generation {generation.number}/{config.generations}, {row['points']} points, "
        bar.update(task, note=f"{note}{100 * volume:.1f} % of the box, {seconds:.1f} s")
        arrays = evo.state_arrays(state)
        processes.check_same({"candidates": digest(arrays)})
        stop, leave = processes.either(bool(asked), run.termination.asked)
        with processes.together():
            run_folder.write_history(run.folder, rows)
            saver.take(Checkpoint(run.identity, generation, arrays, {}, [*rows], run.seconds))
            if stop or leave or generation.last:
                saver.write()
        if leave:
            run.termination.leave()
        if stop and not generation.last:
            stopped = True
            break
    run.termination.deferred = not processes.alone()
    if generation is None:
        raise ValueError("a search without a generation")
    bar.update(task, note="judging the frontier on more training images")
    return front, generation, rows, stopped


def _tested(
    run: OpenRun, front: Front, vectors: np.ndarray, measured: Mapping[str, np.ndarray], bar: Progress
) -> Frontier:
    """All points on the test images, each image seen once by each."""
    config, snn, test = run.config, run.inputs.snn, run.inputs.test
    task = bar.add_task("test", total=len(vectors) * len(test), note=f"{len(vectors)} points, {len(test)} images")
    own = front.steps_of(vectors)
    points: dict[int, Point] = {}
    for timesteps, start in front.starts.items():
        rows = np.flatnonzero(own == timesteps)
        if not len(rows):
            continue
        genes = front.genes_of(vectors[rows], timesteps)
        observed = observe(
            start.snn,
            genes,
            test.images[:],
            test.labels,
            timesteps=timesteps,
            dynamics=config.dynamics,
            plan=config.plan(),
            progress=lambda count: bar.update(task, advance=count),
        )
        network = start.snn.network
        silent = config.dynamics.silent_steps(network)
        found = measures(network, observed, silent, config.energy_kind)
        for place, row in enumerate(rows):
            spikes, synops = (
                tuple((counts[place] / observed.images).tolist()) for counts in (observed.spikes, observed.synops)
            )
            activity = {"point": Activity(timesteps - silent, spikes, synops)}
            totals = energy_record(network, activity, read_costs(config.energy))["totals"]
            points[int(row)] = Point(
                timesteps,
                genes.candidate(place),
                _same(genes.candidate(place), start.genes),
                {name: float(measured[name][row]) for name in config.objectives},
                float(observed.accuracy[place, -1]),
                spikes,
                synops,
                float(found["peak"][place]),
                {kind: total["point"] for kind, total in totals.items()},
            )
    return Frontier(
        tuple(config.objectives),
        config.energy_kind,
        config.delay,
        float(ann_right(snn.network, snn.params, test.images[:], test.labels).mean()),
        len(test),
        tuple(layer.name for layer in snn.network.spiking),
        tuple(points[row] for row in sorted(points)),
    )


def _same(one: Genes, other: Genes) -> bool:
    pairs = zip(one.to_record().values(), other.to_record().values())
    return all(np.allclose(a or 0, b or 0, rtol=1e-12, atol=0) for a, b in pairs)


def _thresholds(run: OpenRun, point: Point) -> dict[str, Any]:
    """thresholds.json of the most accurate point."""
    config, inputs = run.config, run.inputs
    baseline = make_codec(config, inputs.calibration).baseline()
    record = thresholds_record(inputs.snn.network, config.weights, inputs.sha256, point.genes, config.dynamics)
    return plain(
        record
        | {
            "architecture": config.network,
            "percentile": config.percentile,
            **{f"baseline_{key}": value for key, value in baseline.to_record().items()},
            "calibrated": name_for(point.timesteps),
            "timesteps": point.timesteps,
        }
    )
