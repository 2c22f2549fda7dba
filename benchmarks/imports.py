"""Twelve PyTorch networks as users write them, in as live modules, as .pt2 archives and as ONNX files: a table.

    python -m benchmarks.imports        # needs PyTorch; of ONNX the exporter (pip install onnx onnxscript)

Each network of tests/helpers/torch_models.py, with random weights, comes in by one call. The table gives the
largest difference of a logit on eight random images from what runs the source (PyTorch, ONNX Runtime where it is
installed, else the graph in float64), then the search: the accuracy after T steps, against the ANN's own answers
on random images, of the best of the first population and of the last generation; and the exports that can be
written. Max pools come in as spiking ones and as average pools.
"""

import itertools
import logging
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

import jaxsnn
from benchmarks import command
from jaxsnn.cli import command as commands
from jaxsnn.cli.options import DebugOptions
from jaxsnn.conversion.folding import fold
from jaxsnn.conversion.model_import import ImportedModel, import_model
from jaxsnn.conversion.state_dicts import require_torch
from jaxsnn.errors import UserError
from jaxsnn.exports.converted import Converted
from jaxsnn.exports.write import files_of
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.spiking import SNN, Dynamics
from jaxsnn.networks.weights import to_device
from jaxsnn.runtime.checks import at_least
from jaxsnn.runtime.files import write_json
from jaxsnn.search.settings import SearchSettings

SOURCES = ("module", "pt2", "onnx")
EXPORTS = ("nir", "torch", "npz")
POOLS = {"max pools": ("spiking", "average")}
"""What becomes of a network's max pools, one table row each."""


@dataclass(frozen=True)
class ImportsConfig(DebugOptions):
    """Options."""

    networks: tuple[str, ...] = ()
    """Names of the networks; default: all."""
    generations: int = 2
    """Generations of the search."""
    images: int = 32
    """Random images that the search sees."""
    json: Path | None = None
    """Write the rows here."""


@dataclass(frozen=True)
class Row:
    """One network from one source; texts say why something could not be done."""

    network: str
    source: str
    layers: int | None
    edges: int | None
    difference: float | str
    first: float | None = None
    last: float | None = None
    exports: dict[str, str] | None = None


def imported(module: Any, shape: tuple[int, ...], source: str, pool: str, folder: Path) -> ImportedModel:
    """The module by one call, live or by way of a file of either kind."""
    if source == "module":
        return import_model(module, shape, max_pool=pool)
    import torch

    path, x = folder / f"model.{source}", torch.zeros(1, *shape)
    if source == "pt2":
        torch.export.save(torch.export.export(module, (x,)), path)
    else:
        torch.onnx.export(module, (x,), str(path), dynamo=True, verbose=False)
    return import_model(path, max_pool=pool)


def searched(model: ImportedModel, config: ImportsConfig) -> tuple[float, float, dict[str, str]]:
    """Accuracy of the best candidate before and after the search, and what became of each export."""
    folded, params = fold(model.network, model.params)
    snn = SNN(folded, to_device(params))
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (config.images, *folded.input_shape), dtype=np.uint8)
    labels = np.asarray(ann_forward(folded, snn.params, images)[-1]).argmax(-1)
    steps = folded.delay + 16
    count = config.images
    settings = SearchSettings(
        generations=config.generations, population=4, images=count, timesteps=steps, calibration_images=count
    )
    best = [generation.best.genes for generation in jaxsnn.evolve(snn, (images, labels), settings=settings)]
    first, last = (genes for genes in (best[0], best[-1]) if genes is not None)
    before, after = (
        float(jaxsnn.observe(snn, genes, images, labels, timesteps=steps).accuracy[0, -1])
        for genes in (first, last)
    )
    converted = Converted(snn, last, Dynamics(), steps)
    return before, after, {to: attempt(lambda to=to: files_of(converted, to)) for to in EXPORTS}


def attempt(work: Callable[[], object]) -> str:
    """``yes``, or the sentence why not."""
    try:
        work()
    except UserError as error:
        return str(error)
    return "yes"


def row(name: str, source: str, pool: str, config: ImportsConfig, made: Callable) -> Row:
    """One line of the table."""
    module, shape = made(name)
    name = name if pool == "refuse" else f"{name}, {pool}"
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = imported(module, shape, source, pool, Path(folder))
        except (UserError, ImportError) as error:
            return Row(name, source, None, None, str(error))
    edges = sum(len(layer.edges) for layer in model.network.layers)
    parts = (len(model.network.spiking), edges, model.difference)
    if source != "module":  # the network is the same
        return Row(name, source, *parts)
    return Row(name, source, *parts, *searched(model, config))


def run(config: ImportsConfig) -> list[Row]:
    """Print the table."""
    at_least(config, generations=0, images=4)
    require_torch("benchmarks.imports")
    from tests.helpers.torch_models import MODELS, made

    unknown = sorted(set(config.networks) - set(MODELS))
    if unknown:
        raise UserError(f"--networks {unknown[0]} is unknown: the networks are {', '.join(MODELS)}")
    logging.disable(logging.CRITICAL)  # PyTorch's exporter says much on the way
    console = commands.TextConsole()
    table = Table(box=box.SIMPLE, pad_edge=False, collapse_padding=True)
    table.add_column("network", min_width=18)
    for column in ("from", "layers", "logits", "before", "after", *EXPORTS):
        table.add_column(column, no_wrap=True)
    rows: list[Row] = []
    reasons: list[str] = []
    for name in config.networks or MODELS:
        for pool, source in itertools.product(POOLS.get(name, ("refuse",)), SOURCES):
            rows.append(row(name, source, pool, config, made))
            table.add_row(*cells(rows[-1], reasons))
    console.print(table)
    for number, reason in enumerate(reasons, start=1):
        console.print(f"({number}) {reason}", highlight=False, markup=False)
    if config.json is not None:
        write_json(config.json, {"rows": [asdict(found) for found in rows]})
    return rows


def cells(found: Row, reasons: list[str]) -> list[str]:
    """The row as texts; why something could not be done goes to ``reasons``."""

    def noted(reason: str) -> str:
        reasons.append(reason)
        return f"no ({len(reasons)})"

    difference = noted(found.difference) if isinstance(found.difference, str) else f"{found.difference:.1e}"
    shares = ["" if value is None else f"{100 * value:.0f} %" for value in (found.first, found.last)]
    made = [(found.exports or {}).get(to, "") for to in EXPORTS]
    exports = [text if text in ("", "yes") else noted(text) for text in made]
    layers = "" if found.layers is None else str(found.layers)
    return [
        found.network if found.source == "module" else "",
        found.source,
        layers,
        difference,
        *shares,
        *exports,
    ]


if __name__ == "__main__":
    command.run(ImportsConfig, run, "imports", __doc__)
