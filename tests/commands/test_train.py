"""Training: the recipes' rates, the start, half precision, starting from weights, the best epoch, resuming."""

import dataclasses
import json
import signal
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

import data
from jaxsnn.cli import command
from jaxsnn.conversion.folding import fold
from jaxsnn.errors import UserError
from jaxsnn.networks import architectures
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import BatchNorm, ScaleNorm
from jaxsnn.networks.forward import ann_forward, preprocess
from jaxsnn.networks.weights import embedded_path, load_weights
from jaxsnn.records import run_folder, training_run
from jaxsnn.records.training_run import history_until
from jaxsnn.train import TrainConfig, parse, start, train
from jaxsnn.training import loop
from jaxsnn.training.ann import ANN
from jaxsnn.training.loop import accuracy, doubts, make_optimizer, train_step
from jaxsnn.training.recipes import RECIPES, recipe_of
from jaxsnn.training.start import load_images

IMAGES = data.load("embedded", "train", limit=64)


SMALL = partial(vgg, [[6]], windows=[8], name="small", norm=BatchNorm)


DROPPED = partial(vgg, [[6], [8], [8]], name="small", norm=ScaleNorm, dropout=0.1)


PLAIN = vgg([[16], [16]], [12], windows=[4, 4], name="plain")


OPTIONS = ["--network", "small", "--epochs", "2", "--batch", "100"]


@pytest.fixture
def small(monkeypatch):
    """Options for a small network with norms and dropout, for two epochs of 20 steps."""
    monkeypatch.setitem(architectures.ARCHITECTURES, "small", DROPPED)
    return OPTIONS


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of such a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(architectures.ARCHITECTURES, "small", DROPPED)
        assert call(patch, [*OPTIONS, "--out", str(folder)]) == 0
    return folder


def call(monkeypatch, arguments):
    """Run the command in this process as if typed; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["-m", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    try:
        command.main(TrainConfig, train, "jaxsnn.train", parse)
    except SystemExit as exit:
        return exit.code
    return 0


def refused(monkeypatch, capsys, arguments):
    """The one sentence that the command prints when it refuses its input."""
    capsys.readouterr()
    assert call(monkeypatch, arguments) == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("error: ") and len(printed.splitlines()) == 1
    return printed


def same_weights(one, other):
    first, second = (load_file(folder / "weights.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_the_papers_rates():
    """CIFAR: 0.05, a tenth of it after epochs 81 and 122 of 200; ImageNet: a tenth every 30 of 100 epochs."""
    for name, rate, steps, changes in (
        ("paper-cifar", 0.05, 10, {81: 1, 122: 2}),
        ("paper-imagenet", 0.01, 7, {30: 1, 60: 2, 90: 3}),
    ):
        recipe = RECIPES[name]
        schedule = recipe.schedule(recipe.learning_rate, recipe.epochs * steps)
        assert recipe.learning_rate == rate
        for epoch, tenths in changes.items():
            assert np.isclose(schedule(epoch * steps - 1), rate * 0.1 ** (tenths - 1))
            assert np.isclose(schedule(epoch * steps), rate * 0.1**tenths)
    assert np.isclose(RECIPES["fast"].schedule(0.3, 100)(20), 0.3)
    assert np.isclose(RECIPES["paper-imagenet"].schedule(1.0, 1)(1), 1e-3)  # all three within one step


def test_a_recipe_fills_in_what_the_user_left_open():
    config = TrainConfig(recipe="paper-cifar", batch=17).checked()
    assert (config.batch, config.epochs, config.weight_decay, config.label_smoothing) == (17, 200, 1e-4, 0)


def test_the_papers_gradient_descent_is_plain_momentum():
    """Two steps on a gradient g with weights w: v1 = g + wd w, v2 = 0.9 v1 + g + wd w'; not clipped."""
    ann = ANN(PLAIN, 0)
    optimizer = make_optimizer(ann, recipe_of("paper-cifar"), 1000)
    w = {name: np.asarray(kernel.kernel[...]) for name, kernel in ann.ops.items()}
    v = dict.fromkeys(w, 0.0)
    for _ in range(2):
        grads = jax.tree.map(lambda a: 100 * jnp.ones_like(a), nnx.state(ann, nnx.Param))
        optimizer.update(ann, grads)
        v = {name: 0.9 * v[name] + 100 + 1e-4 * w[name] for name in w}
        w = {name: w[name] - 0.05 * v[name] for name in w}
    for name, kernel in ann.ops.items():
        np.testing.assert_allclose(kernel.kernel[...], w[name], rtol=1e-5)


