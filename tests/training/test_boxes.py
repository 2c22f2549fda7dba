"""Cutout, CutMix, images held out by number, and how often training is saved: what a recipe promises."""

from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import data
from jaxsnn.cli import training
from jaxsnn.errors import UserError
from jaxsnn.networks.architectures import vgg
from jaxsnn.training import loop
from jaxsnn.training.ann import ANN
from jaxsnn.training.boxes import boxes, cutmix, cutout
from jaxsnn.training.recipes import recipe_of
from jaxsnn.training.start import load_images

KEY = jax.random.key(0)


def test_a_box_lies_around_a_pixel_and_is_cut_off_at_the_border():
    """Every pixel is as likely as another to be the middle; whole boxes have side x side pixels."""
    sides = jnp.array([[3, 5]] * 4000)
    inside = np.array(boxes(KEY, (4000, 8, 12, 3), sides)[..., 0], np.uint8)
    rows, columns = inside.max(2), inside.max(1)
    np.testing.assert_array_equal(inside, rows[:, :, None] * columns[:, None, :])
    assert set(rows.sum(1)) == {2, 3} and set(columns.sum(1)) == {3, 4, 5}
    assert abs((rows.sum(1) == 2).mean() - 2 / 8) < 0.03  # the middle is the first or the last row
    for line in (rows, columns):
        starts = np.diff(np.pad(line, ((0, 0), (1, 0))).astype(int))
        assert ((starts == 1).sum(1) == 1).all()  # one piece


def test_cutout_greys_one_square_and_nothing_else():
    x = jnp.ones((6, 16, 16, 3)) * 2
    found = np.asarray(cutout(KEY, x, 4))
    assert set(np.unique(found)) == {0, 2}
    gone = (found == 0).all(-1)
    np.testing.assert_array_equal(gone, (found == 0).any(-1))
    assert ((gone.sum((1, 2)) >= 4) & (gone.sum((1, 2)) <= 16)).all()


def test_cutmix_takes_pixels_and_label_of_the_next_image_in_equal_parts():
    count = 200
    x = jnp.broadcast_to(jnp.arange(count, dtype=jnp.float32)[:, None, None, None], (count, 8, 8, 1))
    mixed, target = (np.asarray(found) for found in cutmix(KEY, x, jnp.eye(count), 0.5))
    foreign = (mixed != np.arange(count)[:, None, None, None]).mean((1, 2, 3))
    np.testing.assert_array_equal(
        mixed[foreign > 0].max((1, 2, 3)), np.maximum(x, jnp.roll(x, -1, 0))[foreign > 0, 0, 0, 0]
    )
    np.testing.assert_allclose(target[np.arange(count), (np.arange(count) + 1) % count], foreign, atol=1e-6)
    np.testing.assert_allclose(target.sum(1), 1, atol=1e-6)
    assert 0.35 < (foreign > 0).mean() < 0.6 and foreign.max() > 0.5


def test_images_are_held_out_by_number_the_same_for_every_seed():
    training, held, test = load_images("embedded", "300")
    assert held is not None and (len(training), len(held), len(test)) == (1700, 300, 2000)
    assert np.bincount(held.labels).tolist() == [30] * 10
    assert len(data.split_out(training, held)) == 1700
    for count in ("0", "2000"):
        with pytest.raises(UserError, match=f"--holdout is {count}, expected 1 to 1999"):
            load_images("embedded", count)


def test_a_descents_step_is_the_training_step_with_what_the_recipe_cuts_out():
    """The walk over the network that the descent keeps gives the same losses, also after it was put back."""
    network = vgg([[4]], windows=[8], name="small")
    images = data.load("embedded", "train", limit=32)
    recipe = recipe_of("strong", cutout=5, cutmix=0.5)
    ann, other = ANN(network, 0), ANN(network, 0)
    descent = loop.AnnDescent(ann, loop.make_optimizer(ann, recipe, 10), images, recipe)
    optimizer = loop.make_optimizer(other, recipe, 10)
    pixels, labels = jnp.asarray(images.images), jnp.asarray(images.labels)
    start = [jnp.array(array) for array in descent.arrays()]
    batch = np.arange(32)
    losses = [float(descent.step(batch, jax.random.fold_in(KEY, n))[0]) for n in range(3)]
    expected = [
        float(loop.train_step(other, optimizer, pixels, labels, jax.random.fold_in(KEY, n), 0.1, 5, 0.5))
        for n in range(3)
    ]
    assert losses == expected and len(set(losses)) == 3
    descent.restore(start)
    assert [float(descent.step(batch, jax.random.fold_in(KEY, n))[0]) for n in range(3)] == losses


def test_checkpoints_that_take_long_are_written_less_often(monkeypatch, tmp_path):
    """A second each, in epochs of a second: one at once, the next when a twentieth of the time allows it."""
    clock = [0.0]
    saved: list[int] = []

    def epochs(*arguments, **options):
        for epoch in range(1, 60):
            clock[0] += 1
            yield loop.Place(epoch, np.ones((1, 1)), 1.0)

    def save(path, descent, place):
        clock[0] += 1
        saved.append(place.epoch)

    monkeypatch.setattr(training, "descend", epochs)
    monkeypatch.setattr(training, "save_checkpoint", save)
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    bar = SimpleNamespace(add_task=lambda *a, **k: 0, update=lambda *a, **k: None)
    stop = SimpleNamespace(asked=False, deferred=False)
    batches = loop.Batches(1, 1, 0)
    training.run_training(
        tmp_path, cast(Any, None), batches, 60, cast(Any, bar), cast(Any, stop), lambda place, rows: None
    )
    assert saved[0] == 1 and 3 <= len(saved) <= 5
