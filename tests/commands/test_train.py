"""Training: the recipes' rates, the start, half precision, going on from weights, the best epoch."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import data
from jaxsnn.conversion.folding import fold
from jaxsnn.errors import UserError
from jaxsnn.networks import architectures
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import BatchNorm
from jaxsnn.networks.forward import ann_forward, preprocess
from jaxsnn.networks.weights import embedded_path, load_weights
from jaxsnn.train import TrainConfig, load_data, make_optimizer, resolve, rows_behind, start, train
from jaxsnn.training.ann import ANN
from jaxsnn.training.loop import accuracy, train_step
from jaxsnn.training.recipes import RECIPES

IMAGES = data.load("embedded", "train", limit=64)


SMALL = partial(vgg, [[6]], windows=[8], name="small", norm=BatchNorm)


PLAIN = vgg([[16], [16]], [12], windows=[4, 4], name="plain")


def test_the_papers_rates():
    """CIFAR: 0.05, a tenth of it behind epochs 81 and 122 of 200; ImageNet: a tenth every 30 of 100 epochs."""
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
    config = resolve(TrainConfig(recipe="paper-cifar", batch=17))
    assert (config.batch, config.epochs, config.weight_decay, config.label_smoothing) == (17, 200, 1e-4, 0)


def test_the_papers_gradient_descent_is_plain_momentum():
    """Two steps on a gradient g with weights w: v1 = g + wd w, v2 = 0.9 v1 + g + wd w'; not clipped."""
    ann = ANN(PLAIN, 0)
    optimizer = make_optimizer(ann, resolve(TrainConfig(recipe="paper-cifar")), 1000)
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
    """A dense layer without a norm behind layers with one, as in VGG16: unit variance where it will be trained."""
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
    config = resolve(TrainConfig(learning_rate=0.01))
    losses = []
    for ann in (whole, half):
        optimizer = make_optimizer(ann, config, 50)
        args = (jnp.asarray(IMAGES.images), jnp.asarray(IMAGES.labels), jax.random.key(0), 0.1)
        losses.append([float(train_step(ann, optimizer, *args)) for _ in range(4)])
        assert all(value.dtype == jnp.float32 for value in ann.params().values())
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.02)
    assert losses[1][-1] < losses[1][0]


def test_training_goes_on_from_weights_and_keeps_its_best_epoch(monkeypatch, tmp_path):
    """The first run's network is the second's start, whatever its activations; best.safetensors is the best."""
    monkeypatch.setitem(architectures.ARCHITECTURES, "small", lambda **options: SMALL(**options))
    settings = TrainConfig(network="small", epochs=3, batch=100, out=tmp_path / "first")
    train(settings)
    weights = tmp_path / "first" / "weights.safetensors"
    network, params, notes = load_weights(weights)
    assert not (tmp_path / "first" / "best.safetensors").exists()  # nothing was held out
    again = TrainConfig(weights=weights, epochs=2, batch=50, learning_rate=0.5, out=tmp_path / "second")
    training, _, test = load_data(again)
    ann = start(resolve(again), training, print)
    assert ann.network == network and f"{accuracy(ann, test):.4f}" == notes["test_accuracy"]
    quantised = start(resolve(dataclasses.replace(again, activation="qcfs")), training, print)
    assert quantised.network.layers[0].levels == 8
    ceilings = [ceiling[...].item() for ceiling in quantised.ceilings.values()]
    assert ceilings[0] > 0 and ceilings != [1.0]
    np.testing.assert_array_equal(quantised.params()["conv1.kernel"], params["conv1.kernel"])

    held = data.load("embedded", "train", limit=300)
    monkeypatch.setattr("jaxsnn.train.load_data", lambda config: (training, held, test))
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
        third = start(resolve(TrainConfig(weights=file, **chosen)), training, print)
        assert third.network.layers[0].levels == levels
        assert levels is None or third.ceilings["conv1"][...] == arrays["conv1.ceiling"]


def test_an_interrupted_epochs_line_is_dropped(tmp_path):
    lines = [f'{{"epoch": {n}}}\n' for n in (1, 2, 3)]
    (tmp_path / "history.jsonl").write_text("".join(lines))
    assert [row["epoch"] for row in rows_behind(tmp_path, 2)] == [1, 2]
    assert (tmp_path / "history.jsonl").read_text() == "".join(lines[:2])
    assert rows_behind(tmp_path, 0) == [] and not (tmp_path / "history.jsonl").exists()


def test_settings_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(UserError, match="--weights brings its own network"):
        resolve(TrainConfig(weights=tmp_path / "w.safetensors", width=0.5))
    with pytest.raises(UserError, match="give --activation qcfs"):
        start(resolve(TrainConfig(levels=4)), IMAGES, print)
    with pytest.raises(UserError, match="--levels is 0"):
        resolve(TrainConfig(activation="qcfs", levels=0))
    with pytest.raises(UserError, match="nothing is left to train on"):
        load_data(TrainConfig(holdout="embedded"))
    with pytest.raises(UserError, match="no weights file"):
        start(resolve(TrainConfig(weights=tmp_path / "w.safetensors")), IMAGES, print)
    digits = dataclasses.replace(IMAGES, classes=(*IMAGES.classes, "eleventh"))
    with pytest.raises(UserError, match="of 10 classes, but embedded has"):
        start(resolve(TrainConfig(weights=embedded_path())), digits, print)
