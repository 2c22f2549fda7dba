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
of memory mix (``benchmarks.peers`` describes the peers); CPU time spent waiting is measured and reported.
Contenders take turns in rounds, so that a drift of the machine hits all; a ratio is the median of the rounds'
ratios. Figures are medians over the rounds with their range. Compile time is the first run less the median.
"""

import csv
import io
import json
import math
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import peers
from benchmarks.problem import (
    Problem,
    additions_per_synop,
    load_problem,
    macs,
    make_problem,
    neurons,
    random_params,
    save_problem,
)
from jaxsnn import command
from jaxsnn.errors import UserError
from jaxsnn.network import Network
from jaxsnn.runfolder import write_json
from jaxsnn.weights import write_atomically

CIFAR_PIXELS = 32 * 32
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


class Failed(Exception):
    """A contender could not run; the message says why."""


class Worker:
    """One contender in its process; runs when asked, waits otherwise."""

    def __init__(self, problem: Path, name: str, log):
        self.name, self.waited = name, 0.0
        arguments = [sys.executable, "-m", "benchmarks.peers", str(problem), name]
        root = Path(__file__).parents[1]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
        self.process = subprocess.Popen(arguments, cwd=root, text=True, **pipes)
        self.loaded = None

    def wait_ready(self) -> None:
        """Wait until the contender has loaded its problem; ``Failed`` where it cannot."""
        if self.loaded is None:
            self.loaded = self._reply()["memory"]

    def ask(self, do: str, **options) -> dict:
        """The reply to one request.

        Raises:
            Failed: the contender cannot do it, or its process has ended.
        """
        self.wait_ready()
        self.process.stdin.write(json.dumps({"do": do, "with": options}) + "\n")
        self.process.stdin.flush()
        reply = self._reply()
        self.waited += reply["idle_cpu_seconds"]
        return reply

    def _reply(self) -> dict:
        line = self.process.stdout.readline()
        reply = json.loads(line) if line else {"error": f"its process ended with code {self.process.wait()}"}
        if "error" in reply:
            raise Failed(reply["error"])
        return reply

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


@dataclass(frozen=True)
class Case:
    """One network to measure: its problem on disk and in memory, and how many images it gets."""

    name: str
    path: Path
    problem: Problem

    @property
    def network(self) -> Network:
        return self.problem.network

    def images(self, count: int) -> int:
        """``count`` images of 32x32 as images of this network, by pixels."""
        return max(1, count * CIFAR_PIXELS // math.prod(self.network.input_shape[:2]))

    def steps(self, timesteps: int, delay: str) -> int:
        """Steps that are simulated for T = ``timesteps``."""
        return timesteps - (self.network.delay if delay == "layer" else 0)


def prepare(source: str, config: ThroughputConfig, path: Path) -> str:
    """Write the problem of one network; returns what its images are. To be run in a process of its own."""
    import data
    from jaxsnn.architectures import architecture
    from jaxsnn.convert import fold
    from jaxsnn.evaluation import check_data
    from jaxsnn.network import shapes_of
    from jaxsnn.pretrained import load_snn

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


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def take_turns(workers: list[Worker], requests: dict[str, dict], rounds: int, left_out: list[str]) -> dict:
    """Run every contender once, then in ``rounds`` turns, when all of them have loaded.

    Returns:
        by name: seconds of the first run and of each round, memory, the result, and the CPU time spent waiting. A
        contender that fails is named in ``left_out`` and missing here.
    """
    found: dict[str, dict] = {}
    going = list(workers)

    def attempt(worker: Worker, action) -> dict | None:
        try:
            return action()
        except Failed as error:
            going.remove(worker)
            found.pop(worker.name, None)
            left_out.append(f"{worker.name}: {error}")
            return None

    for worker in workers:
        attempt(worker, worker.wait_ready)
    for turn in range(rounds + 1):
        for worker in list(going):
            reply = attempt(worker, lambda worker=worker: worker.ask("run", **requests[worker.name]))
            if reply is None:
                continue
            if not turn:
                found[worker.name] = {"first": reply["seconds"], "seconds": []}
            else:
                found[worker.name]["seconds"].append(reply["seconds"])
            found[worker.name] |= {"memory": reply["memory"], "result": reply["result"]}
    for worker in going:
        found[worker.name] |= {"waiting_cpu_seconds": worker.waited, "loaded": worker.loaded}
    return found


def row_of(case: Case, name: str, measured: dict, work: dict, images: int) -> dict:
    """One line of the tables.

    Args:
        work: population, timesteps and executed_steps of the run.
    """
    entry, network = peers.ENTRIES[name], case.network
    executed = work["population"] * images * work["executed_steps"]
    nominal = work["population"] * images * work["timesteps"]
    if name in peers.PEERS:
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


def chosen(config: ThroughputConfig, entries: dict[str, peers.Entry], left_out: list[str]) -> list[str]:
    """Names of the contenders to run; what is not installed is said once."""
    names = []
    for name, entry in entries.items():
        if config.contenders and name not in config.contenders:
            continue
        absent = peers.missing(entry)
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
    if peers.ENTRIES[worker.name].channels_last:
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
                if name in peers.OURS:
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
        population = config.peer_population if name in peers.OURS else 1
        work = {"population": population, "timesteps": timesteps, "executed_steps": steps}
        row = row_of(case, name, measured, work, images)
        row |= {key: requests[name][key] for key in ("batch", "channels_last") if key in requests[name]}
        rows.append(row | {"round_rates": [population * images * steps / s for s in measured["seconds"]]})
    for row in rows:
        row["ours_over_theirs"] = {
            ours["contender"]: spread([a / b for a, b in zip(ours["round_rates"], row["round_rates"])])
            for ours in rows
            if ours["contender"] in peers.OURS and row["contender"] in peers.PEERS
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


class Report:
    """What goes to the terminal, and what was left out and why."""

    def __init__(self):
        console = Console()
        self.console = console if console.is_terminal else Console(width=120)
        self.left_out: list[str] = []

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, style="dim")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table whose first column is text and whose others are numbers."""
        if not rows:
            return
        table = Table(title=title, title_justify="left")
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if not index else "right", no_wrap=not index)
        for row in rows:
            table.add_row(*row)
        self.console.print(table)


