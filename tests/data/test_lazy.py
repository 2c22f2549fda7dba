"""Images that are decoded when they are asked for: what is read when, and what is said of bad ones."""

import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data
from data import folder, lazy, listing, pictures


class Numbers:
    """A source whose image i is full of i; what is read is noted."""

    shape = (4, 4, 1)

    def __init__(self, count, bad=()):
        self.count, self.bad = count, set(bad)
        self.reads, self.threads = [], set()

    def __len__(self):
        return self.count

    def read(self, index):
        self.reads.append(index)
        self.threads.add(threading.current_thread().name)
        if index in self.bad:
            raise pictures.Unreadable(f"it is number {index}")
        return np.full(self.shape, index, np.uint8)

    def name(self, index):
        return f"n{index:04}"

    def identity(self, rows):
        return rows.tobytes()


def _first(images):
    return np.asarray(images)[..., 0, 0, 0].tolist()


@pytest.mark.parametrize(
    "index",
    [
        *(3, np.int64(3), -1, slice(2, 7), slice(7, 2), slice(None, None, 3), [5, 1, 5], np.arange(10) > 6),
        *((slice(2, 4), 0, 0, 0), (3, 0), ([1, 2], slice(None), 0), (..., 0)),
    ],
)
def test_it_is_indexed_as_the_array_would_be(index):
    images, array = lazy.LazyImages(Numbers(10)), np.stack([np.full((4, 4, 1), i, np.uint8) for i in range(10)])
    found = images[index]
    assert isinstance(found, np.ndarray) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, array[index])
    assert (images.shape, images.ndim, images.nbytes, len(images)) == (array.shape, 4, array.nbytes, 10)
    np.testing.assert_array_equal(np.asarray(images), array)
    np.testing.assert_array_equal(list(images), list(array))


def test_only_what_is_asked_for_is_decoded_once_and_parts_share_it():
    source = Numbers(100)
    images = lazy.LazyImages(source)
    part = images.part(np.array([7, 50, 7]))
    assert source.reads == [] and part.shape == (3, 4, 4, 1)
    assert _first(part) == [7, 50, 7] and _first(images[[50, 3]]) == [50, 3] and _first(part.part([1])) == [50]
    assert sorted(source.reads) == [3, 7, 50]
    with pytest.raises(IndexError):
        _ = images[[100]]


def test_no_more_is_kept_than_the_bound():
    source = Numbers(50)
    images = lazy.LazyImages(source, keep=10 * 16)
    for _ in range(2):
        assert _first(images[np.arange(50)]) == list(range(50))
    assert len(source.reads) == 50 + 40


def test_slices_in_turn_are_decoded_ahead_in_another_thread():
    source = Numbers(40)
    images = lazy.LazyImages(source, keep=0)
    for start in range(0, 40, 10):
        assert _first(images[start : start + 10]) == list(range(start, start + 10))
    assert sorted(source.reads) == list(range(40))
    assert all(name.startswith("data-decode") for name in source.threads)


def test_bad_images_are_counted_and_the_first_named():
    images = lazy.LazyImages(Numbers(3000, bad=range(200, 3000)))
    with pytest.raises(data.DataError) as caught:
        _ = images[np.arange(2000)]
    assert str(caught.value).startswith(
        "1800 of 2000 images cannot be read: n0200 (it is number 200), n0201 (it is number 201), n0202"
    )
    assert str(caught.value).endswith("n0204 (it is number 204) and 1795 more; replace or remove them")
    with pytest.raises(data.DataError, match=r"^n0700 cannot be read as an image \(it is number 700\): replace"):
        _ = images[700]


def test_more_than_fits_into_memory_is_refused_before_it_is_tried():
    class Vast(Numbers):
        shape = (1 << 15, 1 << 15, 3)

    with pytest.raises(data.DataError, match=r"100000 images of .* do not fit into memory \(322122.5 GB\)"):
        np.asarray(lazy.LazyImages(Vast(100_000)))


