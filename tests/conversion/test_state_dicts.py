"""Networks from PyTorch and back: the function stays, and whatever does not fit is refused in one sentence."""

import json
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from helpers.networks import NETWORKS, PLAIN, dyadic_images, dyadic_snn
from jaxsnn.cli import command
from jaxsnn.conversion.folding import fold
from jaxsnn.conversion.import_network import describe, import_network
from jaxsnn.conversion.loading import load_snn
from jaxsnn.conversion.state_dicts import read_foreign
from jaxsnn.errors import UserError
from jaxsnn.evaluate import EvaluateConfig, evaluate
from jaxsnn.export_weights import ExportConfig, export_weights
from jaxsnn.import_weights import ImportConfig, import_weights
from jaxsnn.networks.architectures import architecture, vgg
from jaxsnn.networks.description import BatchNorm, ScaleNorm, shapes_of
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.json_format import from_json, to_json
from jaxsnn.networks.weights import load_weights, save_weights

torch = pytest.importorskip("torch", reason="reads and writes PyTorch files")


nn = torch.nn


SHAPE = (8, 8, 2)


IMAGES = dyadic_images(10)


FORWARD = jax.jit(ann_forward, static_argnums=0)


class Block(nn.Module):
    """A basic block as PyTorch users write it; ``names`` are those of the shortcut."""

    def __init__(self, before, features, stride, shortcut):
        super().__init__()
        self.conv1 = nn.Conv2d(before, features, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        path = nn.Sequential()
        if stride > 1:
            path = nn.Sequential(nn.Conv2d(before, features, 1, stride, bias=False), nn.BatchNorm2d(features))
        self.shortcut_name = shortcut
        setattr(self, shortcut, path)

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + getattr(self, self.shortcut_name)(x))


class ResNet20(nn.Module):
    """ResNet20 of width 1/4; torchvision and others name shortcut and head differently."""

    def __init__(self, shortcut, head):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4)
        before = 4
        for stage, features in enumerate((4, 8, 16), start=1):
            blocks = []
            for index in range(3):
                blocks.append(Block(before, features, 2 if stage > 1 and index == 0 else 1, shortcut))
                before = features
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.head = head
        setattr(self, head, nn.Linear(16, 3))

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return getattr(self, self.head)(x.mean((2, 3)))


def lively(model, seed=0):
    """The model in inference mode, with weights and statistics off their start."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for name, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.01)):
                getattr(module, name).data.uniform_(low, low + 1)
    return model.eval()


def sequential(features=6, classes=3):
    """Biases, a pool in front of and one after the activation, a flatten of 2 x 2 positions, odd epsilons."""
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4, eps=1e-3), nn.ReLU(), nn.AvgPool2d(2)]
    layers += [nn.Conv2d(4, features, 3, padding=1), nn.AvgPool2d(2), nn.BatchNorm2d(features), nn.ReLU()]
    layers += [nn.Flatten(), nn.Dropout(0.1), nn.Linear(4 * features, 5, bias=False), nn.BatchNorm1d(5, eps=0.1)]
    return lively(nn.Sequential(*layers, nn.ReLU(), nn.Linear(5, classes)))


DESCRIPTION = {
    "name": "mine",
    "input_shape": SHAPE,
    "classes": 3,
    "mean": PLAIN["mean"],
    "std": PLAIN["std"],
    "layers": [
        {
            "name": "a",
            "edges": [
                {
                    "source": -1,
                    "ops": [
                        {"op": "Conv", "name": "a", "features": 4, "bias": True},
                        {"op": "BatchNorm", "name": "a_norm", "epsilon": 1e-3},
                    ],
                }
            ],
        },
        {
            "name": "b",
            "edges": [
                {
                    "source": 0,
                    "ops": [
                        {"op": "AvgPool"},
                        {"op": "Conv", "name": "b", "features": 6, "bias": True},
                        {"op": "AvgPool", "window": 2},
                        {"op": "BatchNorm", "name": "b_norm"},
                    ],
                }
            ],
        },
        {
            "name": "c",
            "edges": [
                {
                    "source": 1,
                    "ops": [
                        {"op": "Dense", "name": "c", "features": 5},
                        {"op": "BatchNorm", "name": "c_norm", "epsilon": 0.1},
                    ],
                }
            ],
        },
        {
            "name": "d",
            "edges": [{"source": 2, "ops": [{"op": "Dense", "name": "d", "features": 3, "bias": True}]}],
        },
    ],
}


@pytest.fixture
def description(tmp_path):
    """The description file of ``sequential()``."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(DESCRIPTION))
    return path