def figure_of(value: float | None, digits: int = 3) -> str:
    """A number with about so many significant digits, "-" for None."""
    if value is None:
        return "-"
    if value == 0 or abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def ranged(values: dict[str, float], digits: int = 3) -> str:
    """Median and range."""
    return f"{figure_of(values['median'], digits)} ({range_of(values, digits)})"


def range_of(values: dict[str, float], digits: int = 3) -> str:
    """Least to greatest."""
    return f"{figure_of(values['min'], digits)}-{figure_of(values['max'], digits)}"


def share_of(value: float | None, best: float | None) -> str:
    return "-" if value is None or not best else f"{100 * value / best:.0f} %"


def show_peaks(report: Report, peaks: dict) -> None:
    facts = peaks["facts"]
    dots = ", ".join(f"{name} {rate:.0f}" for name, rate in peaks["best_dot_gflops"].items())
    report.console.print(f"{facts['cpu']}, {facts['cores']} cores", highlight=False)
    report.console.print(f"best dot product, GFLOP/s: {dots}", highlight=False)
    report.console.print(f"best additions in cache, G/s: {peaks['best_gigaadditions']:.0f}", highlight=False)


def show_rows(report: Report, title: str, rows: list[dict], peaks: dict) -> None:
    """Rates and time of every row, then memory and arithmetic."""
    body, detail = [], []
    for row in rows:
        setting = [row["contender"], str(row["population"]), str(row["timesteps"]), str(row["executed_steps"])]
        body.append(
            [
                *setting,
                figure_of(row["executed_itc_per_second"]["median"]),
                range_of(row["executed_itc_per_second"]),
                figure_of(row["nominal_itc_per_second"]),
                figure_of(row["seconds"]["median"]),
                figure_of(row["compile_seconds"], 2),
                figure_of(row["peak_mb"]),
                *([figure_of(row["device_peak_mb"])] if row["device_peak_mb"] else []),
            ]
        )
        detail.append(
            [
                *setting,
                figure_of(row["dense_equivalent_gflops"]),
                figure_of(row["executed_gflops"]),
                share_of(row["executed_gflops"], peaks["best_dot_gflops"].get(row["precision"])),
                figure_of(row["gigaadditions"]),
                share_of(row["gigaadditions"], peaks["best_gigaadditions"]),
            ]
        )
    device = ["GPU\nMB"] if any(row["device_peak_mb"] for row in rows) else []
    columns = ["", "P", "T", "steps"]
    rates = ["executed\nitc/s", "range", "nominal\nitc/s", "seconds", "compile\nseconds", "peak\nMB"]
    report.table(title, columns + rates + device, body)
    work = [
        "dense-equivalent\nGFLOP/s",
        "executed\nGFLOP/s",
        "of best\ndot",
        "additions\nG/s",
        "of best\nadditions",
    ]
    report.table(f"{title}: arithmetic", columns + work, detail)