def _tree(root, split="train", classes=("a", "b"), count=3, size=(8, 8)):
    for label, name in enumerate(classes):
        (root / split / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", size, (label, i, 0)).save(root / split / name / f"{i}.png")
    return root


def test_loading_a_tree_decodes_nothing(tmp_path, monkeypatch):
    _tree(tmp_path)
    monkeypatch.setattr(pictures, "decode", lambda *_: pytest.fail("it was decoded"))
    dataset = data.load("imagefolder", "train", tmp_path)
    assert isinstance(dataset.images, data.LazyImages)
    assert dataset.images.shape == (6, 8, 8, 3) and dataset.labels.tolist() == [0] * 3 + [1] * 3
    assert len(dataset.select(np.array([0, 5]))) == 2
    assert len(dataset.content_hash()) == 64


def test_the_content_hash_follows_names_sizes_labels_and_geometry(tmp_path):
    _tree(tmp_path)

    def found(**options):
        return data.load("imagefolder", "train", tmp_path, **options)

    base = found()
    assert base.content_hash() == found().content_hash()
    part = base.select(np.array([1, 3]))
    hashes = {base.content_hash(), part.content_hash(), found(size=4).content_hash()}
    hashes.add(found(size=4, crop="random", seed=1).content_hash())
    (tmp_path / "train" / "a" / "1.png").write_bytes((tmp_path / "train" / "a" / "1.png").read_bytes() + b"\0")
    hashes.add(found().content_hash())
    (tmp_path / "train" / "a" / "0.png").rename(tmp_path / "train" / "a" / "00.png")
    hashes.add(found().content_hash())
    assert len(hashes) == 6


def test_squares_of_one_small_size_keep_it_and_others_become_224(tmp_path):
    _tree(tmp_path, size=(32, 32))
    assert data.load("imagefolder", "train", tmp_path).images.shape[1:] == (32, 32, 3)
    assert (data.load("imagefolder", "train", tmp_path).images[1] == (0, 1, 0)).all()
    assert data.load("imagefolder", "train", tmp_path, size=16).images.shape[1:] == (16, 16, 3)
    Image.new("RGB", (33, 32)).save(tmp_path / "train" / "b" / "x.png")
    assert data.load("imagefolder", "train", tmp_path).images.shape[1:] == (224, 224, 3)
    with pytest.raises(data.DataError, match="the images of embedded keep their own size"):
        data.load("embedded", size=16)


def test_headers_are_read_before_any_work(tmp_path):
    root = _tree(tmp_path, count=12)
    bad = root / "train" / "a"
    (bad / "0.png").write_bytes(b"")
    (bad / "1.png").write_bytes(b"plain text")
    (bad / "2.png").unlink()
    (bad / "2.png").symlink_to("nowhere.png")
    with pytest.raises(data.DataError, match=r"2.png .*\(it is a link to a file that does not exist\): replace"):
        data.load("imagefolder", "train", root)
    (bad / "2.png").unlink()
    (bad / "2.png").symlink_to(bad / "2.png")  # a circle
    with pytest.raises(data.DataError, match=r"2.png .*\(it is a link to a file that does not exist\): replace"):
        data.load("imagefolder", "train", root)
    (bad / "2.png").unlink()
    with pytest.raises(
        data.DataError, match=r"2 of 23 images cannot .*0.png \(it is empty\), .*1.png \(it is none"
    ):
        data.load("imagefolder", "train", root)


def test_a_link_to_an_image_is_one_and_to_a_folder_is_passed_over(tmp_path):
    root = _tree(tmp_path, count=1)
    (root / "train" / "a" / "link.png").symlink_to(root / "train" / "b" / "0.png")
    (root / "train" / "a" / "loop.png").symlink_to(root)
    (root / "train" / "c").symlink_to(root / "train" / "b")
    dataset = data.load("imagefolder", "train", root)
    assert dataset.classes == ("a", "b", "c") and dataset.labels.tolist() == [0, 0, 1, 2]
    assert dataset.images[:, 0, 0, 0].tolist() == [0, 1, 1, 1]


def test_tiny_imagenet_is_read_as_it_is(tmp_path):
    root = _tree(tmp_path, classes=("n1/images", "n2/images"), size=(64, 64))
    (root / "train" / "n1" / "n1_boxes.txt").write_text("0.png 1 2 3 4\n")
    for split in ("val", "test"):
        (root / split / "images").mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (64, 64), (i, i, i)).save(root / split / "images" / f"{split}_{i}.png")
    annotations = root / "val" / "val_annotations.txt"
    annotations.write_text("val_0.png\tn2\t0\t32\t44\t62\nval_1.png\tn1\t0\t0\t1\t1\nval_2.png\tn2\t0\t0\t1\t1\n")
    train, test = (data.load("imagefolder", split, root) for split in ("train", "test"))
    assert train.classes == test.classes == ("n1", "n2") and train.labels.tolist() == [0] * 3 + [1] * 3
    assert test.images.shape == (3, 64, 64, 3) and test.source == str(root / "val" / "images")
    assert list(zip(test.images[:, 0, 0, 0].tolist(), test.labels.tolist())) == [(1, 0), (0, 1), (2, 1)]
    annotations.write_text("val_0.png\tn2\nval_1.png\tn3\nval_2.png\tn1\n")
    with pytest.raises(data.DataError, match=r"gives val_1.png a class 'n3', which training does not have \(1"):
        data.load("imagefolder", "test", root)
    annotations.write_text("val_0.png\tn2\n")
    with pytest.raises(data.DataError, match=r"gives val_1.png no class \(2 of 3 images are without\)"):
        data.load("imagefolder", "test", root)


