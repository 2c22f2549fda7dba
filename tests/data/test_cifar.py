"""CIFAR readers: every official layout, packed or not, is read exactly, and no damage goes unnoticed.

The layouts here are the official ones with a few records a file in place of thousands.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import data
from data import archive, cifar, safe_pickle

RECORDS = {"train": 4, "test": 3}


LAYOUTS = [("cifar10", 0), ("cifar10", 1), ("cifar100", 0), ("cifar100", 1)]


IDS = ["cifar10-binary", "cifar10-python", "cifar100-binary", "cifar100-python"]


@pytest.fixture(autouse=True)
def few_records(monkeypatch):
    for name in ("CIFAR10", "CIFAR100"):
        monkeypatch.setattr(cifar, name, _small(getattr(cifar, name)))


def _small(family):
    layouts = tuple(dataclasses.replace(layout, records=RECORDS) for layout in family.layouts)
    return dataclasses.replace(family, layouts=layouts)


SMALL = {"cifar10": _small(cifar.CIFAR10), "cifar100": _small(cifar.CIFAR100)}


def _expected(name, split):
    """Images (N, 32, 32, 3) and labels (N,), different in every byte's place, colour and record."""
    layout = SMALL[name].layouts[0]
    count = len(layout.members[split]) * RECORDS[split]
    rng = np.random.default_rng((len(name), count))
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, len(SMALL[name].classes), count)


def _file_contents(name, place, split):
    """The bytes of each file of one split, written by the description of the format on the official page."""
    layout = SMALL[name].layouts[place]
    images, labels = _expected(name, split)
    out = {}
    for i, member in enumerate(layout.members[split]):
        part = slice(i * RECORDS[split], (i + 1) * RECORDS[split])
        planes = images[part].transpose(0, 3, 1, 2).reshape(-1, 3072)
        if place == 0:
            coarse = [b"\x07"] if name == "cifar100" else []
            rows = [b"".join([*coarse, bytes([label]), row.tobytes()]) for label, row in zip(labels[part], planes)]
            out[member] = b"".join(rows)
        else:
            key = "labels" if name == "cifar10" else "fine_labels"
            out[member] = _python2_pickle(planes, labels[part].tolist(), key)
    return out


def _python2_pickle(planes, labels, key):
    """A batch as Python 2 pickled the official ones: protocol 2, str as bytes, numpy.core."""

    def text(value):
        return b"U" + bytes([len(value)]) + value.encode()

    dtype = b"cnumpy\ndtype\n" + text("u1") + b"K\x00K\x01\x87R(K\x03" + text("|")
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b") + b"\x87R"
    array += b"(K\x01K" + bytes([len(planes)]) + b"M" + struct.pack("<H", planes.shape[1]) + b"\x86" + dtype
    array += b"\x89T" + struct.pack("<i", planes.nbytes) + planes.tobytes() + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text("data") + array + text(key) + numbers + text("batch_label") + text("x") + b"u."


def _tar(contents, folder):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member, raw in contents.items():
            info = tarfile.TarInfo(f"{folder}/{member}")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return out.getvalue()


def _everything(name, place):
    return {**_file_contents(name, place, "train"), **_file_contents(name, place, "test")}


def _packed(name, place):
    layout = SMALL[name].layouts[place]
    return gzip.compress(_tar(_everything(name, place), layout.folder), mtime=0)


def _write_packed(folder, name, place):
    path = folder / SMALL[name].layouts[place].archive.name
    path.write_bytes(_packed(name, place))
    return path


def _write_unpacked(folder, name, place):
    path = folder / SMALL[name].layouts[place].folder
    path.mkdir()
    for member, raw in _everything(name, place).items():
        (path / member).write_bytes(raw)
    return path


def _check(dataset, name, split):
    images, labels = _expected(name, split)
    np.testing.assert_array_equal(dataset.images, images)
    np.testing.assert_array_equal(dataset.labels, labels)
    assert (dataset.images.dtype, dataset.labels.dtype) == (np.uint8, np.int32)
    assert (dataset.name, dataset.split) == (name, split)
    assert dataset.classes == SMALL[name].classes


def test_class_names_are_the_official_ones():
    assert cifar.CIFAR10_CLASSES[0] == "airplane" and cifar.CIFAR10_CLASSES[9] == "truck"
    assert len(cifar.CIFAR100_CLASSES) == len(set(cifar.CIFAR100_CLASSES)) == 100
    assert list(cifar.CIFAR100_CLASSES) == sorted(cifar.CIFAR100_CLASSES)


