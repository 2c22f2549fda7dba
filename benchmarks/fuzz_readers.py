"""What benchmarks.fuzz gives to each reader of files, and files that the reader takes to begin with.

Nothing of this program may be imported before Atheris can instrument it, so that imports stand in functions.
"""

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz_data_readers import of_images
from benchmarks.fuzz_target import Finding, Target, attempt, of_path, of_text, same

SCRIPT = "<script>alert(1)</script>"
"""What a text of a file may not become a part of a page as."""


def readers(folder: Path) -> dict[str, Target]:
    """Readers by name; ``folder`` is for those that want a path."""
    return _of_runs(folder) | _of_reports(folder) | _of_weights(folder) | of_images(folder)


def _of_runs(folder: Path) -> dict[str, Target]:
    """Those of what a run's folder holds."""
    from jaxsnn.analysis.energy import read_costs
    from jaxsnn.networks.weights import embedded_path
    from jaxsnn.records.exported_run import read_converted
    from jaxsnn.records.run_config import RunConfig, from_record, to_record
    from jaxsnn.records.run_folder import read_history
    from jaxsnn.records.thresholds_file import read_thresholds
    from jaxsnn.runtime.files import plain, read_json
    from jaxsnn.search import checkpoint

    def configuration(path: Path) -> RunConfig:
        return from_record(read_json(path), path)

    def is_configuration(found: RunConfig, content: bytes) -> None:
        if from_record(plain(to_record(found)), "itself") != found:
            raise Finding("what it is written as is another configuration")

    def is_history(found: list[dict], content: bytes) -> None:
        same(found, [json.loads(line) for line in content.decode().splitlines()], "history")

    def read_checkpoint(path: Path) -> object:
        found = checkpoint.read(path)
        return checkpoint.from_bytes(checkpoint.to_bytes(found)), found

    def is_checkpoint(found: tuple[Any, Any], content: bytes) -> None:
        again, first = (vars(one) | {"generation": vars(one.generation) | {"leaders": ()}} for one in found)
        same(again, first, "checkpoint")

    network = embedded_path().resolve()
    of_export = {"thresholds": [1.0] * 7, "v0": [0.5] * 7, "weights": str(network), "delay": "none"}
    of_export |= {"baseline_thresholds": [1.0] * 7, "comparison": ">="}
    return {
        "checkpoint": Target(
            of_path(read_checkpoint, folder / "a.checkpoint", is_checkpoint), [_checkpoint_bytes()], "checkpoint"
        ),
        "training's checkpoint": _training_checkpoint(folder),
        "thresholds": Target(
            of_path(read_thresholds, folder / "thresholds.json"),
            [b'{"thresholds": [1.0, 2e3], "v0": [0.5, 0], "delay": "layer", "weights": null}'],
            "json",
        ),
        "thresholds to export": Target(
            of_path(read_converted, folder / "exported.json"), [json.dumps(of_export).encode()], "json", 0.02
        ),
        "configuration": Target(
            of_path(configuration, folder / "a-config.json", is_configuration),
            [
                b'{"preset": "cifar10", "population": 5, "search": ["v0"], "mutation": [0.5, 1.0], "race": 0.9}',
                json.dumps(plain(to_record(RunConfig.of("few")))).encode(),
            ],
            "json",
        ),
        "history": Target(
            of_path(read_history, folder / "history.jsonl", is_history),
            [b'{"generation": 0}\n{"generation": 1, "parts": {"a": 1.5}}\n'],
            "lines",
        ),
        "picojoules": Target(
            of_path(read_costs, folder / "costs.toml"),
            [b"[my-chip]\nmac = 3.1\nadd = 0.1\nmembrane = 0.2\nimage_every_step = true\n[b]\nmac = 1\nadd = 2\n"],
            "text",
        ),
    }