def test_imagenets_flat_validation_is_answered_with_what_to_do(tmp_path):
    _tree(tmp_path)
    for place, name in (("test", "ILSVRC2012_test_00000001.JPEG"), ("val", "ILSVRC2012_val_00000001.JPEG")):
        (tmp_path / place).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / place / name)
    with pytest.raises(data.DataError, match=r"val has images, but no class folders: .*val_annotations.txt with"):
        data.load("imagefolder", "test", tmp_path)


def test_thousands_of_empty_classes_are_counted(tmp_path):
    _tree(tmp_path)
    for i in range(20):
        (tmp_path / "train" / f"c{i:02}").mkdir()
    with pytest.raises(data.DataError, match=r"class c00 \(and 19 classes more\) has no images in .*train/c00"):
        data.load("imagefolder", "train", tmp_path)


def test_a_long_listing_is_remembered_until_a_folder_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(listing, "_REMEMBERED", 1)
    root = _tree(tmp_path, classes=("a", "b/inner")) / "train"

    def age():
        for place in (root, root / "a", root / "b", root / "b" / "inner"):
            os.utime(place, (1, 1))

    listing.of_classes(root)  # too young to be sure that nothing follows within the same tick
    assert not (tmp_path / "home").exists()
    age()
    first = listing.of_classes(root)
    scandir, listed = os.scandir, []
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    again = listing.of_classes(root)
    assert listed == [] and again.classes == first.classes and again.names == first.names
    np.testing.assert_array_equal(again.labels, first.labels)
    Image.new("RGB", (8, 8)).save(root / "b" / "inner" / "new.png")
    assert len(listing.of_classes(root).names) == 7 and listed
    (kept,) = (tmp_path / "home" / ".cache" / "jaxsnn" / "listings").iterdir()
    age()
    listing.of_classes(root)
    kept.write_bytes(kept.read_bytes()[:-40])  # damaged: listed again
    assert len(listing.of_classes(root).names) == 7


def test_many_headers_are_read_of_some_and_the_rest_when_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "_CHECKED", 2)  # the first and the last
    root = _tree(tmp_path)
    (root / "train" / "a" / "1.png").write_bytes(b"")
    dataset = data.load("imagefolder", "train", root)
    assert (dataset.images[[0, 2, 3]][:, 0, 0, 1] == [0, 2, 0]).all()
    with pytest.raises(data.DataError, match=r"1\.png cannot be read"):
        _ = dataset.images[:2]


def test_levels_count_all_pixels_of_arrays_and_some_of_files(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
    counts = data.levels(images)
    assert counts.shape == (3, 256)
    np.testing.assert_array_equal(counts[1], np.bincount(images[..., 1].ravel(), minlength=256))
    found = data.levels(lazy.LazyImages(Numbers(10)), most=2)
    assert np.flatnonzero(found[0]).tolist() == [0, 9]


def test_the_lines_for_imagenets_development_kit_make_its_validation_readable(tmp_path, monkeypatch):
    savemat = pytest.importorskip("scipy.io").savemat
    page = Path(__file__).parents[2] / "docs" / "getting-started.md"
    (lines,) = re.findall(r"```python\n(from pathlib import Path\nfrom scipy.*?)```", page.read_text(), re.DOTALL)
    _tree(tmp_path, classes=("n1", "n2"))
    kit = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    kinds = [("ILSVRC2012_ID", object), ("WNID", object)]
    savemat(kit / "meta.mat", {"synsets": np.array([(1, "n2"), (2, "n1"), (3, "n-group")], kinds)})
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n1\n")
    (tmp_path / "val").mkdir()
    for i in range(3):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / "val" / f"ILSVRC2012_val_0000000{i + 1}.JPEG", "PNG")
    monkeypatch.chdir(tmp_path)
    exec(lines, {})
    test = data.load("imagefolder", "test", tmp_path)
    assert list(zip(test.images[:, 0, 0, 0].tolist(), test.labels.tolist())) == [(1, 0), (0, 1), (2, 1)]
