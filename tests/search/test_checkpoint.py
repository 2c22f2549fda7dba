"""Runs that are interrupted and gone on with end bit for bit as if nothing had happened, whatever stopped them."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import data
from benchmarks import kills
from helpers.runs import OF_ANY_SEARCH, Killed, config_of, interrupted, random_params
from jaxsnn import optimize as module
from jaxsnn.cli import command
from jaxsnn.errors import UserError
from jaxsnn.networks import weights
from jaxsnn.networks.weights import save_weights
from jaxsnn.optimize import OptimizeConfig, optimize
from jaxsnn.records import run_folder
from jaxsnn.reports import figures
from jaxsnn.runtime import processes
from jaxsnn.runtime.files import read_json, write_atomically
from jaxsnn.search import checkpoint
from jaxsnn.search.objective import Objective


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Drawing takes longer than all the rest here."""
    for name in ("accuracy_curves", "threshold_bars", "cost_history"):
        monkeypatch.setattr(figures, name, lambda *arguments: None)


@pytest.fixture(scope="module")
def reference(tiny, tmp_path_factory):
    """The outcome of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("accuracy_curves", "threshold_bars", "cost_history"):
            patch.setattr(figures, name, lambda *arguments: None)
        optimize(config_of(tiny, folder))
    return kills.outcome(folder)


@pytest.mark.slow
def test_it_may_stop_before_and_behind_everything_that_is_written(tiny, reference, monkeypatch, tmp_path):
    """The same command again goes on, whichever of its files was the last."""
    original = os.replace
    written = []

    def count(source, target):
        written.append(Path(target).name)
        original(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", count)
        optimize(config_of(tiny, tmp_path / "count"))
    each = [name for number in range(4) for name in ("history.jsonl", f"{number:06d}.checkpoint")]
    assert written == ["config.json", *each, "thresholds.json", "curves.npz", "results.json", "report.html"]
    for place in range(len(written)):
        folder = tmp_path / str(place)
        calls = []

        def stop(source, target, place=place, calls=calls):
            calls.append(target)
            if len(calls) == place + 1:
                if place % 2:
                    original(source, target)
                raise Killed
            original(source, target)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(os, "replace", stop)
            optimize(config_of(tiny, folder))
        if not (folder / "results.json").exists():
            optimize(config_of(tiny, folder))
        assert kills.outcome(folder) == reference


def test_a_run_killed_before_its_first_checkpoint_starts_again(tiny, reference, monkeypatch, tmp_path):
    def stop(*arguments):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint, "save", stop)
        optimize(config_of(tiny, tmp_path / "run"))
    (tmp_path / "run" / ".history.jsonl.ab12cd_9").write_text("half of a li")
    optimize(OptimizeConfig(resume=tmp_path / "run"))
    assert kills.outcome(tmp_path / "run") == reference
    assert {path.name for path in (tmp_path / "run").iterdir()} == OF_ANY_SEARCH


@pytest.mark.slow
def test_three_real_kills(tiny, tmp_path):
    """Processes ended at random moments, as ``python -m benchmarks.kills`` does it a thousand times."""
    search = replace(config_of(tiny, None), generations=6)
    config = kills.KillsConfig(kills=3, mercy=0, cases=("one",))
    runs, _ = kills.survive(config, {"one": search}, tmp_path, lambda line: None)
    assert kills.kills_of(runs) >= 3 and [run["wrong"] for run in runs] == [[]] * len(runs)
    assert max((kill["lost"] for run in runs for kill in run["kills"] if "lost" in kill), default=0) <= 1


def terminate_in(monkeypatch, generation):
    """Send SIGTERM in the middle of a generation's evaluation."""
    original = Objective.__call__
    calls = []

    def evaluate(self, genes, indices):
        calls.append(len(indices))
        if len(calls) == generation + 1:
            signal.raise_signal(signal.SIGTERM)
        return original(self, genes, indices)

    monkeypatch.setattr(Objective, "__call__", evaluate)