def test_the_start_gives_layers_without_a_norm_unit_variance():
    """Sums in front of every activation have standard deviation 1 on the batch; the read-out is left alone."""
    network, ann = PLAIN, ANN(PLAIN, 0)
    readout = np.asarray(ann.params()["dense2.kernel"])
    x = preprocess(network, IMAGES.images)
    ann.ops["conv2"].kernel[...] *= 0.01
    assert ann_forward(network, ann.params(), IMAGES.images)[-2].std() < 0.1
    nnx.jit(ANN.start_scales)(ann, x, jax.random.key(0))
    sums = ann_forward(network, ann.params(), IMAGES.images)
    np.testing.assert_allclose([layer.std() for layer in sums[:-1]], 1, rtol=1e-3)
    np.testing.assert_array_equal(ann.params()["dense2.kernel"], readout)


def test_the_start_sees_norms_as_training_does():
    """A dense layer without a norm after layers with one, as in VGG16: unit variance where it will be trained."""
    network = vgg([[8], [8]], [12], windows=[4, 4], name="mixed", norm=BatchNorm)
    *others, hidden, last = network.layers
    plain = dataclasses.replace(hidden, edges=(dataclasses.replace(hidden.edges[0], ops=hidden.edges[0].ops[:1]),))
    ann = ANN(dataclasses.replace(network, layers=(*others, plain, last)), 0)
    ann.ops["conv1"].kernel[...] *= 0.01
    before = {name: np.asarray(value) for name, value in ann.params().items()}
    x = preprocess(network, IMAGES.images)
    nnx.jit(ANN.start_scales)(ann, x, jax.random.key(0))
    sums = nnx.jit(lambda ann, x: ann._sums(x, jax.random.key(1), ann.params(), jax.nn.relu))(ann, x)
    np.testing.assert_allclose(sums[2].std(), 1, rtol=1e-3)
    changed = [name for name, value in ann.params().items() if not np.array_equal(value, before[name])]
    assert [name for name in changed if name.endswith(".kernel")] == ["dense1.kernel"]


def test_kernels_over_the_fan_out_have_its_variance():
    network = vgg([[16], [64]], name="wide")
    for fan_out, fan in ((False, 9 * 16), (True, 9 * 64)):
        kernel = ANN(network, 0, fan_out).params()["conv2.kernel"]
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan), rtol=0.05)


def test_half_precision_is_near_and_keeps_its_parameters_whole():
    network = SMALL()
    whole, half = ANN(network, 0), ANN(network, 0, half=True)
    x = preprocess(network, IMAGES.images)
    expected, found = (nnx.jit(lambda ann, x: ann(x))(ann, x) for ann in (whole, half))
    assert found.dtype == jnp.float32
    assert 0 < abs(found - expected).max() < 0.05 * abs(expected).max()
    recipe = recipe_of("fast", learning_rate=0.01)
    losses = []
    for ann in (whole, half):
        optimizer = make_optimizer(ann, recipe, 50)
        args = (jnp.asarray(IMAGES.images), jnp.asarray(IMAGES.labels), jax.random.key(0), 0.1)
        losses.append([float(train_step(ann, optimizer, *args)) for _ in range(4)])
        assert all(value.dtype == jnp.float32 for value in ann.params().values())
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.02)
    assert losses[1][-1] < losses[1][0]


def test_training_starts_from_weights_and_keeps_its_best_epoch(monkeypatch, tmp_path):
    """The first run's network is the second's start, whatever its activations; best.safetensors is the best."""
    monkeypatch.setitem(architectures.ARCHITECTURES, "small", lambda **options: SMALL(**options))
    settings = TrainConfig(network="small", epochs=3, batch=100, out=tmp_path / "first")
    train(settings)
    weights = tmp_path / "first" / "weights.safetensors"
    network, params, notes = load_weights(weights)
    assert not (tmp_path / "first" / "best.safetensors").exists()  # nothing was held out
    again = TrainConfig(weights=weights, epochs=2, batch=50, learning_rate=0.5, out=tmp_path / "second")
    training, _, test = load_images("embedded")
    ann = start(again.checked(), training, print)
    assert ann.network == network and f"{accuracy(ann, test):.4f}" == notes["test_accuracy"]
    quantised = start(dataclasses.replace(again, activation="qcfs").checked(), training, print)
    assert quantised.network.layers[0].levels == 8
    ceilings = [ceiling[...].item() for ceiling in quantised.ceilings.values()]
    assert ceilings[0] > 0 and ceilings != [1.0]
    np.testing.assert_array_equal(quantised.params()["conv1.kernel"], params["conv1.kernel"])

    held = data.load("embedded", "train", limit=300)
    monkeypatch.setattr("jaxsnn.train.load_images", lambda *names, **geometry: (training, held, test))
    train(dataclasses.replace(again, activation="qcfs", levels=4))
    rows = [json.loads(line) for line in (tmp_path / "second" / "history.jsonl").read_text().splitlines()]
    best = max(row["held_out_accuracy"] for row in rows)
    stored, arrays, notes = load_weights(tmp_path / "second" / "best.safetensors")
    assert float(notes["held_out_accuracy"]) == round(best, 4)
    logits = ann_forward(*fold(stored, arrays), held.images)[-1]
    np.testing.assert_allclose((logits.argmax(-1) == held.labels).mean(), best, atol=0.004)
    found = json.loads((tmp_path / "second" / "best-thresholds.json").read_text())
    assert found["thresholds"] == [arrays["conv1.ceiling"].item()] and found["v0"] == [0.5]

    file = tmp_path / "second" / "best.safetensors"  # quantised networks stay so, unless the user wants another
    for chosen, levels in (({}, 4), ({"activation": "relu"}, None), ({"activation": "qcfs", "levels": 2}, 2)):
        third = start(TrainConfig(weights=file, **chosen).checked(), training, print)
        assert third.network.layers[0].levels == levels
        assert levels is None or third.ceilings["conv1"][...] == arrays["conv1.ceiling"]


