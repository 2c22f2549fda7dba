"""The commands as a user types them: what they write, and one clear sentence with exit code 2 for bad input."""

import errno
import json
import os
import signal
import sys

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from jaxsnn import optimize
from jaxsnn.cli import command
from jaxsnn.evaluate import EvaluateConfig, evaluate
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import ScaleNorm
from jaxsnn.networks.forward import preprocess
from jaxsnn.networks.json_format import to_json
from jaxsnn.networks.weights import load_weights, save_weights
from jaxsnn.optimize import OptimizeConfig
from jaxsnn.optimize import optimize as run_optimize
from jaxsnn.search.job import history_row
from jaxsnn.training.ann import ANN

SMALL = "--population 4 --generations 2 --images 12 --calibration-images 20 --timesteps 8 --test-timesteps 10"


SMALL += " --test-images 30 --low 0.5 --tol 0 --finalists 2 --final-images 20 --limit-images 20"


COMMANDS = {
    "optimize": (OptimizeConfig, run_optimize),
    "evaluate": (EvaluateConfig, evaluate),
}


@pytest.fixture(scope="session")
def network():
    return vgg([[4], [4], [6]], name="tiny", norm=ScaleNorm)


@pytest.fixture(scope="session")
def tiny(network, tmp_path_factory):
    """Weights of a tiny untrained network for 32 x 32 images."""
    ann = ANN(network, 0)
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    in_training = nnx.jit(lambda ann, x, key: ann(x, key))
    for step in range(30):
        in_training(ann, preprocess(network, images), jax.random.key(step))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, network, {name: np.asarray(value) for name, value in ann.params().items()})
    return path


