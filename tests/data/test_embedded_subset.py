"""The embedded dataset: what it is said to be, drawn as it is said, and never silently damaged.

Where the project's CIFAR-10 shards are present, the official binary layout is rebuilt from them once, and
all 60,000 images are compared with the shards decoded directly.
"""

import importlib.util
import shutil
import time
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import data
from data import embedded_subset
from data.cifar import CIFAR10_CLASSES

ROOT = Path(__file__).resolve().parents[2]


SHARDS = ROOT.parent / "shared" / "datasets"


SPLITS = {"train": [f"cifar10_train_{i}of5.npz" for i in range(1, 6)], "test": ["cifar10_test_1of1.npz"]}


def _script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shards():
    """For each split the images and labels, decoded from the shards by the code that comes with them."""
    if not (SHARDS / "unpack.py").is_file():
        pytest.skip("needs the CIFAR-10 shards")
    unpack = _script(SHARDS / "unpack.py")
    out = {}
    for split, names in SPLITS.items():
        parts = [unpack.read_shard(SHARDS / name) for name in names]
        out[split] = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    return out


@pytest.fixture(scope="session")
def official(shards, tmp_path_factory):
    """A folder with the official binary layout, written here by the description on the official page."""
    root = tmp_path_factory.mktemp("official")
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for split, (images, labels) in shards.items():
        for i in range(len(images) // 10000):
            part = slice(i * 10000, (i + 1) * 10000)
            planes = images[part].transpose(0, 3, 1, 2).reshape(10000, 3072)
            name = f"data_batch_{i + 1}.bin" if split == "train" else "test_batch.bin"
            np.hstack([labels[part, None], planes]).tofile(folder / name)
    yield root
    shutil.rmtree(root)  # 180 MB


@pytest.mark.slow
@pytest.mark.parametrize(("split", "count"), [("train", 50000), ("test", 10000)])
def test_all_of_cifar10_comes_back_from_the_official_layout(official, shards, split, count):
    dataset = data.load("cifar10", split, official)
    images, labels = shards[split]
    assert len(dataset) == count
    np.testing.assert_array_equal(dataset.images, images)
    np.testing.assert_array_equal(dataset.labels, labels)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_embedded_images_are_those_the_rule_draws_from_the_official_split(official, split):
    script = _script(ROOT / "benchmarks" / "make_embedded.py")
    whole = data.load("cifar10", split, official)
    embedded = data.load("embedded", split)
    assert script.draw(whole).content_hash() == embedded.content_hash()
    shuffled = whole.select(np.random.default_rng(0).permutation(len(whole)))
    assert script.draw(shuffled).content_hash() == embedded.content_hash()
    assert len(data.split_out(whole, embedded)) == len(whole) - 2000
    assert len(data.split_out(embedded, whole)) == 0


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_embedded_set_has_200_images_of_each_class(split):
    dataset = data.load("embedded", split)
    assert dataset.images.shape == (2000, 32, 32, 3)
    assert np.bincount(dataset.labels).tolist() == [200] * 10
    assert dataset.classes == CIFAR10_CLASSES
    assert dataset.content_hash() == embedded_subset.CONTENT[split]


def test_the_embedded_splits_share_no_image_and_repeat_none():
    train, test = data.load("embedded", "train"), data.load("embedded", "test")
    assert len(data.split_out(train, test)) == len(train)
    assert len(np.unique(np.concatenate([train.images, test.images]).reshape(4000, -1), axis=0)) == 4000


def test_it_is_the_default_and_small():
    assert data.load().name == "embedded"
    folder = Path(embedded_subset.__file__).parent / "embedded"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8_000_000
    assert "Krizhevsky" in (folder / "README.md").read_text(encoding="utf-8")


def test_loading_it_takes_less_than_a_second_and_a_half_of_processor_time():
    start = time.process_time()
    data.load("embedded", "train")
    assert time.process_time() - start < 1.5


def test_packing_is_lossless_at_any_length():
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), np.uint8)
    dataset = data.Dataset(images, np.arange(7, dtype=np.int32), tuple("0123456789"), "made", "train", "a test")
    for strip in (1, 3, 100):
        decoded = embedded_subset.decode(embedded_subset.encode(dataset, strip), "train")
        assert decoded.content_hash() == dataset.content_hash()


@pytest.mark.parametrize("place", [0.0, 0.3, 0.999, None])
def test_a_damaged_file_is_a_data_error_that_says_what_to_do(tmp_path, monkeypatch, place):
    (tmp_path / "embedded").mkdir()
    path = tmp_path / "embedded" / "cifar10_test.npz"
    raw = bytearray((Path(embedded_subset.__file__).parent / "embedded" / path.name).read_bytes())
    if place is not None:
        raw[int(place * len(raw))] ^= 0xFF
        path.write_bytes(raw)
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    with pytest.raises(
        data.DataError, match=r"cifar10_test.npz is missing or damaged .*: install the package again"
    ):
        data.load("embedded", "test")


def test_other_content_in_a_sound_file_is_a_data_error_with_both_hashes(tmp_path, monkeypatch):
    (tmp_path / "embedded").mkdir()
    part = data.load("embedded", "test", limit=3)
    (tmp_path / "embedded" / "cifar10_test.npz").write_bytes(embedded_subset.encode(part))
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    with pytest.raises(data.DataError, match=f"{part.content_hash()}, but {embedded_subset.CONTENT['test']} was"):
        data.load("embedded", "test")