@pytest.mark.parametrize(("name", "place"), LAYOUTS, ids=IDS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_archive_is_read_exactly_and_nothing_is_written(tmp_path, name, place, split):
    path = _write_packed(tmp_path, name, place)
    shares = []
    dataset = data.load(name, split, tmp_path, progress=shares.append)
    _check(dataset, name, split)
    assert shares[0] == 0.0 and shares[-1] == 1.0 and shares == sorted(shares)
    assert dataset.source == str(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("name", "place"), LAYOUTS, ids=IDS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_unpacked_folder_is_read_by_its_parent_by_its_name_and_renamed(tmp_path, name, place, split):
    folder = _write_unpacked(tmp_path, name, place)
    _check(data.load(name, split, tmp_path), name, split)
    _check(data.load(name, split, str(folder)), name, split)
    renamed = folder.rename(tmp_path / "renamed")
    _check(data.load(name, split, renamed), name, split)


def test_a_limit_draws_the_same_number_of_each_class_where_it_can(tmp_path):
    _write_packed(tmp_path, "cifar10", 0)
    whole, part = (
        data.load("cifar10", "train", tmp_path),
        data.load("cifar10", "train", tmp_path, limit=5, seed=1),
    )
    assert len(part) == 5 and len(set(part.labels.tolist())) == 5
    assert len(data.split_out(whole, part)) == 15
    assert data.load("cifar10", "train", tmp_path, limit=5, seed=1).content_hash() == part.content_hash()
    with pytest.raises(data.DataError, match=r"21 images were asked for, but cifar10, split train, .* has 20"):
        data.load("cifar10", "train", tmp_path, limit=21)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_a_batch_pickled_again_by_python_3_is_read(tmp_path, protocol):
    folder = _write_unpacked(tmp_path, "cifar10", 1)
    images, labels = _expected("cifar10", "test")
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(-1, 3072))
    for keys in ((b"data", b"labels"), ("data", "labels")):
        batch = dict(zip(keys, (planes, labels.tolist())), filenames=[b"", b"a.png", "é.png"])
        raw = pickle.dumps(batch, protocol=protocol)
        for old, new in ((b"numpy._core.multiarray", b"numpy.core.multiarray"), (b"", b"")):
            if protocol < 4:  # protocol 4 puts the length in front of the name
                raw = raw.replace(old, new) if old else raw
            (folder / "test_batch").write_bytes(raw)
            _check(data.load("cifar10", "test", tmp_path), "cifar10", "test")


def test_the_largest_pickle_of_bright_pixels_is_not_too_large(tmp_path):
    folder = _write_unpacked(tmp_path, "cifar10", 1)
    batch = {b"data": np.full((3, 3072), 255, np.uint8), b"labels": [0, 1, 2]}
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    assert (data.load("cifar10", "test", tmp_path).images == 255).all()


def test_fortran_order_is_kept():
    array = np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    np.testing.assert_array_equal(safe_pickle.loads(pickle.dumps({"x": array}, protocol=2))["x"], array)


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
        (tmp_path / layout.archive.name).write_bytes(gzip.compress(_tar({"test_batch": bad}, layout.folder)))
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
    folder = _write_unpacked(tmp_path, "cifar10", 1)
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(data.DataError, match=message):
        data.load("cifar10", "test", tmp_path)


@pytest.mark.parametrize(("name", "place", "classes"), [("cifar10", 0, 10), ("cifar100", 0, 100)])
def test_a_label_outside_the_classes_is_named_with_its_file_and_record(tmp_path, name, place, classes):
    folder = _write_unpacked(tmp_path, name, place)
    member = SMALL[name].layouts[place].members["test"][0]
    raw = bytearray((folder / member).read_bytes())
    before = len(raw) // 3 - 3072
    raw[2 * (before + 3072) + before - 1] = classes
    (folder / member).write_bytes(raw)
    with pytest.raises(data.DataError, match=rf"{member} in .*: record 2 has the label {classes}, but {name} has"):
        data.load(name, "test", tmp_path)


# Missing and damaged files.


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_missing_archive_is_named_with_its_size_its_page_and_the_folder(tmp_path, name):
    with pytest.raises(data.DataError) as caught:
        data.load(name, "train", tmp_path)
    for layout in SMALL[name].layouts:
        for part in (layout.archive.name, str(layout.archive.size), layout.archive.page, layout.folder):
            assert part in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_in_an_unpacked_folder_is_named(tmp_path):
    folder = _write_unpacked(tmp_path, "cifar10", 0)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(data.DataError, match=r"has no file data_batch_3.bin: unpack cifar-10-binary.tar.gz"):
        data.load("cifar10", "train", tmp_path)


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path):
    (tmp_path / "cifar-10-batches-bin").touch()
    with pytest.raises(data.DataError, match=r"is a file, but the folder unpacked from cifar-10-binary.tar.gz"):
        data.load("cifar10", "train", tmp_path)


