"""Files that somebody hands over: whatever is in them, it ends in a sentence, and nothing is written elsewhere."""

import copy
import io
import json
import os
import shutil
import struct
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_safetensors

import data
from helpers import torch_files
from helpers.runs import config_of, interrupted
from jaxsnn import evaluate, runs
from jaxsnn import optimize as module
from jaxsnn.analysis.results import NetworkResult, TestResult
from jaxsnn.cli.search_notes import note_of
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.conversion.folding import fold
from jaxsnn.conversion.loading import load_network, load_snn
from jaxsnn.errors import UserError
from jaxsnn.evaluate import EvaluateConfig
from jaxsnn.networks import description
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import shapes_of
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.json_format import from_json, to_json
from jaxsnn.networks.weights import describes_network
from jaxsnn.optimize import OptimizeConfig
from jaxsnn.records import finished_run
from jaxsnn.records.listing import STATES, find_runs
from jaxsnn.reports import figures
from jaxsnn.runtime.files import read_json
from jaxsnn.search import checkpoint
from jaxsnn.search.job import history_row, make_job

RELAXED = settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


MEGABYTE = 1 << 20


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from([10**9, 2**53, 10**30, -(2**63), 2**31]),
    st.floats(),
    st.sampled_from(["", "0", "../../x", "/etc/passwd", "$\\frac{", "a\x00b", "[bold]", "x" * 300, "\ud800"]),
    st.lists(st.integers(-2, 5), max_size=4),
    st.just([[[[[]]]]]),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
"""What may stand in the place of any part of a JSON file."""


DAMAGE = st.tuples(
    st.one_of(st.none(), st.floats(0, 1)), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6)
)
"""Where a file is cut, and bytes at places in it that are replaced."""


def places(value, path=()):
    """Paths to all parts of a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from places(part, (*path, key))


@st.composite
def mutated(draw, value):
    """A JSON value in which one to three parts are something else, gone, or there twice."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([path for path in places(value) if path] or [()]))
        if not path:
            return copy.deepcopy(draw(JUNK))
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        kind = draw(st.sampled_from(["replace", "replace", "remove", "twice"]))
        if kind == "replace":
            parent[path[-1]] = copy.deepcopy(draw(JUNK))
        elif kind == "remove":
            del parent[path[-1]]
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(parent[path[-1]]))
    return value


def damaged(content, damage):
    cut, changes = damage
    content = bytearray(content if cut is None else content[: int(cut * len(content))])
    for place, value in changes:
        if content:
            content[min(int(place * len(content)), len(content) - 1)] = value
    return bytes(content)


def one_sentence(action, *arguments):
    """What ``action`` gives, or None where it refuses in one line."""
    try:
        return action(*arguments)
    except (UserError, data.DataError, OSError) as error:  # the commands show an OSError's text and its file
        assert str(error) and "\n" not in str(error).strip(), repr(str(error))
    return None


