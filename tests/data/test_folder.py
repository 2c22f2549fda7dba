"""Folder trees: classes, geometry (against torchvision's rule, written out here), draws, and bad files."""

import numpy as np
import pytest
from PIL import Image

import data

COLOURS = {"apple": (200, 30, 40), "bee": (250, 220, 10), "cloud": (90, 120, 240)}


def _tree(root, splits=("train", "val"), per_class=4, size=(300, 260)):
    """PNG files of one colour, bluer by one with each file: a pixel tells the class and the file."""
    for split in splits:
        for name, (red, green, blue) in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for i in range(per_class):
                Image.new("RGB", size, (red, green, blue + i)).save(root / split / name / f"{i}.png")
    return root


def test_colours_classes_and_order_come_back(tmp_path):
    dataset = data.load("imagefolder", "train", _tree(tmp_path))
    assert dataset.images.shape == (12, 224, 224, 3)
    assert dataset.classes == ("apple", "bee", "cloud")
    assert dataset.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    expected = [(r, g, b + i) for r, g, b in COLOURS.values() for i in range(4)]
    for image, colour in zip(dataset.images, expected):
        assert (image == np.array(colour, np.uint8)).all()
    assert dataset.source == str(tmp_path / "train")


@pytest.mark.parametrize("folder", ["test", "val", "validation"])
@pytest.mark.parametrize("asked", ["test", "val", "validation"])
def test_the_test_split_has_three_names(tmp_path, folder, asked):
    _tree(tmp_path, ("train", folder), per_class=1)
    dataset = data.load("imagefolder", asked, tmp_path, size=8)
    assert (dataset.split, dataset.source) == ("test", str(tmp_path / folder))


def test_imagenets_own_test_folder_without_classes_is_passed_over(tmp_path):
    _tree(tmp_path, per_class=1)
    (tmp_path / "test").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "test" / "ILSVRC2012_test_1.png")
    assert data.load("imagefolder", "test", tmp_path, size=8).source == str(tmp_path / "val")