def saved(content, path):
    torch.save(content, path)
    return path


def logits_of(model, images=IMAGES):
    """PyTorch's own logits; the images are normalised to themselves."""
    with torch.inference_mode():
        return model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float()).numpy()


def assert_same_function(imported, model):
    folded, params = fold(imported.network, imported.params)
    np.testing.assert_allclose(FORWARD(folded, params, IMAGES)[-1], logits_of(model), rtol=1e-4, atol=1e-4)


def test_a_sequential_network_computes_what_pytorch_does(description, tmp_path):
    model = sequential()
    path = saved(model.state_dict(), tmp_path / "model.pt")
    imported = import_network(read_foreign(path), str(description))
    assert_same_function(imported, model)
    assert ("c", "c", "10", "5x24", "transposed from CHW order") in [
        (r.layer, r.op, r.module, r.shape, r.what) for r in imported.rows
    ]
    assert [r.what for r in imported.rows if r.op == "b_norm"] == ["folded into b"]
    assert imported.notes == ("left out: 3 counters of batches (num_batches_tracked)",)


@pytest.mark.parametrize("names", [("downsample", "fc"), ("shortcut", "linear")])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_resnet_is_imported_by_its_name(names, suffix, tmp_path):
    """By the names of torchvision, or by order where names differ, which a safetensors file does not keep."""
    model = lively(ResNet20(*names))
    path = tmp_path / f"model{suffix}"
    if suffix == ".pt":
        torch.save(model.state_dict(), path)
    else:
        save_file({k: v.numpy() for k, v in model.state_dict().items()}, path)
    options = {"image_shape": SHAPE, "mean": PLAIN["mean"], "std": PLAIN["std"]}
    imported = import_network(read_foreign(path), "resnet20", width=0.25, **options)
    assert imported.network == architecture(
        "resnet20", width=0.25, classes=3, input_shape=SHAPE, mean=PLAIN["mean"], std=PLAIN["std"]
    )
    assert_same_function(imported, model)


def test_a_named_network_takes_the_biases_that_the_file_has(tmp_path):
    model = [nn.Conv2d(2, 8, 3, padding=1), nn.AvgPool2d(2), nn.BatchNorm2d(8), nn.ReLU()]
    model += [nn.Conv2d(8, 16, 3, padding=1), nn.AvgPool2d(2), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten()]
    model += [nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3)]
    model = lively(nn.Sequential(*model))
    path = saved(model.state_dict(), tmp_path / "model.pt")
    options = {"image_shape": SHAPE, "mean": PLAIN["mean"], "std": PLAIN["std"], "width": 0.25}
    with pytest.raises(UserError, match="2 shifts, but norm1 of network vgg4 is a norm that only scales"):
        import_network(read_foreign(path), "vgg4", **options)
    for module in model:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.bias.data.zero_()
            module.running_mean.zero_()
    saved(model.state_dict(), path)
    imported = import_network(read_foreign(path), "vgg4", **options)
    assert "conv1.bias" in imported.params and "dense2.bias" in imported.params
    assert_same_function(imported, model)


