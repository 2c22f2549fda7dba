"""Accelerators that are not here: compiled for by their own compilers, counted, and what they could reach at best.

    python -m benchmarks.ahead --chips h100 v5e v5p v6e --json ahead.json

Nothing runs. Needs the compilers: pip install "jax[tpu]" for TPUs, "jax[cuda13]" for the H100. A row is a program
on one device, or on several ("mesh"):

- order: "step" and "block" are XLA's own code, step by step or layer by layer over --block steps; "kernels" ours.
- mb_per_itc: bytes that the timestep loop moves for each image x timestep x candidate: of TPUs by the compiler's
  cost_analysis, which counts a loop inside it once and on-chip copies, too; of the H100, whose compiler gives
  none, by its instructions' operands and results (benchmarks.hlo), an upper bound. hbm_mb_per_itc is the latter
  for all, without what lies on the chip. For other programs the unit is what the row names.
- gflop_per_itc: two for each multiply-accumulate as executed (float32 in our kernels: three products each),
  without what padding adds.
- float32_convolutions: convolutions and matrix products with a float32 operand, as compiled, of the simulator's
  timestep loop or of a whole other program.
- roofline_itc_per_s: the lesser of bandwidth / bytes and peak / FLOP, by the makers' figures; no estimate of what
  would be measured. table_1_seconds are those of Table I's CIFAR-10 search at that rate.
"""

import gc
import itertools
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import command
from jaxsnn.cli.options import DebugOptions
from jaxsnn.errors import UserError
from jaxsnn.runtime.checks import at_least

What = Literal["simulator", "clipped", "generation", "training", "bptt", "mesh"]
UNITS = {
    "clipped": "image x candidate",
    "generation": "candidate",
    "training": "image",
    "bptt": "image x timestep",
}
HOST = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_PROCESS_BOUNDS": "1,1,1",
    "TPU_CHIPS_PER_HOST_BOUNDS": "2,2,1",
}
"""What libtpu asks of a host that has no TPU."""


@dataclass(frozen=True, kw_only=True)
class AheadConfig(DebugOptions):
    """Compile the programs for accelerators that are not here, and count."""

    chips: tuple[Literal["h100", "v5e", "v5p", "v6e"], ...] = ("h100", "v5e", "v5p", "v6e")
    what: tuple[What, ...] = ("simulator", "clipped", "generation", "training", "bptt", "mesh")
    network: str = "vgg15"
    precisions: tuple[Literal["float32", "bfloat16", "int8"], ...] = ("float32", "bfloat16", "int8")
    orders: tuple[Literal["step", "block", "kernels"], ...] = ("step", "block", "kernels")
    population: int = 8
    images: int = 64
    """Images at once; on several devices as many on each."""
    timesteps: int = 32
    block: int = 8
    """Timesteps that a layer does at once."""
    batch: int = 128
    """Images of a step of training."""
    hourly: tuple[float, ...] = ()
    """Dollars an hour of each of --chips, for table_1_dollars."""
    json: Path | None = None
    """Write the rows here; those that are there are not compiled again."""


def cases(config: AheadConfig) -> Iterator[dict[str, Any]]:
    """What names a row."""
    base = {"network": config.network}
    for chip, what in itertools.product(config.chips, config.what):
        named = base | {"chip": chip, "what": what}
        if what in ("simulator", "mesh"):
            orders = config.orders if what == "simulator" else ("kernels",)
            for order, precision in itertools.product(orders, config.precisions):
                yield named | {"precision": precision, "order": order}
        else:
            half = what in ("training", "bptt")
            yield named | {"precision": "bfloat16" if half else "float32", "order": None}


def lowered(config: AheadConfig, case: dict[str, Any]) -> tuple[Any, int, int]:
    """The program, how many rows it is given on a device, and how many units a round of its loop is."""
    from benchmarks import ahead_programs as programs

    chip = programs.CHIPS[case["chip"]]
    found = np.array(programs.devices(chip, case["what"] == "mesh"))
    rows, block = config.population * config.images, 1 if case["order"] == "step" else config.block
    if case["what"] in ("simulator", "mesh"):
        snn = programs.random_snn(config.network)
        across, along = chip.sides if case["what"] == "mesh" else (1, 1)
        grid = found.ravel()[: across * along].reshape(across, along)
        population, images = config.population * across, config.images * along
        made = programs.simulator(snn, grid, case["precision"], block, population, images, config.timesteps)
        return made, rows, rows * block
    if case["what"] == "clipped":
        snn = programs.random_snn(config.network)
        return programs.clipped(snn, found.ravel()[0], config.population, config.images), rows, rows
    if case["what"] == "generation":
        snn = programs.random_snn(config.network)
        made = programs.generation(found.ravel()[0], config.population, len(snn.network.spiking))
        return made, config.population, config.population
    if case["what"] == "training":
        return programs.training(config.network, found.ravel()[0], config.batch), config.batch, config.batch
    snn = programs.random_snn(config.network)
    return programs.bptt(snn, found.ravel()[0], config.batch, config.block), config.batch, config.batch


