"""Adversarial training: images change within their bounds and raise the loss; statistics are those of the step."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import BatchNorm
from jaxsnn.training.ann import ANN
from jaxsnn.training.hardening import STEP, hardened
from jaxsnn.training.loop import make_optimizer, train_step
from jaxsnn.training.recipes import recipe_of

NETWORK = vgg(
    [[4]], name="small", classes=3, input_shape=(8, 8, 2), mean=(0.4, 0.5), std=(0.25, 0.2), norm=BatchNorm
)
KEY = jax.random.key(0)


def test_images_are_the_clipped_sign_of_the_gradient_from_a_random_start():
    """Of a loss whose gradient is known; by a loop in float64."""
    weights = jax.random.normal(KEY, (5, 8, 8, 2))
    mean, std = np.array(NETWORK.mean), np.array(NETWORK.std)
    pixels = np.random.default_rng(0).uniform(0, 1, (5, 8, 8, 2))
    x = (pixels - mean) / std
    found = hardened(NETWORK, lambda x: (x * weights).sum(), jnp.asarray(x, jnp.float32), 8, KEY)
    drawn = np.asarray(jax.random.uniform(KEY, x.shape, minval=-1.0), np.float64)
    start = np.clip(pixels + np.clip(drawn * 8 / 255, -1, 1), 0, 1)
    expected = start + STEP * 8 / 255 * np.sign(weights)
    expected = np.clip(expected, np.maximum(pixels - 8 / 255, 0), np.minimum(pixels + 8 / 255, 1))
    assert np.allclose(np.asarray(found) * std + mean, expected, atol=1e-6)


def test_a_step_of_training_sees_them_and_counts_its_batch_once():
    """At a learning rate of 0: a higher loss than that of the images, and norms that moved by one batch only."""
    images = np.random.default_rng(1).integers(0, 256, (12, 8, 8, 2), np.uint8)
    labels = jnp.arange(12) % 3
    losses, moved = [], []
    for attacked in (0.0, 16.0):
        ann = ANN(NETWORK, 0)
        optimizer = make_optimizer(ann, recipe_of("fast", learning_rate=0.0), 4)
        losses.append(float(train_step(ann, optimizer, images, labels, KEY, 0.0, 0, 0.0, attacked)))
        (name,) = (name for name in ann.params() if name.endswith(".var"))
        moved.append(float(np.abs(ann.params()[name] - 1).max()))
    assert losses[1] > 1.05 * losses[0]
    assert 0 < moved[1] < 1.5 * moved[0]
