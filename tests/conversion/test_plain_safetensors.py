"""Foreign safetensors files, which need no PyTorch: layouts, order, and what is said where PyTorch is missing."""

import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from helpers.networks import NETWORKS, dyadic_snn
from helpers.torch_files import save, state_dict
from jaxsnn.conversion.import_network import import_network
from jaxsnn.conversion.state_dicts import read_foreign
from jaxsnn.errors import UserError
from jaxsnn.import_weights import ImportConfig, import_weights
from jaxsnn.networks.architectures import architecture, vgg
from jaxsnn.networks.description import BatchNorm, shapes_of
from jaxsnn.networks.json_format import to_json
from jaxsnn.networks.weights import load_weights


@pytest.mark.parametrize("name", NETWORKS)
def test_layouts_are_transposed(name, tmp_path):
    """The file keeps no order of its own: numbers are compared as numbers."""
    snn = dyadic_snn(name)
    save_file(state_dict(snn.network, snn.params), tmp_path / "w.safetensors")
    (tmp_path / "n.json").write_text(to_json(snn.network))
    imported = import_network(read_foreign(tmp_path / "w.safetensors"), str(tmp_path / "n.json"))
    assert imported.params.keys() == snn.params.keys()
    for key, value in snn.params.items():
        np.testing.assert_array_equal(imported.params[key], value)


def test_numbers_in_names_are_numbers(tmp_path):
    """Layer 10 comes after layer 9, of which only the shapes of VGG15 with BatchNorm could tell."""
    network = architecture("vgg15-bn", width=1 / 64)
    params = {name: np.full(shape, i, np.float32) for i, (name, shape) in enumerate(shapes_of(network).items())}
    save_file(state_dict(network, params), tmp_path / "w.safetensors")
    imported = import_network(read_foreign(tmp_path / "w.safetensors"), "vgg15-bn", width=1 / 64)
    assert imported.network == network
    for key, value in params.items():
        np.testing.assert_array_equal(imported.params[key], value)


@pytest.fixture
def small(tmp_path):
    """Files of a small network for the embedded images."""
    network = vgg([[4], [6]], name="small", norm=BatchNorm, windows=[4, 8])
    rng = np.random.default_rng(0)
    params = {name: rng.uniform(0.1, 1, shape).astype(np.float32) for name, shape in shapes_of(network).items()}
    save_file(state_dict(network, params), tmp_path / "w.safetensors")
    (tmp_path / "n.json").write_text(to_json(network))
    return network, params, tmp_path


def test_without_pytorch_the_import_works_but_is_not_compared(small, monkeypatch, capsys):
    network, params, folder = small
    monkeypatch.setitem(sys.modules, "torch", None)
    out = folder / "ours.safetensors"
    config = ImportConfig(folder / "w.safetensors", str(folder / "n.json"), images=20, out=out)
    results = import_weights(config)
    assert results.keys() == {"images", "accuracy_after"}
    assert "PyTorch is not installed" in capsys.readouterr().out
    stored, arrays, _ = load_weights(out)
    assert stored == network
    for key, value in params.items():
        np.testing.assert_array_equal(arrays[key], value)
    save(folder / "w.pt", state_dict(network, params))
    again = import_network(read_foreign(folder / "w.pt"), str(folder / "n.json"))
    for key, value in params.items():
        np.testing.assert_array_equal(again.params[key], value)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.clear(), "holds no tensors and no network description"),
        (lambda t: t.pop("2.weight"), "too few convolutions, 1 of 2 that network small needs"),
        (lambda t: t.update({"9.weight": np.ones((4, 4), np.float32)}), "9.weight belongs to no layer"),
        (lambda t: t["0.weight"].fill(np.nan), "0.weight holds NaN"),
        (
            lambda t: t.update({"0.weight": t["0.weight"][:, :1]}),
            r"has shape \(4, 1, 3, 3\), conv1 .* expects \(4, 3",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, message, small):
    network, params, folder = small
    tensors = state_dict(network, params)
    change(tensors)
    save_file(tensors, folder / "w.safetensors")
    with pytest.raises(UserError, match=message):
        import_network(read_foreign(folder / "w.safetensors"), str(folder / "n.json"))


def test_a_file_that_is_cut_short_is_refused(small):
    _, _, folder = small
    path = folder / "w.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="is not a readable safetensors file"):
        read_foreign(path)