def _noise(path, width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(pixels)
    image.save(path)
    return image


@pytest.mark.parametrize(("width", "height"), [(400, 300), (300, 401), (256, 256), (90, 61), (224, 2000)])
def test_the_shorter_side_becomes_256_and_the_centre_224(tmp_path, width, height):
    (tmp_path / "train" / "a").mkdir(parents=True)
    image = _noise(tmp_path / "train" / "a" / "x.png", width, height)
    if width < height:
        image = image.resize((256, int(256 * height / width)), Image.Resampling.BILINEAR)
    else:
        image = image.resize((int(256 * width / height), 256), Image.Resampling.BILINEAR)
    top, left = round((image.height - 224) / 2.0), round((image.width - 224) / 2.0)
    expected = np.asarray(image)[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(data.load("imagefolder", "train", tmp_path).images[0], expected)


def test_a_random_crop_is_a_window_of_the_resized_image_and_follows_the_seed(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    for i in range(8):
        image = _noise(tmp_path / "train" / "a" / f"{i}.png", 20, 16)
    first, again, other = (
        data.load("imagefolder", "train", tmp_path, crop="random", size=4, resize=16, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first.content_hash() == again.content_hash() != other.content_hash()
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(image), (4, 4, 3)).reshape(-1, 4, 4, 3)
    places = {
        int(np.flatnonzero((windows == drawn.images[0]).all(axis=(1, 2, 3)))[0])
        for drawn in (
            data.load("imagefolder", "train", tmp_path, crop="random", size=4, resize=16, seed=seed)
            for seed in range(6)
        )
    }
    assert len(places) > 1


def test_resize_follows_size_and_none_keeps_the_images(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    image = _noise(tmp_path / "train" / "a" / "x.png", 32, 32)
    kept = data.load("imagefolder", "train", tmp_path, size=None)
    np.testing.assert_array_equal(kept.images[0], np.asarray(image))
    resized = image.resize((32, 32), Image.Resampling.BILINEAR)
    cut = data.load("imagefolder", "train", tmp_path, size=28)
    np.testing.assert_array_equal(cut.images[0], np.asarray(resized)[2:30, 2:30])


def test_a_limit_is_balanced_nested_and_opens_only_what_it_draws(tmp_path):
    _tree(tmp_path, per_class=6, size=(16, 16))
    draws = [data.load("imagefolder", "train", tmp_path, limit=k, seed=7, size=8, crop="random") for k in (6, 9)]
    assert np.bincount(draws[0].labels).tolist() == [2, 2, 2]
    np.testing.assert_array_equal(draws[0].images, draws[1].images[:6])
    drawn = {tuple(image[0, 0]) for image in draws[0].images}
    for name, (red, green, blue) in COLOURS.items():
        for i in range(6):
            if (red, green, blue + i) not in drawn:
                (tmp_path / "train" / name / f"{i}.png").write_bytes(b"not an image")
    again = data.load("imagefolder", "train", tmp_path, limit=6, seed=7, size=8, crop="random")
    assert again.content_hash() == draws[0].content_hash()
    with pytest.raises(data.DataError, match=r"19 images were asked for, but .*/train has 18"):
        data.load("imagefolder", "train", tmp_path, limit=19)


def test_every_colour_mode_becomes_rgb_and_other_files_are_passed_over(tmp_path):
    folder = tmp_path / "train" / "a" / "images"
    folder.mkdir(parents=True)
    modes = {"L": "l.jpg", "RGBA": "a.PNG", "P": "p.png", "CMYK": "c.JPEG", "1": "one.png", "LA": "la.png"}
    for mode, name in modes.items():
        Image.new(mode, (9, 9)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image")
    (tmp_path / "train" / ".cache").mkdir()
    dataset = data.load("imagefolder", "train", tmp_path, size=8)
    assert dataset.images.shape == (6, 8, 8, 3)
    assert dataset.classes == ("a",)


def test_images_of_different_sizes_are_an_error_only_when_they_are_kept(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    _noise(tmp_path / "train" / "a" / "x.png", 32, 32)
    _noise(tmp_path / "train" / "a" / "y.png", 32, 30)
    assert data.load("imagefolder", "train", tmp_path, size=16).images.shape == (2, 16, 16, 3)
    with pytest.raises(data.DataError, match=r"y.png .*different sizes.*\(30, 32, 3\) .*\(32, 32, 3\)"):
        _ = data.load("imagefolder", "train", tmp_path, size=None).images[:]


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(data.DataError, match=r"has no folder train: expected .*/train/CLASS/IMAGE.jpg"):
        data.load("imagefolder", "train", tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(data.DataError, match="has no class folders"):
        data.load("imagefolder", "train", tmp_path)
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(data.DataError, match="class empty has no images"):
        data.load("imagefolder", "train", tmp_path)
    (tmp_path / "val").touch()
    with pytest.raises(data.DataError, match="val is a file, but a folder"):
        data.load("imagefolder", "test", tmp_path)


def test_classes_of_the_two_splits_must_agree(tmp_path):
    _tree(tmp_path, per_class=1, size=(8, 8))
    (tmp_path / "val" / "bee").rename(tmp_path / "val" / "wasp")
    with pytest.raises(data.DataError, match=r"val/wasp is a class that .*/train does not have"):
        data.load("imagefolder", "test", tmp_path, size=8)
    (tmp_path / "val" / "wasp" / "0.png").unlink()
    (tmp_path / "val" / "wasp").rmdir()
    with pytest.raises(data.DataError, match=r"class bee has no images in .*val/bee"):
        data.load("imagefolder", "test", tmp_path, size=8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_a_truncated_image_is_an_error_that_names_the_file(tmp_path, kind, share):
    (tmp_path / "train" / "a").mkdir(parents=True)
    whole = tmp_path / "whole"
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(whole, kind)
    path = tmp_path / "train" / "a" / "x.png"
    path.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(data.DataError, match=r"x.png cannot be read as an image \(\w+"):
        _ = data.load("imagefolder", "train", tmp_path).images[:]
