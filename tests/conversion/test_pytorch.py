"""Networks from PyTorch and back, where PyTorch is installed: what it computes is what is imported."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from helpers.descriptions import DESCRIPTION, SHAPE
from helpers.networks import NETWORKS, PLAIN, dyadic_images, dyadic_snn
from jaxsnn.conversion.folding import fold
from jaxsnn.conversion.import_network import describe, import_network
from jaxsnn.conversion.state_dicts import read_foreign
from jaxsnn.errors import UserError
from jaxsnn.export_weights import ExportConfig, export_weights
from jaxsnn.import_weights import ImportConfig, import_weights
from jaxsnn.networks.architectures import architecture, vgg
from jaxsnn.networks.description import BatchNorm, ScaleNorm, shapes_of
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.json_format import to_json
from jaxsnn.networks.weights import load_weights, save_weights

torch = pytest.importorskip("torch", reason="compares with PyTorch")


nn = torch.nn


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
    elif kind == "sparse":
        torch.save({"0.weight": torch.ones(4, 2, 3, 3).to_sparse()}, path)
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
        ("sparse", "0.weight is a sparse tensor, expected plain floating-point numbers"),
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


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Our weights of a small network for the embedded images, and the same as PyTorch exported them."""
    network = vgg([[4], [4], [6]], name="small", norm=BatchNorm, windows=[2, 2, 8], pool="after")
    rng = np.random.default_rng(0)
    params = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes_of(network).items()}
    params |= {k: np.abs(v) + 0.1 for k, v in params.items() if k.endswith((".var", ".scale"))}
    folder = tmp_path_factory.mktemp("small")
    save_weights(folder / "ours.safetensors", network, params)
    export_weights(ExportConfig(folder / "ours.safetensors", folder / "theirs.pt"))
    return folder


def test_export_and_import_from_the_command_line(small, monkeypatch, capsys, tmp_path):
    """Accuracy before and after is printed and equal, and what is written is what was exported."""
    out = tmp_path / "again.safetensors"
    monkeypatch.setenv("COLUMNS", "200")
    import_weights(ImportConfig(small / "theirs.pt", str(small / "theirs.json"), images=50, out=out))
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
