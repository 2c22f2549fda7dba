"""Files that somebody hands over: whatever is in them, it ends in a sentence, and nothing is written elsewhere."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_safetensors

import data
from helpers.hostile import DAMAGE, MEGABYTE, RELAXED, damaged, mutated, one_sentence, peak
from helpers.runs import config_of, interrupted
from jaxsnn import evaluate, runs
from jaxsnn import optimize as module
from jaxsnn.analysis.results import NetworkResult, TestResult
from jaxsnn.cli.search_notes import note_of
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.conversion.loading import load_snn
from jaxsnn.errors import UserError
from jaxsnn.evaluate import EvaluateConfig
from jaxsnn.optimize import OptimizeConfig
from jaxsnn.records import finished_run
from jaxsnn.records.listing import STATES, find_runs
from jaxsnn.reports import figures
from jaxsnn.runtime.files import read_json
from jaxsnn.search import checkpoint
from jaxsnn.search.job import history_row, make_job


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
    monkeypatch.setattr(evaluate, "compare_networks", lambda *arguments, **options: result)
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
