"""CIFAR readers: no damage goes unnoticed and no pickle runs anything; the right data come out, or a DataError."""

import contextlib
import gzip
import os
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import data
from data import safe_pickle
from helpers.cifar_files import (
    IDS,
    LAYOUTS,
    SMALL,
    check_exact,
    file_contents,
    packed,
    python2_pickle,
    shorten,
    tar_of,
    write_unpacked,
)


@pytest.fixture(autouse=True)
def few_records(monkeypatch):
    shorten(monkeypatch)


# What a hostile or careless file may hold.


class _Runs:
    """Creates a file when it is unpickled by anything that calls what a pickle names."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("packed", [True, False])
def test_a_pickle_that_calls_a_function_is_refused_and_nothing_runs(tmp_path, monkeypatch, protocol, packed):
    trap = tmp_path / "it ran"
    bad = pickle.dumps({b"data": _Runs(trap), b"labels": []}, protocol=protocol)
    layout = SMALL["cifar10"].layouts[1]
    if packed:
        (tmp_path / layout.archive.name).write_bytes(gzip.compress(tar_of({"test_batch": bad}, layout.folder)))
    else:
        (tmp_path / layout.folder).mkdir()
        (tmp_path / layout.folder / "test_batch").write_bytes(bad)
    with pytest.raises(data.DataError, match=r"test_batch in .* was refused: it asks for \w+.mkdir"):
        data.load("cifar10", "test", tmp_path)
    assert not trap.exists()
    pickle.loads(bad)
    assert trap.exists()


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x80\x02cbuiltins\neval\n(U\x011tR.",
        b"\x80\x02c__builtin__\nexec\n(U\x011tR.",
        b"\x80\x02cnumpy\nload\n(U\x01xtR.",
        b"\x80\x04\x8c\x0cnumpy.f2py.x\x8c\x01y\x93.",
        b"(ios\nsystem\n.",
        b"(cos\nsystem\nU\x01xo.",
        b"\x80\x02cnumpy\ndtype\n(tR}U\x08__init__U\x01xsb.",
        b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aU\x05utf-7tR.",
        b"\x80\x02cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02U\x01xQ.",
    ],
)
def test_other_ways_to_reach_code_or_memory_are_refused(hostile):
    with pytest.raises(safe_pickle.RefusedPickle):
        safe_pickle.loads(hostile)


def test_a_pickle_cannot_change_the_reader_for_the_next_one():
    # BUILD with a state of two parts sets attributes, here on the stand-in for numpy.dtype itself.
    pickle_that_sets = b"\x80\x02cnumpy\ndtype\nN}X\x0c\x00\x00\x00__defaults__)s\x86b."
    with pytest.raises(safe_pickle.RefusedPickle, match="it sets the state of a function"):
        safe_pickle.loads(pickle_that_sets)
    np.testing.assert_array_equal(
        safe_pickle.loads(pickle.dumps(np.arange(3, dtype=np.uint8), protocol=2)), [0, 1, 2]
    )


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([1], "holds a list where a dict was expected"),
        ({}, "'data' is NoneType, but a uint8 array"),
        ({b"data": np.zeros((3, 3071), np.uint8)}, r"'data' is \(3, 3071\), but a uint8 array \(3, 3072\)"),
        ({b"data": np.zeros((1, 3072), np.float32)}, "an array of type 'f4'; only uint8"),
        ({b"data": np.zeros((2, 3072), np.uint8)}, r"'data' is \(2, 3072\)"),
        ({b"data": np.zeros((3, 3072), np.uint8)}, "'labels' is not a list of integers"),
        (
            {b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, True, 1]},
            "'labels' is not a list of integers",
        ),
        (
            {b"data": np.zeros((3, 3072), np.uint8), b"labels": [0]},
            "'labels' has 1 entries, but 3 were expected",
        ),
        ({b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 10, 0]}, "record 1 has the label 10"),
        ({b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 0, -1]}, "record 2 has the label -1"),
        ({b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 0, 2**80]}, "too large for a label"),
    ],
)
def test_a_batch_of_another_form_is_refused_with_what_was_expected(tmp_path, batch, message):
    folder = write_unpacked(tmp_path, "cifar10", 1)
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(data.DataError, match=message):
        data.load("cifar10", "test", tmp_path)


@pytest.mark.parametrize(("name", "place", "classes"), [("cifar10", 0, 10), ("cifar100", 0, 100)])
def test_a_label_outside_the_classes_is_named_with_its_file_and_record(tmp_path, name, place, classes):
    folder = write_unpacked(tmp_path, name, place)
    member = SMALL[name].layouts[place].members["test"][0]
    raw = bytearray((folder / member).read_bytes())
    before = len(raw) // 3 - 3072
    raw[2 * (before + 3072) + before - 1] = classes
    (folder / member).write_bytes(raw)
    with pytest.raises(data.DataError, match=rf"{member} in .*: record 2 has the label {classes}, but {name} has"):
        data.load(name, "test", tmp_path)


# Whatever happens to a file, what comes out is the right data or a DataError.

DAMAGE = st.tuples(
    st.one_of(st.none(), st.floats(0, 1)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
)


PROPERTY = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


def _damage(raw, damage):
    cut, changes = damage
    out = bytearray(raw if cut is None else raw[: int(cut * len(raw))])
    for place, value in changes:
        if out:
            out[int(place * len(out))] = value
    return bytes(out)


@pytest.mark.parametrize(("name", "place"), LAYOUTS, ids=IDS)
@PROPERTY
@given(damage=DAMAGE)
def test_a_damaged_archive_gives_the_right_data_or_a_data_error(tmp_path, name, place, damage):
    (tmp_path / SMALL[name].layouts[place].archive.name).write_bytes(_damage(packed(name, place), damage))
    try:
        dataset = data.load(name, "test", tmp_path)
    except data.DataError as error:
        assert "\n" not in str(error)
    else:
        check_exact(dataset, name, "test")


@pytest.mark.parametrize("place", [0, 1], ids=["binary", "python"])
@PROPERTY
@given(damage=DAMAGE)
def test_a_tar_damaged_before_it_was_compressed_never_ends_in_another_error(tmp_path, place, damage):
    layout = SMALL["cifar10"].layouts[place]
    raw = tar_of(file_contents("cifar10", place, "test"), layout.folder)[: 512 + 3 * 3400]
    (tmp_path / layout.archive.name).write_bytes(gzip.compress(_damage(raw, damage), 1))
    try:
        dataset = data.load("cifar10", "test", tmp_path)
    except data.DataError:
        return
    assert dataset.images.shape == (3, 32, 32, 3)


@PROPERTY
@given(
    cut=st.integers(0, 500),
    changes=st.lists(st.tuples(st.integers(0, 499), st.integers(0, 255)), max_size=6),
)
def test_a_damaged_pickle_never_ends_in_another_error(cut, changes):
    # The pixels are left out, so that nearly every change hits what drives the unpickler.
    planes = np.zeros((2, 8), np.uint8)
    raw = bytearray(python2_pickle(planes, [1, 2], "labels"))
    for place, value in changes:
        raw[place % len(raw)] = value
    with contextlib.suppress(safe_pickle.RefusedPickle):
        safe_pickle.loads(bytes(raw[: len(raw) - cut % 60]))


@pytest.mark.parametrize("place", [0, 1], ids=["binary", "python"])
@PROPERTY
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_truncated_unpacked_file_is_always_noticed(tmp_path, place, cut):
    layout = SMALL["cifar10"].layouts[place]
    folder = tmp_path / layout.folder
    folder.mkdir(exist_ok=True)
    (member,) = layout.members["test"]
    raw = file_contents("cifar10", place, "test")[member]
    (folder / member).write_bytes(raw[: int(cut * len(raw))])
    with pytest.raises(data.DataError):
        data.load("cifar10", "test", tmp_path)


def test_a_pickle_that_declares_gigabytes_is_refused_before_they_are_made():
    declared = (3 << 30).to_bytes(8, "little")
    for code in (pickle.BYTEARRAY8, pickle.BINBYTES8, pickle.BINUNICODE8):
        tracemalloc.start()
        try:
            with pytest.raises(safe_pickle.RefusedPickle):
                safe_pickle.loads(b"\x80\x05" + code + declared + b"abc.")
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()


def test_a_name_with_a_line_break_is_refused_in_one_line():
    names = b"".join(b"\x8c" + bytes([len(text)]) + text for text in (b"num\npy", b"\x1b[2J"))
    with pytest.raises(safe_pickle.RefusedPickle, match=r"it asks for num\\npy\.\\x1b\[2J, which"):
        safe_pickle.loads(b"\x80\x04" + names + b"\x93.")