def call(monkeypatch, name, arguments):
    """Run a command in this process as if typed; returns its exit code."""
    config, work = COMMANDS[name]
    monkeypatch.setattr(sys, "argv", ["-m", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    try:
        command.main(config, work, f"jaxsnn.{name}")
    except SystemExit as exit:
        return exit.code
    return 0


def refused(monkeypatch, capsys, name, arguments):
    """The one sentence that a command prints when it refuses its input."""
    assert call(monkeypatch, name, arguments) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture(scope="session")
def finished(tiny, tmp_path_factory):
    """The folder of one finished small run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, "optimize", [*SMALL.split(), "--weights", str(tiny), "--out", str(folder)]) == 0
    return folder


def test_a_run_leaves_a_complete_folder(finished):
    names = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert names == {
        "config.json",
        "history.jsonl",
        "thresholds.json",
        "results.json",
        "curves.npz",
        "figures/accuracy.png",
        "figures/thresholds.png",
        "figures/cost.png",
        "report.html",
    }
    results = json.loads((finished / "results.json").read_text())
    required = "ann_accuracy test_images timesteps delay device versions seconds nfe training_cost_epochs baseline"
    assert set(required.split()) | {"optimized", "latency", "latency_other_delay"} <= set(results)
    assert {"percentile", "thresholds", "accuracy", "spikes_per_image"} <= set(results["baseline"])
    assert {"thresholds", "percentiles", "accuracy", "synops_per_image", "cost"} <= set(results["optimized"])
    assert len(results["optimized"]["accuracy"]) == results["timesteps"] == 10
    assert results["nfe"] == 12 and results["training_cost_epochs"] == (12 * 12 + 2 * 20) / 2000
    assert [row["target_name"] for row in results["latency"]] == ["ANN - 0.5", "ANN - 1", "ANN - 2", "ANN - 5"]
    history = [json.loads(line) for line in (finished / "history.jsonl").read_text().splitlines()]
    assert [row["generation"] for row in history] == [0, 1, 2]
    assert [row["best_cost"] for row in history] == sorted((row["best_cost"] for row in history), reverse=True)
    config = json.loads((finished / "config.json").read_text())
    assert config["population"] == 4 and config["alpha"] == 1 and config["versions"]["jax"]


def test_evaluate_repeats_what_the_run_reported(finished, monkeypatch, tmp_path):
    out = tmp_path / "again"
    arguments = [str(finished), "--images", "30", "--timesteps", "10", "--out", str(out)]
    assert call(monkeypatch, "evaluate", arguments) == 0
    first = json.loads((finished / "results.json").read_text())
    again = json.loads((out / "results.json").read_text())
    for name in ("ann_accuracy", "latency", "latency_other_delay"):
        assert again[name] == first[name]
    for name in ("baseline", "optimized"):
        assert again[name]["accuracy"] == first[name]["accuracy"]
    assert (out / "accuracy.png").stat().st_size > 1000


def test_a_run_repeats_and_its_folder_is_not_overwritten(finished, tiny, monkeypatch, capsys, tmp_path):
    thresholds = (finished / "thresholds.json").read_bytes()
    results = (finished / "results.json").read_bytes()
    arguments = [*SMALL.split(), "--weights", str(tiny), "--out"]
    assert call(monkeypatch, "optimize", [*arguments, str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "thresholds.json").read_bytes() == thresholds
    capsys.readouterr()
    message = refused(monkeypatch, capsys, "optimize", [*arguments, str(finished)])
    assert "already holds this run with its results" in message
    message = refused(monkeypatch, capsys, "optimize", [*arguments, str(finished), "--seed", "1"])
    assert "already holds a run with another configuration (seed is 0 there, 1 here)" in message
    message = refused(monkeypatch, capsys, "evaluate", [str(finished), "--out", str(finished)])
    assert "whose results would be lost" in message
    assert (finished / "results.json").read_bytes() == results


@pytest.mark.parametrize(
    "extra",
    [
        "--search threshold v0 leak",
        "--race 1 --limit 0",
        "--engine lshade",
        "--engine evosax --subset resample",
        "--space percentile --comparison >= --delay none --v0 0.5",
    ],
)
def test_the_options_work_together(extra, tiny, monkeypatch, tmp_path):
    arguments = [*SMALL.split(), "--weights", str(tiny), "--out", str(tmp_path / "run"), *extra.split()]
    assert call(monkeypatch, "optimize", arguments) == 0
    first = json.loads((tmp_path / "run" / "results.json").read_text())
    arguments = [str(tmp_path / "run"), "--images", "30", "--timesteps", "10", "--out", str(tmp_path / "again")]
    assert call(monkeypatch, "evaluate", arguments) == 0
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    for name in ("baseline", "optimized"):
        assert again[name]["accuracy"] == first[name]["accuracy"]


def test_ctrl_c_stops_after_the_generation_and_still_reports(tiny, monkeypatch, tmp_path):
    original = history_row

    def interrupt(*arguments):
        signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(optimize, "history_row", interrupt)
    folder, handler = tmp_path / "run", signal.getsignal(signal.SIGINT)
    assert call(monkeypatch, "optimize", [*SMALL.split(), "--weights", str(tiny), "--out", str(folder)]) == 0
    results = json.loads((folder / "results.json").read_text())
    assert results["stopped_early"] and results["generations"] == 0
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("--preset cifar11", "unknown preset 'cifar11': did you mean cifar10"),
        ("--population 3", "--population is 3, expected at least 4"),
        ("--timesteps 0", "--timesteps is 0, expected at least 2"),
        ("--timesteps 3", "must be above the layer delay of 3 steps"),
        ("--generations 0", "--generations is 0, expected at least 1"),
        (
            "--images 2001 --final-images 2001",
            "--images is 2001 and --calibration-images 20, but embedded has only",
        ),
        ("--calibration-images 5000", "--calibration-images 5000, but embedded has only 2000"),
        ("--test-images 2001", "2001 images were asked for"),
        ("--finalists 9", "--finalists is 9, expected at most 8"),
        ("--final-images 5", "--final-images is 5, expected at least --images, 12"),
        ("--low 1.5", "--low 1.5 and --high 1.5 must be above 0"),
        ("--v0 1", "--v0 is 1.0, expected in [0, 1)"),
        ("--mutation 0.5 2.5", "2.5"),
        ("--crossover 1.5", "1.5"),
        ("--engine sicpy", "did you mean 'scipy'"),
        ("--strategy best7bin", "best7bin"),
        ("--data cifar12", "unknown dataset 'cifar12': did you mean cifar10"),
        ("--data cifar10 --data-dir /nowhere", "/nowhere does not exist"),
        ("--weights /nowhere.safetensors", "no weights file at /nowhere.safetensors"),
        ("--std -1", "std"),
        ("--percentile 0", "percentile"),
        ("--seed -1", "seed"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    arguments, message, tiny, monkeypatch, capsys, tmp_path
):
    folder = tmp_path / "run"
    arguments = [*SMALL.split(), "--weights", str(tiny), "--out", str(folder), *arguments.split()]
    assert message in refused(monkeypatch, capsys, "optimize", arguments)
    assert not folder.exists()


def test_debug_shows_the_traceback(tiny, monkeypatch, capsys):
    assert call(monkeypatch, "optimize", ["--preset", "cifar11", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def broken(tiny, path, change):
    """A copy of the tiny weights with its arrays changed."""
    network, _, _ = load_weights(tiny)
    arrays = load_file(tiny)
    change(arrays)
    save_file(arrays, path, metadata={"network": to_json(network)})
    return path


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda a: a.update({"conv2.kernel": np.zeros((3, 3, 4, 5), np.float32)}),
            "conv2.kernel has shape (3, 3, 4, 5), network tiny expects (3, 3, 4, 4)",
        ),
        (lambda a: a.pop("norm3.var"), "norm3.var is missing"),
        (lambda a: a.update(extra=np.zeros(3, np.float32)), "extra belongs to no layer"),
        (
            lambda a: a["conv1.kernel"].__setitem__((0, 0, 0, 0), np.nan),
            "conv1.kernel holds NaN or infinite values",
        ),
        (lambda a: a["dense1.kernel"].__setitem__((0, 0), np.inf), "dense1.kernel holds NaN or infinite values"),
    ],
)
def test_weights_that_do_not_match_are_refused(change, message, tiny, monkeypatch, capsys, tmp_path):
    path = broken(tiny, tmp_path / "w.safetensors", change)
    assert message in refused(monkeypatch, capsys, "optimize", [*SMALL.split(), "--weights", str(path)])


@pytest.mark.parametrize(
    "content", [b"", b"not weights", b"\xff" * 100, b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "]
)
def test_a_file_that_holds_no_weights_is_refused(content, monkeypatch, capsys, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    message = refused(monkeypatch, capsys, "optimize", ["--weights", str(path)])
    assert "is not a readable safetensors file" in message or "no network description" in message


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"thresholds": [1, 1]}', "thresholds has 2 entries, network tiny has 3 spiking layers"),
        ('{"thresholds": [1, 0, 1]}', "threshold of layer conv2 is 0.0, expected finite and positive"),
        ('{"thresholds": [1, -1, 1]}', "is -1.0"),
        ('{"thresholds": [1, NaN, 1]}', "is nan"),
        ('{"thresholds": "high"}', "thresholds is not a list of numbers"),
        ('{"thresholds": [1, "2", 1]}', "thresholds is not a list of numbers"),
        ('{"thresholds": [1, 1, 1], "delay": "some"}', "delay is 'some'"),
        (
            '{"thresholds": [1, 1, 1], "percentile": "high", "baseline_thresholds": [1, 1, 1]}',
            "percentile is 'high'",
        ),
        ('{"theta": [1, 1, 1]}', "has no list of thresholds"),
        ("[1, 1, 1]", "holds list, expected a JSON object"),
        ("{", "is not JSON"),
        ("[" * 100000, "is not JSON"),
        ('{"thresholds": null}', "has no list of thresholds"),
        ('{"thresholds": [1' + "0" * 400 + ", 1, 1]}", "beyond float64"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(content, message, tiny, monkeypatch, capsys, tmp_path):
    path = tmp_path / "thresholds.json"
    path.write_text(content)
    arguments = [str(path), "--weights", str(tiny), "--images", "5", "--timesteps", "5"]
    assert message in refused(monkeypatch, capsys, "evaluate", arguments)


def test_thresholds_alone_are_enough(tiny, monkeypatch, tmp_path):
    """A file with nothing but thresholds is compared with the percentile of the training images."""
    path = tmp_path / "thresholds.json"
    path.write_text('{"thresholds": [0.5, 0.5, 1]}')
    arguments = [str(path), "--weights", str(tiny), "--images", "20", "--timesteps", "1"]
    assert call(monkeypatch, "evaluate", [*arguments, "--out", str(tmp_path / "e")]) == 0
    assert json.loads((tmp_path / "e" / "results.json").read_text())["baseline"]["percentile"] == 99.7


def test_changed_weights_are_noticed(finished, tiny, monkeypatch, capsys, tmp_path):
    thresholds = json.loads((finished / "thresholds.json").read_text())
    other = broken(tiny, tmp_path / "w.safetensors", lambda a: a["dense1.kernel"].__imul__(2))
    path = tmp_path / "thresholds.json"
    path.write_text(json.dumps(thresholds | {"weights": str(other)}))
    message = refused(monkeypatch, capsys, "evaluate", [str(path)])
    assert "is not the file that" in message and thresholds["weights_sha256"] in message


def test_a_full_disk_leaves_nothing_half_written(tiny, monkeypatch, capsys, tmp_path):
    folder = tmp_path / "run"
    written = []

    def full(descriptor):
        written.append(descriptor)
        if len(written) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    arguments = [*SMALL.split(), "--weights", str(tiny), "--out", str(folder)]
    assert "No space left on device" in refused(monkeypatch, capsys, "optimize", arguments)
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {"config.json", "history.jsonl"}
    json.loads((folder / "config.json").read_text())
    assert len((folder / "history.jsonl").read_text().splitlines()) == 1


def test_a_folder_of_something_else_is_left_alone(tiny, monkeypatch, capsys, tmp_path):
    (tmp_path / "thesis.tex").write_text("chapter one")
    arguments = [*SMALL.split(), "--weights", str(tiny), "--out", str(tmp_path)]
    assert "is not a run folder" in refused(monkeypatch, capsys, "optimize", arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_weights_that_were_never_trained_are_noticed(tiny, monkeypatch, capsys):
    """A network at chance is allowed, and probably a mistake."""
    arguments = [*SMALL.split(), "--weights", str(tiny), "--explain-plan"]
    assert call(monkeypatch, "optimize", arguments) == 0
    assert "are its weights trained, and for these images?" in capsys.readouterr().out.replace("\n", " ")
    long = "--timesteps 14 --test-timesteps 14 --explain-plan"
    assert call(monkeypatch, "optimize", [*SMALL.split(), *long.split()]) == 0
    assert "trained" not in capsys.readouterr().out
