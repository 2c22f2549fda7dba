"""The list of runs, and what commands keep between starts."""

import json
import os
from pathlib import Path

import jax
import pytest

from jaxsnn.errors import UserError
from jaxsnn.records import run_folder
from jaxsnn.records.listing import check_made_by, find_runs, made_by
from jaxsnn.runs import RunsConfig, list_runs
from jaxsnn.runtime import compile_cache

RESULTS = {
    "optimized": {"accuracy": [0.1, 0.825]},
    "latency": [{"target_name": "ANN - 1", "baseline_timesteps": None, "optimized_timesteps": 31}],
    "stopped_early": False,
}


def make(folder, rows=3, results=None, age=0, **config):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"population": 4, "generations": 9, "engine": "scipy"} | config)
    )
    lines = [json.dumps({"generation": n, "best_cost": 9.5 - n}) + "\n" for n in range(rows)]
    (folder / "history.jsonl").write_text("".join(lines))
    if results:
        (folder / "results.json").write_text(json.dumps(results))
    for path in (*folder.iterdir(), folder):
        os.utime(path, (1.7e9 - age, 1.7e9 - age))
    return folder


def test_runs_are_listed_newest_first_with_state_generation_and_result(tmp_path, capsys):
    make(tmp_path / "old", results=RESULTS, age=5000)
    make(tmp_path / "early", results=RESULTS | {"stopped_early": True}, age=4000)
    make(tmp_path / "killed", rows=2, age=3000)
    make(tmp_path / "begun", rows=0, age=2000)
    make(tmp_path / "shrinking", engine="lshade", age=1000)
    (make(tmp_path / "torn", age=500) / "results.json").write_text('{"half": ')
    os.utime(tmp_path / "torn" / "results.json", (1, 1))
    os.utime(tmp_path / "torn", (1.7e9 - 500, 1.7e9 - 500))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"epochs": 30}')
    (tmp_path / "notes.txt").write_text("no run")
    runs = find_runs(tmp_path)
    assert [(run.folder.name, run.state, run.done, run.planned, run.cost) for run in runs] == [
        ("torn", "damaged", None, None, None),
        ("shrinking", "interrupted", 2, None, 7.5),
        ("begun", "interrupted", None, 9, None),
        ("killed", "interrupted", 1, 9, 8.5),
        ("early", "stopped", 2, 9, 7.5),
        ("old", "finished", 2, 9, 7.5),
    ]
    assert runs[-1].accuracy == 0.825 and runs[-1].steps == (None, 31)
    list_runs(RunsConfig(tmp_path))
    shown = capsys.readouterr().out
    assert "82.50 %" in shown and "- > 31" in shown and "2/9" in shown
    assert f"--resume {tmp_path / 'killed'}" in shown and "results.json is not JSON" in shown
    assert "notes" not in shown and "other" not in shown