def show_comparison(report: Report, title: str, checks: list[dict], rows: list[dict]) -> None:
    """Agreement with the reference, and how many times faster ours are, round by round."""
    body = [
        [c["contender"], f"{c['differing']} of {c['images']}", f"{c['error']:.1e} ({c['of']})"] for c in checks
    ]
    report.table(f"{title}: agreement with the reference", ["", "predictions differ", "largest difference"], body)
    names = [row["contender"] for row in rows if row["contender"] in peers.OURS]
    body = []
    for row in rows:
        setting = str(row.get("batch", "")) + (" channels-last" if row.get("channels_last") else "")
        ratios = [ranged(row["ours_over_theirs"][n], 3) if n in row["ours_over_theirs"] else "" for n in names]
        body.append([row["contender"], setting, ranged(row["executed_itc_per_second"]), *ratios])
    columns = ["", "best batch", "itc/s executed", *(f"{name} is faster by" for name in names)]
    report.table(f"{title}: equal executed steps, in turns", columns, body)
    body = []
    for row in rows:
        if row["contender"] in peers.PEERS:
            shifted = [
                ours["nominal_itc_per_second"] / row["nominal_itc_per_second"]
                for ours in rows
                if ours["contender"] in names
            ]
            body.append([row["contender"], *(figure_of(ratio) for ratio in shifted)])
    timesteps = rows[0]["timesteps"] if rows else 0
    columns = ["", *(f"{name}" for name in names)]
    report.table(f"{title}: the delay shift counted, nominal T = {timesteps}, faster by", columns, body)


def show_sweep(report: Report, title: str, rows: list[dict]) -> None:
    body = [
        [
            row["contender"],
            f"{row['scale']:g}",
            figure_of(row["spikes_per_image_step"]),
            ranged(row["seconds"]),
            figure_of(row["executed_itc_per_second"]["median"]),
        ]
        for row in sorted(rows, key=lambda row: row["contender"])
    ]
    columns = ["", "thresholds x", "spikes/image-step", "seconds", "itc/s executed"]
    report.table(f"{title}: time against spikes", columns, body)


def show_density(report: Report, case: Case, rows: list[dict]) -> None:
    """Spikes per neuron and step of each layer, where the run was longest."""
    with_density = [row for row in rows if "density" in row]
    if with_density:
        row = max(with_density, key=lambda row: row["executed_steps"])
        layers = [f"{layer.name} {100 * d:.1f} %" for layer, d in zip(case.network.spiking, row["density"])]
        whole = 100 * row["spikes_per_image_step"] / neurons(case.network).sum()
        where = f"{case.name}: spikes per neuron and step over {row['executed_steps']} steps"
        report.console.print(f"{where}: {', '.join(layers)}; all {whole:.1f} %", highlight=False)


