"""What benchmarks.fuzz gives to each reader of files, and files that the reader takes to begin with.

Nothing of this program may be imported before Atheris can instrument it, so that imports stand in functions.
"""

import gzip
import importlib
import importlib.util
import io
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Reader = Callable[[bytes], object]


def refused(read: Callable, *arguments) -> object:
    """What ``read`` makes of its arguments; None where it refuses them as the commands do."""
    from data import safe_pickle
    from data.errors import DataError
    from data.pictures import Unreadable
    from jaxsnn.errors import UserError

    try:
        return read(*arguments)
    except (UserError, DataError, OSError, Unreadable, safe_pickle.RefusedPickle) as error:
        # a size that was only declared must not be asked of the system, even where that ends well
        assert str(error) and "MemoryError" not in str(error)
        return None


def of_path(read: Callable[[Path], object], path: Path) -> Reader:
    """A reader that wants a path: its files are written to this one."""

    def reader(content: bytes) -> None:
        path.write_bytes(content)
        refused(read, path)

    return reader


def of_text(read: Callable[[str], object]) -> Reader:
    """A reader that wants text."""
    return lambda content: refused(read, content.decode("utf-8", "replace"))


def readers(folder: Path) -> dict[str, tuple[Reader, list[bytes]]]:
    """Readers by name, each with some files that it takes; ``folder`` is for readers that want a path."""
    return _of_runs(folder) | _of_weights(folder) | _of_images(folder)


def _of_runs(folder: Path) -> dict[str, tuple[Reader, list[bytes]]]:
    """Those of what a run's folder holds."""
    from jaxsnn.records.run_config import from_record
    from jaxsnn.records.run_folder import read_history
    from jaxsnn.records.thresholds_file import read_thresholds
    from jaxsnn.runtime.files import read_json

    return {
        "checkpoint": (_read_checkpoint, [_checkpoint_bytes()]),
        "thresholds": (
            of_path(read_thresholds, folder / "thresholds.json"),
            [b'{"thresholds": [1.0, 2e3], "v0": [0.5, 0], "delay": "layer", "weights": null}'],
        ),
        "configuration": (
            of_path(lambda path: from_record(read_json(path), path), folder / "config.json"),
            [b'{"preset": "cifar10", "population": 5, "search": ["v0"], "mutation": [0.5, 1.0], "race": 0.9}'],
        ),
        "history": (
            of_path(read_history, folder / "history.jsonl"),
            [b'{"generation": 0}\n{"generation": 1}\n'],
        ),
    }


def _checkpoint_bytes() -> bytes:
    """A small checkpoint."""
    from jaxsnn.search import checkpoint
    from jaxsnn.search.evolve import Candidate, Generation

    leader = Candidate(np.ones(2), 1.0, {"a": 1.0}, np.ones(3))
    row = {"generation": 0, "parts": {"a": 1.0}, "best_cost": 1.0, "accuracy": 0.5, "image_evaluations": 5}
    row |= {"mean_cost": 1.0, "std_cost": 1.0, "latency": None}
    generation = Generation(0, (leader,), 1.0, 1.0, 4, 0, 5, 0.1, False, False)
    state = checkpoint.Checkpoint({}, generation, {".members": np.ones((4, 2))}, {}, [row], 1.0)
    return checkpoint.to_bytes(state)


def _read_checkpoint(content: bytes) -> None:
    """Read a checkpoint, which is refused with ``ValueError``."""
    from jaxsnn.search import checkpoint

    try:
        checkpoint.from_bytes(content)
    except ValueError as error:
        assert str(error)


def _of_weights(folder: Path) -> dict[str, tuple[Reader, list[bytes]]]:
    """Those of networks and their weights."""
    from safetensors.numpy import save

    from jaxsnn.conversion.loading import load_network
    from jaxsnn.conversion.state_dicts import read_foreign
    from jaxsnn.networks import json_format
    from jaxsnn.networks.architectures import architecture
    from jaxsnn.networks.description import shapes_of

    network = architecture("vgg4", width=0.02)
    described = json_format.to_json(network)
    params = {name: np.zeros(shape, np.float32) for name, shape in shapes_of(network).items()}
    arrays = save({"features.0.weight": np.zeros((4, 3, 3, 3), np.float32), "features.0.bias": np.zeros(4)})
    return {
        "network description": (of_text(json_format.from_json), [described.encode()]),
        "weights": (
            of_path(load_network, folder / "file.safetensors"),
            [save(params, metadata={"network": described})],
        ),
        "PyTorch's safetensors": (of_path(read_foreign, folder / "plain.safetensors"), [arrays]),
        "PyTorch's files": (of_path(read_foreign, folder / "file.pt"), _torch_files(folder)),
        **_of_models(folder),
        **_of_nir(folder),
    }


def _of_models(folder: Path) -> dict[str, tuple[Reader, list[bytes]]]:
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
        "ONNX": (of_path(network, folder / "model.onnx"), [dense_model()[0]]),
        "torch.export's archives": (of_path(network, folder / "model.pt2"), [archive]),
    }


