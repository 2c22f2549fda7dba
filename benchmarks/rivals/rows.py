"""One row of the table: a system prepared, timed, and simulated on the test images."""

import ast
import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import data
from benchmarks.few import clock
from benchmarks.few.evaluate import evaluate
from benchmarks.few.task import Converted, Seen
from benchmarks.rivals.system import Job, System
from jaxsnn.analysis.energy import HOROWITZ, snn_energy
from jaxsnn.analysis.operations import Activity, macs
from jaxsnn.runtime.provenance import code_digest
from jaxsnn.simulation.cells.cell import Cell
from jaxsnn.simulation.cells.leaky import Leaky

ROOT = Path(__file__).parents[2]
HOME = "benchmarks.rivals."
PARTS = ("conversion", "networks", "simulation", "training")
CODE = ("benchmarks/few", *(f"jaxsnn/{part}" for part in PARTS))
"""What all rows depend on."""


@functools.cache
def shared_code() -> str:
    """A hash of the sources that all rows depend on."""
    return code_digest({name: ROOT / name for name in CODE})


def code(system: System) -> str:
    """A hash of the sources that a system's rows depend on: a new system leaves the others' rows as they are."""
    prepare = system.prepare.func if isinstance(system.prepare, functools.partial) else system.prepare
    found = hashlib.sha256(shared_code().encode())
    for path in sorted(own_files([prepare.__module__, f"{HOME}rows"])):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def own_files(modules: Iterable[str]) -> set[Path]:
    """The files of this package among ``modules`` and all that they import of it."""
    found: set[Path] = set()
    waiting = [module for module in modules if module.startswith(HOME)]
    while waiting:
        path = ROOT / f"{waiting.pop().replace('.', '/')}.py"
        if path not in found:
            found.add(path)
            imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
            waiting += [node.module for node in imports if node.module and node.module.startswith(HOME)]
    return found


def row_of(system: System, job: Job, test: data.Dataset) -> dict[str, Any]:
    """What rivals.json holds of one system at one T and seed."""
    started = clock.seconds()
    converted = system.prepare(job)
    seconds = clock.seconds() - started + converted.shared_seconds
    started = clock.seconds()
    seen = seen_by(system.name, converted, job, test)
    spikes, synops = seen.spikes[-1], seen.synops[-1]
    return {
        "system": system.name,
        "timesteps": job.timesteps,
        "seed": job.seed,
        "accuracy": seen.right.mean(0).tolist(),
        "right": np.packbits(seen.right[:, -1]).tobytes().hex(),
        "spikes": spikes.sum(),
        "synops": synops.sum(),
        "microjoules": 1e-6 * energy(converted, job, Activity(job.timesteps, tuple(spikes), tuple(synops))),
        "seconds": seconds,
        "images": len(job.labelled.labels) if system.trained else len(job.images),
        "simulated": seen.simulated,
        "note": converted.note,
        "code": code(system),
        "test_seconds": clock.seconds() - started,
    }


def seen_by(name: str, converted: Converted, job: Job, test: data.Dataset) -> Seen:
    """What is seen at the job's T; of a steady network at the longest T, once for all that are shorter."""
    plain = converted.neurons is None and converted.cells is None and converted.run is None and not converted.skip
    if plain and jax.default_backend() != "cpu":  # compiled once for all T
        converted = dataclasses.replace(converted, cells=Leaky(comparison=converted.comparison))
    if not converted.steady or job.longest < job.timesteps:
        return evaluate(converted, job, test.images, test.labels)
    own = {} if converted.snn is None else converted.snn.params
    leak = () if converted.leak is None else converted.leak
    parts = [*itertools.chain(*vars(converted.channels).values()), *own.values(), leak]
    told = hashlib.sha256(b"".join(np.asarray(part).tobytes() for part in parts)).hexdigest()
    key = f"seen {name} {converted.cells} {told}"
    if key not in job.shared:
        longest = dataclasses.replace(job, timesteps=job.longest)
        job.shared[key] = evaluate(converted, longest, test.images, test.labels)
    return job.shared[key].until(job.timesteps)


def energy(converted: Converted, job: Job, activity: Activity) -> float:
    """Picojoules of an image by additions and multiplications alone, float32 at 45 nm.

    A spike costs an addition for each weight that it drives, whatever it is worth. A constant image is multiplied
    once; one that comes as spikes costs, at most, an addition for each of its weights at every step.
    """
    costs = HOROWITZ["FP32"]
    image, *layers = snn_energy(job.network, activity, costs)
    cells = converted.cells
    first = cells if isinstance(cells, Cell) or cells is None else cells[0]
    if first is not None and first.coding is not None:
        image = macs(job.network)[0] * costs.add * job.timesteps
    return image + sum(layers)


def right_of(row: dict[str, Any], images: int) -> np.ndarray:
    """Which test images a row has right at T, bool (N,)."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(row["right"]), np.uint8), count=images).astype(bool)
