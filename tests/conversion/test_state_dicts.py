"""Networks from PyTorch's files, without PyTorch: what does not fit is refused in one sentence."""

import json
import sys

import numpy as np
import pytest

from helpers.descriptions import DESCRIPTION, SHAPE
from helpers.networks import PLAIN
from helpers.torch_files import save, state_dict
from jaxsnn.cli import command
from jaxsnn.conversion.import_network import describe, import_network
from jaxsnn.conversion.loading import load_snn
from jaxsnn.conversion.state_dicts import read_foreign
from jaxsnn.conversion.torch_twin import module_names, sequential
from jaxsnn.errors import UserError
from jaxsnn.evaluate import EvaluateConfig, evaluate
from jaxsnn.import_weights import ImportConfig, import_weights
from jaxsnn.networks.architectures import architecture, vgg
from jaxsnn.networks.description import BatchNorm, shapes_of
from jaxsnn.networks.json_format import from_json, to_json
from jaxsnn.networks.weights import save_weights

NAMES = {"a": "0", "a_norm": "1", "b": "4", "b_norm": "6", "c": "10", "c_norm": "11", "d": "13"}
"""Modules of an nn.Sequential by the ops of ``DESCRIPTION``."""


def random_params(network, seed=0):
    rng = np.random.default_rng(seed)
    return {key: rng.uniform(0.5, 1, shape).astype(np.float32) for key, shape in shapes_of(network).items()}


def described_state():
    """Random parameters for ``DESCRIPTION``, and its state_dict with the counters of its norms."""
    network = from_json(json.dumps(DESCRIPTION))
    params = random_params(network)
    counters = {f"{NAMES[norm]}.num_batches_tracked": np.array(7) for norm in ("a_norm", "b_norm", "c_norm")}
    return params, state_dict(network, params, NAMES) | counters


def same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value)