@pytest.mark.parametrize("cut", [0, 1, 3073, 2 * 3073, 3 * 3073 - 1, 3 * 3073 + 1])
def test_an_unpacked_file_of_another_length_is_an_error_with_both_lengths(tmp_path, cut):
    path = _write_unpacked(tmp_path, "cifar10", 0) / "test_batch.bin"
    path.write_bytes((path.read_bytes() + b"\0")[:cut])
    with pytest.raises(data.DataError, match=f"{cut} bytes, but .*{3 * 3073}"):
        data.load("cifar10", "test", tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_a_truncated_archive_is_an_error_with_actual_and_expected_bytes(tmp_path, share):
    path = _write_packed(tmp_path, "cifar10", 0)
    raw = path.read_bytes()
    cut = int(share * len(raw))
    path.write_bytes(raw[:cut])
    with pytest.raises(
        data.DataError, match=f"truncated .* has {cut} bytes, the official one has 170052171 bytes"
    ):
        data.load("cifar10", "test", tmp_path)


def test_the_official_size_with_another_md5_is_an_error_with_both(tmp_path, monkeypatch):
    path = _write_packed(tmp_path, "cifar10", 0)
    raw = path.read_bytes()
    md5 = hashlib.md5(raw).hexdigest()

    def publish(md5):
        known = archive.Archive(path.name, len(raw), md5, "a page")
        layout = dataclasses.replace(cifar.CIFAR10.layouts[0], archive=known)
        monkeypatch.setattr(cifar, "CIFAR10", dataclasses.replace(cifar.CIFAR10, layouts=(layout,)))

    publish(md5)
    _check(data.load("cifar10", "test", tmp_path), "cifar10", "test")
    publish("0" * 32)
    with pytest.raises(data.DataError, match=f"official size but the md5 {md5} where {'0' * 32} was expected"):
        data.load("cifar10", "test", tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_a_member_that_is_no_plain_file_is_refused(tmp_path, kind):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(out.getvalue())
    with pytest.raises(data.DataError, match="is not a plain file"):
        data.load("cifar10", "test", tmp_path)


def test_a_member_larger_than_the_official_one_is_refused_before_it_is_read(tmp_path):
    raw = gzip.compress(_tar({"test_batch.bin": bytes(1 << 20)}, "cifar-10-batches-bin"))
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(raw)
    with pytest.raises(data.DataError, match=f"has {1 << 20} bytes, but at most {3 * 3073} were expected"):
        data.load("cifar10", "test", tmp_path)


def test_an_archive_of_something_else_is_said_to_lack_the_member(tmp_path):
    raw = gzip.compress(_tar({"test_batch.bin": b""}, "another-folder"))
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(raw)
    with pytest.raises(data.DataError, match=r"has no member cifar-10-batches-bin/test_batch.bin"):
        data.load("cifar10", "test", tmp_path)


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
    (tmp_path / SMALL[name].layouts[place].archive.name).write_bytes(_damage(_packed(name, place), damage))
    try:
        dataset = data.load(name, "test", tmp_path)
    except data.DataError as error:
        assert "\n" not in str(error)
    else:
        _check(dataset, name, "test")


@pytest.mark.parametrize("place", [0, 1], ids=["binary", "python"])
@PROPERTY
@given(damage=DAMAGE)
def test_a_tar_damaged_before_it_was_compressed_never_ends_in_another_error(tmp_path, place, damage):
    layout = SMALL["cifar10"].layouts[place]
    raw = _tar(_file_contents("cifar10", place, "test"), layout.folder)[: 512 + 3 * 3400]
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
    raw = bytearray(_python2_pickle(planes, [1, 2], "labels"))
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
    raw = _file_contents("cifar10", place, "test")[member]
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
