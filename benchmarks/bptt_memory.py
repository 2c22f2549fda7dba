"""benchmarks.bptt, second part: memory and time of a step."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Compiled
from rich.console import Console

from benchmarks.bptt_config import Config
from benchmarks.problem import macs, random_params
from jaxsnn.networks.architectures import architecture
from jaxsnn.networks.description import Network, shapes_of
from jaxsnn.networks.linear_maps import MATRIX_POSITIONS
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.runtime.provenance import describe_device
from jaxsnn.search.presets import preset
from jaxsnn.simulation import dense
from jaxsnn.training.bptt import Unrolling, make_optimizer, make_step, step_bytes

IMAGENET_TRAIN = 1_281_167


MEASURED_STEPS = 25
"""Longest run that is timed on small images; time goes with T from there."""


BPTT_EPOCHS = 20
"""The paper's assumption, from its reference 10."""


OPTIMIZER = make_optimizer(("weights", "thresholds"), 1e-4, 1e-2, 100)


def synthetic(network: Network, batch: int) -> tuple[jax.Array, jax.Array]:
    """Random images and labels."""
    images = jax.random.randint(jax.random.key(0), (batch, *network.input_shape), 0, 256).astype(np.uint8)
    return images, jnp.zeros(batch, np.int32)


def bptt_inputs(network: Network, batch: int, params: dict) -> tuple:
    """The inputs of a step of BPTT that trains weights and thresholds."""
    count = len(network.spiking)
    trained = {"weights": params, "thresholds": jnp.ones(count)}
    fixed = {"leak": jnp.ones(count), "v0": jnp.zeros(count)}
    return trained, fixed, OPTIMIZER.init(trained), jnp.ones(count), *synthetic(network, batch), jax.random.key(0)


def search_inputs(network: Network, batch: int, params: dict) -> tuple:
    """The inputs of the simulation of one candidate."""
    return (
        params,
        Genes(np.ones((1, len(network.spiking)), np.float32)),
        *synthetic(network, batch),
        jnp.ones(batch, bool),
    )


def shapes(inputs: Callable[..., tuple], network: Network, batch: int) -> tuple:
    """``inputs`` of ``bptt_inputs`` or ``search_inputs`` as shapes, with nothing allocated."""
    params = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes_of(network).items()}
    return jax.eval_shape(lambda params: inputs(network, batch, params), params)


def compiled_bptt(network: Network, timesteps: int, batch: int, checkpoint: bool = False) -> Compiled:
    """The compiled step of BPTT."""
    unrolling = Unrolling(timesteps, loss="final", scale=0.15, checkpoint=checkpoint)
    step = make_step(network, unrolling, OPTIMIZER)
    return step.lower(*shapes(bptt_inputs, network, batch)).compile()


def compiled_search(network: Network, timesteps: int, batch: int) -> Compiled:
    """The compiled simulation of one candidate."""
    fixed = (network, Dynamics(delay="none"), timesteps, False, "float32", None, 1)
    return dense.simulate.lower(*fixed, *shapes(search_inputs, network, batch)).compile()


def largest_batch(needed: Callable[[int], int], limit: float) -> tuple[int, int]:
    """The largest batch whose step needs at most ``limit`` bytes (0 for none), and what it needs.

    Memory is nearly affine in the batch, so that a line through two of them leads to the answer.
    """
    known = {1: needed(1)}
    if known[1] > limit:
        return 0, known[1]
    fits, fails, batch = 1, None, 4
    while fails is None or fails - fits > 1:
        known[batch] = needed(batch)
        if known[batch] <= limit:
            fits = batch
        else:
            fails = batch
        each = (known[batch] - known[1]) / (batch - 1)
        guess = 1 + int((limit - known[1]) / each)
        batch = max(fits + 1, guess if fails is None else min(guess, fails - 1))
    return fits, known[fits]


def median_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median time of ``call()`` after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))