def peak(action):
    """The most memory in bytes that Python and NumPy held during ``action``."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


DESCRIPTION = json.loads(
    to_json(vgg([[3], [4]], [5], name="mlp", norm=description.BatchNorm, dropout=0.1, classes=3))
)


@RELAXED
@given(mutated(DESCRIPTION))
@example(DESCRIPTION | {"input_shape": [32.0, 32.0, 3.0]})
@example(DESCRIPTION | {"classes": 3.0})
@example(DESCRIPTION | {"layers": [DESCRIPTION["layers"][0] | {"edges": [{"source": -1, "ops": ""}]}]})
@example(DESCRIPTION | {"layers": [{"name": "a", "edges": [{"source": -1, "ops": []}]}, *DESCRIPTION["layers"]]})
@example(DESCRIPTION | {"layers": [DESCRIPTION["layers"][0] | {"levels": 2**53}, *DESCRIPTION["layers"][1:]]})
def test_a_network_description_is_refused_or_describes_a_network(description):
    """One that is taken can be converted and computed, as far as shapes and types go."""
    found = one_sentence(from_json, json.dumps(description))
    if found is None or sum(np.prod(shape) for shape in shapes_of(found).values()) > 1e6:
        return
    shapes = {name: np.zeros(shape, np.float32) for name, shape in shapes_of(found).items()}
    folded = one_sentence(fold, found, shapes)
    if folded is not None and np.prod(found.input_shape) < 1e6:
        images = jax.ShapeDtypeStruct((2, *found.input_shape), np.uint8)
        jax.eval_shape(lambda params, x: ann_forward(folded[0], params, x), folded[1], images)
    from_json(to_json(found))


@RELAXED
@given(st.text(max_size=30))
def test_any_text_is_refused_as_a_description(text):
    one_sentence(from_json, text)


@RELAXED
@given(DAMAGE)
def test_damaged_weights_are_refused_or_whole(tiny, tmp_path, damage):
    path = tmp_path / "w.safetensors"
    path.write_bytes(damaged(tiny.read_bytes(), damage))
    one_sentence(load_network, path)


@RELAXED
@given(
    st.dictionaries(
        st.sampled_from(["__metadata__", "conv1.kernel", "conv1.weight", "fc.weight", "a.b.c", "", "\x00"]),
        st.one_of(
            JUNK,
            st.fixed_dictionaries(
                {
                    "dtype": st.sampled_from(["F32", "F64", "I64", "BF16", "F8_E4M3", "U64", "C64", "X"]),
                    "shape": st.lists(st.sampled_from([0, 1, 2, 3, 4, 10**12, 2**63]), max_size=5),
                    "data_offsets": st.lists(st.sampled_from([0, 4, 16, 64, 10**15]), min_size=2, max_size=2),
                }
            ),
        ),
        max_size=4,
    ),
    st.sampled_from([None, 0, 7, 2**40, 2**64 - 1]),
)
def test_safetensors_of_any_header_are_refused_before_anything_is_allocated(tmp_path, header, length):
    text = json.dumps(header).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(64))

    def read():
        describes_network(path)
        one_sentence(load_network, path, None, (32, 32, 3))

    assert peak(read) < 4 * MEGABYTE


def pytorch_file(path, written=torch_files.save):
    state = {"0.weight": np.ones((4, 3, 3, 3), np.float32), "2.weight": np.ones((5, 64), np.float32)}
    return written(path, state)


@pytest.mark.parametrize("written", [torch_files.save, torch_files.save_row])
@RELAXED
@given(DAMAGE)
def test_a_damaged_pytorch_file_is_refused_or_whole(tmp_path, written, damage):
    path = pytorch_file(tmp_path / "whole.pt", written)
    path.write_bytes(damaged(path.read_bytes(), damage))
    one_sentence(load_network, path, None, (32, 32, 3))


def test_a_pytorch_file_whose_end_says_that_it_has_several_parts_is_refused(tmp_path):
    path = pytorch_file(tmp_path / "w.pt")
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x05\x06") + 4] = 0x11
    content[content.rindex(b"PK\x01\x02") + 1] = 0
    path.write_bytes(content)
    with pytest.raises(UserError, match="cut short or damaged"):
        load_network(path)


def test_a_pytorch_file_that_unpacks_to_gigabytes_is_refused_before_it_does(tmp_path):
    """PyTorch stores tensors as they are; a packed record of zeros is a thousand times larger than it looks."""
    whole, bomb = pytorch_file(tmp_path / "whole.pt"), tmp_path / "bomb.pt"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for record in source.infolist():
            content = source.read(record)
            target.writestr(
                record.filename, bytes(20 * MEGABYTE) if record.filename.endswith("data/0") else content
            )

    def read():
        with pytest.raises(UserError, match=r"declares \d+ bytes, but has \d+"):
            load_network(bomb, None, (32, 32, 3))

    assert bomb.stat().st_size < MEGABYTE and peak(read) < 5 * MEGABYTE


@pytest.fixture(scope="module")
def run_folder(tiny, tmp_path_factory):
    """A run that was killed behind generation 2, and one that ended, in one folder."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("accuracy_curves", "threshold_bars", "cost_history"):
            patch.setattr(figures, name, lambda *arguments: None)
        interrupted(patch, config_of(tiny, place / "killed"), 2)
        module.optimize(config_of(tiny, place / "ended"))
    return place