@pytest.mark.parametrize("every", [0.0, 1e9])
def test_sigterm_saves_the_generation_and_says_how_to_go_on(every, tiny, reference, monkeypatch, capsys, tmp_path):
    folder = tmp_path / "run"
    written = []
    original = checkpoint.save
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(checkpoint, "save", lambda f, c: written.append(c.generation.number) or original(f, c))
        terminate_in(patch, 2)
        optimize(config_of(tiny, folder, checkpoint_every=every))
    assert ended.value.code == 0
    assert f"--resume {folder} continues" in capsys.readouterr().out.replace("\n", " ")
    # what waited for its time is saved at once, the generation that was running at its end
    assert written == ([0, 1, 2] if every == 0 else [1, 2])
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    optimize(OptimizeConfig(resume=folder))
    assert kills.outcome(folder) == reference


def test_sigterm_behind_the_search_ends_at_once(tiny, reference, monkeypatch, tmp_path):
    folder = tmp_path / "run"

    def compare(*arguments, **options):
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the comparison goes on")

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(module, "compare_networks", compare)
        optimize(config_of(tiny, folder))
    assert ended.value.code == 0 and checkpoint.files(folder)
    optimize(OptimizeConfig(resume=folder))
    assert kills.outcome(folder) == reference


def test_checkpoints_come_every_so_many_seconds_and_two_are_kept(tiny, monkeypatch, tmp_path):
    interrupted(monkeypatch, config_of(tiny, tmp_path / "run"), 3)
    assert [path.stem for path in checkpoint.files(tmp_path / "run")] == ["000003", "000002"]
    with monkeypatch.context() as patch:
        now = [0.0]
        patch.setattr(checkpoint.time, "perf_counter", lambda: now[0])
        saved = []
        patch.setattr(checkpoint, "save", lambda folder, value: saved.append(value))
        saver = checkpoint.Saver(tmp_path, 10)
        for value, now[0] in enumerate((3, 9, 12, 15, 22)):
            saver.take(value)
        saver.write()
        saver.write()
    assert saved == [2, 4]


@pytest.fixture(scope="module")
def stopped(tiny, tmp_path_factory):
    """A run that was killed behind generation 2, with two checkpoints."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, config_of(tiny, folder), 2)
    return folder


@pytest.fixture
def copy(stopped, tmp_path):
    return Path(shutil.copytree(stopped, tmp_path / "copy"))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_newest_checkpoint_is_the_one_of_the_highest_number_whatever_the_clock_said(stopped, copy):
    newest, before = checkpoint.files(copy)
    os.utime(newest, (0, 0))
    os.utime(before, (2e9, 2e9))
    assert checkpoint.newest(copy, print).generation.number == 2


def test_a_clock_that_was_set_back_changes_no_timing_and_no_order(tiny, reference, monkeypatch, tmp_path):
    """Durations come from a clock that only goes forward; the date is in nothing but a default folder's name."""
    folder = tmp_path / "run"
    interrupted(monkeypatch, config_of(tiny, folder), 1)
    import time

    ticks = iter(range(2_000_000_000, 0, -1000))
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: float(next(ticks)))
        optimize(OptimizeConfig(resume=folder))
    assert kills.outcome(folder) == reference
    results = read_json(folder / "results.json")
    assert 0 < results["search_seconds"] <= results["seconds"] < 1000


