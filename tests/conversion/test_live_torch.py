"""PyTorch models as users write them: live, and as .pt2 archives; what is refused, by its name in the model."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import jaxsnn  # noqa: E402
from helpers.torch_models import MODELS, BasicBlock, MobileNetV2, ResNet, made  # noqa: E402
from jaxsnn.conversion.model_import import import_model  # noqa: E402
from jaxsnn.errors import UserError  # noqa: E402


@pytest.mark.parametrize("name", MODELS)
def test_a_live_module_has_its_own_logits_after_one_call(name):
    module, shape = made(name)
    module.train()
    imported = import_model(module, shape, max_pool="average" if name == "max pools" else "refuse")
    assert imported.difference < 1e-5 < imported.largest
    assert module.training and all(part.training for part in module.modules()), "the module stays as it was"
    if name != "max pools":
        assert imported.compared_with == "the module in PyTorch"


@pytest.mark.parametrize("name", ["MobileNetV2", "Conv1d", "functional"])
def test_an_archive_of_torch_export_gives_the_network_of_the_live_module(name, tmp_path):
    """Written with a batch of any size; read without PyTorch."""
    module, shape = made(name)
    x = torch.zeros(2, *shape)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, tmp_path / "model.pt2")
    live, archived = import_model(module, shape), import_model(tmp_path / "model.pt2")
    assert archived.difference < 1e-5
    assert archived.network.layers == live.network.layers
    for key, value in live.params.items():
        np.testing.assert_array_equal(archived.params[key], value)


def test_torchvisions_names_come_through():
    """Every convolution of a ResNet and a MobileNetV2 keeps the name that torchvision gives it."""
    for module in (
        ResNet(BasicBlock, [1, 1, 1, 1], 4),
        MobileNetV2(width=0.1, settings=((1, 8, 1, 1), (6, 8, 2, 2))),
    ):
        names = {name for name, part in module.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)}
        params = import_model(module, (3, 32, 32)).params
        assert {key.removesuffix(".kernel") for key in params if key.endswith(".kernel")} >= names


def test_load_gives_a_spiking_network_that_is_searched(capsys):
    module, shape = made("depthwise separable")
    snn = jaxsnn.load(module, input_shape=shape, mean=0.5, std=0.25)
    assert "largest difference of a logit on 8 random images" in capsys.readouterr().out
    rng = np.random.default_rng(0)
    images, labels = rng.random((12, 32, 32, 3), np.float32), rng.integers(0, 10, 12)
    base = jaxsnn.percentiles(snn, images).genes(99.7, v0=0.5)
    seen = jaxsnn.observe(snn, base, images, labels, timesteps=4)
    assert seen.accuracy.shape == (1, 4)


class Stale(nn.Module):
    """Writes over a value that a view of it still names."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 2, 1), nn.Linear(128, 4)

    def forward(self, x):
        x = self.conv(x)
        flat = x.flatten(1)
        x.relu_()
        return self.fc(flat)


class Forked(nn.Module):
    """An in-place ReLU whose input is read again: PyTorch adds the rectified value to itself."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 2, 1), nn.Linear(128, 4)

    def forward(self, x):
        x = self.conv(x)
        return self.fc((torch.relu_(x) + x).flatten(1))


class Two(nn.Module):
    def forward(self, x):
        return x, x


def headed(*parts):
    return nn.Sequential(nn.Conv2d(3, 4, 3), *parts, nn.Flatten(), nn.LazyLinear(5))


REFUSED = {
    "softmax": (lambda: nn.Sequential(headed(nn.ReLU()), nn.Softmax(1)), "1 is softmax.*return the logits"),
    "PReLU": (lambda: headed(nn.PReLU()), "1 is prelu.*train with ReLU"),
    "LeakyReLU": (lambda: headed(nn.LeakyReLU()), "1 is leaky_relu.*train with ReLU"),
    "GELU": (lambda: headed(nn.GELU()), "1 is gelu.*train with ReLU or ReLU6"),
    "LayerNorm": (lambda: headed(nn.ReLU(), nn.LayerNorm([4, 6, 6])), "2 is layer_norm.*BatchNorm"),
    "shuffle": (lambda: headed(nn.ReLU(), nn.ChannelShuffle(2)), "2 is channel_shuffle"),
    "no statistics": (lambda: headed(nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU()), "1 normalises by"),
    "max pool": (lambda: headed(nn.ReLU(), nn.MaxPool2d(2)), "2 is a max pool"),
    "pool that does not divide": (
        lambda: headed(nn.ReLU(), nn.AdaptiveAvgPool2d(4)),
        "2 pools .* does not divide",
    ),
    "ceil": (lambda: headed(nn.ReLU(), nn.AvgPool2d(4, ceil_mode=True)), "2 pools with ceil_mode"),
    "transposed": (
        lambda: headed(nn.ReLU(), nn.ConvTranspose2d(4, 2, 2)),
        "2 is conv_transpose2d.*use a convolution",
    ),
    "a stale view": (Stale, "has written over"),
    "two outputs": (Two, "returns 2 values"),
    "no classes": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()),
        "output has shape .*expected .N, classes.",
    ),
    "no ReLU": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), "has no ReLU"),
    "another shape": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(7, 3)), "PyTorch cannot trace Sequential"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_converted_is_named_and_never_left_out(name):
    make, sentence = REFUSED[name]
    module = make()
    module(torch.zeros(1, 3, 8, 8)) if name not in ("another shape",) else None
    with pytest.raises(UserError, match=sentence) as refused:
        import_model(module, (3, 8, 8))
    assert "\n" not in str(refused.value)


def test_an_operation_in_place_changes_what_is_read_after_it():
    assert import_model(Forked(), (3, 8, 8)).difference < 1e-5


def test_the_arguments_of_load_are_checked():
    module, _ = made("MLP")
    for arguments, sentence in (
        ({}, "input_shape is missing: the shape of one input of MLP"),
        ({"input_shape": (1, 28, 28), "mean": 0.5}, "mean and std belong together"),
        ({"input_shape": (1, 28, 28), "mean": (0.5, 0.5), "std": 1.0}, "mean is .* for each of 1 channels"),
        ({"input_shape": (1, 28, 28), "mean": 0.0, "std": 0.0}, "std is 0.0, expected a number above 0"),
        ({"input_shape": (1, 28, 28), "max_pool": "keep"}, "max_pool is 'keep'"),
        ({"input_shape": (1, 28, 28), "network": "vgg4"}, "for files of weights alone"),
    ):
        with pytest.raises(UserError, match=sentence):
            jaxsnn.load(module, **arguments)
    for wrong, sentence in (
        (7, "a int cannot be loaded"),
        (type(module), "the class MLP, not a module made of it"),
    ):
        with pytest.raises(UserError, match=sentence):
            jaxsnn.load(wrong)
