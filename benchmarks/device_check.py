"""What a real device does with everything: one script of a few minutes, whose parts are done once and kept.

    python -m benchmarks.device_check --weights vgg15.pt --network vgg15-bn --data cifar10 --data-dir DIR

In this order, each part in FOLDER/PART.json as soon as it is done, FOLDER being --out, and all of them in
FOLDER/device_check.json and a table: int8 counts against this machine's CPU (event-driven, needs the extra cpu);
executed itc/s by precision, rows and timesteps; what each layer takes by the profiler; a search with Table I's
settings for CIFAR-10; steps of training and of backpropagation through time. When ``--seconds`` are over, what is
left stays to be done: the same command does it, after a crash as well.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import command
from benchmarks.problem import SPREAD
from jaxsnn.cli.options import DataOptions, DebugOptions, WeightsOptions
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import SNN, Genes
from jaxsnn.runtime.checks import at_least
from jaxsnn.runtime.files import read_json, write_json

Part = Literal["equality", "throughput", "profile", "search", "training", "bptt"]
GRACE = 20
"""Seconds that a search has to save where it stands."""


@dataclass(frozen=True, kw_only=True)
class DeviceConfig(DebugOptions, DataOptions, WeightsOptions):
    """Measure everything on this machine's device."""

    out: Path = Path("device-check")
    """Folder of what was measured; parts that are there are not done again."""
    parts: tuple[Part, ...] = ("equality", "throughput", "profile", "search", "training", "bptt")
    seconds: float = 600
    """Time for all of it."""
    precisions: tuple[Literal["float32", "bfloat16", "int8"], ...] = ("int8", "bfloat16", "float32")
    population: int = 8
    """Candidates P."""
    rows: tuple[int, ...] = (2048, 256)
    """Candidates x images at once."""
    timesteps: int = 42
    """Timesteps T with one step of delay a layer."""
    few: tuple[int, ...] = (8,)
    """Timesteps T without delay, in the first precision and the first of the rows."""
    images: int = 1024
    """Test images of a run."""
    check: int = 64
    """Images on which int8 is compared with the CPU."""
    rounds: int = 3
    generations: int = 26
    """Of the search with Table I's settings."""
    search: tuple[str, ...] = ()
    """Further options of jaxsnn.optimize, by their names without dashes, as in population=4."""
    batch: int = 512
    """Images of a training step."""
    unrolled: int = 8
    """Timesteps of a step of backpropagation through time."""
    unrolled_batch: int = 128


class Subject(NamedTuple):
    """What is measured: a network, candidates (P, L), test images with labels, and when to end."""

    config: DeviceConfig
    snn: SNN
    thresholds: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    deadline: float

    def late(self, needed: float = 0.0) -> bool:
        """Whether ``needed`` seconds more would be too long."""
        return time.time() + needed > self.deadline


def load(config: DeviceConfig, deadline: float) -> Subject:
    """The network of the files; candidates around its 99.7 percentile, which is found on the CPU."""
    import jax

    from jaxsnn.conversion.calibration import calibrate
    from jaxsnn.conversion.loading import load_snn

    test, train = config.load("test", config.images), config.load("train", 500)
    snn, _ = load_snn(config.weights, config.network, test.images.shape[1:])
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        base = calibrate(snn.network, snn.params, train.images).threshold(99.7)
    spread = np.random.default_rng(0).standard_normal((config.population, len(base))) * SPREAD
    spread[0] = 0
    return Subject(config, snn, (base * np.exp(spread)).astype(np.float32), test.images, test.labels, deadline)


def equality(subject: Subject) -> dict:
    """Whether int8 counts the same here and on the CPU."""
    from benchmarks.gpu import equal_counts

    count, steps = subject.config.check, subject.config.timesteps
    seconds = time.perf_counter()
    same = equal_counts(subject.snn, subject.thresholds, subject.images[:count], subject.labels[:count], steps)
    return {
        "int8_equals_cpu": same,
        "candidates": len(subject.thresholds),
        "images": count,
        "timesteps": steps,
        "seconds": time.perf_counter() - seconds,
    }


