"""Simulated image x timestep x candidate a second (itc/s) on a GPU: our kernels, XLA's own code, other simulators.

    python -m benchmarks.gpu --weights vgg15.pt --network vgg15-bn --data cifar10 --data-dir DIR --json FILE

Thresholds are the 99.7 percentile's, candidates differ from it by 5 %. Executed itc/s count the steps that are
really simulated: the layer delay's are left out. A figure is the median of ``--rounds`` runs over ``--images``
test images, data transfers included; compile time is the first run less what its images take afterwards.

- "kernels" is ``jaxsnn.simulation.gpu``; "XLA" is the same network without it, step by step.
- int8 must count the same on every device: ``--check`` images are simulated on this machine's CPU as well
  (event-driven, needs the extra cpu), and all counts compared. float32 and bfloat16 may differ in ties.
- Peers (``--peers``) are those of ``benchmarks.contenders`` that are installed, in a process of their own, one
  candidate at a time in their best batch; they execute as many steps as ours.
"""

import gc
import itertools
import json
import multiprocessing
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Literal
from unittest import mock

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import command
from benchmarks.problem import SPREAD, Problem
from jaxsnn.cli.options import DataOptions, DebugOptions, WeightsOptions
from jaxsnn.networks.spiking import SNN
from jaxsnn.runtime.checks import at_least

PEERS = ("PyTorch", "PyTorch bf16", "SpikingJelly", "SpikingJelly bf16")


@dataclass(frozen=True, kw_only=True)
class GpuConfig(DebugOptions, DataOptions, WeightsOptions):
    """Measure the population simulator on this machine's accelerator."""

    precisions: tuple[Literal["float32", "bfloat16", "int8"], ...] = ("int8", "bfloat16", "float32")
    population: int = 8
    """Candidates P."""
    rows: tuple[int, ...] = (2048,)
    """Candidates x images at once; several to see what fills the device."""
    timesteps: tuple[int, ...] = (42,)
    """Timesteps T, nominal."""
    images: int = 1024
    """Test images of a run."""
    block: int | None = None
    """Steps that a layer does at once with the kernels; default: what the simulator takes."""
    plain: bool = True
    """Measure XLA's own code, too."""
    peers: bool = False
    """Measure the other simulators that are installed, too."""
    check: int = 64
    """Images on which int8 is compared with this machine's CPU; 0: none."""
    rounds: int = 3
    json: Path | None = None
    """Write everything that was measured here."""