def test_an_interrupted_epochs_line_is_dropped(tmp_path):
    lines = [f'{{"epoch": {n}}}\n' for n in (1, 2, 3)]
    (tmp_path / "history.jsonl").write_text("".join(lines))
    assert [row["epoch"] for row in history_until(tmp_path, 2)] == [1, 2]
    assert history_until(tmp_path, 0) == [] == history_until(tmp_path / "none", 3)


def test_settings_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(UserError, match="--weights brings its own network"):
        TrainConfig(weights=tmp_path / "w.safetensors", width=0.5).checked()
    with pytest.raises(UserError, match="give --activation qcfs"):
        start(TrainConfig(levels=4).checked(), IMAGES, print)
    with pytest.raises(UserError, match="--levels is 0"):
        TrainConfig(activation="qcfs", levels=0).checked()
    with pytest.raises(UserError, match="nothing is left to train on"):
        load_images("embedded", "embedded")
    with pytest.raises(UserError, match="no weights file"):
        start(TrainConfig(weights=tmp_path / "w.safetensors").checked(), IMAGES, print)
    digits = dataclasses.replace(IMAGES, classes=(*IMAGES.classes, "eleventh"))
    with pytest.raises(UserError, match="of 10 classes, but embedded has"):
        start(TrainConfig(weights=embedded_path()).checked(), digits, print)


