"""One checkpoint of the paper's Table I, timed beside Orbax's: python -m benchmarks.kills --checkpoints"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from jaxsnn.errors import UserError
from jaxsnn.search import checkpoint
from jaxsnn.search.evolve import Candidate, Generation

CHECKPOINT_REPEATS = 30


def example_checkpoint(population: int = 25, dimension: int = 15, timesteps: int = 100) -> checkpoint.Checkpoint:
    """A checkpoint as the paper's Table I gives it, after 26 generations."""
    rng = np.random.default_rng(0)
    leaders = tuple(
        Candidate(rng.random(dimension), rng.random(), {"a": 0.1, "b": 0.2}, rng.random(timesteps))
        for _ in range(8)
    )
    row = {"generation": 0, "best_cost": 1.5, "parts": leaders[0].parts, "mean_cost": 1.0, "std_cost": 1.0}
    row |= {"accuracy": 0.5, "latency": None, "nfe": 5, "image_evaluations": 10}
    row |= {"best": rng.random(dimension).tolist()}
    arrays = {".members": rng.random((population, dimension)), ".energies": rng.random(population)}
    arrays |= {".trials": rng.random((population, dimension)), ".index": np.arange(population)}
    rows = [row | {"generation": number} for number in range(27)]
    generation = Generation(26, leaders, 1.0, 1.0, 675, 0, 2025000, 9.5, False, False)
    return checkpoint.Checkpoint({"seed": 0}, generation, arrays, {"limit_right": np.arange(675)}, rows, 250.0)


def time_ours(state: checkpoint.Checkpoint, folder: Path) -> dict[str, float]:
    """Median milliseconds to write and to read a checkpoint, and its bytes."""
    writing, reading, size = [], [], 0
    for _ in range(CHECKPOINT_REPEATS):
        began = time.perf_counter()
        path = checkpoint.save(folder, state)
        writing.append(time.perf_counter() - began)
        began = time.perf_counter()
        checkpoint.read(path)
        reading.append(time.perf_counter() - began)
        size = path.stat().st_size
    return {"ms": 1e3 * statistics.median(writing), "read_ms": 1e3 * statistics.median(reading), "bytes": size}


def time_orbax(state: checkpoint.Checkpoint, folder: Path) -> dict[str, float]:
    """Median milliseconds to write the same with Orbax, the files of a checkpoint and their bytes."""
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise UserError(f"--checkpoints needs Orbax (pip install orbax-checkpoint): {error}") from error
    leaders, rows = state.generation.leaders, json.dumps(state.rows)
    tree = {"engine": state.engine, "leaders": np.stack([leader.vector for leader in leaders])}
    tree |= {"accuracy": np.stack([leader.accuracy for leader in leaders])}
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    seconds = []
    with ocp.CheckpointManager(folder, options=options) as manager:
        for step in range(CHECKPOINT_REPEATS):
            began = time.perf_counter()
            parts = {"state": ocp.args.StandardSave(tree), "rows": ocp.args.JsonSave({"rows": rows})}
            manager.save(step, args=ocp.args.Composite(**parts))
            manager.wait_until_finished()
            seconds.append(time.perf_counter() - began)
    files = [path for path in (folder / str(CHECKPOINT_REPEATS - 1)).rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    return {"ms": 1e3 * statistics.median(seconds), "files": len(files), "bytes": size}


def show_checkpoints(console: Console) -> None:
    """Print the time of a checkpoint, ours and Orbax's."""
    with tempfile.TemporaryDirectory() as name:
        state = example_checkpoint()
        theirs = time_orbax(state, Path(name) / "orbax")
        ours = time_ours(state, Path(name))
    console.print(
        f"one checkpoint of 25 x 15 after 26 generations: {ours['ms']:.1f} ms in one file of {ours['bytes']} "
        f"bytes, read and checked in {ours['read_ms']:.1f} ms; Orbax {theirs['ms']:.1f} ms in "
        f"{theirs['files']} files of {theirs['bytes']} bytes together"
    )