def test_a_checkpoint_cut_at_every_tenth_byte_is_refused_and_the_one_before_is_used(stopped, copy):
    newest, before = checkpoint.files(copy)
    content = newest.read_bytes()
    assert checkpoint.from_bytes(content).generation.number == 2
    for length in range(0, len(content), 10):
        with pytest.raises(ValueError, match=r"cut short|damaged"):
            checkpoint.from_bytes(content[:length])
    for length in range(0, len(content), len(content) // 20):
        newest.write_bytes(content[:length])
        said = []
        assert checkpoint.newest(copy, said.append).generation.number == 1
        assert len(said) == 1 and newest.name in said[0]
    before.write_bytes(b"")
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole: remove that folder"):
        checkpoint.newest(copy, lambda sentence: None)


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(copy, reference, capsys):
    newest, _ = checkpoint.files(copy)
    newest.write_bytes(newest.read_bytes()[:-1])
    optimize(OptimizeConfig(resume=copy))
    assert "resuming after generation 1" in capsys.readouterr().out
    assert kills.outcome(copy) == reference


@pytest.mark.parametrize(
    "key, reason", [("code", "another version of this program"), ("weights_sha256", "weights")]
)
def test_a_checkpoint_of_something_else_is_refused_with_the_reason(key, reason, copy, monkeypatch):
    newest, _ = checkpoint.files(copy)
    held = checkpoint.read(newest)
    checkpoint.save(copy, replace(held, identity=held.identity | {key: "0" * 64}))
    before = contents(copy)
    with pytest.raises(UserError, match=f"made .*{reason}"):
        optimize(OptimizeConfig(resume=copy))
    assert contents(copy) == before


def test_other_data_other_weights_and_a_changed_configuration_are_refused(tiny, copy, monkeypatch, tmp_path):
    before = contents(copy)
    network = weights.load_weights(tiny)[0]
    other = tmp_path / "other.safetensors"
    save_weights(other, network, random_params(network, seed=1))
    with pytest.raises(UserError, match="weights_sha256 is"):
        optimize(OptimizeConfig(resume=copy, weights=other))
    assert contents(copy) == before
    with monkeypatch.context() as patch:
        load = data.load
        patch.setattr(data, "load", lambda *a, **k: load(*a, **k).select(np.arange(20)[::-1]))
        with pytest.raises(UserError, match=r"train_sha256 is|test_sha256 is"):
            optimize(OptimizeConfig(resume=copy))
    record = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(record | {"mutation": [0.4, 1.5]}))
    with pytest.raises(UserError, match=r"config.json was changed, change it back .mutation is"):
        optimize(OptimizeConfig(resume=copy))


def test_weights_that_have_moved_are_found_where_they_are_given(tiny, copy, reference, tmp_path):
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(tiny.read_bytes())
    optimize(OptimizeConfig(resume=copy, weights=moved, threads=2))
    ended = kills.outcome(copy)
    assert ended["results.json"] == reference["results.json"]
    assert json.loads(ended["thresholds.json"])["weights"] == str(moved)


@pytest.mark.parametrize(
    "flag", [{"population": 6}, {"seed": 1}, {"out": Path("elsewhere")}, {"percentile": 99.0}]
)
def test_other_settings_are_refused_with_resume(flag, copy):
    name = next(iter(flag)).replace("_", "-")
    with pytest.raises(UserError, match=f"--{name} cannot be given with --resume"):
        optimize(OptimizeConfig(resume=copy, **flag))


def test_a_finished_run_says_so_and_stays_as_it_is(copy, capsys):
    optimize(OptimizeConfig(resume=copy))
    before = contents(copy)
    capsys.readouterr()
    optimize(OptimizeConfig(resume=copy))
    assert "is finished, there is nothing to resume: nothing was changed" in capsys.readouterr().out
    assert contents(copy) == before


