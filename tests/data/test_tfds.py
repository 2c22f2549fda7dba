"""TFDS datasets prepared on disk: written here as TFDS lays them out, and read without TensorFlow."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import data

tfds = pytest.importorskip("tensorflow_datasets")


array_record = pytest.importorskip("array_record.python.array_record_module")


SIZES = {"train": 9, "test": 4}


CLASSES = ["left", "right", "up"]


def _images(split, shape):
    return np.random.default_rng(len(split)).integers(0, 256, (SIZES[split], *shape), np.uint8)


def _prepare(root, name="tiny", shape=(6, 5, 3), declared=None, splits=("train", "test"), label=None, images=None):
    """Write what `download_and_prepare(file_format="array_record")` writes."""
    from tensorflow_datasets.proto import tf_example_pb2

    folder = root / name / "1.0.0"
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=declared or shape),
            "label": label or tfds.features.ClassLabel(names=CLASSES),
        }
    )
    features.save_config(str(folder))
    split_infos = []
    for split, stands_for in zip(splits, ("train", "test")):
        writer = array_record.ArrayRecordWriter(
            str(folder / f"{name}-{split}.array_record-00000-of-00001"), "group_size:1"
        )
        for i, image in enumerate(images or _images(stands_for, shape)):
            png = io.BytesIO()
            Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(png, "PNG")
            example = tf_example_pb2.Example()
            example.features.feature["image"].bytes_list.value.append(png.getvalue())
            example.features.feature["label"].int64_list.value.append(i % 3)
            writer.write(example.SerializeToString())
        writer.close()
        split_infos.append(
            {
                "name": split,
                "shardLengths": [str(SIZES[stands_for])],
                "numBytes": "1",
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        )
    info = {"name": name, "version": "1.0.0", "fileFormat": "array_record", "splits": split_infos}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


@pytest.mark.parametrize("shape", [(6, 5, 3), (28, 28, 1)], ids=["rgb", "grey"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_prepared_dataset_is_read_exactly(tmp_path, split, shape):
    _prepare(tmp_path, shape=shape)
    dataset = data.load("tfds:tiny", split, tmp_path)
    np.testing.assert_array_equal(dataset.images, _images(split, shape))
    np.testing.assert_array_equal(dataset.labels, np.arange(SIZES[split]) % 3)
    assert (dataset.images.dtype, dataset.labels.dtype) == (np.uint8, np.int32)
    assert dataset.classes == ("left", "right", "up")
    assert (dataset.name, dataset.split) == ("tfds:tiny", split)
    assert "tiny/1.0.0" in dataset.source


def test_tensorflow_is_not_imported(tmp_path):
    _prepare(tmp_path)
    code = "import sys, data; data.load('tfds:tiny', 'test', sys.argv[1]); print('tensorflow' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_a_limit_is_balanced_and_the_same_images_come_back(tmp_path):
    _prepare(tmp_path)
    shares = []
    part = data.load("tfds:tiny", "train", tmp_path, limit=6, seed=2, progress=shares.append)
    assert shares[0] == 0.0 and shares[-1] == 1.0 and shares == sorted(shares) and len(set(shares)) == 1 + 9
    assert np.bincount(part.labels).tolist() == [2, 2, 2]
    assert len(data.split_out(data.load("tfds:tiny", "train", tmp_path), part)) == 3
    with pytest.raises(data.DataError, match=r"10 images were asked for, but TFDS tiny.* has 9"):
        data.load("tfds:tiny", "train", tmp_path, limit=10)


def test_validation_stands_in_for_test(tmp_path):
    _prepare(tmp_path, splits=("train", "validation"))
    for asked in ("test", "val", "validation"):
        assert data.load("tfds:tiny", asked, tmp_path).split == "test"


def test_images_without_a_fixed_size_are_resized_and_cropped(tmp_path):
    image = _images("train", (40, 30, 3))
    mixed = [picture[: 40 - i] for i, picture in enumerate(image)]
    _prepare(tmp_path, declared=(None, None, 3), splits=("train",), images=mixed)
    dataset = data.load("tfds:tiny", "train", tmp_path, size=16, resize=20)
    assert dataset.images.shape == (9, 16, 16, 3)
    resized = Image.fromarray(mixed[0]).resize((20, int(20 * 40 / 30)), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(dataset.images[0], np.asarray(resized)[5:21, 2:18])
    with pytest.raises(data.DataError, match="images have different sizes"):
        _ = data.load("tfds:tiny", "train", tmp_path, size=None).images[:]


@pytest.mark.parametrize("name", ["cifar10", "no_such_dataset_anywhere"])
def test_a_dataset_that_is_not_prepared_is_answered_with_how_to(tmp_path, name):
    with pytest.raises(data.DataError) as caught:
        data.load(f"tfds:{name}", "train", tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        name,
        str(tmp_path),
        "jaxsnn-evo[prepare]",
        "download_and_prepare()",
        "array_record",
        "manual",
    ):
        assert part in message


def test_a_missing_split_and_other_features_are_named(tmp_path):
    _prepare(tmp_path, splits=("train",))
    with pytest.raises(data.DataError, match="has no split test or validation; it has train"):
        data.load("tfds:tiny", "test", tmp_path)
    _prepare(tmp_path, name="numbers", label=tfds.features.Scalar(np.int64))
    with pytest.raises(data.DataError, match="has the features image, label, but an image 'image' and a class"):
        data.load("tfds:numbers", "test", tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9, None])
def test_a_truncated_or_missing_shard_is_a_data_error(tmp_path, share):
    folder = _prepare(tmp_path)
    (path,) = folder.glob("*train*")
    if share is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(data.DataError, match="TFDS tiny"):
        data.load("tfds:tiny", "train", tmp_path)


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_damaged_metadata_is_a_data_error(tmp_path, file):
    folder = _prepare(tmp_path)
    (folder / file).write_text('{"broken')
    with pytest.raises(data.DataError):
        data.load("tfds:tiny", "train", tmp_path)