@pytest.fixture
def description(tmp_path):
    """The file of ``DESCRIPTION``."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(DESCRIPTION))
    return path


def test_the_network_is_inferred_where_shapes_leave_no_doubt(tmp_path):
    """A known architecture, or layers in a row without pools."""
    options = {"image_shape": (8, 8, 3)}
    network = architecture("vgg4", classes=5, input_shape=(8, 8, 3))
    path = save(tmp_path / "known.pt", state_dict(network, random_params(network)))
    imported = import_network(read_foreign(path), **options)
    assert imported.network == network
    assert any("the shapes fit vgg4 alone" in note for note in imported.notes)
    row = {"0.weight": np.ones((4, 3, 3, 3), np.float32), "0.bias": np.ones(4, np.float32)}
    row |= {f"1.{part}": np.ones(4, np.float32) for part in ("weight", "bias", "running_mean", "running_var")}
    row |= {"4.weight": np.ones((5, 256), np.float32), "4.bias": np.ones(5, np.float32)}
    imported = import_network(read_foreign(save(tmp_path / "row.pt", row)), **options)
    assert [layer.name for layer in imported.network.layers] == ["0", "4"]
    assert any("layers in a row without pools" in note for note in imported.notes)


def test_a_head_in_front_of_the_convolutions_is_no_traceback(tmp_path):
    """A state_dict has the order in which modules were made, which need not be that of the computation."""
    state = {"0.weight": np.ones((3, 16), np.float32), "1.weight": np.ones((4, 3, 3, 3), np.float32)}
    file = read_foreign(save(tmp_path / "model.pt", state))
    with pytest.raises(UserError, match="no network description and its shapes fit no known architecture"):
        import_network(file, image_shape=(8, 8, 3))


def exported(network, seed=0):
    """A state_dict of the network with random weights."""
    from jaxsnn.conversion.torch_twin import state_dict

    rng = np.random.default_rng(seed)
    return state_dict(
        network, {k: rng.uniform(0.5, 1, s).astype(np.float32) for k, s in shapes_of(network).items()}
    )


def test_what_cannot_be_inferred_is_described_by_hand(tmp_path):
    """The description that is written has every layer; the pools are put in where they belong."""
    rng = np.random.default_rng(0)
    shapes = {"0.weight": (4, 2, 3, 3), "0.bias": (4,), "4.weight": (3, 16), "4.bias": (3,)}
    state = {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
    file = read_foreign(save(tmp_path / "model.pt", state))
    with pytest.raises(UserError, match="--mean and --std are needed, 2 numbers each"):
        import_network(file, image_shape=SHAPE)
    with pytest.raises(
        UserError, match=r"no network description and its shapes fit no known architecture.*--describe"
    ):
        import_network(file, image_shape=SHAPE, mean=PLAIN["mean"], std=PLAIN["std"])
    raw = json.loads(describe(file, None, SHAPE, mean=PLAIN["mean"], std=PLAIN["std"]))
    raw["layers"][1]["edges"][0]["ops"].insert(0, {"op": "AvgPool", "window": 4})
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(raw))
    params = import_network(file, str(path)).params
    np.testing.assert_array_equal(params["0.kernel"], state["0.weight"].transpose(2, 3, 1, 0))
    # 2 x 2 positions in PyTorch's order C, H, W
    columns = state["4.weight"].reshape(3, 4, 2, 2).transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(params["4.kernel"], columns.reshape(16, 3))


def test_keys_are_positions_in_the_sequence():
    """VGG15 with BatchNorm: conv, pool, norm, ReLU; then Flatten, Dropout, Linear, norm, ReLU, Dropout, Linear."""
    network = architecture("vgg15-bn")
    names = module_names(network)
    assert [names[key] for key in ("conv1", "norm1", "conv2", "norm2", "conv3")] == ["0", "1", "3", "5", "7"]
    assert [names[key] for key in ("conv13", "norm13", "dense1", "norm14", "dense2")] == [
        "40",
        "42",
        "46",
        "47",
        "50",
    ]
    assert len(sequential(network)) == 51
    assert module_names(architecture("resnet20"))["layer2.0.downsample.0"] == "layer2.0.downsample.0"


def test_wrapped_files_are_unwrapped_and_it_is_said(description, tmp_path):
    params, state = described_state()
    state = {f"module.{key}": value for key, value in state.items()}
    path = save(tmp_path / "checkpoint.pth", {"state_dict": state, "epoch": 7, "optimizer": {"lr": 0.1}})
    imported = import_network(read_foreign(path), str(description))
    same(imported.params, params)
    assert "left out: 3 counters of batches (num_batches_tracked)" in imported.notes
    assert (
        "read the state_dict that is stored under 'state_dict'; left out: 'epoch', 'optimizer'" in imported.notes
    )
    assert "took the prefix 'module.' off every key" in imported.notes


def changed(**changes):
    """The state_dict of ``DESCRIPTION`` with keys replaced (a value) or removed (None); ``_`` stands for ``.``"""
    state = described_state()[1]
    for key, value in changes.items():
        key = key.removeprefix("k").replace("__", ".")
        if value is None:
            del state[key]
        else:
            state[key] = value
    return state


@pytest.mark.parametrize(
    "state, message",
    [
        (changed(k4__weight=None), "4 with weight of shape None is neither a 2D convolution"),
        (
            changed(k4__weight=None, k4__bias=None),
            "has too few convolutions, 1 of 2 that network mine needs: nothing is left for b",
        ),
        (
            changed(k13__weight=None, k13__bias=None),
            "has too few linear maps, 1 of 2 that network mine needs: nothing is left for d",
        ),
        (changed(k6__running_mean=None), "6 with weight of shape (6,) is a norm without running statistics"),
        (changed(k0__bias=None), 'has no bias, but a of network mine has one: set its "bias" to false'),
        (
            changed(k10__bias=np.zeros(5, np.float32)),
            'has bias, but c of network mine has none: set its "bias" to true',
        ),
        (
            changed(k20__weight=np.zeros((3, 3), np.float32)),
            "has too many linear maps, 3 for the 2 of network mine: 20.weight belongs to no",
        ),
        (
            changed(k20__weight=np.ones((4, 4, 3, 3), np.float32)),
            "too many convolutions, 3 for the 2 of network mine: 20.weight belongs to no layer",
        ),
        (changed(scale=np.zeros(3, np.float32)), "scale belongs to no layer that can be converted"),
        (
            changed(k0__weight_orig=np.zeros(3, np.float32)),
            "0.weight_orig belongs to no layer that can be converted",
        ),
        (
            changed(k4__weight=np.zeros((6, 4, 5, 5), np.float32)),
            "4.weight has shape (6, 4, 5, 5), b of network mine expects (6, 4, 3, 3)",
        ),
        (
            changed(k4__weight=np.zeros((6, 1, 3, 3), np.float32)),
            "4.weight has shape (6, 1, 3, 3), b of network mine expects",
        ),
        (
            changed(k10__weight=np.zeros((5, 6), np.float32)),
            "10.weight has shape (5, 6), c of network mine expects (5, 24)",
        ),
        (
            changed(k1__running_var=np.ones(5, np.float32)),
            "1.running_var has shape (5,), a_norm of network mine expects (4,)",
        ),
        (
            changed(k13__weight=np.zeros((7, 5), np.float32), k13__bias=np.zeros(7, np.float32)),
            "13.weight gives 7 classes, network mine has 3",
        ),
        (changed(k4__bias=np.full(6, np.nan, np.float32)), "4.bias holds NaN or infinite values"),
        (changed(k0__weight=np.full((4, 2, 3, 3), np.inf, np.float32)), "0.weight holds NaN or infinite values"),
        (changed(k1__running_var=-np.ones(4, np.float32)), "1.running_var holds negative values"),
        (
            changed(k0__weight=np.ones((4, 2, 3, 3), np.int8)),
            "0.weight is of type int8, expected floating",
        ),
        (changed(k0__weight=np.ones((4, 2, 3, 3), np.complex64)), "0.weight is of type complex64"),
        ({}, "holds nothing, expected a state_dict"),
        ([1, 2], "holds a list, expected a state_dict"),
        (np.zeros(3, np.float32), "holds a Tensor, expected a state_dict"),
        ({"epoch": 3, "lr": 0.1}, "holds no state_dict ('epoch', 'lr')"),
        ({"model": changed(), "ema": changed()}, "holds more than one state_dict ('model', 'ema')"),
    ],
)
def test_weights_that_do_not_fit_are_refused(state, message, description, tmp_path):
    path = save(tmp_path / "model.pt", state)
    with pytest.raises(UserError) as error:
        import_network(read_foreign(path), str(description))
    assert message in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


def op(layers, layer, index):
    return layers[layer]["edges"][0]["ops"][index]


def described(change):
    raw = json.loads(json.dumps(DESCRIPTION))
    change(raw["layers"])
    return json.dumps(raw)


@pytest.mark.parametrize(
    "text, message",
    [
        (described(lambda l: op(l, 1, 0).update(op="MaxPool2d")), "op 'MaxPool2d', which cannot be converted"),
        (described(lambda l: op(l, 1, 0).update(op="Attention")), "the ops are Conv, Dense, AvgPool"),
        (described(lambda l: op(l, 0, 0).update(padding="same")), "padding of Conv is 'same'"),
        (described(lambda l: op(l, 0, 0).update(features="4")), "layer a: features of Conv is '4'"),
        (described(lambda l: op(l, 0, 0).update(stride=0)), "layer a: stride of Conv is 0"),
        (described(lambda l: l[1].update(name="a")), "two layers are called 'a'"),
        (described(lambda l: op(l, 3, 0).update(name="c")), "two ops are called 'c'"),
        (described(lambda l: l[0]["edges"][0].pop("source")), "'source' is missing"),
        ("not JSON", "not a network description"),
    ],
)  # fmt: skip
def test_descriptions_that_make_no_sense_are_refused(text, message, tmp_path):
    file = read_foreign(save(tmp_path / "model.pt", described_state()[1]))
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        import_network(file, str(path))
    assert message in str(error.value) and str(path) in str(error.value)


def test_a_missing_description_or_name_is_refused(tmp_path):
    file = read_foreign(save(tmp_path / "model.pt", described_state()[1]))
    with pytest.raises(UserError, match=r"no network description at /nowhere\.json"):
        import_network(file, "/nowhere.json")
    with pytest.raises(UserError, match="unknown network 'vgg51'"):
        import_network(file, "vgg51", image_shape=SHAPE, mean=PLAIN["mean"], std=PLAIN["std"])


COMMANDS = {
    "import_weights": (ImportConfig, import_weights),
    "evaluate": (EvaluateConfig, evaluate),
}


def call(monkeypatch, name, *arguments):
    """Run a command in this process as if typed; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["-m", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    try:
        command.main(*COMMANDS[name], f"jaxsnn.{name}")
    except SystemExit as exit:
        return exit.code
    return 0


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Our weights of a small network for the embedded images, and the same as PyTorch has them."""
    network = vgg([[4], [4], [6]], name="small", norm=BatchNorm, windows=[2, 2, 8], pool="after")
    rng = np.random.default_rng(0)
    params = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes_of(network).items()}
    params |= {k: np.abs(v) + 0.1 for k, v in params.items() if k.endswith((".var", ".scale"))}
    folder = tmp_path_factory.mktemp("small")
    save_weights(folder / "ours.safetensors", network, params)
    save(folder / "theirs.pt", state_dict(network, params, module_names(network)))
    (folder / "theirs.json").write_text(to_json(network))
    return folder


def test_a_description_can_be_written_first(small, monkeypatch, capsys, tmp_path):
    path = tmp_path / "edit.json"
    assert call(monkeypatch, "import_weights", small / "theirs.pt", "--images", 10, "--describe", path) == 0
    raw = json.loads(path.read_text())
    assert [layer["name"] for layer in raw["layers"]] == ["0", "4", "8", "13"]
    assert call(monkeypatch, "import_weights", small / "theirs.pt", "--images", 10, "--network", path) == 2
    assert "13.weight has shape (10, 6), 13 of network inferred expects (10, 6144)" in capsys.readouterr().err
    path = tmp_path / "named.json"
    arguments = ["--network", "resnet20", "--describe", path]
    assert call(monkeypatch, "import_weights", small / "theirs.pt", "--images", 10, *arguments) == 0
    expected = shapes_of(architecture("resnet20"))
    del expected["fc.bias"]  # the file's last module has none
    assert shapes_of(from_json(path.read_text())) == expected


def test_the_other_commands_read_a_pytorch_file(small, monkeypatch, capsys, tmp_path):
    """Thresholds name their network, so that evaluate needs nothing else."""
    ours, theirs = (
        load_snn(small / "ours.safetensors")[0],
        load_snn(small / "theirs.pt", str(small / "theirs.json")),
    )
    assert ours.network == theirs[0].network
    thresholds = {"thresholds": [1, 1, 1], "baseline_thresholds": [2, 2, 2], "weights_sha256": theirs[1]}
    thresholds |= {"weights": str(small / "theirs.pt"), "architecture": str(small / "theirs.json")}
    path = tmp_path / "thresholds.json"
    path.write_text(json.dumps(thresholds))
    assert call(monkeypatch, "evaluate", path, "--images", 10, "--timesteps", 5) == 0
    path.write_text(json.dumps(thresholds | {"architecture": None}))
    capsys.readouterr()
    assert call(monkeypatch, "evaluate", path, "--images", 10, "--timesteps", 5) == 2
    assert "no network description and its shapes fit no known architecture" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["ours.safetensors"], "needs no import: it describes its own network"),
        (["theirs.pt", "--network", "resnet20"], "that network resnet20 needs"),
        (["theirs.pt", "--network", "theirs.json", "--out", "x.pt"], "expected a name that ends in .safetensors"),
        (["theirs.pt", "--network", "vgg4", "--mean", "0.5"], "--mean and --std belong together"),
        (["theirs.pt", "--network", "vgg4", "--mean", "0.5", "--std", "1"], "--mean has 1 numbers"),
        (["theirs.pt", "--network", "vgg4", "--width", "-1"], "--width is -1"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, small, monkeypatch, capsys):
    monkeypatch.chdir(small)
    assert call(monkeypatch, "import_weights", *arguments, "--images", 10) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1


def test_other_classes_than_the_data_are_refused(monkeypatch, capsys, tmp_path):
    network = architecture("vgg4", classes=7)
    path = save(tmp_path / "seven.pt", state_dict(network, random_params(network)))
    assert call(monkeypatch, "import_weights", path, "--network", "vgg4", "--images", 10) == 2
    assert "of 7 classes, but embedded (test) has (32, 32, 3) of 10" in capsys.readouterr().err


def test_weights_that_describe_themselves_take_no_other_network(small):
    with pytest.raises(UserError, match="describes its own network: leave --network out"):
        load_snn(small / "ours.safetensors", "vgg15")
    with pytest.raises(UserError, match="give the file as --weights"):
        load_snn(None, "vgg15")
