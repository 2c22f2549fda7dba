"""Spiking networks exported and read again by other simulators: what agrees exactly, what within how much.

    python -m benchmarks.round_trips RUN [RUN ...]

Each run (of jaxsnn.optimize, or a file of thresholds) is exported to every format. The PyTorch module, the
integers and the NIR file in every reader that is installed (pip install ".[export,peers]") classify the same test
images as the simulator does, in float32 and, for the integers, in int8. A NIR file is read twice: with the program
that is written beside it, and as the reader alone imports it. The table gives the predictions after the last step
that differ from the simulator's, the largest difference of a score relative to the largest score, both accuracies,
and the largest difference of a layer's number of spikes; for the integers, whether they are the same.
"""

import importlib.util
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import data
from benchmarks import command
from jaxsnn.cli.options import DebugOptions
from jaxsnn.conversion.loading import check_data
from jaxsnn.errors import UserError
from jaxsnn.exports.converted import Converted
from jaxsnn.exports.nir_readers import GRAPH, READERS
from jaxsnn.exports.write import files_of, write_files
from jaxsnn.networks.spiking import Dynamics
from jaxsnn.records.exported_run import read_converted
from jaxsnn.runtime.checks import at_least
from jaxsnn.runtime.files import write_json
from jaxsnn.runtime.provenance import versions
from jaxsnn.simulation.observe import observe_images, record
from jaxsnn.simulation.plan import Plan

BATCH = 50
"""Images at once: what a layer of VGG15 needs for them over the steps fits into the memory of a small machine."""


@dataclass(frozen=True)
class RoundTripsConfig(DebugOptions):
    """Options."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs, or files of thresholds."""
    data: str = "embedded"
    """Dataset, as in jaxsnn.evaluate."""
    data_dir: Path | None = None
    """Folder of the dataset."""
    images: int = 500
    """Test images."""
    timesteps: int | None = None
    """T; default: the run's."""
    readers: tuple[str, ...] = ("torch", "npz", "snntorch", "spikingjelly", "norse", "sinabs")
    """What to compare: torch, npz, or readers of NIR."""
    integer_images: int = 20
    """Images for the integers, which NumPy multiplies one by one."""
    plain: bool = True
    """Also read NIR files without the programs beside them."""
    out: Path | None = None
    """Also write the rows into this JSON file."""


@dataclass(frozen=True)
class Row:
    """One reader on one network; ``why`` in place of numbers where it cannot."""

    network: str
    reader: str
    differing: int | None = None
    error: float | None = None
    accuracy: float | None = None
    ours: float | None = None
    images: int = 0
    seconds: float | None = None
    why: str = ""


def module_at(path: Path) -> ModuleType:
    """A Python file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pixels(images: np.ndarray) -> Any:
    """uint8 (N, H, W, C) as PyTorch's (N, C, H, W) in [0, 1]."""
    torch: Any = importlib.import_module("torch")
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255