def _training_checkpoint(folder: Path) -> Target:
    """That of training and fine-tuning."""
    from jaxsnn.training.loop import Place, load_checkpoint, save_checkpoint

    class Arrays:
        """As many arrays as a network, its optimiser and its generator of random numbers may have."""

        def __init__(self):
            self.held = [np.zeros((2, 3), np.float32), np.zeros(3, np.int32), np.array(1, np.uint32)]

        def arrays(self) -> list[np.ndarray]:
            return self.held

        def restore(self, arrays: list) -> None:
            self.held = [np.asarray(array) for array in arrays]

    def read(path: Path) -> tuple[Place, Arrays]:
        held: Any = Arrays()
        return load_checkpoint(path, held), held

    def is_place(found: tuple[Place, Arrays], content: bytes) -> None:
        place, held = found
        if place.epoch < 0 or not 0 <= place.seconds < 1e12 or place.scalars.dtype.kind != "f":
            raise Finding(f"it goes on at {place}")
        if [(a.dtype, a.shape) for a in held.arrays()] != [(a.dtype, a.shape) for a in Arrays().arrays()]:
            raise Finding("it has arrays of other types")

    path, at = folder / "training.checkpoint", Place(3, np.zeros((2, 1), np.float32), 12.5, True)
    some: Any = Arrays()
    save_checkpoint(path, some, at)
    return Target(of_path(read, path, is_place), [path.read_bytes()], "safetensors", 0.5)


def _checkpoint_bytes() -> bytes:
    """A small checkpoint."""
    from jaxsnn.search import checkpoint
    from jaxsnn.search.evolve import Candidate, Generation

    leader = Candidate(np.ones(2), 1.0, {"a": 1.0}, np.ones(3))
    row = {"generation": 0, "parts": {"a": 1.0}, "best_cost": 1.0, "accuracy": 0.5, "image_evaluations": 5}
    row |= {"mean_cost": 1.0, "std_cost": 1.0, "latency": None}
    generation = Generation(0, (leader,), 1.0, 1.0, 4, 0, 5, 0.1, False, False)
    state = checkpoint.Checkpoint({"seed": 0}, generation, {".members": np.ones((4, 2))}, {}, [row], 1.0)
    return checkpoint.to_bytes(state)


def _of_reports(folder: Path) -> dict[str, Target]:
    """What is read again for the page, the list of runs, and where a run's images are."""
    from jaxsnn.evaluate import EvaluateConfig, source_of
    from jaxsnn.records.listing import STATES, read_run_state
    from jaxsnn.reports.html_report import build
    from tests.helpers.results import HISTORY, attacked, explained, results_json

    run = folder / "run"
    run.mkdir(exist_ok=True)
    whole = {
        "config.json": json.dumps({"population": 12, "generations": 3, "data": "imagefolder", "data_dir": "a"}),
        "results.json": json.dumps(results_json() | {"stopped_early": False}),
        "history.jsonl": "\n".join(map(json.dumps, HISTORY)),
        "attack.json": json.dumps(attacked()),
        "explain.json": json.dumps(explained()),
    }

    def beside(
        name: str, read: Callable[[], Any], check: Callable[[Any, bytes], object]
    ) -> Callable[[bytes], bool]:
        """A reader of the run's folder, in which this file is another one."""

        def reader(content: bytes) -> bool:
            for other, text in whole.items():
                if other != name:
                    (run / other).write_text(text)
            (run / name).write_bytes(content)
            return attempt(read, content, check)

        return reader

    def is_page(found: str, content: bytes) -> None:
        if SCRIPT in found:
            raise Finding("a text of the file is markup in the page")

    def is_state(found: Any, content: bytes) -> None:
        if found is not None and (found.state not in STATES or "\n" in found.note):
            raise Finding(f"its state is {found.state}: {found.note}")

    def page() -> str:
        return build(run)

    def state() -> object:
        return read_run_state(run)

    found = {}
    for name, kind in (("results.json", "json"), ("attack.json", "json"), ("explain.json", "json")):
        found[f"page of {name}"] = Target(beside(name, page, is_page), [whole[name].encode()], kind, 0.3)
    for name, kind in (("config.json", "json"), ("results.json", "json"), ("history.jsonl", "lines")):
        found[f"list of runs, {name}"] = Target(beside(name, state, is_state), [whole[name].encode()], kind, 0.3)
    images = EvaluateConfig(run=run)
    read = beside("config.json", lambda: source_of(images), lambda found, content: None)
    found["images of a run"] = Target(read, [whole["config.json"].encode()], "json", 0.3)
    return found | _of_frontiers(folder)


