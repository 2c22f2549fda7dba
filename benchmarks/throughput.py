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
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import command
from benchmarks.contenders import entries
from benchmarks.problem import Case, macs, neurons
from benchmarks.throughput_config import ThroughputConfig
from benchmarks.throughput_problem import prepared
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
from benchmarks.throughput_turns import against_peers, chosen, grid, threshold_sweep
from jaxsnn.runtime.files import write_atomically, write_json


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


@dataclass(frozen=True)
class Found:
    """What was measured of one network.

    Attributes:
        described: what its images are.
        checks: how each contender's answer differs from the reference.
        grid, comparison, sweep: rows of the tables.
    """

    case: Case
    described: str
    grid: list[dict]
    checks: list[dict]
    comparison: list[dict]
    sweep: list[dict]

    @property
    def facts(self) -> dict:
        """The network's lines in throughput.json."""
        network = self.case.network
        return {
            "images": self.described,
            "delay_steps": network.delay,
            "neurons": int(neurons(network).sum()),
            "macs": macs(network),
            "macs_without_first": macs(network, first=False),
            "macs_folded_without_first": macs(network, fold=True, first=False),
        }

    def show(self, report: Report, peaks: dict) -> None:
        """Print the tables."""
        name, facts = self.case.name, self.facts
        title = (
            f"{name} ({self.described}; {facts['macs'] / 1e6:,.1f} MMAC an image-step, "
            f"{facts['macs_folded_without_first'] / 1e6:,.1f} folded without the first layer)"
        )
        show_density(report, self.case, self.grid or self.comparison)
        show_rows(report, title, self.grid, peaks)
        show_rows(report, f"{name} beside its peers", self.comparison, peaks)
        show_comparison(report, name, self.checks, self.comparison)
        show_sweep(report, name, self.sweep)


def measure_network(
    source: str, config: ThroughputConfig, folder: Path, contenders: tuple[list[str], list[str]], report: Report
) -> Found:
    """Measure one network.

    Args:
        folder: for the problem's file.
        contenders: ours and the peers, by name.
    """
    ours, peers = contenders
    report.say(f"{Path(source).stem}: weights, thresholds and the reference's answer")
    case, described = prepared(source, config, folder / "problem.npz")
    with (config.out / "workers.log").open("a") as log:
        rows = grid(config, case, ours, log, report)
        checks, compared = against_peers(config, case, ours + peers, log, report) if config.peers else ([], [])
        swept = threshold_sweep(config, case, ours, log, report) if config.sweep else []
    return Found(case, described, rows, checks, compared, swept)


def write_results(config: ThroughputConfig, peaks: dict, found: list[Found], left_out: list[str]) -> dict:
    """Write throughput.json and throughput.csv, shares of the best dot product filled in; returns the former."""
    sections = {
        name: [row for each in found for row in getattr(each, name)] for name in ("grid", "comparison", "sweep")
    }
    for row in (row for rows in sections.values() for row in rows):
        best = peaks["best_dot_gflops"].get(row["precision"])
        known = best and row["executed_gflops"] is not None
        row["executed_share_of_best_dot"] = row["executed_gflops"] / best if known else None
    settings = json.loads(json.dumps(asdict(config), default=str))
    networks = {each.case.name: each.facts for each in found}
    checks = [check for each in found for check in each.checks]
    results = {"config": settings, "machine": peaks, "networks": networks, "checks": checks} | sections
    results["left_out"] = list(dict.fromkeys(left_out))
    write_json(config.out / "throughput.json", results)
    write_atomically(config.out / "throughput.csv", as_csv(sections))
    return results


def throughput(config: ThroughputConfig) -> dict:
    """Run the command; returns what is written to throughput.json."""
    config = config.checked()
    report = Report()
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "workers.log").write_text("")
    report.say("measuring the machine")
    before = machine()
    ours = chosen(config, entries.OURS, report.left_out)
    peers = chosen(config, entries.PEERS, report.left_out) if config.peers else []
    found: list[Found] = []
    with tempfile.TemporaryDirectory() as folder:
        for source in (*config.networks, *map(str, config.weights)):
            found.append(measure_network(source, config, Path(folder), (ours, peers), report))
            # a run that is stopped keeps the networks that it has finished
            write_results(config, best_of(before, before), found, report.left_out)
    report.say("measuring the machine again")
    peaks = best_of(before, before if config.quick else machine())
    show_peaks(report, peaks)
    for each in found:
        each.show(report, peaks)
    for line in dict.fromkeys(report.left_out):
        report.console.print(f"left out: {line}", highlight=False, markup=False)
    results = write_results(config, peaks, found, report.left_out)
    if results["grid"]:
        draw(results["grid"], config.out)
    if results["sweep"]:
        draw_sweep(results["sweep"], config.out / "sweep.png")
    report.console.print(f"-> {config.out}", highlight=False)
    return results


if __name__ == "__main__":
    command.run(ThroughputConfig, throughput, "throughput", __doc__)
