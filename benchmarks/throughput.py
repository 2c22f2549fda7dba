"""Simulated image x timestep x candidate a second (itc/s): ours, and other simulators in the same run.

    python -m benchmarks.throughput --quick            # about 3 minutes on two cores
    python -m benchmarks.throughput                    # the whole grid; a cell over --limit seconds is left out
    python -m benchmarks.throughput --sweep            # and time against spikes
    python -m benchmarks.throughput --networks vgg15 --delay none --timesteps 16 --peer-timesteps 16

Networks: VGG15 (full width, random weights), the embedded one, VGG15 at 224x224, and with ``--weights`` any
trained one. Thresholds are the 99.7 percentile's; candidates differ from it by 5 %. Images are random bytes unless
``--data`` is given: activity depends on them, so that the spike density of every layer is printed.

What is counted. Executed itc/s counts the steps that are really simulated, nominal itc/s the T that is reported:
with one step of delay per layer (``--delay layer``) the first steps cannot reach the read-out and are not
simulated. A peer knows no such shift: it executes every step that it counts, so that its two rates are equal, and
in the comparison both sides execute the same number of steps. Executed FLOP/s counts the multiply-accumulates that
the lowering really does and stands against the best dot product of the same precision, measured before and after
in the same run; dense-equivalent FLOP/s is what the plain network (every tap, every step) would need. They are
never mixed. Synaptic additions are spikes times the weights that each drives, and stand against the additions
that the cores reach on operands in cache; only an event-driven back-end has any.

How. Every contender is a process of its own, idle until it is told to run, so that neither thread pools nor peaks
of memory mix (``benchmarks.contenders.worker`` describes the peers); CPU time spent waiting is measured.
Contenders take turns in rounds, so that a drift of the machine hits all; a ratio is the median of the rounds'
ratios. Figures are medians over the rounds with their range. Compile time is the first run less the median.
"""

import json
import math
import multiprocessing
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.contenders import entries
from benchmarks.contenders.turns import Failed, Worker, spread, take_turns
from benchmarks.problem import (
    CIFAR_PIXELS,
    Case,
    additions_per_synop,
    load_problem,
    macs,
    make_problem,
    neurons,
    random_params,
    save_problem,
)
from benchmarks.throughput_report import (
    Report,
    as_csv,
    draw,
    draw_sweep,
    show_comparison,
    show_density,
    show_peaks,
    show_rows,
    show_sweep,
)
from jaxsnn.cli import command
from jaxsnn.errors import UserError
from jaxsnn.runtime.files import write_atomically, write_json

IDLE_WARNING = 0.02
"""Share of a round's time that a waiting contender may spend on a CPU before a line says so."""


@dataclass(frozen=True)
class ThroughputConfig:
    """Measure the population simulator and its peers."""

    networks: tuple[Literal["vgg15", "embedded", "vgg15-224"], ...] = ("vgg15", "embedded", "vgg15-224")
    """VGG15 with random weights, the network that comes with the package, VGG15 on 224x224 images."""
    weights: tuple[Path, ...] = ()
    """Files of trained networks to measure too."""
    data: str = "random"
    """Images: random bytes, or the test images of embedded, cifar10, ... where they fit the network."""
    data_dir: Path | None = None
    """Folder of the dataset."""
    population: tuple[int, ...] = (1, 5, 25, 100)
    """Numbers of candidates P."""
    timesteps: tuple[int, ...] = (16, 42, 100)
    """Numbers of timesteps T, nominal."""
    delay: Literal["layer", "none"] = "layer"
    """Count one step of delay per layer, or none."""
    images: int = 4
    """Images of 32x32; larger ones count by their pixels, at least one."""
    rounds: int = 3
    """Timed runs of every contender, after one that compiles."""
    contenders: tuple[str, ...] = ()
    """Names to measure; default: all that are installed."""
    peers: bool = True
    """Compare with the other simulators that are installed."""
    peer_images: int = 64
    """Images of the comparison, like --images."""
    peer_timesteps: int = 42
    """Nominal timesteps of the comparison."""
    peer_population: int = 1
    """Candidates that ours simulates in the comparison; the peers do one."""
    batches: tuple[int, ...] = (1, 4, 16, 64)
    """Batch sizes from which each peer gets its best."""
    sweep: bool = False
    """Also scale all thresholds, to see how time grows with spikes."""
    scales: tuple[float, ...] = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
    """Factors on the thresholds in the sweep."""
    quick: bool = False
    """VGG15 alone, P = 5, T = 42, 16 images in one batch in the comparison, no peer that compiles."""
    limit: float = 120.0
    """Leave out what is expected to take longer than so many seconds a run."""
    seed: int = 0
    out: Path = Path("runs/throughput")
    debug: bool = False
    """Show where an error came from."""