@pytest.fixture(scope="module")
def datasets():
    """What has been loaded."""
    return {}


@pytest.fixture
def fast(datasets, monkeypatch):
    """Commands that read no data again, simulate nothing and draw nothing."""

    original = data.load

    def load(name, split, data_dir=None, limit=None, **options):
        if (name, split, data_dir, limit) not in datasets:
            datasets[name, split, data_dir, limit] = original(name, split, data_dir, limit=limit, **options)
        return datasets[name, split, data_dir, limit]

    monkeypatch.setattr(data, "load", load)
    network = NetworkResult((0.5,) * 9, 0.0, 0.0, (0.0, 0.0), (0.0, 0.0))
    result = TestResult(0.5, 5, 9, "layer", 3, network, network, (), ())
    monkeypatch.setattr(evaluate, "compare_networks", lambda *arguments: result)
    monkeypatch.setattr(evaluate, "comparison_table", lambda results: "")


def around(folder):
    """Everything beside and above a folder that a path out of it would reach."""
    return sorted(str(path) for path in folder.parent.rglob("*") if not path.is_relative_to(folder))


def json_of(folder, name):
    """A run's file as JSON; history.jsonl is its first line."""
    return json.loads(
        (folder / name).read_text().splitlines()[0] if name == "history.jsonl" else (folder / name).read_text()
    )


@RELAXED
@given(st.data())
def test_thresholds_of_any_content_are_refused_or_evaluated(tiny, run_folder, fast, tmp_path, data):
    path = tmp_path / "thresholds.json"
    content = data.draw(mutated(json_of(run_folder / "ended", "thresholds.json")))
    path.write_text(json.dumps(content), errors="surrogatepass")
    one_sentence(
        evaluate.evaluate, EvaluateConfig(path, weights=tiny, images=5, timesteps=9, calibration_images=5)
    )


@pytest.mark.parametrize("name", ["config.json", "thresholds.json", "results.json", "history.jsonl"])
@RELAXED
@given(st.data())
def test_a_finished_run_of_any_content_is_refused_or_read_and_always_listed(
    run_folder, fast, tmp_path, name, data
):
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run_folder / "ended", folder)
    before = around(folder)
    (folder / name).write_text(json.dumps(data.draw(mutated(json_of(folder, name)))))
    one_sentence(finished_run.read_run, folder, "test", 5)
    for run in find_runs(tmp_path):
        assert run.state in STATES
        runs.runs_table([run])
    assert around(folder) == before


@settings(RELAXED, max_examples=40)
@given(st.data())
def test_a_stopped_run_of_any_configuration_is_refused_or_goes_on(run_folder, fast, tmp_path, monkeypatch, data):
    """As far as the search, which is not begun."""
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run_folder / "killed", folder)
    before = around(folder)
    (folder / "config.json").write_text(json.dumps(data.draw(mutated(json_of(folder, "config.json")))))
    monkeypatch.setattr(module, "_search", lambda *arguments: {})
    one_sentence(module.optimize, OptimizeConfig(resume=folder))
    assert around(folder) == before
    assert all(run.state in STATES for run in find_runs(folder))


@pytest.mark.parametrize("name", ["config.json", "history.jsonl", "results.json", "thresholds.json"])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[" * 100_000, b"{}", b"null\n", b"9" * 5000, b'{"a": 1e999}']
)
def test_files_of_a_run_that_are_no_json_are_refused(run_folder, fast, tmp_path, name, content):
    folder = Path(shutil.copytree(run_folder / "ended", tmp_path / "run"))
    (folder / name).write_bytes(content)
    one_sentence(finished_run.read_run, folder, "test", 5)
    (folder / "results.json").unlink()
    one_sentence(read_json, folder / "config.json")
    assert all(run.state in STATES for run in find_runs(tmp_path))