def compiled(config: AheadConfig, case: dict[str, Any]) -> dict[str, Any]:
    """One row."""
    from benchmarks import ahead_programs as programs
    from benchmarks import hlo

    chip = programs.CHIPS[case["chip"]]
    with programs.pretended(chip, case["order"] or ""):
        try:
            program, rows, units = lowered(config, case)
            began = time.perf_counter()
            made = program.compile()
        except ImportError as error:
            raise UserError(f"{case['chip']} needs its compiler ({error.name} is missing): see --help") from error
        except Exception as error:  # that a program does not compile is a result
            return case | {"error": f"{type(error).__name__}: {error}"[:400]}
    seconds, text = time.perf_counter() - began, made.as_text()
    memory, cost = made.memory_analysis(), made.cost_analysis() or {}
    held = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    repeated = case["what"] in ("simulator", "mesh")
    inside = hlo.products(text, looped=True if repeated else None)
    loops = hlo.loop_bytes(text)
    # there and back again
    moved = (sum(loops[:2]) if case["what"] == "bptt" else loops[0]) / units
    row = case | {
        "compile_seconds": seconds,
        "mb_per_itc": (cost["bytes accessed"] / units if chip.platform == "tpu" else moved) / 1e6,
        "hbm_mb_per_itc": moved / 1e6,
        "peak_mb_per_row": held / rows / 1e6,
        "products": dict(inside),
        "products_once": dict(hlo.products(text, looped=False)) if repeated else {},
        "float32_convolutions": sum(n for kind, n in inside.items() if "f32" in kind.split(" x ")),
        "collectives_bytes": hlo.collectives(text),
        "unit": UNITS.get(case["what"], "image x timestep x candidate"),
    }
    return row | roofline(config, row)


def roofline(config: AheadConfig, row: dict[str, Any]) -> dict[str, Any]:
    """What the maker's figures allow, and which of them binds."""
    from benchmarks import ahead_programs as programs
    from benchmarks.cloud_cost import work
    from benchmarks.contenders.entries import our_macs
    from benchmarks.problem import macs
    from jaxsnn.search.presets import PRESETS

    if row["what"] == "generation":
        return {}
    chip = programs.CHIPS[row["chip"]]
    network = programs.random_snn(config.network).network
    each = macs(network, fold=False) if row["what"] in ("clipped", "training") else our_macs(network)
    backward = 3 if row["what"] in ("training", "bptt") else 1
    split = row["order"] == "kernels" and row["precision"] == "float32"
    flop = 2 * each * backward * (3 if split else 1)
    kind = row["precision"]
    if row["order"] == "kernels":  # a TPU's multiply bfloat16 alone
        kind = "bfloat16" if split or chip.platform == "tpu" else kind
    elif row["float32_convolutions"]:
        kind = "float32"
    limits = {
        "bandwidth": chip.bandwidth / (1e6 * row["mb_per_itc"]),
        "arithmetic": getattr(chip, kind) / flop,
    }
    bound = min(limits, key=lambda name: limits[name])
    found = {"gflop_per_itc": flop / 1e9, "roofline_itc_per_s": limits[bound], "bound": bound}
    if row["what"] in ("simulator", "mesh") and config.network.startswith("vgg15"):
        number = np.prod(chip.sides) if row["what"] == "mesh" else 1
        seconds = work(PRESETS["cifar10"], network) / limits[bound] / float(number)
        found["table_1_seconds"] = seconds
        if config.hourly:
            hourly = config.hourly[config.chips.index(row["chip"])]
            found["table_1_dollars"] = seconds * hourly * float(number) / 3600
    return found


def main(config: AheadConfig) -> list[dict[str, Any]]:
    """Compile what is not there yet, and print the table."""
    at_least(config, population=1, images=1, timesteps=1, block=1, batch=1)
    if config.hourly and len(config.hourly) != len(config.chips):
        raise UserError(
            f"--hourly has {len(config.hourly)} numbers, expected one for each of {len(config.chips)} chips"
        )
    os.environ.update(HOST)
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    console = Console()
    held = json.loads(config.json.read_text()) if config.json is not None and config.json.is_file() else []
    rows = []
    for case in cases(config):
        row = next((old for old in held if case.items() <= old.items()), None)
        if row is None:
            row = compiled(config, case)
            console.print({k: v for k, v in row.items() if k != "products_once"}, soft_wrap=True, highlight=False)
            held.append(row)
            if config.json is not None:
                config.json.write_text(json.dumps(held, indent=1))
            gc.collect()
        rows.append(row)
    console.print(table(rows))
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows for people to read."""
    columns = ("chip", "what", "precision", "order", "MB/itc", "HBM MB", "GFLOP/itc", "compile s", "MB/row")
    made = Table(*columns, "roofline/s", "bound", "f32 products")
    for row in rows:
        cells = [str(row[name] or "") for name in ("chip", "what", "precision", "order")]
        if "error" in row:
            made.add_row(*cells, row["error"][:60])
            continue
        figures = ("mb_per_itc", "hbm_mb_per_itc", "gflop_per_itc", "compile_seconds", "peak_mb_per_row")
        cells += [f"{row[name]:,.3g}" if name in row else "" for name in figures]
        rate = row.get("roofline_itc_per_s")
        cells += [f"{rate:,.0f}" if rate else "", row.get("bound", ""), str(row["float32_convolutions"])]
        made.add_row(*cells)
    return made


if __name__ == "__main__":
    command.run(AheadConfig, main, "ahead", __doc__)