def _of_frontiers(folder: Path) -> dict[str, Target]:
    """The points of a search with several objectives, and the page on them."""
    from jaxsnn.records.frontier import NAME, read_frontier, thresholds_of
    from jaxsnn.reports.frontier import build_page
    from tests.helpers.frontiers import frontier_of, write_frontier

    run = folder / "frontier"
    run.mkdir(exist_ok=True)
    write_frontier(run, frontier_of(2))
    example = [(run / NAME).read_bytes()]

    def is_page(found: str, content: bytes) -> None:
        if SCRIPT in found:
            raise Finding("a text of the file is markup in the page")

    return {
        "points": Target(of_path(lambda path: thresholds_of(path.parent, 2), run / NAME), example, "json", 0.3),
        "page of points": Target(
            of_path(lambda path: build_page(run, read_frontier(run), "a title"), run / NAME, is_page),
            example,
            "json",
            0.3,
        ),
    }


def _of_weights(folder: Path) -> dict[str, Target]:
    """Those of networks and their weights."""
    from safetensors.numpy import save

    from jaxsnn.conversion.folding import fold
    from jaxsnn.conversion.import_network import import_network
    from jaxsnn.conversion.loading import load_network
    from jaxsnn.conversion.state_dicts import read_foreign
    from jaxsnn.networks import json_format
    from jaxsnn.networks.architectures import architecture, vgg
    from jaxsnn.networks.description import BatchNorm, Network, shapes_of

    network = architecture("vgg4", width=0.02)
    described = json_format.to_json(network)
    normed = vgg([[3], [4]], [5], name="mlp", norm=BatchNorm, dropout=0.1, classes=3)
    params = {name: np.zeros(shape, np.float32) for name, shape in shapes_of(network).items()}
    plain = {"features.0.weight": np.zeros((4, 3, 3, 3), np.float32), "features.0.bias": np.zeros(4, np.float32)}
    plain |= {"classifier.1.weight": np.ones((3, 256), np.float16), "classifier.1.bias": np.ones(3, np.float64)}

    def is_network(found: Network, content: bytes) -> None:
        if json_format.from_json(json_format.to_json(found)) != found:
            raise Finding("what it is written as is another network")

    def loaded(path: Path) -> object:
        return fold(*load_network(path))

    def foreign(path: Path) -> object:
        return import_network(read_foreign(path), None, image_shape=(8, 8, 3))

    return {
        "network description": Target(
            of_text(json_format.from_json, is_network),
            [described.encode(), json_format.to_json(normed).encode()],
            "json",
        ),
        "weights": Target(
            of_path(loaded, folder / "file.safetensors"),
            [save(params, metadata={"network": described})],
            "safetensors",
            0.5,
        ),
        "calibrated network": _calibrated(folder),
        "PyTorch's safetensors": Target(
            of_path(foreign, folder / "plain.safetensors"), [save(plain)], "safetensors"
        ),
        "PyTorch's files": Target(of_path(read_foreign, folder / "file.pt"), _torch_files(folder)[:1], "zip"),
        "PyTorch's older files": Target(
            of_path(read_foreign, folder / "older.pt"), _torch_files(folder)[1:], "pickle"
        ),
        **_of_models(folder),
        **_of_nir(folder),
    }


def _calibrated(folder: Path) -> Target:
    """That of a run's calibrated network."""
    from jaxsnn.conversion.channel_fit import LayerFit
    from jaxsnn.conversion.start import Start
    from jaxsnn.networks.architectures import vgg
    from jaxsnn.networks.description import shapes_of
    from jaxsnn.networks.spiking import SNN, Genes
    from jaxsnn.records.calibrated_network import load_start, save_start

    network = vgg([[2]], name="fuzzed", input_shape=(4, 4, 1), classes=2, mean=(0.0,), std=(1.0,))
    ann = SNN(network, {name: np.ones(shape, np.float32) for name, shape in shapes_of(network).items()})
    fits = tuple(LayerFit(layer.name, 0.5, 0.25, (1.0, 2.0)) for layer in network.spiking)
    place = folder / "calibrated"
    place.mkdir(exist_ok=True)
    path = save_start(place, Start(ann, Genes(np.ones((1, len(fits)))), ann, 4, fits, ("reconstructed",)))
    return Target(of_path(lambda path: load_start(place, ann), path), [path.read_bytes()], "safetensors", 0.3)