def prepare(source: str, config: ThroughputConfig, path: Path) -> str:
    """Write the problem of one network; returns what its images are. To be run in a process of its own."""
    import data
    from jaxsnn.conversion.folding import fold
    from jaxsnn.conversion.loading import check_data, load_snn
    from jaxsnn.networks.architectures import architecture
    from jaxsnn.networks.description import shapes_of

    trained = source not in ("vgg15", "vgg15-224")
    if trained:
        snn, _ = load_snn(None if source == "embedded" else Path(source))
        network, params = snn.network, snn.params
    else:
        large = {"input_shape": (224, 224, 3), "classes": 1000} if source == "vgg15-224" else {}
        network = architecture("vgg15", **large)
        nothing = {name: np.zeros(shape, np.float32) for name, shape in shapes_of(network).items()}
        network, params = fold(network, nothing)
    pixels = math.prod(network.input_shape[:2])
    count = max(1, max(config.images, config.peer_images, 4) * CIFAR_PIXELS // pixels)
    calibration_count = max(2, (500 if trained else 64) * CIFAR_PIXELS // pixels)
    described = "random images"
    if config.data != "random":
        test = data.load(config.data, "test", config.data_dir, limit=count)
        train = data.load(config.data, "train", config.data_dir, limit=calibration_count)
        try:
            check_data(network, test.images, len(test.classes), test.name)
            images, calibration = test.images, train.images
            described = f"test images of {config.data}"
        except UserError:
            described = f"random images, because those of {config.data} do not fit"
    if described.startswith("random"):
        rng = np.random.default_rng(config.seed)
        shape = network.input_shape
        images, calibration = (
            rng.integers(0, 256, (n, *shape), dtype=np.uint8) for n in (count, calibration_count)
        )
    if not trained:
        params = random_params(network, calibration[:32], config.seed)
    candidates = max(*config.population, config.peer_population)
    checked = min(4, count)
    problem = make_problem(network, params, images, calibration, candidates, checked, config.seed)
    save_problem(path, problem)
    return described


def machine() -> dict:
    """``benchmarks.machine`` in a process of its own."""
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.machine"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(found.stdout)


def best_of(first: dict, second: dict) -> dict:
    """Both measurements of the machine and the better of each figure."""
    dots = {
        precision: max(max(found["dot_gflops"].get(precision, {"": 0}).values()) for found in (first, second))
        for precision in first["dot_gflops"]
    }
    additions = max(max(found["gigaadditions"].values()) for found in (first, second))
    return {
        "facts": {k: v for k, v in first.items() if k not in ("dot_gflops", "gigaadditions")},
        "before": {k: first[k] for k in ("dot_gflops", "gigaadditions")},
        "after": {k: second[k] for k in ("dot_gflops", "gigaadditions")},
        "best_dot_gflops": dots,
        "best_gigaadditions": additions,
    }


def row_of(case: Case, name: str, measured: dict, work: dict, images: int) -> dict:
    """One line of the tables.

    Args:
        work: population, timesteps and executed_steps of the run.
    """
    entry, network = entries.ENTRIES[name], case.network
    executed = work["population"] * images * work["executed_steps"]
    nominal = work["population"] * images * work["timesteps"]
    if name in entries.PEERS:
        nominal = executed
    seconds = spread(measured["seconds"])
    rate = {
        "median": executed / seconds["median"],
        "min": executed / seconds["max"],
        "max": executed / seconds["min"],
    }
    row = {"network": case.name, "contender": name, "precision": entry.precision} | work | {"images": images}
    row |= {
        "compile_seconds": max(0.0, measured["first"] - seconds["median"]),
        "seconds": seconds,
        "nominal_itc_per_second": nominal / seconds["median"],
        "executed_itc_per_second": rate,
        "peak_mb": measured["memory"]["process_mb"],
        "loaded_mb": measured["loaded"]["process_mb"],
        "device_peak_mb": measured["memory"].get("device_mb"),
        "dense_equivalent_gflops": 2e-9 * macs(network) * rate["median"],
        "executed_gflops": None,
        "gigaadditions": None,
        "waiting_cpu_seconds": measured["waiting_cpu_seconds"],
    }
    if entry.executed_macs is not None:
        row["executed_gflops"] = 2e-9 * entry.executed_macs(network) * rate["median"]
    if "spikes" in measured["result"]:
        spikes, synops = (np.array(measured["result"][key]) for key in ("spikes", "synops"))
        row |= {
            "density": (spikes / neurons(network) / executed).tolist(),
            "spikes_per_image_step": spikes.sum() / executed,
            "synops_per_image_step": synops.sum() / executed,
        }
        if entry.executed_macs is None:
            row["gigaadditions"] = 1e-9 * (synops * additions_per_synop(network)).sum() / seconds["median"]
    return row


def chosen(config: ThroughputConfig, offered: dict[str, entries.Entry], left_out: list[str]) -> list[str]:
    """Names of the contenders to run; what is not installed is said once."""
    names = []
    for name, entry in offered.items():
        if config.contenders and name not in config.contenders:
            continue
        absent = entries.missing(entry)
        if absent:
            left_out.append(f"{name}: {' and '.join(absent)} not installed")
        elif config.quick and entry.slow_start and name not in config.contenders:
            left_out.append(f"{name}: compiles for too long for a quick run")
        else:
            names.append(name)
    return names


def grid(config: ThroughputConfig, case: Case, names: list[str], log, report) -> list[dict]:
    """Every P and T, each contender in a fresh process, so that compile time and peak memory are this cell's."""
    rows: list[dict] = []
    images = case.images(config.images)
    cells = [(p, t) for t in config.timesteps for p in config.population]
    cells.sort(key=lambda cell: cell[0] * max(1, case.steps(cell[1], config.delay)))
    for population, timesteps in cells:
        steps = case.steps(timesteps, config.delay)
        where = f"{case.name}, P = {population}, T = {timesteps}"
        if steps < 1:
            report.left_out.append(f"{where}: all steps are delay ({case.network.delay} layers)")
            continue
        going = []
        for name in names:
            rates = [row["executed_itc_per_second"]["median"] for row in rows if row["contender"] == name]
            expected = population * images * steps / rates[-1] if rates else 0
            if expected > config.limit:
                report.left_out.append(f"{name}, {where}: about {expected:.0f} s a run, over --limit")
            else:
                going.append(name)
        request = {"images": images, "timesteps": timesteps, "delay": config.delay, "candidates": population}
        report.say(f"{where}: {', '.join(going) or 'nothing'}")
        workers = [Worker(case.path, name, log) for name in going]
        try:
            found = take_turns(workers, dict.fromkeys(going, request), config.rounds, report.left_out)
        finally:
            for worker in workers:
                worker.close()
        work = {"population": population, "timesteps": timesteps, "executed_steps": steps}
        rows += [row_of(case, name, measured, work, images) for name, measured in found.items()]
    return rows


def best_setting(config: ThroughputConfig, worker: Worker, images: int, steps: int) -> dict:
    """The batch size, and then the layout, with the most images a second; each is run twice, the second counts."""
    rates: dict[tuple[int, bool], float] = {}

    def measure(batch: int, channels_last: bool) -> None:
        options = {"images": batch, "steps": steps, "batch": batch, "channels_last": channels_last}
        seconds = [worker.ask("run", **options)["seconds"] for _ in range(2)]
        rates[batch, channels_last] = batch / seconds[1]

    for batch in config.batches:
        fits = batch <= images and (not rates or batch / max(rates.values()) < config.limit)
        if fits:
            measure(batch, False)
    if not rates:
        measure(images, False)
    best = max(rates, key=rates.get)
    if entries.ENTRIES[worker.name].channels_last:
        measure(best[0], True)
        best = max(rates, key=rates.get)
    return {"batch": best[0], "channels_last": best[1]}


def against_peers(config: ThroughputConfig, case: Case, names: list[str], log, report) -> tuple[list, list]:
    """Checks of every contender against the reference, then ours and theirs in turns at equal executed steps."""
    images, timesteps = case.images(config.peer_images), config.peer_timesteps
    steps = case.steps(timesteps, config.delay)
    if steps < 1:
        report.left_out.append(f"{case.name}: peers, because all of T = {timesteps} is delay")
        return [], []
    checks, workers, requests = [], [], {}
    try:
        for name in names:
            worker = Worker(case.path, name, log)
            workers.append(worker)
            report.say(f"{case.name}: {name}")
            try:
                checked = worker.ask("check", images=len(case.problem.check_scores))["result"]
                checks.append(
                    {"network": case.name, "contender": name, "images": len(case.problem.check_scores)} | checked
                )
                if name in entries.OURS:
                    options = {"timesteps": timesteps, "delay": config.delay, "candidates": config.peer_population}
                else:
                    options = {"steps": steps} | best_setting(config, worker, images, steps)
            except Failed as error:
                report.left_out.append(f"{name}, {case.name}: {error}")
                workers.pop().close()
                continue
            requests[name] = {"images": images} | options
        report.say(f"{case.name}: {config.rounds} rounds")
        found = take_turns(workers, requests, config.rounds, report.left_out)
    finally:
        for worker in workers:
            worker.close()
    rows = []
    for name, measured in found.items():
        population = config.peer_population if name in entries.OURS else 1
        work = {"population": population, "timesteps": timesteps, "executed_steps": steps}
        row = row_of(case, name, measured, work, images)
        row |= {key: requests[name][key] for key in ("batch", "channels_last") if key in requests[name]}
        rows.append(row | {"round_rates": [population * images * steps / s for s in measured["seconds"]]})
    for row in rows:
        row["ours_over_theirs"] = {
            ours["contender"]: spread([a / b for a, b in zip(ours["round_rates"], row["round_rates"])])
            for ours in rows
            if ours["contender"] in entries.OURS and row["contender"] in entries.PEERS
        }
    share = {row["contender"]: row["waiting_cpu_seconds"] for row in rows}
    total = sum(sum(measured["seconds"]) for measured in found.values())
    for name, seconds in share.items():
        if seconds > IDLE_WARNING * total:
            report.say(f"[yellow]{name} used {seconds:.1f} s of CPU while the others ran for {total:.0f} s[/]")
    return checks, rows


def threshold_sweep(config: ThroughputConfig, case: Case, names: list[str], log, report) -> list[dict]:
    """Seconds and spikes with all thresholds scaled: one candidate, the comparison's images and steps."""
    images, timesteps = case.images(config.peer_images), config.peer_timesteps
    steps = case.steps(timesteps, config.delay)
    if steps < 1:
        return []
    rows = []
    workers = [Worker(case.path, name, log) for name in names]
    try:
        for scale in config.scales:
            report.say(f"{case.name}: thresholds x {scale:g}")
            request = {"images": images, "timesteps": timesteps, "delay": config.delay, "scale": scale}
            found = take_turns(workers, dict.fromkeys(names, request), config.rounds, report.left_out)
            work = {"population": 1, "timesteps": timesteps, "executed_steps": steps}
            rows += [
                row_of(case, name, measured, work, images) | {"scale": scale} for name, measured in found.items()
            ]
    finally:
        for worker in workers:
            worker.close()
    return rows


def write_results(
    config: ThroughputConfig,
    peaks: dict,
    networks: dict,
    checks: list[dict],
    sections: dict[str, list[dict]],
    left_out: list[str],
) -> dict:
    """Write throughput.json and throughput.csv, shares of the best dot product filled in; returns the former."""
    for row in (row for rows in sections.values() for row in rows):
        best = peaks["best_dot_gflops"].get(row["precision"])
        known = best and row["executed_gflops"] is not None
        row["executed_share_of_best_dot"] = row["executed_gflops"] / best if known else None
    settings = json.loads(json.dumps(asdict(config), default=str))
    results = {"config": settings, "machine": peaks, "networks": networks, "checks": checks} | sections
    results["left_out"] = list(dict.fromkeys(left_out))
    write_json(config.out / "throughput.json", results)
    write_atomically(config.out / "throughput.csv", as_csv(sections))
    return results


def check_config(config: ThroughputConfig) -> None:
    """Raise ``UserError`` where the options make no sense."""
    for name in ("population", "timesteps", "batches", "scales"):
        values = getattr(config, name)
        if not values or min(values) <= 0:
            raise UserError(f"--{name} needs numbers above 0, got {' '.join(map(str, values)) or 'none'}")
    for name in ("images", "rounds", "peer_images", "peer_timesteps", "peer_population"):
        if getattr(config, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(config, name)}, expected at least 1")
    unknown = sorted(set(config.contenders) - entries.ENTRIES.keys())
    if unknown:
        raise UserError(f"no contender {unknown[0]!r}: the names are {', '.join(entries.ENTRIES)}")
    if not (set(config.contenders) & entries.OURS.keys() or not config.contenders):
        raise UserError(f"--contenders names none of ours: add one of {', '.join(entries.OURS)}")


def throughput(config: ThroughputConfig) -> dict:
    """Run the command; returns what is written to throughput.json."""
    check_config(config)
    if config.quick:
        quick = {"networks": ("vgg15",), "population": (5,), "timesteps": (42,), "batches": (16,)}
        config = replace(config, **quick, images=4, peer_images=16)
    report = Report()
    config.out.mkdir(parents=True, exist_ok=True)
    report.say("measuring the machine")
    before = machine()
    ours = chosen(config, entries.OURS, report.left_out)
    others = chosen(config, entries.PEERS, report.left_out) if config.peers else []
    sections: dict[str, list[dict]] = {"grid": [], "comparison": [], "sweep": []}
    checks, networks, shown = [], {}, []
    with tempfile.TemporaryDirectory() as folder, (config.out / "workers.log").open("w") as log:
        for source in (*config.networks, *map(str, config.weights)):
            name = Path(source).stem
            report.say(f"{name}: weights, thresholds and the reference's answer")
            path = Path(folder) / "problem.npz"
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                described = pool.apply(prepare, (source, config, path))
            case = Case(name, path, load_problem(path))
            network = case.network
            networks[name] = {
                "images": described,
                "delay_steps": network.delay,
                "neurons": int(neurons(network).sum()),
                "macs": macs(network),
                "macs_without_first": macs(network, first=False),
                "macs_folded_without_first": macs(network, fold=True, first=False),
            }
            rows = grid(config, case, ours, log, report)
            checked, compared, swept = [], [], []
            if config.peers:
                checked, compared = against_peers(config, case, ours + others, log, report)
            if config.sweep:
                swept = threshold_sweep(config, case, ours, log, report)
            shown.append((case, rows, checked, compared, swept))
            checks += checked
            for section, found in zip(sections, (rows, compared, swept)):
                sections[section] += found
            # a run that is stopped keeps the networks that it has finished
            write_results(config, best_of(before, before), networks, checks, sections, report.left_out)
    report.say("measuring the machine again")
    peaks = best_of(before, before if config.quick else machine())
    show_peaks(report, peaks)
    for case, rows, checked, compared, swept in shown:
        work = networks[case.name]
        title = (
            f"{case.name} ({work['images']}; {work['macs'] / 1e6:,.1f} MMAC an image-step, "
            f"{work['macs_folded_without_first'] / 1e6:,.1f} folded without the first layer)"
        )
        show_density(report, case, rows or compared)
        show_rows(report, title, rows, peaks)
        show_rows(report, f"{case.name} beside its peers", compared, peaks)
        show_comparison(report, case.name, checked, compared)
        show_sweep(report, case.name, swept)
    for line in dict.fromkeys(report.left_out):
        report.console.print(f"left out: {line}", highlight=False, markup=False)
    results = write_results(config, peaks, networks, checks, sections, report.left_out)
    if sections["grid"]:
        draw(sections["grid"], config.out)
    if sections["sweep"]:
        draw_sweep(sections["sweep"], config.out / "sweep.png")
    report.console.print(f"-> {config.out}", highlight=False)
    return results


if __name__ == "__main__":
    command.main(ThroughputConfig, throughput, "benchmarks.throughput")