def in_batches(run: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    """Scores after the last step, (N, classes)."""
    return np.concatenate([run(images[start : start + BATCH]) for start in range(0, len(images), BATCH)])


def simulated(converted: Converted, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The simulator's scores after the last step and spikes (L,), float32 with XLA."""
    dynamics = Dynamics(converted.dynamics.comparison, "none")
    counts = np.zeros(len(converted.network.spiking), np.int64)
    scores = []
    for start in range(0, len(images), 10):
        part = images[start : start + 10]
        _, spikes, curve = record(converted.snn, converted.genes, part, converted.steps, dynamics)
        counts += [int(layer.sum()) for layer in spikes]
        scores.append(curve[0, -1])
    return np.concatenate(scores), counts


def torch_run(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The exported module."""
    torch: Any = importlib.import_module("torch")
    network = module_at(folder / "network.py").load()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(pixels(images))[-1].numpy()

    return run


def reader_run(folder: Path, program: str, counts: dict[int, float]) -> Callable[[np.ndarray], np.ndarray]:
    """The program beside the NIR file; ``counts`` gets the spikes of each layer, by its number."""
    runner = module_at(folder / program).Runner()

    def count(layer: int) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            spikes = output[0] if isinstance(output, tuple) else output
            counts[layer] = counts.get(layer, 0.0) + float(spikes.double().sum())

        return hook

    for name, node in runner.graph.nodes.items():
        if type(node).__name__ == "IF":
            runner.network.get_submodule(name).register_forward_hook(count(int(node.metadata["layer"])))
    return lambda images: runner(pixels(images))[-1].numpy()


def plain_run(reader: str, folder: Path, converted: Converted) -> Callable[[np.ndarray], np.ndarray]:
    """The reader's own import and a plain loop over time, nothing set but what it needs to run at all."""
    torch: Any = importlib.import_module("torch")
    nir: Any = importlib.import_module("nir")
    path, steps = folder / GRAPH, converted.steps
    mean, std = (torch.tensor(part)[:, None, None] for part in (converted.network.mean, converted.network.std))

    def imported() -> Any:
        graph = nir.read(path)
        if reader == "snntorch":
            network = importlib.import_module("snntorch.import_nir").import_from_nir(graph)
        elif reader == "spikingjelly":
            network = importlib.import_module("spikingjelly.activation_based.nir_exchange").import_from_nir(graph)
        elif reader == "norse":
            network = importlib.import_module("norse.torch").from_nir(graph)
        else:
            return importlib.import_module("sinabs.nir").from_nir(graph, num_timesteps=steps)
        for module in network.modules():
            if isinstance(module, torch.nn.Flatten) and reader in ("snntorch", "norse"):
                module.start_dim = 1  # the first axis is the batch
            if type(module).__name__ == "Leaky":
                module.init_hidden = True  # spikes alone go on
        return network

    def run(images: np.ndarray) -> np.ndarray:
        network, x = imported(), (pixels(images) - mean) / std
        with torch.no_grad():
            if reader == "sinabs":
                out = network(x.repeat_interleave(steps, 0))[0]
                return out.unflatten(0, (len(x), steps)).sum(1).numpy()
            total, state = torch.zeros(1), None
            for _ in range(steps):
                out, state = network(x, state)
                total = total + out
            return total.numpy()

    return run


def compared(converted: Converted, images: np.ndarray, labels: np.ndarray, config: RoundTripsConfig) -> list[Row]:
    """The rows of one network."""
    (ours, spikes), rows = simulated(converted, images), []
    with tempfile.TemporaryDirectory() as name:
        for reader in config.readers:
            folder = Path(name) / reader
            if reader == "npz":
                few = slice(0, config.integer_images)
                rows.append(integer_row(converted, folder, images[few], labels[few]))
                continue
            rows.append(row(converted, reader, False, folder, images, labels, ours, spikes))
            if reader != "torch" and config.plain:
                rows.append(row(converted, reader, True, folder, images, labels, ours, spikes))
    return rows


def row(
    converted: Converted,
    reader: str,
    plain: bool,
    folder: Path,
    images: np.ndarray,
    labels: np.ndarray,
    ours: np.ndarray,
    spikes: np.ndarray,
) -> Row:
    """One reader on one network; what it raises becomes its ``why``."""
    network, title = converted.network.name, f"{reader}, as imported" if plain else reader
    if importlib.util.find_spec(reader) is None:
        return Row(network, title, why="not installed")
    started, counts = time.perf_counter(), dict[int, float]()
    try:
        if reader == "torch":
            write_files(folder, files_of(converted, "torch"))
            run = torch_run(folder)
        else:
            write_files(folder, files_of(converted, "nir", reader))
            run = (
                plain_run(reader, folder, converted)
                if plain
                else reader_run(folder, str(READERS[reader].program), counts)
            )
        found = in_batches(run, images)
    except Exception as error:  # whatever a reader does with a graph
        return Row(network, title, why=f"{type(error).__name__}: {error}".splitlines()[0][:90])
    if found.shape != ours.shape:
        return Row(network, title, why=f"gives an output of shape {found.shape[1:]}: a layer within the network")
    return Row(
        network,
        title,
        int((found.argmax(-1) != ours.argmax(-1)).sum()),
        float(np.abs(found - ours).max() / np.abs(ours).max()),
        float((found.argmax(-1) == labels).mean()),
        float((ours.argmax(-1) == labels).mean()),
        len(images),
        time.perf_counter() - started,
        _spikes(spikes, counts),
    )


def _spikes(ours: np.ndarray, theirs: dict[int, float]) -> str:
    """How far a layer's number of spikes is from ours, at most."""
    if len(theirs) != len(ours):
        return ""
    worst = max(abs(theirs[layer] - count) / max(1, count) for layer, count in enumerate(ours.tolist()))
    return f"spikes of a layer within {worst:.1e}" if worst else "spikes of every layer are equal"


def integer_row(converted: Converted, folder: Path, images: np.ndarray, labels: np.ndarray) -> Row:
    """The program in the README of the integers, against the int8 back-end."""
    started = time.perf_counter()
    try:
        write_files(folder, files_of(converted, "npz"))
    except UserError as error:
        return Row(converted.network.name, "npz", why=str(error))
    program: dict[str, Any] = {}
    text = (folder / "README.md").read_text()
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], program)
    scores, spikes = program["simulate"](images.transpose(0, 3, 1, 2), *program["load"](folder))
    observed, right = observe_images(
        converted.snn,
        converted.genes,
        images,
        labels,
        timesteps=converted.steps,
        dynamics=Dynamics(converted.dynamics.comparison, "none"),
        plan=Plan(precision="int8"),
    )
    hits = (scores.argmax(-1) == labels).T
    same = np.array_equal(list(spikes.values()), observed.spikes[0])
    return Row(
        converted.network.name,
        "npz",
        int((hits[:, -1] != right[0, :, -1]).sum()),
        None,
        float(hits[:, -1].mean()),
        float(right[0, :, -1].mean()),
        len(images),
        time.perf_counter() - started,
        "spikes of every layer are equal" if same else f"spikes differ: {spikes}, {observed.spikes[0].tolist()}",
    )


def table(rows: list[Row]) -> Table:
    """The rows, for people."""
    found = Table(title="exported networks against the simulator", title_justify="left")
    for name in ("network", "reader"):
        found.add_column(name)
    for name in ("images", "differ", "scores", "accuracy", "ours", "s"):
        found.add_column(name, justify="right", no_wrap=True)
    found.add_column("")
    for one in rows:
        numbers = (
            ("", "", "", "", "", "")
            if one.differing is None
            else (
                str(one.images),
                str(one.differing),
                "" if one.error is None else f"{one.error:.1e}",
                f"{100 * (one.accuracy or 0):.1f} %",
                f"{100 * (one.ours or 0):.1f} %",
                f"{one.seconds:.0f}",
            )
        )
        found.add_row(one.network, one.reader, *numbers, one.why)
    return found


def round_trips(config: RoundTripsConfig) -> list[Row]:
    """Run the benchmark."""
    console = Console()
    at_least(config, images=1, timesteps=1, integer_images=1)
    known = ("torch", "npz", *(name for name, reader in READERS.items() if reader.program))
    for reader in config.readers:
        if reader not in known:
            raise UserError(f"--readers has {reader!r}, expected some of {', '.join(known)}")
    test = data.load(config.data, "test", config.data_dir, limit=config.images)
    rows: list[Row] = []
    for run in config.runs:
        converted = read_converted(run, timesteps=config.timesteps, say=console.out)
        check_data(converted.network, test.images, len(test.classes), f"{test.name} ({test.split})")
        rows += compared(converted, test.images, test.labels, config)
    console.print(table(rows))
    if config.out is not None:
        packages = [name for name in (*READERS, "nir", "nirtorch", "torch") if importlib.util.find_spec(name)]
        found = {name: metadata.version(name) for name in packages}
        write_json(config.out, {"rows": [asdict(one) for one in rows], "versions": versions() | found})
    return rows


if __name__ == "__main__":
    command.run(RoundTripsConfig, round_trips, "round_trips", __doc__)