def test_the_network_is_inferred_where_shapes_leave_no_doubt(tmp_path):
    """A known architecture, or layers in a row without pools."""
    options = {"image_shape": (8, 8, 3)}
    network = architecture("vgg4", classes=5, input_shape=(8, 8, 3))
    path = saved(exported(network), tmp_path / "known.pt")
    imported = import_network(read_foreign(path), **options)
    assert imported.network == network
    assert any("the shapes fit vgg4 alone" in note for note in imported.notes)
    row = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)
    )
    imported = import_network(read_foreign(saved(row.state_dict(), tmp_path / "row.pt")), **options)
    assert [layer.name for layer in imported.network.layers] == ["0", "4"]
    assert any("layers in a row without pools" in note for note in imported.notes)


def test_a_head_in_front_of_the_convolutions_is_no_traceback(tmp_path):
    """A state_dict has the order in which modules were made, which need not be that of the computation."""
    model = nn.Sequential(nn.Linear(16, 3), nn.Conv2d(3, 4, 3))
    file = read_foreign(saved(model.state_dict(), tmp_path / "model.pt"))
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
    model = lively(
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(16, 3))
    )
    file = read_foreign(saved(model.state_dict(), tmp_path / "model.pt"))
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
    assert_same_function(import_network(file, str(path)), model)


@pytest.mark.parametrize("name", NETWORKS)
def test_export_and_import_give_the_same_arrays(name, tmp_path):
    from jaxsnn.conversion.torch_twin import state_dict

    snn = dyadic_snn(name)
    path = saved(state_dict(snn.network, snn.params), tmp_path / "model.pt")
    description = tmp_path / "network.json"
    description.write_text(to_json(snn.network))
    imported = import_network(read_foreign(path), str(description))
    assert imported.network == snn.network and imported.params.keys() == snn.params.keys()
    for key, value in snn.params.items():
        np.testing.assert_array_equal(imported.params[key], value)


def test_an_exported_network_loads_into_the_printed_modules():
    """``load_state_dict`` is strict: keys and shapes are PyTorch's; a ScaleNorm is a BatchNorm there."""
    from jaxsnn.conversion.torch_twin import sequential as listing
    from jaxsnn.conversion.torch_twin import state_dict

    for norm in (BatchNorm, ScaleNorm):
        network = vgg([[4], [4, 6]], [5], name="n", norm=norm, dropout=0.1, pool="after", **PLAIN)
        rng = np.random.default_rng(0)
        params = {k: rng.uniform(-0.5, 0.5, s).astype(np.float32) for k, s in shapes_of(network).items()}
        params |= {k: np.abs(v) for k, v in params.items() if k.endswith(".var")}
        model = nn.Sequential(*(eval(line, vars(nn)) for _, line in listing(network))).eval()
        model.load_state_dict(state_dict(network, params))
        folded = fold(network, params)
        np.testing.assert_allclose(FORWARD(*folded, IMAGES)[-1], logits_of(model), rtol=1e-4, atol=1e-4)


def test_keys_are_positions_in_the_sequence():
    """VGG15 with BatchNorm: conv, pool, norm, ReLU; then Flatten, Dropout, Linear, norm, ReLU, Dropout, Linear."""
    from jaxsnn.conversion.torch_twin import module_names, sequential

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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_other_float_types_are_used_as_float32(dtype, suffix, description, tmp_path):
    from safetensors.torch import save_file as save_torch

    model = sequential().to(dtype)
    path = tmp_path / f"model{suffix}"
    torch.save(model.state_dict(), path) if suffix == ".pt" else save_torch(model.state_dict(), path)
    imported = import_network(read_foreign(path), str(description))
    assert all(value.dtype == np.float32 for value in imported.params.values())
    assert_same_function(imported, model.float())
    kind = str(dtype).removeprefix("torch.")
    assert f"tensors of {kind} are used as float32" in imported.notes


def test_wrapped_files_are_unwrapped_and_it_is_said(description, tmp_path):
    model = sequential()
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    path = saved({"state_dict": state, "epoch": 7, "optimizer": {"lr": 0.1}}, tmp_path / "checkpoint.pth")
    imported = import_network(read_foreign(path), str(description))
    assert_same_function(imported, model)
    assert (
        "read the state_dict that is stored under 'state_dict'; left out: 'epoch', 'optimizer'" in imported.notes
    )
    assert "took the prefix 'module.' off every key" in imported.notes