def batch_seconds(network: Network, timesteps: int, batch: int, repeats: int) -> tuple[float, float]:
    """Seconds of a step of BPTT and of the simulation of one candidate."""
    images = np.asarray(synthetic(network, 4)[0])
    params = {name: jnp.asarray(value) for name, value in random_params(network, images, 0).items()}
    simulate, arguments = compiled_search(network, timesteps, batch), search_inputs(network, batch, params)
    search = median_seconds(lambda: simulate(*arguments), repeats)
    step = compiled_bptt(network, timesteps, batch)
    trained, fixed, state, *rest = bptt_inputs(network, batch, params)

    def call():  # the step overwrites its first and third argument
        nonlocal trained, state
        trained, state, *others = step(trained, fixed, state, *rest)
        return others

    return median_seconds(call, repeats), search


@dataclass(frozen=True)
class Timer:
    """Times the batches of Fig. 5, on the real network or on one with smaller images, each size once."""

    config: Config
    network: Network
    measured: dict[tuple[Network, int, int], tuple[float, float]] = field(default_factory=dict)

    def row(self, timesteps: int, batch: int, epochs: dict[str, float]) -> dict:
        """The times of ``batch`` images: what was measured, and carried over to ``network``."""
        config, full = self.config, self.config.measure == "full"
        side = config.measure_side
        small = architecture(config.network, classes=config.classes, input_shape=(side, side, 3))
        which, images = (self.network, batch) if full else (small, 2)
        steps = timesteps if full else min(timesteps, MEASURED_STEPS)
        size = (which, images, steps)
        if size not in self.measured:
            self.measured[size] = batch_seconds(which, steps, images, config.repeats)
        pair = self.measured[size]
        ratio = work_of(self.network, batch, timesteps) / work_of(which, images, steps)
        row: dict = {
            "extrapolated": not full,
            "measured": {
                "side": which.input_shape[0],
                "batch": images,
                "timesteps": steps,
                "bptt_s": pair[0],
                "search_s": pair[1],
            },
        }
        for name, seconds in zip(("bptt", "search"), pair):
            tau = seconds * ratio
            row[f"{name}_batch_s"] = tau
            row[f"{name}_hours"] = tau * epochs[name] * IMAGENET_TRAIN / batch / 3600  # eq. 19
        return row


def work_of(network: Network, batch: int, timesteps: int) -> int:
    """Multiply-accumulates of the simulation of a batch."""
    return batch * timesteps * macs(network, fold=True, first=False, matrix_positions=MATRIX_POSITIONS)


def memory_row(network: Network, timesteps: int, limit: float) -> dict:
    """The largest batch with which BPTT fits into ``limit`` bytes, and what each way needs for it."""
    batch, needed = largest_batch(lambda batch: step_bytes(compiled_bptt(network, timesteps, batch)), limit)
    shown = max(1, batch)
    return {
        "timesteps": timesteps,
        "batch": batch,
        "bptt_bytes": needed,
        "checkpoint_bytes": step_bytes(compiled_bptt(network, timesteps, shown, checkpoint=True)),
        "search_bytes": step_bytes(compiled_search(network, timesteps, shown)),
    }


def memory_rows(config: Config, console: Console) -> dict:
    """Fig. 5: a row for each T."""
    network = architecture(config.network, classes=config.classes, input_shape=(config.side, config.side, 3))
    chosen = preset("imagenet")
    epochs = {
        "bptt": BPTT_EPOCHS,
        "search": chosen.images * chosen.population * chosen.generations / IMAGENET_TRAIN,  # eq. 17
    }
    timer, rows = Timer(config, network), []
    for timesteps in config.unrolled:
        row = memory_row(network, timesteps, config.memory * 2**30)
        if config.measure != "none":
            row |= timer.row(timesteps, max(1, row["batch"]), epochs)
        rows.append(row)
        console.print(json.dumps(row), highlight=False, soft_wrap=True)
    return {
        "device": describe_device(),
        "network": f"{config.network}, {config.side} x {config.side}, {config.classes} classes",
        "limit_gib": config.memory,
        "training_cost_epochs": epochs,
        "measure": config.measure,
        "rows": rows,
    }
