"""Archives of torch.export, written by hand: read without PyTorch, and never by a pickle."""

import zipfile

import numpy as np
import pytest

from helpers.pt2_writer import ARRAYS, CALLS, RNG, call, meta, parts, written
from jaxsnn.conversion.evaluate_graph import evaluate
from jaxsnn.conversion.from_pt2 import graph_of_pt2
from jaxsnn.conversion.model_import import import_model
from jaxsnn.errors import UserError


def test_an_archive_computes_what_its_arrays_say(tmp_path):
    path = written(tmp_path, parts())
    x = RNG.normal(size=(2, 1, 2, 3))
    hidden = np.maximum(x.reshape(2, 6) @ ARRAYS["a.weight"].T + ARRAYS["a.bias"], 0)
    np.testing.assert_allclose(evaluate(graph_of_pt2(path), x), hidden @ ARRAYS["b.weight"].T, rtol=1e-6)
    imported = import_model(path)
    assert imported.difference < 1e-5
    assert [layer.name for layer in imported.network.layers] == ["a", "b"]


def test_a_weight_is_read_in_the_order_of_its_strides(tmp_path):
    members = parts()
    entry = members["m/data/weights/model_weights_config.json"]["config"]["a.weight"]
    entry["tensor_meta"] = meta((4, 6), [1, 4])
    imported = import_model(written(tmp_path, members))
    np.testing.assert_array_equal(imported.params["a.kernel"].T, ARRAYS["a.weight"].reshape(6, 4).T)


def with_entry(**changes):
    members = parts()
    members["m/data/weights/model_weights_config.json"]["config"]["a.weight"] |= changes
    return members


def without(name):
    members = parts()
    del members[name]
    return members


PROGRAM = "m/models/model.json"
OLD = {
    "serialized_exported_program.json": {}, "serialized_state_dict.pt": b"", "serialized_constants.pt": b"",
    "version": b"8.7",
}  # fmt: skip
"""What torch.export.save wrote before PyTorch 2.8."""
BAD = {
    "before PyTorch 2.8": (OLD, "holds no models/model.json: write it with .* of PyTorch 2.9 or later"),
    "PyTorch 2.8": (
        {PROGRAM: parts()[PROGRAM], "m/data/weights/model.pt": b"", "m/data/constants/model.pt": b""},
        "weights in a pickle, as PyTorch before 2.9 writes them",
    ),
    "no program": (without(PROGRAM), "holds no models/model.json: write it with torch.export.save"),
    "no weight": (without("m/data/weights/weight_1"), "without m/data/weights/weight_1"),
    "a pickle": (with_entry(use_pickle=True), "pickles a.weight, which could run code"),
    "sizes that lie": (with_entry(tensor_meta=meta((2**40, 2**20))), "holds too few numbers for it"),
    "repeated numbers": (with_entry(tensor_meta=meta((2**40, 2), [0, 1])), "repeats its numbers"),
    "negative strides": (with_entry(tensor_meta=meta((4, 6), [-6, 1])), "holds too few numbers for it"),
    "another type": (with_entry(tensor_meta=meta((4, 6), dtype=9)), "of a type that is not read"),
    "no JSON": (parts() | {PROGRAM: b"{"}, "is not an archive of torch.export.save, or is damaged"),
    "deep JSON": (parts() | {PROGRAM: b"[" * 100_000}, "is not an archive of torch.export.save, or is damaged"),
    "a list": (parts() | {PROGRAM: [1, 2]}, "is not an archive of torch.export.save, or is damaged"),
    "a circle": (parts([call("relu.default", "r", self="y"), *CALLS]), "uses y, which nothing before it makes"),
    "a huge image": (parts(sizes=(2, 1, 2**20, 2**20)), "at most 67108864 numbers"),
    "another operator": (parts([call("erfinv.default", "e", self="x"), *CALLS]), "erfinv, which is not converted"),
    "a wrong argument": (parts([call("flatten.using_ints", "flat", self="x", start_dim=9), *CALLS[1:]]), "axis 9"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_come_in_is_refused_in_one_sentence(name, tmp_path):
    members, sentence = BAD[name]
    with pytest.raises(UserError, match=sentence) as refused:
        graph_of_pt2(written(tmp_path, members))
    assert "\n" not in str(refused.value)


def test_a_packed_archive_and_one_that_is_none_are_refused(tmp_path):
    with pytest.raises(UserError, match="PyTorch wrote no such file"):
        graph_of_pt2(written(tmp_path, parts(), zipfile.ZIP_DEFLATED))
    path = written(tmp_path, parts())
    content = path.read_bytes()
    for broken in (b"", b"text", content[:200], content[200:]):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"is not an archive of torch\.export\.save|is damaged"):
            graph_of_pt2(path)


def test_no_damage_to_an_archive_ends_in_a_traceback(tmp_path):
    path = written(tmp_path, parts())
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        broken = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            broken[rng.integers(len(broken))] = rng.integers(256)
        path.write_bytes(bytes(broken))
        try:
            graph_of_pt2(path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 120


@pytest.mark.parametrize("sizes", [(2, 1.0, 2, 3), (2, 1, True, 3), (2, 1, -2, 3), (2, "1", 2, 3)])
def test_images_of_no_size_are_refused(tmp_path, sizes):
    members = parts()
    held = members["m/models/model.json"]["graph_module"]["graph"]["tensor_values"]["x"]
    held["sizes"] = [{"as_int": size} for size in sizes]
    with pytest.raises(UserError, match=r"takes images of the shape .*, expected whole numbers above 0"):
        graph_of_pt2(written(tmp_path, members))