def changed(**changes):
    """The state_dict of ``sequential()`` with keys replaced (a value) or removed (None); ``_`` stands for ``.``"""
    state = dict(sequential().state_dict())
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
        (changed(k10__bias=torch.zeros(5)), 'has bias, but c of network mine has none: set its "bias" to true'),
        (
            changed(k20__weight=torch.zeros(3, 3)),
            "has too many linear maps, 3 for the 2 of network mine: 20.weight belongs to no",
        ),
        (
            changed(k20__weight=torch.ones(4, 4, 3, 3)),
            "too many convolutions, 3 for the 2 of network mine: 20.weight belongs to no layer",
        ),
        (changed(scale=torch.zeros(3)), "scale belongs to no layer that can be converted"),
        (changed(k0__weight_orig=torch.zeros(3)), "0.weight_orig belongs to no layer that can be converted"),
        (
            changed(k4__weight=torch.zeros(6, 4, 5, 5)),
            "4.weight has shape (6, 4, 5, 5), b of network mine expects (6, 4, 3, 3)",
        ),
        (
            changed(k4__weight=torch.zeros(6, 1, 3, 3)),
            "4.weight has shape (6, 1, 3, 3), b of network mine expects",
        ),
        (changed(k10__weight=torch.zeros(5, 6)), "10.weight has shape (5, 6), c of network mine expects (5, 24)"),
        (
            changed(k1__running_var=torch.ones(5)),
            "1.running_var has shape (5,), a_norm of network mine expects (4,)",
        ),
        (
            changed(k13__weight=torch.zeros(7, 5), k13__bias=torch.zeros(7)),
            "13.weight gives 7 classes, network mine has 3",
        ),
        (changed(k4__bias=torch.full((6,), torch.nan)), "4.bias holds NaN or infinite values"),
        (changed(k0__weight=torch.full((4, 2, 3, 3), torch.inf)), "0.weight holds NaN or infinite values"),
        (changed(k1__running_var=-torch.ones(4)), "1.running_var holds negative values"),
        (
            changed(k0__weight=torch.ones(4, 2, 3, 3, dtype=torch.int8)),
            "0.weight is of type int8, expected floating",
        ),
        (changed(k0__weight=torch.ones(4, 2, 3, 3, dtype=torch.complex64)), "0.weight is of type complex64"),
        (changed(k0__weight=torch.ones(4, 2, 3, 3).to_sparse()), "0.weight is a torch.sparse_coo tensor"),
        ({}, "holds nothing, expected a state_dict"),
        ([1, 2], "holds a list, expected a state_dict"),
        (torch.zeros(3), "holds a Tensor, expected a state_dict"),
        ({"epoch": 3, "lr": 0.1}, "holds no state_dict ('epoch', 'lr')"),
        ({"model": changed(), "ema": changed()}, "holds more than one state_dict ('model', 'ema')"),
    ],
)
def test_weights_that_do_not_fit_are_refused(state, message, description, tmp_path):
    path = saved(state, tmp_path / "model.pt")
    with pytest.raises(UserError) as error:
        import_network(read_foreign(path), str(description))
    assert message in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