def measure(
    config: GpuConfig,
    snn: SNN,
    thresholds: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    precision: str,
    rows: int,
    timesteps: int,
    block: int | None,
    delay: str = "layer",
) -> dict:
    """One line of the table."""
    from jaxsnn.networks.spiking import Dynamics, Genes
    from jaxsnn.runtime.memory import peak_bytes
    from jaxsnn.simulation.observe import observe
    from jaxsnn.simulation.plan import Plan

    plan, dynamics = Plan(backend="xla", precision=precision, rows=rows, block=block), Dynamics(delay=delay)
    few = max(1, rows // config.population)
    seconds, seen = [], None
    for count in (few, *[len(images)] * config.rounds):
        start = time.perf_counter()
        genes, part = Genes(thresholds), slice(count)
        seen = observe(snn, genes, images[part], labels[part], timesteps=timesteps, dynamics=dynamics, plan=plan)
        seconds.append(time.perf_counter() - start)
    if seen is None:
        raise ValueError("no round was run")
    first, took = seconds[0], median(seconds[1:])
    work = config.population * len(images) * max(0, timesteps - dynamics.silent_steps(snn.network))
    return {
        "itc_per_second": work / took,
        "seconds": seconds[1:],
        "compile_seconds": max(0.0, first - took * min(few, len(images)) / len(images)),
        "process_peak_gb": peak_bytes() / 1e9,
        "accuracy": seen.accuracy[:, -1].tolist(),
        "spikes_per_image": (seen.spikes.sum(1) / len(images)).tolist(),
    }


def equal_counts(snn: SNN, thresholds: np.ndarray, images: np.ndarray, labels: np.ndarray, timesteps: int) -> bool:
    """Whether int8 counts here what it counts event-driven on the CPU."""
    from jaxsnn.networks.spiking import Genes
    from jaxsnn.simulation.observe import observe
    from jaxsnn.simulation.plan import Plan

    here, there = (
        observe(
            snn, Genes(thresholds), images, labels, timesteps=timesteps, plan=Plan(backend=b, precision="int8")
        )
        for b in ("xla", "events")
    )
    return all(np.array_equal(getattr(here, n), getattr(there, n)) for n in ("correct", "spikes", "synops"))


def peer_rates(problem: Problem, steps: int, rounds: int, answers) -> None:
    """In a process of its own: itc/s of each peer in its best batch and layout."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    from benchmarks.contenders import entries

    for name in PEERS:
        missing = entries.missing(entries.ENTRIES[name])
        if missing:
            answers.put((name, f"{' and '.join(missing)} not installed"))
            continue
        images = len(problem.images)
        try:
            contender, best = entries.ENTRIES[name].make(problem), 0.0
            for batch in sorted({min(256, images), images}):
                for channels_last in (True, False):
                    seconds = []
                    for _ in range(rounds + 1):
                        start = time.perf_counter()
                        contender.run(images, steps, batch, channels_last)
                        seconds.append(time.perf_counter() - start)
                    best = max(best, images * steps / median(seconds[1:]))
            answers.put((name, best))
        except Exception as error:  # one that cannot must not end the others
            answers.put((name, repr(error)[:200]))
    answers.put(None)


def peers_of(snn, thresholds, images, steps: int, rounds: int) -> dict[str, float | str]:
    """Rates of the peers, or why there is none."""
    params = {name: np.asarray(value) for name, value in snn.params.items()}
    nothing = np.zeros((1, snn.network.classes))
    problem = Problem(snn.network, params, thresholds[:1], images, nothing, np.zeros(len(thresholds[0])))
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=peer_rates, args=(problem, steps, rounds, answers))
    process.start()
    found = dict(iter(answers.get, None))
    process.join()
    return found


def main(config: GpuConfig) -> dict:
    """Measure and print."""
    at_least(config, population=1, rows=1, timesteps=1, images=1, block=1, check=0, rounds=1)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peers need some of the card
    from jaxsnn.analysis.comparison import ann_right
    from jaxsnn.conversion.calibration import calibrate
    from jaxsnn.conversion.loading import load_snn
    from jaxsnn.runtime.provenance import describe_device, versions
    from jaxsnn.simulation import dense

    console = Console()
    test, train = config.load("test", config.images), config.load("train", 500)
    snn, sha256 = load_snn(config.weights, config.network, test.images.shape[1:], console.out)
    base = calibrate(snn.network, snn.params, train.images).threshold(99.7)
    spread = np.random.default_rng(0).standard_normal((config.population, len(base))) * SPREAD
    spread[0] = 0
    thresholds = (base * np.exp(spread)).astype(np.float32)
    found = {"config": asdict(config), "device": describe_device(), "versions": versions(), "weights": sha256}
    found["ann_accuracy"] = float(ann_right(snn.network, snn.params, test.images, test.labels).mean())
    console.print(f"{snn.network.name} on {config.data}, {found['device']}, ANN {found['ann_accuracy']:.2%}")
    found["rows"] = rates(config, console, snn, thresholds, test.images, test.labels)
    steps = config.timesteps[0]
    if config.check:
        few = slice(config.check)
        found["int8_equals_cpu"] = equal_counts(snn, thresholds, test.images[few], test.labels[few], steps)
        console.print(f"int8 counts equal to this CPU's on {config.check} images: {found['int8_equals_cpu']}")
    if config.peers:
        dense.simulate.clear_cache()
        executed = steps - snn.network.delay
        found["peers"] = peers_of(snn, thresholds, test.images, executed, config.rounds)
        for name, rate in found["peers"].items():
            console.print(f"{name}: {rate if isinstance(rate, str) else f'{rate:,.0f} itc/s'}")
    if config.json is not None:
        config.json.write_text(json.dumps(found, indent=1, default=str))
        console.print(f"-> {config.json}")
    return found


def rates(
    config: GpuConfig,
    console: Console,
    snn: SNN,
    thresholds: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
) -> list[dict]:
    """Ours with the kernels and without, in every precision, T and number of rows; prints the table."""
    from jaxsnn.simulation import dense, kernels

    table = Table("code", "precision", "T", "rows", "executed itc/s", "compile s", "peak GB", "accuracy")
    found = []
    ways = [("kernels", kernels.usable, config.block)] + [("XLA", lambda precision: None, 1)] * config.plain
    for name, usable, block in ways:
        with mock.patch.object(kernels, "usable", usable):
            dense.simulate.clear_cache()
            for precision, steps, rows in itertools.product(config.precisions, config.timesteps, config.rows):
                if name == "kernels" and not kernels.usable(precision):
                    console.print(f"{precision}: this device does without the kernels")
                    continue
                row = {"code": name, "precision": precision, "timesteps": steps, "rows": rows}
                row |= measure(
                    config,
                    snn,
                    thresholds,
                    images,
                    labels,
                    precision=precision,
                    rows=rows,
                    timesteps=steps,
                    block=block,
                )
                found.append(row)
                cells = [f"{row['itc_per_second']:,.0f}", f"{row['compile_seconds']:.1f}"]
                cells += [f"{row['process_peak_gb']:.1f}", f"{100 * row['accuracy'][0]:.2f} %"]
                table.add_row(name, precision, str(steps), str(rows), *cells)
            gc.collect()
    console.print(table)
    return found


if __name__ == "__main__":
    command.run(GpuConfig, main, "gpu", __doc__)
