"""`data.load` and what can be done with any dataset: names, splits, limits, hashes, taking images out."""

import os
import subprocess
import sys

import numpy as np
import pytest

import data
from data import draw


def _dataset(images, labels, classes=("a", "b")):
    return data.Dataset(
        images=np.asarray(images, np.uint8),
        labels=np.asarray(labels, np.int32),
        classes=classes,
        name="made",
        split="train",
        source="a test",
    )


def _pixels(*values):
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1)


def test_importing_data_loads_none_of_its_heavy_neighbours():
    heavy = {"jax", "jaxsnn", "evo", "PIL", "tensorflow_datasets"}
    code = f"import sys, data; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "hint"), [("cifar1O", "cifar10"), ("fashion-mnist", "fashion_mnist"), ("embeded", "embedded")]
)
def test_a_misspelt_name_is_answered_with_the_near_ones(name, hint):
    with pytest.raises(data.DataError, match=f"did you mean .*{hint}"):
        data.load(name)


def test_an_unknown_name_is_answered_with_all_names():
    with pytest.raises(data.DataError, match="embedded, cifar10, cifar100, fashion_mnist, mnist, imagefolder"):
        data.load("zzz")
    with pytest.raises(data.DataError, match="unknown dataset 'tfds:'"):
        data.load("tfds:")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "val"}, "unknown split 'val' of embedded: the splits are train and test"),
        ({"limit": 0}, "limit must be a positive number"),
        ({"limit": True}, "limit must be a positive number"),
        ({"limit": 2.5}, "limit must be a positive number"),
        ({"limit": 2001}, "2001 images were asked for, but embedded, split train, .* has 2000"),
        ({"seed": -1}, "seed must be an integer from 0 on, not -1"),
        ({"crop": "middle"}, "crop must be one of center, random"),
        ({"size": 0}, "size must be positive"),
        ({"size": 64, "resize": 32}, r"resize \(32\) must not be smaller than size \(64\)"),
        ({"size": None, "resize": 32}, "resize=32 needs a size"),
    ],
)
def test_a_wrong_argument_is_an_error_that_names_it(arguments, message):
    with pytest.raises(data.DataError, match=message):
        data.load("embedded", **arguments)


def test_data_error_is_a_value_error():
    assert issubclass(data.DataError, ValueError)


def test_the_data_folder_is_the_argument_then_the_variable_then_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("JAXSNN_DATA", raising=False)
    assert data.default_data_dir() == tmp_path / "home" / ".cache" / "jaxsnn" / "data"
    monkeypatch.setenv("JAXSNN_DATA", str(tmp_path / "named"))
    assert data.default_data_dir() == tmp_path / "named"
    with pytest.raises(data.DataError, match=f"not found in {tmp_path / 'named'}: expected cifar-10-binary"):
        data.load("cifar10")
    with pytest.raises(data.DataError, match=f"{tmp_path / 'other'} does not exist"):
        data.load("cifar10", data_dir=tmp_path / "other")
    (tmp_path / "file").touch()
    with pytest.raises(data.DataError, match="is a file, but the folder with cifar10 was expected"):
        data.load("cifar10", data_dir=tmp_path / "file")


def test_an_error_of_the_file_system_is_a_data_error(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "x")

    (tmp_path / "cifar-10-batches-bin").mkdir()
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").touch()
    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(data.DataError, match=r"cifar10 cannot be read from .*Permission denied"):
        data.load("cifar10", "test", tmp_path)


def test_a_draw_is_balanced_at_every_length_and_the_same_for_the_same_seed():
    labels = np.repeat(np.arange(5), 40)
    drawn = draw.balanced(labels, 200, 3, "x")
    assert sorted(drawn) == list(range(200))
    for k in range(1, 201):
        counts = np.bincount(labels[drawn[:k]], minlength=5)
        assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(draw.balanced(labels, 33, 3, "x"), drawn[:33])
    assert not np.array_equal(draw.balanced(labels, 33, 4, "x"), drawn[:33])


def test_a_draw_takes_the_rest_from_larger_classes_when_a_small_one_runs_out():
    labels = np.array([0] * 50 + [1] * 2 + [2] * 50)
    counts = np.bincount(labels[draw.balanced(labels, 42, 0, "x")])
    assert counts.tolist() == [20, 2, 20]


def test_no_limit_keeps_the_order():
    assert draw.balanced(np.array([2, 0, 1]), None, 0, "x").tolist() == [0, 1, 2]


def test_the_content_hash_sees_pixels_labels_order_and_shape_and_nothing_else():
    base = _dataset(_pixels(1, 2), [0, 1])
    assert base.content_hash() == _dataset(_pixels(1, 2), [0, 1], ("c", "d", "e")).content_hash()
    others = [
        _dataset(_pixels(1, 3), [0, 1]),
        _dataset(_pixels(1, 2), [0, 0]),
        _dataset(_pixels(2, 1), [1, 0]),
        _dataset(_pixels(1, 2).reshape(2, 1, 1, 1)[:1], [0]),
    ]
    assert len({base.content_hash(), *(other.content_hash() for other in others)}) == 5
    wide, tall = np.zeros((1, 1, 2, 1)), np.zeros((1, 2, 1, 1))
    assert _dataset(wide, [0]).content_hash() != _dataset(tall, [0]).content_hash()


def test_the_content_hash_does_not_depend_on_the_memory_layout():
    images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    turned = np.asfortranarray(images)
    assert _dataset(images, [0, 1]).content_hash() == _dataset(turned, [0, 1]).content_hash()


def test_split_out_removes_by_pixels_and_keeps_the_order():
    whole = _dataset(_pixels(5, 6, 7, 6, 8), [0, 1, 0, 1, 0])
    left = data.split_out(whole, _dataset(_pixels(6, 9, 8), [0, 0, 0]))
    assert left.images.ravel().tolist() == [5, 7]
    assert left.labels.tolist() == [0, 0]
    assert len(data.split_out(whole, whole)) == 0


def test_split_out_refuses_images_of_other_sizes():
    with pytest.raises(data.DataError, match="cannot be compared"):
        data.split_out(_dataset(_pixels(1), [0]), _dataset(np.zeros((1, 2, 2, 1)), [0]))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((1, 2, 2)), [0], r"images must be uint8 \(N, H, W, C\), but are uint8 \(1, 2, 2\)"),
        (np.zeros((2, 1, 1, 1)), [0], r"labels must be int32 \(2,\), but are int32 \(1,\)"),
        (np.zeros((2, 1, 1, 1)), [0, 2], "record 1 has the label 2, but there are 2 classes, 0 to 1"),
        (np.zeros((2, 1, 1, 1)), [-1, 0], "record 0 has the label -1"),
    ],
)
def test_a_dataset_that_is_not_one_cannot_be_made(images, labels, message):
    with pytest.raises(data.DataError, match=message):
        _dataset(images, labels)


@pytest.mark.skipif(not os.path.isdir("/usr/share/datasets/fashion-mnist"), reason="needs Debian's package")
def test_fashion_mnist_is_found_where_debian_puts_it_unless_a_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSNN_DATA", str(tmp_path / "absent"))
    test = data.load("fashion_mnist", "test")
    assert test.images.shape == (10000, 28, 28, 1)
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert test.classes[test.labels[0]] == "Ankle boot"
    with pytest.raises(data.DataError, match="fashion_mnist was not found"):
        data.load("fashion_mnist", "test", tmp_path)
    with pytest.raises(data.DataError, match="holds fashion_mnist, but mnist was asked for"):
        data.load("mnist", "test", test.source)