@RELAXED
@given(DAMAGE)
def test_a_damaged_checkpoint_is_refused(run_folder, damage):
    content = checkpoint.files(run_folder / "killed")[0].read_bytes()
    try:
        found = checkpoint.from_bytes(damaged(content, damage))
    except ValueError:
        return
    assert checkpoint.to_bytes(found) == content, "another state than the one that was saved"


@pytest.fixture(scope="module")
def prepared(tiny):
    """A function that goes on with a run from a checkpoint, for one generation."""
    config = config_of(tiny, None).checked()
    snn, _ = load_snn(tiny)
    train = data.load("embedded", "train", limit=40)
    calibration = calibrate(snn.network, snn.params, train.images)
    config = replace(config, images=4)

    def go_on(found):
        job = make_job(config, snn, train, calibration)
        start = one_sentence(job.restored, found)
        if start is None:
            return
        after, state = start
        for generation, _ in job.generations(state, after):
            row = history_row(generation, found.rows[0]["accuracy"])
            note_of(generation, config, [*found.rows, row])
            break

    return go_on


ARRAYS = st.one_of(
    st.sampled_from([np.zeros(0), np.full((4, 2), np.nan), np.full(3, 1e300), np.array(5), np.full((4, 2), 7.0)]),
    st.builds(
        lambda shape, kind: np.ones(shape, kind),
        st.lists(st.integers(0, 9), max_size=3),
        st.sampled_from("fdiIlLb?"),
    ),
    st.builds(lambda value: np.full(6, value, np.uint64), st.integers(0, 2**64 - 1)),
    st.builds(lambda value: np.full(4, value), st.integers(-9, 9)),
)


@RELAXED
@given(st.data())
def test_a_checkpoint_of_any_content_is_refused_or_can_be_gone_on_from(run_folder, prepared, data):
    """With a checksum that fits: somebody meant it."""
    content = checkpoint.files(run_folder / "killed")[0].read_bytes()
    payload = content[len(checkpoint.FORMAT) + 65 :]
    size = int.from_bytes(payload[:8], "little")
    state = json.loads(json.loads(payload[8 : 8 + size])["__metadata__"]["state"])
    arrays = dict(load_arrays(payload))
    if data.draw(st.booleans()):
        state = data.draw(mutated(state))
    else:
        name = data.draw(st.sampled_from(sorted(arrays)))
        arrays[name] = data.draw(ARRAYS)
    payload = save_safetensors(arrays, metadata={"state": json.dumps(state)})
    content = checkpoint.FORMAT + checkpoint.hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload
    try:
        found = checkpoint.from_bytes(content)
    except ValueError:
        return
    prepared(found)


def test_a_huge_checkpoint_is_not_read(tmp_path):
    """A sparse file: it takes no room on the disk, and would take all memory."""
    path = tmp_path / "000001.checkpoint"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 1 << 40)

    def read():
        with pytest.raises(UserError, match="at most"):
            checkpoint.read(path)

    assert peak(read) < MEGABYTE


@settings(RELAXED, max_examples=100)
@given(kind=st.sampled_from(["PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM"]), damage=DAMAGE)
def test_a_damaged_image_is_read_or_a_data_error(tmp_path, kind, damage):
    (tmp_path / "train" / "a").mkdir(parents=True, exist_ok=True)
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 24, 3), np.uint8)).save(whole, kind)
    (tmp_path / "train" / "a" / "x.png").write_bytes(damaged(whole.getvalue(), damage))
    one_sentence(lambda: data.load("imagefolder", "train", tmp_path).images[:])


def test_an_image_that_declares_a_billion_pixels_is_refused_by_its_header(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    whole = io.BytesIO()
    Image.new("RGB", (8, 8)).save(whole, "PNG")
    content = bytearray(whole.getvalue())
    content[16:24] = struct.pack(">II", 12_000, 12_000)
    header = bytes(content[12:29])
    content[29:33] = struct.pack(">I", zipfile.crc32(header))
    (tmp_path / "train" / "a" / "x.png").write_bytes(bytes(content))

    def read():
        with pytest.raises(data.DataError, match="declares 12000 x 12000 pixels"):
            data.load("imagefolder", "train", tmp_path)

    assert peak(read) < 5 * MEGABYTE
