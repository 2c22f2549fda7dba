"""PyTorch's files without PyTorch: the arrays it would give, and nothing that a file claims or asks to run."""

import hashlib
import re
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

from helpers.torch_files import Called, Named, Stored, save, save_row, tensor, whole
from jaxsnn.conversion import torch_pickle
from jaxsnn.conversion.state_dicts import read_foreign
from jaxsnn.conversion.torch_file import read_torch_file
from jaxsnn.errors import UserError

MEGABYTE = 1 << 20


KINDS = {"float16": np.float16, "float32": np.float32, "float64": np.float64, "bfloat16": ml_dtypes.bfloat16}


def numbers(shape, kind=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(kind)


def small(kind=np.float32):
    """A state_dict of a convolution and a linear map."""
    return {
        "0.weight": numbers((4, 3, 3, 3), kind),
        "0.bias": numbers(4, kind, 1),
        "2.weight": numbers((5, 4), kind),
    }


def arrays(path):
    """Every tensor that ``read_foreign`` finds, by its key."""
    return {
        module.key(part): value for module in read_foreign(path).modules for part, value in module.tensors.items()
    }


def refusal(path, read=read_foreign):
    """The sentence that a file is refused with, and the most memory that took."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as error:
            read(path)
        return str(error.value), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def same(found, expected):
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key].dtype == np.float32
        np.testing.assert_array_equal(found[key], value.astype(np.float32))


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("written", [save, save_row])
@pytest.mark.parametrize("kind", KINDS)
def test_every_type_format_and_byte_order_gives_the_numbers(kind, written, order, tmp_path):
    state = small(KINDS[kind])
    same(arrays(written(tmp_path / "w.pt", state, order)), state)


def test_views_of_a_storage_are_the_numbers_that_they_see(tmp_path):
    """Transposed, cut out and tied weights share one storage."""
    held = numbers(40)
    storage = Stored("FloatStorage", "7", 40)
    views = {
        "a.weight": tensor(storage, 0, (8, 5), (1, 8)),
        "b.weight": tensor(storage, 3, (2, 4), (10, 2)),
        "c.weight": tensor(storage, 0, (8, 5), (1, 8)),
    }
    found = arrays(save(tmp_path / "w.pt", views, storages={"7": held.tobytes()}))
    np.testing.assert_array_equal(found["a.weight"], held.reshape(5, 8).T)
    np.testing.assert_array_equal(found["b.weight"], held[3:23].reshape(2, 10)[:, :8:2])
    np.testing.assert_array_equal(found["c.weight"], found["a.weight"])


@pytest.mark.parametrize("offset, size, stride", [
    (0, (60_000, 60_000), (0, 0)),
    (0, (2, 10**12), (1, 0)),
    (0, (10**9,), (1,)),
    (0, (5, 2), (3, 0)),
    (9, (2,), (1,)),
    (0, (2, 2), (9, 1)),
    (0, (0, 1 << 60), (1, 1)),
])  # fmt: skip
def test_a_tensor_beyond_its_storage_is_refused_before_anything_is_allocated(offset, size, stride, tmp_path):
    """A stride of 0 lets 2 kB claim any number of numbers: PyTorch would make 13.6 GB of the first."""
    state = {"0.weight": tensor(Stored("FloatStorage", "0", 10), offset, size, stride)}
    path = save(tmp_path / "w.pt", state, storages={"0": bytes(40)})
    assert path.stat().st_size < 2048
    said, peak = refusal(path)
    assert f"0.weight has the shape {size}, but its storage holds 10 numbers" in said and peak < MEGABYTE


@pytest.mark.parametrize("offset, size, stride", [
    (-1, (2,), (1,)),
    (0, (-2,), (1,)),
    (0, (2,), (-1,)),
    (0, (2,), (1, 1)),
    (0, (1,) * 40, (1,) * 40),
    (0, (1.5,), (1,)),
    (0, 4, (1,)),
    (0, (1 << 70,), (0,)),
])  # fmt: skip
def test_a_tensor_of_no_size_is_refused(offset, size, stride, tmp_path):
    state = {"0.weight": tensor(Stored("FloatStorage", "0", 10), offset, size, stride)}
    assert "cut short or damaged" in refusal(save(tmp_path / "w.pt", state, storages={"0": bytes(40)}))[0]


def test_many_views_of_the_same_numbers_are_refused(tmp_path):
    """Each fits, and all together are 400 times the file."""
    storage = Stored("FloatStorage", "0", 10_000)
    state = {f"{i}.weight": tensor(storage, i, (100, 90), (1, 100)) for i in range(500)}
    path = save(tmp_path / "w.pt", state, storages={"0": bytes(40_000)})
    said, peak = refusal(path)
    assert "share their numbers too often" in said and peak < 30 * path.stat().st_size


def test_storages_that_are_not_there_or_shorter_are_refused(tmp_path):
    state = {"0.weight": tensor(Stored("FloatStorage", "0", 10), 0, (10, 1), (1, 1))}
    assert "cut short or damaged" in refusal(save(tmp_path / "w.pt", state))[0]
    said = refusal(save(tmp_path / "w.pt", state, storages={"0": bytes(36)}))[0]
    assert "has the shape (10, 1), but its storage holds 9 numbers" in said
    two = {
        "a": tensor(Stored("FloatStorage", "0", 9), 0, (1,), (1,)),
        "b": tensor(Stored("HalfStorage", "0", 9), 0, (1,), (1,)),
    }
    assert "cut short or damaged" in refusal(save(tmp_path / "w.pt", two, storages={"0": bytes(36)}))[0]


STRANGERS = ["os system", "builtins eval", "builtins open", "torch load", "torch.nn.modules.linear Linear"]
STRANGERS += ["numpy.core.multiarray _reconstruct", "argparse Namespace", "torch._utils os"]


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("written", [save, save_row])
def test_no_other_name_is_called_or_looked_up(name, written, tmp_path):
    """A pickled module, whatever a stranger wants to be run, or an object beside the state_dict."""
    opened = tmp_path / "opened"
    for content in (
        {"model": small(), "args": Called(name, (str(opened), "w"))},
        Called(name, (f"touch {opened}",)),
        Named(name),
    ):
        said = refusal(written(tmp_path / "w.pt", content))[0]
        assert (
            f"holds a pickled module or other Python objects ({name.replace(' ', '.')}), which could run" in said
        )
        assert "torch.save(model.state_dict(), path)" in said and not opened.exists()


def test_a_long_name_is_cut_in_the_sentence(tmp_path):
    said = refusal(save(tmp_path / "w.pt", Named(f"os {'x' * 5000}")))[0]
    assert len(said) < 500
    content = {"x" * 5000: 1, "y" * 5000: {"0.weight": tensor(Stored("QInt8Storage", "0", 1), 0, (1,), (1,))}}
    assert len(refusal(save(tmp_path / "w.pt", content))[0]) < 500


def test_what_stands_beside_a_state_dict_is_left_out(tmp_path):
    """The results of harmless calls are not needed, so that they are not made."""
    beside = {
        "epoch": 3,
        "best": Called("numpy._core.multiarray scalar", (Called("numpy dtype", ("f8",)), "12345678")),
        "device": Called("torch device", ("cpu",)),
        "kind": Named("torch float32"),
        "optimizer": {"lr": 0.1, "betas": (0.9, 0.999), "params": [0, 1], "state": {0: {"step": 1}}},
        "none": [None, True, False, -(1 << 40)],
    }
    path = save(tmp_path / "w.pt", {"model": small(), **beside})
    same(arrays(path), small())
    said = "read the state_dict that is stored under 'model'; left out: 'epoch', 'best', 'device', 'kind', "
    assert read_foreign(path).notes[0].startswith(said)


def test_other_layouts_and_types_are_named(tmp_path):
    sparse = Called("torch._utils _rebuild_sparse_tensor", (None, ()))
    assert "0.weight is a sparse tensor, expected" in refusal(save(tmp_path / "w.pt", {"0.weight": sparse}))[0]
    stored = Stored("UntypedStorage", "0", 4)
    eighths = Called(
        "torch._utils _rebuild_tensor_v3", (stored, 0, (4,), (1,), False, None, Named("torch float8_e5m2"))
    )
    path = save(tmp_path / "w.pt", {"0.weight": eighths}, storages={"0": bytes(4)})
    assert "0.weight is a tensor of float8_e5m2, expected plain" in refusal(path)[0]


def test_the_tensors_of_parameters_and_of_subclasses_are_read(tmp_path):
    plain = tensor(Stored("FloatStorage", "0", 6), 0, (2, 3), (3, 1))
    parameter = Called("torch._utils _rebuild_parameter", (plain, True, None))
    typed = Called(
        "torch._tensor _rebuild_from_type_v2",
        (Named("torch._utils _rebuild_tensor_v2"), Named("torch Tensor"), plain.arguments, {"tag": "x"}),
    )
    held = numbers(6)
    for kind in (parameter, typed):
        found = arrays(save(tmp_path / "w.pt", {"0.weight": kind}, storages={"0": held.tobytes()}))
        np.testing.assert_array_equal(found["0.weight"], held.reshape(2, 3))


def test_a_damaged_number_is_found_and_no_checksum_is_none_to_compare(tmp_path):
    path = save(tmp_path / "w.pt", small())
    content = bytearray(path.read_bytes())
    content[content.index(numbers((4, 3, 3, 3)).tobytes()) + 5] ^= 1
    path.write_bytes(content)
    assert "cut short or damaged: copy it again" in refusal(path)[0]
    with zipfile.ZipFile(path) as archive:
        sums = [record.CRC.to_bytes(4, "little") for record in archive.infolist()]
    path.write_bytes(re.sub(b"|".join(map(re.escape, sums)), bytes(4), bytes(content)))
    assert arrays(path).keys() == small().keys()


@pytest.mark.parametrize("content, message", [
    (b"", "is not a PyTorch file"),
    (b"conv1 = Conv2d(3, 64)\n", "is not a PyTorch file"),
    (whole({"0.weight": [1.0]}), "is not a PyTorch file"),
    (b"\x80\x02", "cut short or damaged"),
    (b"\x80\x02" + b"(" * 300_000, "cut short or damaged"),
    (whole(Called("os system", ("true",))), r"other Python objects \(os.system\)"),
])  # fmt: skip
def test_files_that_are_none(content, message, tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_foreign(path)


def test_an_archive_of_something_else_or_a_packed_one_is_refused(tmp_path):
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/readme.txt", "hello")
    assert "is not a PyTorch file" in refusal(path)[0]
    whole_file = save(tmp_path / "whole.pt", small())
    with zipfile.ZipFile(whole_file) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for record in source.infolist():
            target.writestr(record.filename, source.read(record))
    assert "cut short or damaged" in refusal(path)[0]


@pytest.mark.parametrize("written", [save, save_row])
def test_cut_anywhere_it_is_refused(written, tmp_path):
    path = written(tmp_path / "w.pt", small())
    content = path.read_bytes()
    for end in range(4, len(content), 37):
        path.write_bytes(content[:end])
        assert "cut short or damaged" in refusal(path)[0]


def test_a_pickle_of_too_many_operations_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(torch_pickle, "MOST_OPERATIONS", 100)
    assert "cut short or damaged" in refusal(save(tmp_path / "w.pt", small() | {"more": [0] * 30}))[0]


def test_keys_that_take_hours_to_compare_are_not_compared(tmp_path):
    """Tuples within tuples, each twice in the next, are small until somebody hashes or prints them."""
    nested = b"\x80\x02}" + b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60)) + b"Ns."
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", nested)
    assert "holds nothing, expected a state_dict" in refusal(path)[0]


def test_pytorch_reads_the_same_out_of_its_own_files(tmp_path):
    """Where PyTorch is installed: what it writes, in both formats, and what our writer of test files writes."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch's own reader")
    big = torch.from_numpy(numbers((10, 12)))
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    states = [
        model.state_dict(),
        {"a": big.t(), "b": big[2:5, 1:7:2], "c": big[3], "d": big, "e": big[0, 0], "f": big[:0]},
        {
            "a": big.to(memory_format=torch.contiguous_format)
            .reshape(2, 3, 4, 5)
            .to(memory_format=torch.channels_last)
        },
        {
            "a": big.half(),
            "b": big.bfloat16(),
            "c": big.double(),
            "d": torch.nn.Parameter(big),
            "e": torch.arange(3),
        },
    ]
    paths = []
    for number, state in enumerate(states):
        for new in (True, False):
            paths.append(tmp_path / f"{number}{new}.pt")
            torch.save(state, paths[-1], _use_new_zipfile_serialization=new)
    paths += [save(tmp_path / "ours.pt", small()), save_row(tmp_path / "row.pt", small(np.float64))]
    for path in paths:
        theirs, file = torch.load(path, weights_only=True), read_torch_file(path)
        assert list(file.content) == list(theirs)
        for key, value in theirs.items():
            found = file.array(key, file.content[key])
            assert found.shape == value.shape and found.dtype.name == str(value.dtype).removeprefix("torch.")
            raw = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            assert hashlib.sha256(found.tobytes()).digest() == hashlib.sha256(raw).digest()