def throughput(subject: Subject) -> dict:
    """Executed itc/s; what there is no time for is left out."""
    from benchmarks.gpu import GpuConfig, measure

    config = subject.config
    cases = [(p, config.rows[0], config.timesteps, "layer") for p in config.precisions[:1]]
    cases += [(config.precisions[0], config.rows[0], steps, "none") for steps in config.few]
    cases += [(p, config.rows[0], config.timesteps, "layer") for p in config.precisions[1:]]
    cases += [(p, rows, config.timesteps, "layer") for rows in config.rows[1:] for p in config.precisions]
    found, longest = [], 0.0
    for precision, rows, steps, delay in cases:
        row = {"precision": precision, "rows": rows, "timesteps": steps, "delay": delay}
        if subject.late(longest):
            found.append(row | {"left_out": "no time"})
            continue
        began = time.time()
        few = min(config.images, max(1, rows * 4 // config.population))  # four chunks at least say enough
        shared = GpuConfig(population=config.population, rounds=config.rounds)
        row |= measure(
            shared,
            subject.snn,
            subject.thresholds,
            subject.images[:few],
            subject.labels[:few],
            precision=precision,
            rows=rows,
            timesteps=steps,
            block=None,
            delay=delay,
        )
        found.append(row | {"images": few})
        longest = max(longest, time.time() - began)
        print("  ", {k: v for k, v in row.items() if k not in ("accuracy", "spikes_per_image")}, flush=True)
    return {"rows": found}


def profile(subject: Subject) -> dict:
    """Microseconds that each kernel takes, by layer where the profiler tells, of one chunk in each precision."""
    from benchmarks.device_profile import profiled
    from jaxsnn.simulation.observe import observe
    from jaxsnn.simulation.plan import Plan

    config, found = subject.config, {}
    count = max(1, min(config.images, config.rows[0] // config.population))

    def run(precision: str) -> Callable[[], Any]:
        plan = Plan(backend="xla", precision=precision, rows=config.rows[0])
        images, labels = subject.images[:count], subject.labels[:count]
        genes = Genes(subject.thresholds)
        return lambda: observe(subject.snn, genes, images, labels, timesteps=config.timesteps, plan=plan)

    steps = config.timesteps - subject.snn.network.delay
    for precision in config.precisions:
        if subject.late(10):
            break
        call = run(precision)
        call()  # compiled, where it was not yet
        found[precision] = profiled(call, config.out / f"trace-{precision}") | {
            "itc": config.population * count * steps
        }
    return found


def training(subject: Subject) -> dict:
    """Images a second of a training step, in bfloat16 where the device is no CPU."""
    from benchmarks.training import ours
    from jaxsnn.networks.architectures import architecture
    from jaxsnn.networks.description import BatchNorm
    from jaxsnn.training.loop import in_bfloat16

    batch = min(subject.config.batch, len(subject.images))
    name = "vgg15" if "vgg15" in subject.snn.network.name else "vgg11-slim"
    network = architecture(name, norm=BatchNorm)
    step = ours(network, subject.images[:batch], subject.labels[:batch], in_bfloat16("auto"))
    return {"network": name, "batch": batch} | _rate(step, batch, subject)


def bptt(subject: Subject) -> dict:
    """Images a second of a step of backpropagation through time, in both precisions; and its memory."""
    import jax
    import jax.numpy as jnp

    from benchmarks.bptt_memory import OPTIMIZER, bptt_inputs
    from jaxsnn.training.bptt import Unrolling, make_step, step_bytes

    config, network, found = subject.config, subject.snn.network, {}
    batch = min(config.unrolled_batch, len(subject.images))
    for precision in ("bfloat16", "float32"):
        if subject.late(30 if found else 0):
            break
        unrolling = Unrolling(config.unrolled, loss="final", scale=0.15, precision=precision)
        # a step overwrites what it is given
        params = {name: jnp.array(value) for name, value in subject.snn.params.items()}
        trained, fixed, state, *rest = bptt_inputs(network, batch, params)
        began = time.perf_counter()
        step = make_step(network, unrolling, OPTIMIZER).lower(trained, fixed, state, *rest).compile()
        seconds = time.perf_counter() - began
        held = [trained, state]

        def call(step=step, fixed=fixed, rest=rest, held=held) -> jax.Array:
            held[0], held[1], loss, _ = step(held[0], fixed, held[1], *rest)
            return loss

        found[precision] = _rate(call, batch, subject) | {
            "timesteps": config.unrolled,
            "batch": batch,
            "program_gb": step_bytes(step) / 1e9,
            "compile_seconds": seconds,
        }
        print("  ", precision, found[precision], flush=True)
    return found


def _rate(step: Callable[[], Any], batch: int, subject: Subject, repeats: int = 5) -> dict:
    """Images a second of ``step``, several after each other without waiting."""
    import jax

    began = time.perf_counter()
    jax.block_until_ready(step())
    first, times = time.perf_counter() - began, []
    for _ in range(subject.config.rounds):
        began = time.perf_counter()
        values = [step() for _ in range(repeats)]
        jax.block_until_ready(values)
        times.append((time.perf_counter() - began) / repeats)
    return {"images_per_second": batch / float(np.median(times)), "step_seconds": times, "first_seconds": first}


MEASURED: dict[str, Callable[[Subject], dict]] = {
    "equality": equality,
    "throughput": throughput,
    "profile": profile,
    "training": training,
    "bptt": bptt,
}
"""Parts that are measured in one process after the other."""


def work(config: DeviceConfig, names: list[str], deadline: float) -> None:
    """In a process of its own: measure some parts."""
    from jaxsnn.runtime.compile_cache import keep_compiled
    from jaxsnn.runtime.memory import peak_bytes
    from jaxsnn.runtime.provenance import describe_device, versions

    keep_compiled()
    began = time.perf_counter()
    try:
        subject = load(config, deadline)
    except UserError as error:
        write_json(config.out / "start.json", {"error": str(error)})
        return
    start = {"device": describe_device(), "versions": versions(), "load_seconds": time.perf_counter() - began}
    print(start, flush=True)
    write_json(config.out / "start.json", start)
    for name in names:
        if subject.late(5):
            return
        began = time.perf_counter()
        try:
            found = MEASURED[name](subject)
        except Exception as error:  # the other parts can still be measured
            found = {"error": repr(error)[:600], "trace": traceback.format_exc()[-3000:]}
        found |= {"part_seconds": time.perf_counter() - began, "process_peak_gb": peak_bytes() / 1e9}
        write_json(config.out / f"{name}.json", found)
        print(f"{name}: {found['part_seconds']:.0f} s", found.get("error", ""), flush=True)


def search(config: DeviceConfig, deadline: float) -> None:
    """Table I's search for CIFAR-10 by jaxsnn.optimize, as far as time goes; a later call goes on with it."""
    folder = config.out / "search"
    options: dict[str, Any] = {"preset": "cifar10", "data": config.data, "precision": "int8", "out": folder}
    options |= {"data-dir": config.data_dir, "weights": config.weights, "network": config.network}
    options |= {"generations": config.generations, "backend": "xla"}
    options |= dict(one.split("=", 1) for one in config.search)
    given = [str(x) for name, value in options.items() if value is not None for x in (f"--{name}", value)]
    began = time.time()
    with open(config.out / "search.log", "w") as log:
        process = subprocess.Popen([sys.executable, "-m", "jaxsnn.optimize", *given], stdout=log, stderr=log)
        try:
            process.wait(max(1, deadline - time.time()))
        except subprocess.TimeoutExpired:
            process.terminate()  # it saves where it stands
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    history = folder / "history.jsonl"
    rows = [json.loads(line) for line in history.read_text().splitlines()] if history.is_file() else []
    found = {
        "generation_seconds": [row["seconds"] for row in rows],
        "part_seconds": time.time() - began,
        "exit_code": process.returncode,
        "finished": (folder / "results.json").is_file(),
    }
    if found["finished"]:
        found["seconds"] = read_json(folder / "results.json")["seconds"]
        write_json(config.out / "search.json", found)
    else:
        found["error"] = "not finished: " + (config.out / "search.log").read_text()[-600:]
        write_json(config.out / "search.json", found)
    print(f"search: {found['part_seconds']:.0f} s, generations took {found['generation_seconds']}", flush=True)


def done(config: DeviceConfig) -> dict[str, dict]:
    """The parts that are there, with those that failed."""
    names = ("start", *config.parts)
    return {n: read_json(config.out / f"{n}.json") for n in names if (config.out / f"{n}.json").is_file()}


def main(config: DeviceConfig) -> dict:
    """Measure what is missing, and print all that is there."""
    at_least(config, population=1, timesteps=1, images=1, check=1, rounds=1, generations=1, batch=1, unrolled=1)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # one process follows the other
    config.out.mkdir(parents=True, exist_ok=True)
    config = replace(config, out=config.out.absolute())
    deadline = time.time() + config.seconds
    config.load("test", 1)  # what is not there is said at once
    missing = [name for name in config.parts if "error" in done(config).get(name, {"error": ""})]
    for name in missing:
        (config.out / f"{name}.json").unlink(missing_ok=True)
    context = multiprocessing.get_context("spawn")
    while missing and time.time() < deadline:
        if missing[0] == "search":
            search(config, deadline)
            missing = missing[1:]
            continue
        group = missing[: missing.index("search")] if "search" in missing else missing
        process = context.Process(target=work, args=(config, group, deadline))
        process.start()
        process.join(max(1, deadline - time.time()))
        if process.is_alive():
            process.kill()
            process.join()
        if "error" in (start := done(config).get("start", {})):
            raise UserError(start["error"])
        left = [name for name in group if name not in done(config)]
        if left and time.time() < deadline:  # it crashed in the first of these
            write_json(config.out / f"{left[0]}.json", {"error": f"the process ended with {process.exitcode}"})
            left = left[1:]
        missing = left + missing[len(group) :]
    found = done(config)
    write_json(config.out / "device_check.json", found)
    Console().print(table(found))
    return found


def table(found: dict[str, dict]) -> Table:
    """What was measured, a line each."""
    made = Table("part", "what", "figure", title=found.get("start", {}).get("device"))
    for name, part in found.items():
        if "error" in part:
            made.add_row(name, "failed", part["error"][:200])
            continue
        for what, figure in lines_of(name, part):
            made.add_row(name, what, figure)
    return made


def lines_of(name: str, part: dict) -> list[tuple[str, str]]:
    """The lines of one part."""
    if name == "equality":
        return [
            (
                f"{part['candidates']} x {part['images']} images, T = {part['timesteps']}",
                "equal" if part["int8_equals_cpu"] else "NOT EQUAL",
            )
        ]
    if name == "throughput":
        return [
            (
                f"{row['precision']}, T = {row['timesteps']}, delay {row['delay']}, {row['rows']} rows",
                f"{row['itc_per_second']:,.0f} itc/s, compiled in {row['compile_seconds']:.1f} s, "
                f"{row['process_peak_gb']:.1f} GB"
                if "itc_per_second" in row
                else row["left_out"],
            )
            for row in part["rows"]
        ]
    if name == "profile":
        return [
            (f"{precision}, {layer}", f"{us:,.0f} us")
            for precision, one in part.items()
            if isinstance(one, dict)
            for layer, us in one["layers"].items()
        ]
    if name == "search":
        return [
            ("a generation", ", ".join(f"{s:.1f}" for s in part["generation_seconds"][:8]) + " s"),
            ("all of it", f"{part['seconds']:.0f} s"),
        ]
    if name == "training":
        return [(f"{part['network']}, batch {part['batch']}", f"{part['images_per_second']:,.0f} images/s")]
    if name == "bptt":
        return [
            (
                f"{p}, T = {one['timesteps']}, batch {one['batch']}",
                f"{one['images_per_second']:,.0f} images/s, {one['program_gb']:.1f} GB",
            )
            for p, one in part.items()
            if isinstance(one, dict)
        ]
    return []


if __name__ == "__main__":
    command.run(DeviceConfig, main, "device_check", __doc__)