def test_training_learns_is_resumed_where_it_was_killed_and_refuses_other_settings(
    whole, small, monkeypatch, capsys, tmp_path
):
    """Two epochs in one go and in two give the same weights, bit for bit."""
    halves = tmp_path / "halves"

    class Stop(Exception):
        pass

    def killed(path, *arguments, save=loop.save_checkpoint):
        save(path, *arguments)
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr("jaxsnn.cli.training.save_checkpoint", killed)
        call(patch, [*small, "--out", str(halves)])
    (halves / ".weights.safetensors.abcd1234").write_text("half a file")
    other = refused(monkeypatch, capsys, [*small, "--out", str(halves), "--seed", "5"])
    assert "already holds a run with another configuration (seed is 0 there, 5 here)" in other
    assert call(monkeypatch, [*small, "--out", str(halves)]) == 0
    assert "resuming after epoch 1 of 2" in capsys.readouterr().out
    assert same_weights(whole, halves)
    assert not (halves / ".weights.safetensors.abcd1234").exists()
    rows = [json.loads(line) for line in (halves / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2] and rows[1]["loss"] < rows[0]["loss"]
    _, _, notes = load_weights(halves / "weights.safetensors")
    assert float(notes["test_accuracy"]) > 0.15
    results = json.loads((halves / "results.json").read_text())
    assert f"{results['test_accuracy']:.4f}" == notes["test_accuracy"] and results["versions"]["jax"]
    assert not (halves / "checkpoints").exists()
    assert "already holds this run with its results" in refused(
        monkeypatch, capsys, [*small, "--out", str(halves)]
    )
    with run_folder.locked(tmp_path / "busy"):
        busy = refused(monkeypatch, capsys, [*small, "--out", str(tmp_path / "busy")])
    assert "is being worked on by process" in busy


def test_sigterm_saves_within_an_epoch_and_the_same_command_resumes(whole, small, monkeypatch, capsys, tmp_path):
    """Stopped after step 27 of 40: the same weights and the same history as in one go."""
    parts = tmp_path / "parts"
    steps = []

    def terminated(*arguments, step=loop.train_step):
        steps.append(1)
        if len(steps) == 27:
            signal.raise_signal(signal.SIGTERM)
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", terminated)
        assert call(patch, [*small, "--out", str(parts)]) == 0
    assert len(steps) == 27 and not (parts / "results.json").exists() and not run_folder.is_locked(parts)
    assert f"stopped by SIGTERM; python -m jaxsnn.train --out {parts}" in capsys.readouterr().out
    before = (parts / "config.json").read_bytes()
    monkeypatch.setattr(training_run, "code_version", lambda: "changed")
    assert call(monkeypatch, [*small, "--out", str(parts)]) == 0
    printed = capsys.readouterr().out
    assert "resuming after epoch 1 of 2 and 7 steps" in printed
    assert "warning: the program has changed since the run in" in printed
    assert same_weights(whole, parts) and (parts / "config.json").read_bytes() == before
    losses = [
        [json.loads(line)["loss"] for line in (folder / "history.jsonl").read_text().splitlines()]
        for folder in (whole, parts)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 2


def test_a_folder_of_another_run_is_named(small, monkeypatch, capsys, tmp_path):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "config.json").write_text('{"population": 4}')
    message = refused(monkeypatch, capsys, [*small, "--out", str(tmp_path / "search")])
    assert (
        f"holds a run of jaxsnn.optimize, not of jaxsnn.train: python -m jaxsnn.optimize --resume {tmp_path}"
        in message
    )
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text('{"label_smoothing": 0.1, "epochs": 2}')
    message = refused(monkeypatch, capsys, [*small, "--out", str(tmp_path / "old")])
    assert "holds a run of an earlier version" in message
    assert "unknown network 'vgg51'" in refused(monkeypatch, capsys, ["--network", "vgg51"])
    assert "--batch is 3000" in refused(monkeypatch, capsys, ["--batch", "3000"])


def test_records_hold_absolute_paths(monkeypatch, tmp_path):
    monkeypatch.setitem(architectures.ARCHITECTURES, "small", SMALL)
    monkeypatch.chdir(tmp_path)
    assert (
        call(
            monkeypatch,
            ["--network", "small", "--epochs", "1", "--batch", "500", "--activation", "qcfs", "--out", "first"],
        )
        == 0
    )
    found = json.loads((tmp_path / "first" / "thresholds.json").read_text())
    assert found["weights"] == str(tmp_path / "first" / "weights.safetensors")
    arguments = "--weights first/weights.safetensors --epochs 1 --batch 500 --out second"
    assert call(monkeypatch, arguments.split()) == 0
    config = json.loads((tmp_path / "second" / "config.json").read_text())
    assert config["weights"] == found["weights"] and config["weights_sha256"] == found["weights_sha256"]


@pytest.mark.parametrize(
    "name, shown",
    [("strong", ("100", "500", "0.4", "0.0005", "12")), ("paper-cifar", ("200", "256", "0.05", "0.0001"))],
)
def test_help_shows_the_recipes_numbers(name, shown, monkeypatch, capsys):
    assert call(monkeypatch, ["--recipe", name, "--help"]) == 0
    printed = capsys.readouterr().out
    for number in shown:
        assert f"(default: {number})" in printed
    assert parse(["--recipe", name]).epochs == RECIPES[name].epochs


def test_what_is_hardly_meant_is_doubted_in_a_sentence(monkeypatch, capsys):
    """A learning rate of 50, and half precision on a CPU; what the recipes do is not."""
    for recipe in RECIPES.values():
        assert doubts("float32", learning_rate=(recipe.learning_rate, recipe.learning_rate)) == []
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    rate, precision = doubts("bfloat16", learning_rate=(50.0, 0.1))
    assert rate.startswith("--learning-rate is 50, more than 10 times the usual 0.1")
    assert "slower than float32 on a CPU" in precision
    call(monkeypatch, ["--learning-rate", "50", "--batch", "3000"])
    assert "warning: --learning-rate is 50" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--label-smoothing", "1"], "--label-smoothing is 1.0, expected in [0, 1)"),
        (["--learning-rate", "nan"], "--learning-rate is nan, expected at least 0 and finite"),
        (["--weight-decay", "-1"], "--weight-decay is -1.0, expected at least 0 and finite"),
        (["--epochs", "0"], "--epochs is 0, expected at least 1"),
        (["--cutout", "-1"], "--cutout is -1, expected at least 0"),
        (["--cutmix", "1.5"], "--cutmix is 1.5, expected in [0, 1]"),
        (["--seed", "-1"], "--seed is -1, expected at least 0"),
        (["--width", "0"], "--width is 0.0, expected above 0 and finite"),
        (["--activation", "qcfs", "--levels", "100000"], "--levels is 100000, expected at most"),
        (["--recipe", "slow"], "unknown recipe 'slow': the recipes are fast, strong, paper-cifar, paper-imagenet"),
    ],
)
def test_settings_out_of_range_are_one_sentence(arguments, message, monkeypatch, capsys, tmp_path):
    assert message in refused(monkeypatch, capsys, [*arguments, "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()