def make_training(folder, rows, results=None, **config):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"epochs": 5} | config))
    lines = [json.dumps({"epoch": n + 1, "loss": 2.5 - n, **row}) + "\n" for n, row in enumerate(rows)]
    (folder / "history.jsonl").write_text("".join(lines))
    (folder / "checkpoints").mkdir()
    if results:
        (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_training_and_fine_tuning_are_listed_too(tmp_path, capsys):
    train, tune = {"label_smoothing": 0.1}, {"neuron_rate": 0.01}
    held = [{"held_out_accuracy": share} for share in (0.5, 0.75, 0.625)]
    ended = {"test_accuracy": 0.875, "stopped_early": False}
    make_training(tmp_path / "training", held, **train)
    make_training(tmp_path / "trained", [{}, {}], ended, **train)
    make_training(tmp_path / "tuned", [{}], RESULTS | {"stopped_early": True}, **tune)
    make_training(tmp_path / "tuning", [], **tune)
    (make_training(tmp_path / "broken", [{}], **tune) / "history.jsonl").write_text("[]")
    earlier = make_training(tmp_path / "earlier", [{}], **train)
    (earlier / "checkpoints").rmdir()
    (earlier / "weights.safetensors").write_text("weights")
    with run_folder.locked(make_training(tmp_path / "busy", [{}], **train)):
        runs = {run.folder.name: run for run in find_runs(tmp_path)}
    found = {
        name: (run.command, run.state, run.done, run.cost, run.accuracy, run.steps) for name, run in runs.items()
    }
    assert found == {
        "training": ("jaxsnn.train", "interrupted", 3, 0.5, 0.75, None),
        "trained": ("jaxsnn.train", "finished", 2, 1.5, 0.875, None),
        "tuned": ("jaxsnn.finetune", "stopped", 1, 2.5, 0.825, (None, 31)),
        "tuning": ("jaxsnn.finetune", "interrupted", None, None, None, None),
        "broken": ("jaxsnn.finetune", "damaged", None, None, None, None),
        "earlier": ("jaxsnn.train", "finished", 1, 2.5, None, None),
        "busy": ("jaxsnn.train", "running", 1, 2.5, None, None),
    }
    assert f"python -m jaxsnn.train --out {tmp_path / 'training'}" in runs["training"].note
    list_runs(RunsConfig(tmp_path))
    shown = capsys.readouterr().out
    assert "finetune" in shown and "87.50 %" in shown and "3/5" in shown


def test_a_folder_tells_which_command_made_its_run(tmp_path):
    assert made_by(tmp_path) is None
    check_made_by(tmp_path, "jaxsnn.optimize")
    folder = make_training(tmp_path / "run", [], label_smoothing=0.0)
    assert made_by(folder) == "jaxsnn.train"
    check_made_by(folder, "jaxsnn.train")
    with pytest.raises(UserError, match=r"holds a run of jaxsnn\.train, not of jaxsnn\.optimize: python -m"):
        check_made_by(folder, "jaxsnn.optimize")


def test_a_run_that_a_process_works_on_is_running(tmp_path):
    folder = make(tmp_path / "run")
    with run_folder.locked(folder):
        (run,) = find_runs(folder)
        assert run.state == "running" and run.note == ""
    (run,) = find_runs(folder)
    assert run.state == "interrupted"


def test_a_folder_without_runs_says_so_and_none_is_an_error(tmp_path, capsys):
    assert list_runs(RunsConfig(tmp_path)) == []
    assert "no runs in" in capsys.readouterr().out
    with pytest.raises(UserError, match="is not a folder"):
        find_runs(tmp_path / "nowhere")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """What JAX is told, with a home that is this test's."""
    told = {}
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(compile_cache.sys, "platform", "linux")
    kept = jax.config.values["jax_compilation_cache_dir"]  # where the tests keep theirs
    jax.config.update("jax_compilation_cache_dir", None)
    with monkeypatch.context() as patch:
        patch.setattr(jax.config, "update", told.__setitem__)
        yield told
    jax.config.update("jax_compilation_cache_dir", kept)


def processor(monkeypatch, tmp_path, text):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    monkeypatch.setattr(compile_cache, "PROCESSOR", path)


def test_compiled_programs_are_kept_apart_for_each_kind_of_processor(cache, monkeypatch, tmp_path):
    folders = []
    for flags in ("avx2", "avx2 avx512f", "avx2"):
        processor(monkeypatch, tmp_path, f"vendor_id\t: X\nflags\t\t: {flags}\nbugs\t\t: spectre_v1\n")
        compile_cache.keep_compiled()
        folders.append(cache["jax_compilation_cache_dir"])
    assert folders[0] == folders[2] != folders[1]
    assert all(folder.startswith(str(tmp_path / ".cache" / "jaxsnn" / "compiled")) for folder in folders)
    assert os.stat(folders[0]).st_mode & 0o77 == 0


def test_nothing_is_kept_where_it_is_known_to_go_wrong(cache, monkeypatch, tmp_path):
    processor(monkeypatch, tmp_path, "flags\t\t: avx2\nbugs\t\t: spectre_v1 gds mds\n")
    compile_cache.keep_compiled()
    processor(monkeypatch, tmp_path, "flags\t\t: avx2\n")
    monkeypatch.setattr(compile_cache.sys, "platform", "darwin")
    compile_cache.keep_compiled()
    monkeypatch.setattr(compile_cache.sys, "platform", "linux")
    (tmp_path / ".cache").write_text("a file where the folder should be")
    compile_cache.keep_compiled()
    assert cache == {}
