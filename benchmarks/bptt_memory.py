"""benchmarks.bptt, second part: memory and time of a step."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.bptt_config import Config
from benchmarks.problem import macs, random_params
from jaxsnn.networks.architectures import architecture
from jaxsnn.networks.description import Network, shapes_of
from jaxsnn.networks.linear_maps import MATRIX_POSITIONS
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.reports import figures
from jaxsnn.runtime.provenance import describe_device
from jaxsnn.search.presets import preset
from jaxsnn.simulation import dense
from jaxsnn.training.bptt import Unrolling, make_optimizer, make_step, step_bytes

IMAGENET_TRAIN = 1_281_167


MEASURED_STEPS = 25
"""Longest run that is timed on small images; time goes with T from there."""


BPTT_EPOCHS = 20
"""The paper's assumption, from its reference 10."""


PAPER = (
    "the paper, T = 5: 2.9 times less memory and 42 times less time, at batches of 21, 2, 2 and 1 for its four T"
)


def sizes(config: Config) -> list[str]:
    """The searches' options."""
    pairs = [(f"--{name}", getattr(config, name)) for name in ("population", "generations")]
    return [str(part) for flag, value in pairs if value is not None for part in (flag, value)]


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
    return params, Genes(jnp.ones((1, len(network.spiking)))), *synthetic(network, batch), jnp.ones(batch, bool)


def shapes(inputs, network: Network, batch: int) -> tuple:
    """``inputs`` of ``bptt_inputs`` or ``search_inputs`` as shapes, with nothing allocated."""
    params = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes_of(network).items()}
    return jax.eval_shape(lambda params: inputs(network, batch, params), params)


def compiled_bptt(network: Network, timesteps: int, batch: int, checkpoint: bool = False):
    """The compiled step of BPTT."""
    unrolling = Unrolling(timesteps, loss="final", scale=0.15, checkpoint=checkpoint)
    step = make_step(network, unrolling, OPTIMIZER)
    return step.lower(*shapes(bptt_inputs, network, batch)).compile()


def compiled_search(network: Network, timesteps: int, batch: int):
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


def median_seconds(call, repeats: int) -> float:
    """Median time of ``call()`` behind one that is not counted."""
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


def memory_rows(config: Config, console: Console) -> dict:
    """Fig. 5: a row for each T."""
    network = architecture(config.network, classes=config.classes, input_shape=(config.side, config.side, 3))
    limit = config.memory * 2**30
    chosen = preset("imagenet")
    epochs = {
        "bptt": BPTT_EPOCHS,
        "search": chosen.images * chosen.population * chosen.generations / IMAGENET_TRAIN,  # eq. 17
    }
    small = architecture(
        config.network, classes=config.classes, input_shape=(config.measure_side, config.measure_side, 3)
    )
    rows, measured = [], {}
    for timesteps in config.unrolled:
        batch, needed = largest_batch(
            lambda batch, timesteps=timesteps: step_bytes(compiled_bptt(network, timesteps, batch)), limit
        )
        row = {"timesteps": timesteps, "batch": batch, "bptt_bytes": needed}
        shown = max(1, batch)
        row["checkpoint_bytes"] = step_bytes(compiled_bptt(network, timesteps, shown, checkpoint=True))
        row["search_bytes"] = step_bytes(compiled_search(network, timesteps, shown))
        if config.measure != "none":
            full = config.measure == "full"
            which, images = (network, shown) if full else (small, 2)
            steps = timesteps if full else min(timesteps, MEASURED_STEPS)
            if (full, images, steps) not in measured:
                measured[full, images, steps] = batch_seconds(which, steps, images, config.repeats)
            pair = measured[full, images, steps]
            work = [
                n * t * macs(net, fold=True, first=False, matrix_positions=MATRIX_POSITIONS)
                for net, n, t in ((network, shown, timesteps), (which, images, steps))
            ]
            row["extrapolated"] = not full
            row["measured"] = {
                "side": which.input_shape[0],
                "batch": images,
                "timesteps": steps,
                "bptt_s": pair[0],
                "search_s": pair[1],
            }
            for name, seconds in zip(("bptt", "search"), pair):
                tau = seconds * work[0] / work[1]
                row[f"{name}_batch_s"] = tau
                row[f"{name}_hours"] = tau * epochs[name] * IMAGENET_TRAIN / shown / 3600  # eq. 19
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


def memory_table(report: dict) -> Table:
    """Fig. 5 in numbers."""
    cost = report["training_cost_epochs"]
    table = Table(
        title=f"{report['network']}; largest batch of BPTT in {report['limit_gib']:g} GiB; eq. 19 with "
        f"{cost['bptt']:g} and {cost['search']:.2f} epochs",
        caption=PAPER,
    )
    for heading in ("T", "batch", "BPTT GB", "checkpointed GB", "search GB", "less memory"):
        table.add_column(heading, justify="right")
    timed = report["measure"] != "none"
    note = " (extrapolated)" if report["measure"] == "small" else ""
    for heading in (f"BPTT h{note}", f"search h{note}", "less time") if timed else ():
        table.add_column(heading, justify="right")
    for row in report["rows"]:
        sizes = [row[f"{name}_bytes"] for name in ("bptt", "checkpoint", "search")]
        cells = [str(row["timesteps"]), str(row["batch"] or "1 does not fit"), *(f"{s / 1e9:.2f}" for s in sizes)]
        cells.append(f"{sizes[0] / sizes[2]:.1f}x")
        if timed:
            hours = row["bptt_hours"], row["search_hours"]
            cells += [*(f"{h:,.0f}" for h in hours), f"{hours[0] / hours[1]:.0f}x"]
        table.add_row(*cells)
    return table


def memory_figure(report: dict, path: Path) -> None:
    """Memory and running time over T, as in Fig. 5."""
    rows = report["rows"]
    timed = report["measure"] != "none"
    with plt.rc_context(figures.STYLE):
        figure, panels = plt.subplots(1, 2 if timed else 1, figsize=(9 if timed else 5, 3.8), squeeze=False)
        places = np.arange(len(rows))
        left = panels[0, 0]
        kinds = (("bptt", "BPTT", "#55a868"), ("checkpoint", "BPTT, checkpointed", "#a3cfa9"))
        for shift, (name, label, color) in enumerate((*kinds, ("search", "search", figures.OPTIMIZED))):
            left.bar(
                places + 0.27 * (shift - 1),
                [row[f"{name}_bytes"] / 1e9 for row in rows],
                0.25,
                color=color,
                label=label,
            )
        left.set_ylabel("memory of a batch [GB]")
        if timed:
            right = panels[0, 1]
            for shift, (name, label, color) in enumerate((kinds[0], ("search", "search", figures.OPTIMIZED))):
                right.bar(
                    places + 0.4 * (shift - 0.5),
                    [row[f"{name}_hours"] for row in rows],
                    0.38,
                    color=color,
                    label=label,
                )
            right.set_yscale("log")
            extrapolated = ", extrapolated" if report["measure"] == "small" else ""
            right.set_ylabel(f"running time, eq. 19{extrapolated} [h]")
        for axes in panels[0]:
            axes.set_xticks(places, [f"{row['timesteps']}\n(batch {max(1, row['batch'])})" for row in rows])
            axes.set_xlabel("timesteps")
            axes.legend(fontsize=8)
        figures.save(figure, path)