def draw(rows: list[dict], folder: Path) -> None:
    """itc/s against P and against T, memory against P, one line per network and contender."""
    import matplotlib.pyplot as plt

    from jaxsnn.figures import STYLE, save

    def lines(axes, along: str, value) -> None:
        other = "timesteps" if along == "population" else "population"
        for index, key in enumerate(dict.fromkeys((row["network"], row["contender"]) for row in rows)):
            own = [row for row in rows if (row["network"], row["contender"]) == key]
            counts = {fixed: sum(row[other] == fixed for row in own) for fixed in {row[other] for row in own}}
            fixed = max(counts, key=lambda fixed: (counts[fixed], fixed))
            drawn = sorted((row for row in own if row[other] == fixed), key=lambda row: row[along])
            letter = "T" if other == "timesteps" else "P"
            x = [row[along] for row in drawn]
            for name, style, ys in value(drawn):
                label = f"{key[0]}, {key[1]}, {letter} = {fixed}{name}"
                axes.plot(x, ys, style, marker="o", color=f"C{index}", label=label)
        axes.set_xscale("log")
        ticks = sorted({row[along] for row in rows})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("candidates P" if along == "population" else "nominal timesteps T")
        if axes.get_yscale() == "linear":
            axes.set_ylim(bottom=0)
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))

    def rates(drawn):
        yield ", executed", "-", [row["executed_itc_per_second"]["median"] for row in drawn]
        yield ", nominal", "--", [row["nominal_itc_per_second"] for row in drawn]

    def memory(drawn):
        yield "", "-", [row["peak_mb"] for row in drawn]

    for name, along, value, label in (
        ("population", "population", rates, "images x steps x candidates / s"),
        ("timesteps", "timesteps", rates, "images x steps x candidates / s"),
        ("memory", "population", memory, "peak memory of the process [MB]"),
    ):
        with plt.rc_context(STYLE):
            figure, axes = plt.subplots(figsize=(7, 4.2))
            if value is rates:
                axes.set_yscale("log")
            lines(axes, along, value)
            axes.set_ylabel(label)
            save(figure, folder / f"{name}.png")


def draw_sweep(rows: list[dict], path: Path) -> None:
    """Seconds against spikes, one line per network and contender, the unscaled thresholds marked."""
    import matplotlib.pyplot as plt

    from jaxsnn.figures import STYLE, save

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 4.2))
        for key in dict.fromkeys((row["network"], row["contender"]) for row in rows):
            own = [row for row in rows if (row["network"], row["contender"]) == key]
            points = sorted((row["spikes_per_image_step"], row["seconds"]["median"], row["scale"]) for row in own)
            [line] = axes.plot(*list(zip(*points))[:2], marker="o", label=", ".join(key))
            for spikes, seconds, scale in points:
                if scale == 1:
                    axes.plot(spikes, seconds, "o", markersize=11, fillstyle="none", color=line.get_color())
        axes.set_xlabel("spikes of an image and step (circle: thresholds as calibrated)")
        axes.set_ylabel("seconds")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7)
        save(figure, path)


def as_csv(sections: dict[str, list[dict]]) -> bytes:
    """All rows as one table; medians with their range in columns of their own."""
    flat = []
    for section, rows in sections.items():
        for row in rows:
            line: dict = {"section": section}
            for key, value in row.items():
                if isinstance(value, dict) and value.keys() == {"median", "min", "max"}:
                    line |= {f"{key}_{part}": number for part, number in value.items()}
                elif isinstance(value, list):
                    line[key] = " ".join(f"{number:.6g}" for number in value)
                elif isinstance(value, dict):
                    line |= {f"{key}_{name}": found["median"] for name, found in value.items()}
                else:
                    line[key] = value
            flat.append(line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for line in flat for key in line)))
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().encode()


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
    unknown = sorted(set(config.contenders) - peers.ENTRIES.keys())
    if unknown:
        raise UserError(f"no contender {unknown[0]!r}: the names are {', '.join(peers.ENTRIES)}")
    if not (set(config.contenders) & peers.OURS.keys() or not config.contenders):
        raise UserError(f"--contenders names none of ours: add one of {', '.join(peers.OURS)}")


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
    ours = chosen(config, peers.OURS, report.left_out)
    others = chosen(config, peers.PEERS, report.left_out) if config.peers else []
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
