"""Commands on a folder of images: the sizes they are asked for, what they decode, and the same as from arrays."""

import functools
from dataclasses import replace
from typing import Any, cast

import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import data
from helpers.runs import config_of
from jaxsnn.cli.inputs import check_options, kept, load_inputs
from jaxsnn.cli.options import DataOptions
from jaxsnn.conversion.loading import load
from jaxsnn.errors import UserError
from jaxsnn.evaluate import EvaluateConfig, source_of
from jaxsnn.networks.spiking import Genes
from jaxsnn.simulation.observe import observe
from jaxsnn.simulation.plan import Plan
from jaxsnn.training import loop
from jaxsnn.training.recipes import recipe_of
from jaxsnn.training.start import load_images

COUNT = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Some embedded images of each split as PNG, a folder for each class."""
    root = tmp_path_factory.mktemp("png")
    for split in ("train", "test"):
        part = data.load("embedded", split, limit=COUNT)
        for number, (image, label) in enumerate(zip(part.images, part.labels)):
            place = root / split / part.classes[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{number:03}.png")
    return root


def arrays(folder, split):
    """The same images, decoded."""
    lazy = data.load("imagefolder", split, folder)
    return replace(lazy, images=np.asarray(lazy.images))


def test_sizes_are_those_asked_for_and_those_of_a_run_where_it_is_evaluated(folder, tmp_path):
    options = DataOptions(data="imagefolder", data_dir=folder)
    assert options.load("train").images.shape == (COUNT, 32, 32, 3)
    assert replace(options, image_size=16, resize=20).load("test", 10).images.shape == (10, 16, 16, 3)
    training, _, test = load_images("imagefolder", "none", folder, **replace(options, image_size=8).geometry())
    assert training.images.shape[1:] == test.images.shape[1:] == (8, 8, 3)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text('{"data": "imagefolder", "image_size": 64, "resize": 70}')
    own, other = source_of(EvaluateConfig(run)), source_of(EvaluateConfig(run, image_size=32))
    assert (own.size, own.resize, other.size, other.resize) == (64, 70, 32, None)
    (run / "config.json").write_text('{"data": "imagefolder", "image_size": "64"}')
    with pytest.raises(UserError, match="image_size is '64', expected a whole number"):
        source_of(EvaluateConfig(run))


def test_a_search_begins_by_decoding_what_it_uses_and_nothing_else(folder, tiny, monkeypatch):
    read, original = [], data.pictures.decode
    monkeypatch.setattr(data.pictures, "decode", lambda path, *rest: read.append(path) or original(path, *rest))
    config = config_of(tiny, None, data="imagefolder", data_dir=folder)
    monkeypatch.setattr("jaxsnn.cli.inputs.CHECKED", 10)
    inputs = load_inputs(config, Console(quiet=True))
    wanted = config.calibration_images + 10
    assert 0 < len(read) == len(set(read)) <= wanted < COUNT
    assert all("/train/" in path for path in read)
    assert len(inputs.test) == config.test_images


def test_options_that_contradict_each_other_are_refused_before_anything_is_read(tmp_path):
    config = config_of(None, None, data="imagefolder", data_dir=tmp_path / "nothing", finalists=3, final_images=5)
    with pytest.raises(UserError, match="--final-images is 5, expected at least --images, 12"):
        load_inputs(config, Console(quiet=True))
    check_options(replace(config, final_images=12))


def test_a_quarter_of_the_memory_limit_is_for_decoded_images():
    assert (kept(None), kept(1e9), kept(100)) == (data.KEPT, data.KEPT, 25_000_000)


def test_images_decoded_chunk_by_chunk_count_as_arrays_do(folder, tiny):
    snn = load(tiny)
    genes = Genes(np.full((2, len(snn.network.spiking)), 0.7))
    lazy, held = data.load("imagefolder", "test", folder), arrays(folder, "test")
    plan = Plan(rows=14)
    found, expected = (
        observe(snn, genes, part.images, part.labels, timesteps=6, plan=plan) for part in (lazy, held)
    )
    for name in ("correct", "spikes", "synops"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_training_decodes_batch_by_batch_where_images_are_many(folder, monkeypatch):
    held, lazy = arrays(folder, "train"), data.load("imagefolder", "train", folder)
    monkeypatch.setattr(data, "KEPT", lazy.images.nbytes - 1)
    steps = []
    monkeypatch.setattr(loop, "train_step", lambda ann, optimizer, *batch: steps.append(batch))
    monkeypatch.setattr(loop.nnx, "cached_partial", functools.partial)
    batch = np.array([3, 30, 1])
    for part in (held, lazy):
        descent: Any = loop.AnnDescent(cast(Any, None), cast(Any, None), part, recipe_of("fast"))
        descent.step(batch, jax.random.key(0))
    assert isinstance(descent._images, data.LazyImages)
    for images, labels, *_ in steps:
        np.testing.assert_array_equal(images, held.images[batch])
        np.testing.assert_array_equal(labels, held.labels[batch])
    assert len(steps) == 2