def _of_nir(folder: Path) -> dict[str, tuple[Reader, list[bytes]]]:
    """NIR files; nothing where nir is not installed."""
    if importlib.util.find_spec("nir") is None:
        return {}
    import numpy as np

    from jaxsnn.conversion.from_nir import read_nir
    from jaxsnn.exports.converted import Converted
    from jaxsnn.exports.nir_graph import nir_graph
    from jaxsnn.exports.nir_readers import to_bytes
    from jaxsnn.networks.architectures import vgg
    from jaxsnn.networks.description import shapes_of
    from jaxsnn.networks.spiking import SNN, Dynamics, Genes

    network = vgg([[2]], name="fuzzed", input_shape=(4, 4, 1), classes=2, mean=(0.0,), std=(1.0,))
    params = {name: np.ones(shape, np.float32) for name, shape in shapes_of(network).items()}
    one = Converted(SNN(network, params), Genes(np.ones((1, 1))), Dynamics(delay="none"), 4)
    return {"NIR": (of_path(read_nir, folder / "file.nir"), [to_bytes(nir_graph(one))])}


def _torch_files(folder: Path) -> list[bytes]:
    """A state_dict in both of PyTorch's formats."""
    from tests.helpers.torch_files import save, save_row

    state = {"0.weight": np.ones((2, 1, 3, 3), np.float32), "2.weight": np.ones((2, 8), np.float16)}
    return [written(folder / "example.pt", state).read_bytes() for written in (save, save_row)]


def _of_images(folder: Path) -> dict[str, tuple[Reader, list[bytes]]]:
    """Those of datasets."""
    from data import archive, cifar, idx, pictures, safe_pickle
    from data import folder as tree
    from data.geometry import Geometry

    flat = folder / "images"
    flat.mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        (flat / name).touch()
    known = archive.Archive("cifar.tar.gz", 1, "", "a page")
    layouts = cifar.CIFAR10.layouts
    numbers = struct.pack(">IIII", 0x803, 2, 3, 3) + bytes(18)
    batches = [{b"data": [1, 2], b"labels": (3, "x", None, 1.5, True)}, {"data": np.zeros((2, 3), np.uint8)}]

    def picture(path: Path) -> object:
        return pictures.decode(str(path), Geometry(size=8), np.array([0.5, 0.5]))

    def batch(content: bytes) -> object:
        return cifar._decode_pickle(layouts[1], b"labels", 2, content, "a batch")

    return {
        "images": (of_path(picture, folder / "image.jpg"), _pictures()),
        "CIFAR's archive": (
            of_path(lambda path: archive.read_members(path, known, {"a/x": 100}), folder / known.name),
            [
                _tar(tarfile.USTAR_FORMAT, "a/x"),
                _tar(tarfile.GNU_FORMAT, "a" * 200),
                _tar(tarfile.PAX_FORMAT, "é" * 120),
            ],
        ),
        "CIFAR's pickle": (
            lambda content: refused(safe_pickle.loads, content),
            [pickle.dumps(one, protocol=p) for one in batches for p in (0, 2, 4)],
        ),
        "CIFAR's batch": (
            lambda content: refused(batch, content),
            [pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]}, protocol=2)],
        ),
        "IDX": (of_path(lambda path: idx._read_array(path, (3, 3)), folder / "plain"), [numbers]),
        "packed IDX": (
            of_path(lambda path: idx._read_array(path, (3, 3)), folder / "packed.gz"),
            [gzip.compress(numbers)],
        ),
        "annotations": (
            of_path(lambda path: tree._annotated(flat, path, ("n1", "n2")), folder / "val_annotations.txt"),
            [b"a.png\tn1\t0\t0\t62\t62\nb.png\tn2\t0\t1\t2\t3\n"],
        ),
    }


def _tar(form: int, name: str) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz", format=form) as tar:
        for member in (name, "a/x"):
            info = tarfile.TarInfo(member)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    return whole.getvalue()


def _pictures() -> list[bytes]:
    """One of each format, and of what is read in a way of its own."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3), np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds: list[tuple[str, dict[str, Any]]] = [
        (kind, {}) for kind in ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF")
    ]
    kinds += [
        ("JPEG", {"progressive": True, "exif": turned}),
        ("PNG", {"exif": turned}),
        ("WEBP", {"lossless": True}),
    ]
    kinds += [("TIFF", {"compression": name}) for name in ("tiff_lzw", "packbits", "tiff_adobe_deflate")]
    made = [(Image.fromarray(pixels), kind, options) for kind, options in kinds]
    made += [(Image.fromarray(pixels).convert(mode), "TIFF", {}) for mode in ("CMYK", "P", "LA", "1")]
    made += [
        (Image.fromarray(pixels).convert("P"), "PNG", {}),
        (Image.fromarray(pixels).convert("CMYK"), "JPEG", {}),
    ]
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    made += [(deep, kind, {}) for kind in ("PNG", "PPM", "TIFF")]
    made.append((Image.fromarray(pixels[..., 0].astype(np.float32) / 255), "TIFF", {}))
    found = []
    for image, kind, options in made:
        whole = io.BytesIO()
        image.save(whole, kind, **options)
        found.append(whole.getvalue())
    return found
