"""CIFAR readers: every official layout, packed or not, is read exactly; what is missing or cut short is named."""

import dataclasses
import gzip
import hashlib
import io
import pickle
import tarfile

import numpy as np
import pytest

import data
from data import archive, cifar, safe_pickle
from helpers.cifar_files import (
    IDS,
    LAYOUTS,
    SMALL,
    check_exact,
    expected,
    shorten,
    tar_of,
    write_packed,
    write_unpacked,
)


@pytest.fixture(autouse=True)
def few_records(monkeypatch):
    shorten(monkeypatch)


def test_class_names_are_the_official_ones():
    assert cifar.CIFAR10_CLASSES[0] == "airplane" and cifar.CIFAR10_CLASSES[9] == "truck"
    assert len(cifar.CIFAR100_CLASSES) == len(set(cifar.CIFAR100_CLASSES)) == 100
    assert list(cifar.CIFAR100_CLASSES) == sorted(cifar.CIFAR100_CLASSES)


@pytest.mark.parametrize(("name", "place"), LAYOUTS, ids=IDS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_archive_is_read_exactly_and_nothing_is_written(tmp_path, name, place, split):
    path = write_packed(tmp_path, name, place)
    shares = []
    dataset = data.load(name, split, tmp_path, progress=shares.append)
    check_exact(dataset, name, split)
    assert shares[0] == 0.0 and shares[-1] == 1.0 and shares == sorted(shares)
    assert dataset.source == str(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("name", "place"), LAYOUTS, ids=IDS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_unpacked_folder_is_read_by_its_parent_by_its_name_and_renamed(tmp_path, name, place, split):
    folder = write_unpacked(tmp_path, name, place)
    check_exact(data.load(name, split, tmp_path), name, split)
    check_exact(data.load(name, split, str(folder)), name, split)
    renamed = folder.rename(tmp_path / "renamed")
    check_exact(data.load(name, split, renamed), name, split)


def test_a_limit_draws_the_same_number_of_each_class_where_it_can(tmp_path):
    write_packed(tmp_path, "cifar10", 0)
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
    folder = write_unpacked(tmp_path, "cifar10", 1)
    images, labels = expected("cifar10", "test")
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(-1, 3072))
    for keys in ((b"data", b"labels"), ("data", "labels")):
        batch = dict(zip(keys, (planes, labels.tolist())), filenames=[b"", b"a.png", "é.png"])
        raw = pickle.dumps(batch, protocol=protocol)
        for old, new in ((b"numpy._core.multiarray", b"numpy.core.multiarray"), (b"", b"")):
            if protocol < 4:  # protocol 4 puts the length in front of the name
                raw = raw.replace(old, new) if old else raw
            (folder / "test_batch").write_bytes(raw)
            check_exact(data.load("cifar10", "test", tmp_path), "cifar10", "test")


def test_the_largest_pickle_of_bright_pixels_is_not_too_large(tmp_path):
    folder = write_unpacked(tmp_path, "cifar10", 1)
    batch = {b"data": np.full((3, 3072), 255, np.uint8), b"labels": [0, 1, 2]}
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    assert (data.load("cifar10", "test", tmp_path).images == 255).all()


def test_fortran_order_is_kept():
    array = np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    np.testing.assert_array_equal(safe_pickle.loads(pickle.dumps({"x": array}, protocol=2))["x"], array)


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
    folder = write_unpacked(tmp_path, "cifar10", 0)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(data.DataError, match=r"has no file data_batch_3.bin: unpack cifar-10-binary.tar.gz"):
        data.load("cifar10", "train", tmp_path)


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path):
    (tmp_path / "cifar-10-batches-bin").touch()
    with pytest.raises(data.DataError, match=r"is a file, but the folder unpacked from cifar-10-binary.tar.gz"):
        data.load("cifar10", "train", tmp_path)


@pytest.mark.parametrize("cut", [0, 1, 3073, 2 * 3073, 3 * 3073 - 1, 3 * 3073 + 1])
def test_an_unpacked_file_of_another_length_is_an_error_with_both_lengths(tmp_path, cut):
    path = write_unpacked(tmp_path, "cifar10", 0) / "test_batch.bin"
    path.write_bytes((path.read_bytes() + b"\0")[:cut])
    with pytest.raises(data.DataError, match=f"{cut} bytes, but .*{3 * 3073}"):
        data.load("cifar10", "test", tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_a_truncated_archive_is_an_error_with_actual_and_expected_bytes(tmp_path, share):
    path = write_packed(tmp_path, "cifar10", 0)
    raw = path.read_bytes()
    cut = int(share * len(raw))
    path.write_bytes(raw[:cut])
    with pytest.raises(
        data.DataError, match=f"truncated .* has {cut} bytes, the official one has 170052171 bytes"
    ):
        data.load("cifar10", "test", tmp_path)


def test_the_official_size_with_another_md5_is_an_error_with_both(tmp_path, monkeypatch):
    path = write_packed(tmp_path, "cifar10", 0)
    raw = path.read_bytes()
    md5 = hashlib.md5(raw).hexdigest()

    def publish(md5):
        known = archive.Archive(path.name, len(raw), md5, "a page")
        layout = dataclasses.replace(cifar.CIFAR10.layouts[0], archive=known)
        monkeypatch.setattr(cifar, "CIFAR10", dataclasses.replace(cifar.CIFAR10, layouts=(layout,)))

    publish(md5)
    check_exact(data.load("cifar10", "test", tmp_path), "cifar10", "test")
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
    raw = gzip.compress(tar_of({"test_batch.bin": bytes(1 << 20)}, "cifar-10-batches-bin"))
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(raw)
    with pytest.raises(data.DataError, match=f"has {1 << 20} bytes, but at most {3 * 3073} were expected"):
        data.load("cifar10", "test", tmp_path)


def test_an_archive_of_something_else_is_said_to_lack_the_member(tmp_path):
    raw = gzip.compress(tar_of({"test_batch.bin": b""}, "another-folder"))
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(raw)
    with pytest.raises(data.DataError, match=r"has no member cifar-10-batches-bin/test_batch.bin"):
        data.load("cifar10", "test", tmp_path)
