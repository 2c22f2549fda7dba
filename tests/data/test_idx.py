"""MNIST and Fashion-MNIST readers: exact, and a header is believed only after it has been checked."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import data

RNG = np.random.default_rng(5)


IMAGES = RNG.integers(0, 256, (6, 28, 28), np.uint8)


LABELS = np.array([0, 9, 3, 3, 1, 7], np.uint8)


def _raw(array, magic=None):
    header = struct.pack(f">{1 + array.ndim}I", magic or 0x0800 + array.ndim, *array.shape)
    return header + array.tobytes()


def _write(folder, prefix="t10k", images=IMAGES, labels=LABELS, packed=True):
    """Write both files of a split; `images` and `labels` are arrays, or bytes to be written as they are."""
    folder.mkdir(exist_ok=True)
    for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
        raw = content if isinstance(content, bytes) else _raw(content)
        name = f"{prefix}-{kind}-ubyte"
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(raw, mtime=0))
        else:
            (folder / name).write_bytes(raw)


@pytest.mark.parametrize("packed", [True, False], ids=["gz", "plain"])
@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
@pytest.mark.parametrize(
    ("name", "inner"), [("mnist", "mnist"), ("fashion_mnist", "fashion-mnist"), ("mnist", ".")]
)
def test_files_are_read_exactly_from_the_folder_or_its_own_inside(tmp_path, name, inner, split, prefix, packed):
    _write(tmp_path / inner, prefix, packed=packed)
    dataset = data.load(name, split, tmp_path)
    np.testing.assert_array_equal(dataset.images, IMAGES[..., None])
    np.testing.assert_array_equal(dataset.labels, LABELS)
    assert (dataset.images.dtype, dataset.labels.dtype) == (np.uint8, np.int32)
    assert dataset.source == str(tmp_path / inner)
    assert dataset.classes[9] == ("9" if name == "mnist" else "Ankle boot")


def test_missing_files_are_named_with_the_folders_searched(tmp_path):
    with pytest.raises(data.DataError, match=r"t10k-images-idx3-ubyte.gz or .* in .*/mnist, .*yann.lecun.com"):
        data.load("mnist", "test", tmp_path)
    with pytest.raises(data.DataError, match="install Debian's package dataset-fashion-mnist"):
        data.load("fashion_mnist", "test", tmp_path)
    _write(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(data.DataError, match=r"expected t10k-labels-idx1-ubyte.gz"):
        data.load("mnist", "test", tmp_path)


@pytest.mark.parametrize("packed", [True, False], ids=["gz", "plain"])
@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (_raw(IMAGES, magic=2049), LABELS, "magic number 2049, but 2051 was expected"),
        (IMAGES, _raw(LABELS, magic=2051), "magic number 2051, but 2049 was expected"),
        (np.zeros((6, 28, 27), np.uint8), LABELS, r"declares images of \[28, 27\], but \[28, 28\]"),
        (IMAGES[:0], LABELS[:0], "declares no records"),
        (IMAGES[:5], LABELS, "has 5 images, but t10k-labels.* has 6 labels"),
        (IMAGES, np.array([0, 1, 2, 10, 4, 5], np.uint8), "record 3 has the label 10, but mnist has"),
        (_raw(IMAGES)[:-1], LABELS, "declares 4704 bytes"),
        (_raw(IMAGES) + b"\0", LABELS, "declares 4704 bytes of data, but more than 4704 follow"),
        (_raw(IMAGES)[:9], LABELS, "its header has 9 of 16 bytes"),
        (b"", LABELS, "its header has 0 of 16 bytes"),
        (
            struct.pack(">4I", 2051, 2**32 - 1, 28, 28),
            LABELS,
            f"declares {(2**32 - 1) * 784} bytes .* but the file",
        ),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused(tmp_path, images, labels, message, packed):
    _write(tmp_path, images=images, labels=labels, packed=packed)
    with pytest.raises(data.DataError, match=message):
        data.load("mnist", "test", tmp_path)


def test_one_dataset_in_the_place_of_the_other_is_noticed(tmp_path):
    fashion = np.array([9, 2, 1, 1, 6, 1, 4, 6, 5, 7, 0], np.uint8)
    _write(tmp_path, images=np.zeros((11, 28, 28), np.uint8), labels=fashion)
    assert len(data.load("fashion_mnist", "test", tmp_path)) == 11
    with pytest.raises(data.DataError, match="holds fashion_mnist, but mnist was asked for"):
        data.load("mnist", "test", tmp_path)


def test_a_wrong_gzip_checksum_is_noticed(tmp_path):
    _write(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    raw = bytearray(path.read_bytes())
    raw[-8] ^= 1
    path.write_bytes(raw)
    with pytest.raises(data.DataError, match=f"CRC.*{len(raw)} bytes"):
        data.load("mnist", "test", tmp_path)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(
    of_labels=st.booleans(),
    cut=st.one_of(st.none(), st.floats(0, 1)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
)
def test_a_damaged_gz_gives_the_right_data_or_a_data_error(tmp_path, of_labels, cut, changes):
    _write(tmp_path)
    path = tmp_path / f"t10k-{'labels-idx1' if of_labels else 'images-idx3'}-ubyte.gz"
    raw = bytearray(path.read_bytes())
    raw = raw if cut is None else raw[: int(cut * len(raw))]
    for place, value in changes:
        if raw:
            raw[int(place * len(raw))] = value
    path.write_bytes(raw)
    try:
        dataset = data.load("mnist", "test", tmp_path)
    except data.DataError as error:
        assert "\n" not in str(error)
    else:
        np.testing.assert_array_equal(dataset.images, IMAGES[..., None])
        np.testing.assert_array_equal(dataset.labels, LABELS)
