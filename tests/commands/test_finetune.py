"""Fine-tuning by BPTT: the loss falls, only what is to be trained changes, and the run can be evaluated."""

import hashlib
import json
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import data
from helpers.networks import dyadic_images, dyadic_snn, dyadic_thresholds, save_tiny
from jaxsnn import finetune
from jaxsnn.cli import command
from jaxsnn.evaluate import EvaluateConfig, evaluate
from jaxsnn.finetune import FinetuneConfig
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.networks.weights import load_weights, save_weights
from jaxsnn.records import run_folder
from jaxsnn.records.thresholds_file import read_thresholds
from jaxsnn.simulation.surrogate import surrogate_scores
from jaxsnn.training import bptt
from jaxsnn.training.bptt import BOUNDS, TRAINABLE, Unrolling, batch_loss, make_optimizer, make_step, parts_of

SMALL = (
    "--epochs 2 --images 20 --batch 10 --timesteps 5 --test-timesteps 6 --test-images 20 --calibration-images 20"
)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Weights of a small random network for the embedded images."""
    return save_tiny(tmp_path_factory.mktemp("weights"))


def call(monkeypatch, arguments):
    """Run the command in this process as if typed; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["-m", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    try:
        command.main(FinetuneConfig, finetune.finetune, "jaxsnn.finetune", finetune.parse)
    except SystemExit as exit:
        return exit.code
    return 0


@pytest.fixture(scope="session")
def finished(tiny, tmp_path_factory):
    """The folder of one finished run that trains everything."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train = ["--train", *TRAINABLE, "--neuron-rate", "0.05"]
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, [*SMALL.split(), *train, "--weights", str(tiny), "--out", str(folder)]) == 0
    return folder


def problem():
    snn, images = dyadic_snn("pool_after"), dyadic_images(12)
    return snn, Genes(dyadic_thresholds(3)), images, np.arange(12) % 3


@pytest.mark.parametrize("loss", ["mean", "final"])
def test_the_loss_is_the_cross_entropy_of_scores_over_time(loss):
    """Against a softmax in NumPy; and how many images are right at the last step."""
    snn, start, images, labels = problem()
    genes = Genes(start.threshold[0].astype(np.float32))
    curve = np.asarray(surrogate_scores(snn.network, snn.params, genes, images, 6, every_step=True), np.float64)
    logits = curve / np.arange(1, 7)[:, None, None]
    picked = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, labels[None, :, None], 2)[..., 0]
    value, right = batch_loss(snn.network, Unrolling(6, loss=loss), snn.params, genes, images, labels)
    assert float(value) == pytest.approx(picked.mean() if loss == "mean" else picked[-1].mean(), rel=1e-5)
    assert int(right) == (curve[-1].argmax(-1) == labels).sum()


@pytest.mark.parametrize("names, share", [(("weights",), 0.9), (("thresholds", "v0"), 0.99)])
def test_the_loss_falls_and_nothing_else_changes(names, share):
    """Twelve images with arbitrary labels: weights can learn them, six numbers of neurons only so far."""
    snn, start, images, labels = problem()
    parts = parts_of(snn, start)
    trained = {name: jax.tree.map(jnp.copy, parts[name]) for name in names}
    fixed = {name: part for name, part in parts.items() if name not in names}
    optimizer = make_optimizer(trained, 0.02, 0.02, 25)
    step = make_step(snn.network, Unrolling(6, scale=1.0), optimizer)
    state, base, losses = optimizer.init(trained), jnp.asarray(start.threshold[0], jnp.float32), []
    for _ in range(25):
        trained, state, loss, _ = step(trained, fixed, state, base, images, labels, jax.random.key(0))
        losses.append(float(loss))
    assert min(losses[-5:]) < share * losses[0]
    assert set(trained) == set(names)
    for name in names:
        low, high = BOUNDS.get(name, (-np.inf, np.inf))
        for before, after in zip(*map(jax.tree.leaves, (parts[name], trained[name]))):
            assert np.abs(np.asarray(before) - np.asarray(after)).max() > 0
            assert (np.asarray(after) >= low).all() and (np.asarray(after) <= high).all()


def test_a_run_folder_holds_the_run_and_evaluate_gives_its_curve_again(finished):
    results = json.loads((finished / "results.json").read_text())
    rows = [json.loads(line) for line in (finished / "history.jsonl").read_text().splitlines()]
    assert [row["steps"] for row in rows] == [2, 4]
    assert results["image_evaluations"] == 40 and results["training_cost_epochs"] == pytest.approx(40 / 2000)
    assert results["step_bytes"] > 0 and results["peak_bytes"] > 10**7 and not results["stopped_early"]
    assert results["train_timesteps"] == 5 - results["delay_steps"]
    assert all(0 < v <= 1 for v in results["optimized"]["leak"])
    again = evaluate(EvaluateConfig(run=finished, images=20, timesteps=6, calibration_images=20))
    assert again["optimized"]["accuracy"] == results["optimized"]["accuracy"]
    assert again["ann_accuracy"] == results["tuned_ann_accuracy"]


def test_a_run_starts_from_another_runs_network_and_thresholds(finished, tmp_path, monkeypatch):
    """BPTT after BPTT or DE: the start's curve is that run's end."""
    folder = tmp_path / "next"
    arguments = ["--start", str(finished), "--train", "thresholds", "--checkpoint", "--truncate", "2", "--augment"]
    assert call(monkeypatch, [*SMALL.split(), *arguments, "--out", str(folder)]) == 0
    before, after = (json.loads((path / "results.json").read_text()) for path in (finished, folder))
    assert after["baseline"]["accuracy"] == before["optimized"]["accuracy"]
    assert after["baseline"]["thresholds"] == before["optimized"]["thresholds"]
    assert after["optimized"]["thresholds"] != before["optimized"]["thresholds"]
    assert after["optimized"]["v0"] == pytest.approx(before["optimized"]["v0"])
    kept, tuned = (load_weights(path / "weights.safetensors")[1] for path in (finished, folder))
    assert all((kept[name] == tuned[name]).all() for name in kept)


def test_ctrl_c_stops_after_the_step_and_reports(tiny, tmp_path, monkeypatch):
    def interrupted(*arguments, made=make_step, **options):
        class Step:
            def lower(self, *arguments):
                self.compiled = made(*self.arguments, **self.options).lower(*arguments).compile()
                return self

            def compile(self):
                return self

            def memory_analysis(self):
                return self.compiled.memory_analysis()

            def __call__(self, *arguments):
                signal.raise_signal(signal.SIGINT)
                return self.compiled(*arguments)

        step = Step()
        step.arguments, step.options = arguments, options
        return step

    monkeypatch.setattr(bptt, "make_step", interrupted)
    folder = tmp_path / "stopped"
    assert call(monkeypatch, [*SMALL.split(), "--weights", str(tiny), "--out", str(folder)]) == 0
    results = json.loads((folder / "results.json").read_text())
    assert results["stopped_early"] and results["steps"] == 1
    assert len(results["optimized"]["accuracy"]) == 6


def test_sigterm_saves_and_the_same_command_resumes(tiny, tmp_path, monkeypatch, capsys):
    """Stopped after step 3 of 4, within the second epoch: the same network and results as in one go."""
    arguments = [*SMALL.split(), "--weights", str(tiny), "--augment", "--out"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert call(monkeypatch, [*arguments, str(whole)]) == 0
    steps = []

    def terminated(self, *batch, step=bptt.BpttDescent.step):
        steps.append(1)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGTERM)
        return step(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(bptt.BpttDescent, "step", terminated)
        assert call(patch, [*arguments, str(parts)]) == 0
    assert len(steps) == 3 and not (parts / "results.json").exists() and not run_folder.is_locked(parts)
    assert f"stopped by SIGTERM; python -m jaxsnn.finetune --out {parts}" in capsys.readouterr().out
    kept, start = load_weights(parts / "weights.safetensors")[1], load_weights(tiny)[1]
    assert any((kept[name] != start[name]).any() for name in start)
    assert call(monkeypatch, [*arguments, str(parts)]) == 0
    assert "resuming after epoch 1 of 2 and 1 steps" in capsys.readouterr().out
    first, second = (load_weights(folder / "weights.safetensors")[1] for folder in (whole, parts))
    assert all((first[name] == second[name]).all() for name in first)
    first, second = (json.loads((folder / "results.json").read_text()) for folder in (whole, parts))
    for name in ("optimized", "baseline", "latency", "steps", "stopped_early"):
        assert first[name] == second[name]
    rows = [
        [json.loads(line) | {"seconds": 0} for line in (folder / "history.jsonl").read_text().splitlines()]
        for folder in (whole, parts)
    ]
    assert rows[0] == rows[1]


def test_a_run_started_with_relative_paths_is_read_from_another_folder(tiny, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "w.safetensors").write_bytes(tiny.read_bytes())
    assert call(monkeypatch, [*SMALL.split(), "--weights", "w.safetensors", "--out", "run"]) == 0
    config = json.loads((tmp_path / "here" / "run" / "config.json").read_text())
    assert config["weights"] == str(tmp_path / "here" / "w.safetensors")
    monkeypatch.chdir(tmp_path / "elsewhere")
    evaluate(EvaluateConfig(run=tmp_path / "here" / "run", images=20, timesteps=6, calibration_images=20))


def test_help_shows_the_presets_numbers(monkeypatch, capsys):
    for preset, numbers in (("demo", (2, 50, 2000, 42, 60)), ("paper", (25, 64, 70, 100))):
        assert call(monkeypatch, ["--preset", preset, "--help"]) == 0
        printed = capsys.readouterr().out
        assert all(f"(default: {number})" in printed for number in numbers)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--timesteps", "0"], "--timesteps is 0, expected at least 1"),
        (["--timesteps", "100000"], "--timesteps is 100000, expected at most 10000"),
        (["--timesteps", "2"], "must be above the layer delay of 2 steps"),
        (["--train", "weights", "bias"], "--train cannot be bias: any of weights, thresholds, leak, v0"),
        (["--truncate", "4"], "truncate is 4, expected 1 to 3"),
        (["--surrogate", "square"], "surrogate is 'square'"),
        (["--batch", "21"], "--batch is 21, but there are only 20 training images"),
        (["--percentile", "0"], "--percentile is 0.0, expected in (0, 100]"),
        (["--rows", "0"], "--rows is 0, expected at least 1"),
        (["--preset", "large"], "unknown preset 'large': the presets are demo, paper"),
        (["--learning-rate", "0"], "--learning-rate is 0.0, expected above 0"),
        (["--start", "EMPTY"], "thresholds.json does not exist"),
        (["--start", "STRANGE", "--weights", "NONE"], "architecture is 5, expected a name or a file"),
        (["--start", "CHANGED", "--weights", "NONE"], "is not the file that"),
        (["--start", "OTHER"], "has 3 thresholds, network tiny has 2 spiking layers"),
        (["--weights", "BROKEN"], "conv1.kernel"),
    ],
)
def test_bad_input_is_one_clear_sentence(arguments, message, tiny, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.json").write_text('{"thresholds": [1, 2, 3]}')
    (tmp_path / "strange.json").write_text('{"thresholds": [1, 2], "architecture": 5}')
    (tmp_path / "changed.json").write_text(
        json.dumps({"thresholds": [1, 2], "weights": str(tiny), "weights_sha256": "0"})
    )
    network, params, _ = load_weights(tiny)
    save_weights(tmp_path / "broken.safetensors", network, params | {"conv1.kernel": np.zeros((3, 3, 3, 5))})
    names = {"EMPTY": "empty", "OTHER": "other.json", "BROKEN": "broken.safetensors"}
    names |= {"STRANGE": "strange.json", "CHANGED": "changed.json"}
    weights = [] if "--weights" in arguments else ["--weights", str(tiny)]
    arguments = arguments[:2] if arguments[-1] == "NONE" else arguments
    given = [str(tmp_path / names[a]) if a in names else a for a in arguments]
    small = SMALL.split()
    assert call(monkeypatch, [*small, *weights, "--out", str(tmp_path / "run"), *given]) == 2
    printed = capsys.readouterr().err.strip()
    assert message in printed and printed.startswith("error: ") and len(printed.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_the_saved_network_is_the_one_that_was_trained(finished):
    """Training's forward pass, with the file's weights and thresholds, gives the run's curve on test images."""
    network, params, notes = load_weights(finished / "weights.safetensors")
    found = read_thresholds(finished)
    assert notes["trained"] == "weights thresholds leak v0"
    assert max(found["leak"]) < 1
    genes = Genes(*(found[name].astype(np.float32) for name in ("thresholds", "v0", "leak")))
    test = data.load("embedded", "test", limit=20)
    scores = surrogate_scores(network, params, genes, test.images, 6, Dynamics(), every_step=True)
    accuracy = (np.asarray(scores).argmax(-1) == test.labels).mean(1)
    assert json.loads((finished / "results.json").read_text())["optimized"]["accuracy"] == accuracy.tolist()


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_epoch_before(tiny, tmp_path, monkeypatch, capsys):
    def poisoned(*arguments, made=make_step, **options):
        step = made(*arguments, **options)

        class Step:
            calls = 0

            def lower(self, *arguments):
                self.compiled = step.lower(*arguments).compile()
                return self

            def compile(self):
                return self

            def __call__(self, *arguments):
                self.calls += 1
                trained, state, loss, right = self.compiled(*arguments)
                return trained, state, loss if self.calls < 3 else loss * np.nan, right

        return Step()

    monkeypatch.setattr(bptt, "make_step", poisoned)
    folder = tmp_path / "run"
    assert call(monkeypatch, [*SMALL.split(), "--weights", str(tiny), "--out", str(folder)]) == 2
    assert "the loss is nan in epoch 2: lower --learning-rate" in capsys.readouterr().err
    assert len((folder / "history.jsonl").read_text().splitlines()) == 1
    assert not (folder / "results.json").exists() and not run_folder.is_locked(folder)
    kept, start = load_weights(folder / "weights.safetensors")[1], load_weights(tiny)[1]
    assert any((kept[name] != start[name]).any() for name in start)
    found = read_thresholds(folder)
    assert found["weights_sha256"] == hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()


def test_a_run_leaves_other_runs_alone(finished, tiny, tmp_path, monkeypatch, capsys):
    """A finished run, one with other settings, one that a process is at, and a folder of other things."""
    arguments = [*SMALL.split(), "--weights", str(tiny)]
    everything = ["--train", *TRAINABLE, "--neuron-rate", "0.05", "--out", str(finished)]
    before = {path: path.read_bytes() for path in finished.iterdir()}
    assert call(monkeypatch, [*arguments, *everything]) == 2
    assert "already holds this run with its results" in capsys.readouterr().err
    assert call(monkeypatch, [*arguments, *everything, "--seed", "1"]) == 2
    assert "another configuration (seed is 0 there, 1 here)" in capsys.readouterr().err
    with run_folder.locked(tmp_path / "busy"):
        assert call(monkeypatch, [*arguments, "--out", str(tmp_path / "busy")]) == 2
        assert "is being worked on by process" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("text")
    assert call(monkeypatch, [*arguments, "--out", str(tmp_path / "mine")]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    assert {path: path.read_bytes() for path in finished.iterdir()} == before