def test_what_a_run_killed_behind_its_results_left_is_done_and_removed(copy, monkeypatch, capsys):
    """Its page, its lock, its last checkpoints and the beginning of a figure."""
    kept = {path.name: path.read_bytes() for path in checkpoint.files(copy)}
    optimize(OptimizeConfig(resume=copy))
    before = contents(copy)
    (copy / "report.html").unlink()
    (copy / ".lock").write_text("process 7")
    (copy / "figures").mkdir(exist_ok=True)
    (copy / "figures/.accuracy.png.ab12cd_9").touch()
    (copy / "checkpoints").mkdir()
    for name, content in kept.items():
        (copy / "checkpoints" / name).write_bytes(content)
    with monkeypatch.context() as patch:
        patch.setattr(processes, "first", lambda: False)  # the others hold copies of a few files
        assert optimize(OptimizeConfig(resume=copy))["nfe"]
        assert not (copy / "report.html").exists()
    optimize(OptimizeConfig(resume=copy))
    assert "what had been cut short behind them is done" in capsys.readouterr().out
    assert contents(copy) == before
    optimize(OptimizeConfig(resume=copy))
    assert "nothing was changed" in capsys.readouterr().out


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"holds no run of jaxsnn.optimize"):
            optimize(OptimizeConfig(resume=folder))
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_is_refused_and_a_dead_one_is_not_waited_for(copy):
    before = contents(copy)
    hold = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX)\n"
    hold += "f.write('process 7'); f.flush(); print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-S", "-c", hold, str(copy / ".lock")], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        assert run_folder.is_locked(copy)
        with pytest.raises(UserError, match="is being worked on by process 7: wait for it or stop it"):
            optimize(OptimizeConfig(resume=copy))
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    assert {path: content for path, content in contents(copy).items() if path.name != ".lock"} == before
    assert not run_folder.is_locked(copy)
    with run_folder.locked(copy):
        assert run_folder.is_locked(copy)
        with pytest.raises(UserError, match="is being worked on by process"), run_folder.locked(copy):
            pass
    assert contents(copy) == before


def test_a_disk_that_is_full_leaves_the_last_checkpoint_and_a_sentence(copy, reference, monkeypatch):
    """A limit of the system on the size of a file: the write itself fails, half way."""
    size = checkpoint.files(copy)[0].stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = contents(copy / "checkpoints")

    def write(path, content):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
        try:
            write_atomically(path, content)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", write)
        with pytest.raises(UserError, match=r"checkpoint of generation 3 cannot be written .* after generation 2"):
            optimize(OptimizeConfig(resume=copy))
    assert contents(copy / "checkpoints") == before
    optimize(OptimizeConfig(resume=copy))
    assert kills.outcome(copy) == reference


def test_a_disk_that_fills_up_at_any_write_loses_nothing(copy, reference, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    real = os.fsync
    for left in range(4):
        calls = []

        def some(descriptor, left=left, calls=calls):
            calls.append(descriptor)
            return real(descriptor) if len(calls) <= left else full(descriptor)

        with monkeypatch.context() as patch, pytest.raises((UserError, OSError), match="No space left"):
            patch.setattr(os, "fsync", some)
            optimize(OptimizeConfig(resume=copy))
    optimize(OptimizeConfig(resume=copy))
    assert kills.outcome(copy) == reference


def test_a_folder_that_cannot_be_written_is_an_error_of_one_sentence(tiny, stopped, monkeypatch, capsys):
    """As root, who may write everywhere, the test becomes somebody else for a moment."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        folder = Path(shutil.copytree(stopped, Path(name) / "run"))
        for path in (folder, *folder.rglob("*")):
            os.chmod(path, 0o555 if path.is_dir() else 0o444)
        public = Path(shutil.copy(tiny, Path(name) / "tiny.safetensors"))
        before = contents(folder)
        monkeypatch.setattr(sys, "argv", ["-m", "--resume", str(folder), "--weights", str(public)])
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(SystemExit) as ended:
                command.main(OptimizeConfig, optimize, "jaxsnn.optimize")
        finally:
            os.seteuid(user)
        assert ended.value.code == 2
        assert "Permission denied" in capsys.readouterr().err
        assert contents(folder) == before
        os.chmod(folder, 0o755)
        os.chmod(folder / "checkpoints", 0o755)


def test_links_out_of_the_folder_are_refused(copy, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for name in ("figures", ".lock"):
        (copy / name).symlink_to(tmp_path / "elsewhere" / name)
        with pytest.raises(UserError, match="is a link"):
            optimize(OptimizeConfig(resume=copy))
        (copy / name).unlink()
    assert list((tmp_path / "elsewhere").iterdir()) == []