def _of_models(folder: Path) -> dict[str, Target]:
    """Those of whole models, as far as the network."""
    from jaxsnn.conversion.from_onnx import graph_of_onnx
    from jaxsnn.conversion.from_pt2 import graph_of_pt2
    from jaxsnn.conversion.graph import with_average_pools
    from jaxsnn.conversion.graph_values import image_shape
    from jaxsnn.conversion.lower_graph import lower
    from tests.helpers.onnx_writer import dense_model
    from tests.helpers.pt2_writer import parts, written

    def network(path: Path) -> object:
        graph = with_average_pools(graph_of_onnx(path) if path.suffix == ".onnx" else graph_of_pt2(path))
        channels = image_shape(graph.shapes[0], graph.axes)[0][2]
        return lower(graph, "fuzzed", (0.0,) * channels, (1.0,) * channels)

    archive = written(folder, parts()).read_bytes()
    return {
        "ONNX": Target(of_path(network, folder / "model.onnx"), [dense_model()[0]], "message"),
        "torch.export's archives": Target(of_path(network, folder / "model.pt2"), [archive], "zip"),
    }


def _torch_files(folder: Path) -> list[bytes]:
    """A state_dict in both of PyTorch's formats."""
    from tests.helpers.torch_files import save, save_row

    state = {"0.weight": np.ones((2, 1, 3, 3), np.float32), "2.weight": np.ones((2, 8), np.float16)}
    return [written(folder / "example.pt", state).read_bytes() for written in (save, save_row)]


def _of_nir(folder: Path) -> dict[str, Target]:
    """NIR files; nothing where nir is not installed."""
    if importlib.util.find_spec("nir") is None:
        return {}
    from jaxsnn.conversion import from_nir, nir_file
    from jaxsnn.exports.converted import Converted
    from jaxsnn.exports.nir_graph import nir_graph
    from jaxsnn.exports.nir_readers import to_bytes
    from jaxsnn.networks.architectures import vgg
    from jaxsnn.networks.description import shapes_of
    from jaxsnn.networks.spiking import SNN, Dynamics, Genes

    network = vgg([[2]], name="fuzzed", input_shape=(4, 4, 1), classes=2, mean=(0.0,), std=(1.0,))
    params = {name: np.ones(shape, np.float32) for name, shape in shapes_of(network).items()}
    one = Converted(SNN(network, params), Genes(np.ones((1, 1))), Dynamics(delay="none"), 4)
    example = to_bytes(nir_graph(one))

    def in_a_fork(path: Path) -> object:
        """``read_nir`` with its process made by fork, which takes milliseconds, not a start of Python."""
        out = path.with_suffix(".npz")
        child = os.fork()
        if not child:
            code = 3
            try:
                with open(out, "wb") as file:
                    np.savez(file, allow_pickle=False, **nir_file._flat(nir_file.tree_of(path)))
                code = 0
            except nir_file.UserError:
                code = 2
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 3:
            raise Finding("the process that reads HDF5 ended with a traceback")
        if code:  # refused, or HDF5 broke down
            raise nir_file.UserError("not a readable NIR file")
        with np.load(out, allow_pickle=False) as arrays:
            tree = nir_file._grown(dict(arrays))
        read, from_nir.read_tree = from_nir.read_tree, lambda path: tree
        try:
            return from_nir.read_nir(path)
        finally:
            from_nir.read_tree = read

    return {
        "NIR": Target(of_path(in_a_fork, folder / "file.nir"), [example], "bytes", 0.3),
        "NIR, whole": Target(of_path(from_nir.read_nir, folder / "whole.nir"), [example], "bytes", 0.001),
    }