class Opened:
    """What a hostile file would run: a pickle that opens a file when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def bad_file(kind, path):
    whole = saved(sequential().state_dict(), path).read_bytes()
    if kind == "module":
        torch.save(sequential(), path)
    elif kind == "hostile":
        torch.save({"0.weight": Opened(path.with_name("opened"))}, path)
    elif kind == "script":
        torch.jit.script(sequential()).save(path)
    elif kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "old truncated":
        torch.save(sequential().state_dict(), path, _use_new_zipfile_serialization=False)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "text":
        path.write_text("conv1 = Conv2d(3, 64)\n")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "missing":
        path.unlink()


@pytest.mark.filterwarnings("ignore:.*torch.*:DeprecationWarning", "ignore:.*TorchScript.*:UserWarning")
@pytest.mark.parametrize(
    "kind, message",
    [
        ("module", "holds a pickled module or other Python objects"),
        ("hostile", "holds a pickled module or other Python objects"),
        ("script", "holds a pickled module or other Python objects"),
        ("truncated", "is a PyTorch file that is cut short or damaged"),
        ("old truncated", "is a PyTorch file that is cut short or damaged"),
        ("text", "is not a PyTorch file"),
        ("empty", "is not a PyTorch file"),
        ("missing", "no weights file at"),
    ],
)
def test_files_that_hold_no_state_dict_are_refused(kind, message, tmp_path):
    path = tmp_path / "model.pt"
    bad_file(kind, path)
    with pytest.raises(UserError, match=message):
        read_foreign(path)
    assert not (tmp_path / "opened").exists()


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
    file = read_foreign(saved(sequential().state_dict(), tmp_path / "model.pt"))
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        import_network(file, str(path))
    assert message in str(error.value) and str(path) in str(error.value)


def test_a_missing_description_or_name_is_refused(tmp_path):
    file = read_foreign(saved(sequential().state_dict(), tmp_path / "model.pt"))
    with pytest.raises(UserError, match=r"no network description at /nowhere\.json"):
        import_network(file, "/nowhere.json")
    with pytest.raises(UserError, match="unknown network 'vgg51'"):
        import_network(file, "vgg51", image_shape=SHAPE, mean=PLAIN["mean"], std=PLAIN["std"])


COMMANDS = {
    "import_weights": (ImportConfig, import_weights),
    "export_weights": (ExportConfig, export_weights),
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
    """Our weights of a small network for the embedded images, and the same as PyTorch exported them."""
    network = vgg([[4], [4], [6]], name="small", norm=BatchNorm, windows=[2, 2, 8], pool="after")
    rng = np.random.default_rng(0)
    params = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes_of(network).items()}
    params |= {k: np.abs(v) + 0.1 for k, v in params.items() if k.endswith((".var", ".scale"))}
    folder = tmp_path_factory.mktemp("small")
    save_weights(folder / "ours.safetensors", network, params)
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, "export_weights", folder / "ours.safetensors", "--out", folder / "theirs.pt") == 0
    return folder


def test_export_and_import_from_the_command_line(small, monkeypatch, capsys, tmp_path):
    """Accuracy before and after is printed and equal, and what is written is what was exported."""
    out = tmp_path / "again.safetensors"
    arguments = [small / "theirs.pt", "--network", small / "theirs.json", "--images", 50, "--out", out]
    assert call(monkeypatch, "import_weights", *arguments) == 0
    text = capsys.readouterr().out
    before = [line.split()[3] for line in text.splitlines() if line.startswith("ANN accuracy before")]
    after = [line.split()[6] for line in text.splitlines() if line.startswith("ANN accuracy after")]
    assert before == after and float(before[0]) > 0
    assert "folded into conv3" in text and "largest difference of a logit on 50 images" in text
    network, params, _ = load_weights(small / "ours.safetensors")
    again, same, notes = load_weights(out)
    assert again == network and notes["imported_from"] == "theirs.pt" and notes["test_images"] == "50"
    for key, value in params.items():
        np.testing.assert_array_equal(same[key], value)


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
    path = saved(exported(architecture("vgg4", classes=7)), tmp_path / "seven.pt")
    assert call(monkeypatch, "import_weights", path, "--network", "vgg4", "--images", 10) == 2
    assert "of 7 classes, but embedded (test) has (32, 32, 3) of 10" in capsys.readouterr().err


def test_weights_that_describe_themselves_take_no_other_network(small):
    with pytest.raises(UserError, match="describes its own network: leave --network out"):
        load_snn(small / "ours.safetensors", "vgg15")
    with pytest.raises(UserError, match="give the file as --weights"):
        load_snn(None, "vgg15")
