"""What norms compute of channels equals its definition, with its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.training import channel_sums

X, G = (np.random.default_rng(seed).normal(1, 2, (5, 4, 3, 6)).astype(np.float32) for seed in (0, 1))


VECTORS = np.random.default_rng(2).normal(size=(2, 6)).astype(np.float32)


AXES = (0, 1, 2)


@pytest.mark.parametrize(
    "ours, definition, vectors",
    [
        (channel_sums.mean, lambda x: x.mean(AXES), ()),
        (channel_sums.mean_square, lambda x: (x**2).mean(AXES), ()),
        (channel_sums.affine, lambda x, scale, shift: x * scale + shift, VECTORS),
    ],
    ids=["mean", "mean square", "affine"],
)
@pytest.mark.parametrize("shape", [X.shape, (60, 6)], ids=str)
def test_values_and_gradients(ours, definition, vectors, shape):
    x = jnp.asarray(X.reshape(shape))
    definition = definition if len(shape) == 4 else flat(definition)
    value, pull = jax.vjp(jax.jit(ours), x, *vectors)
    expected, expected_pull = jax.vjp(definition, x, *vectors)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    cotangent = jnp.asarray(G.reshape(shape)) if value.ndim > 1 else jnp.asarray(G[0, 0, 0])
    for found, wanted in zip(pull(cotangent), expected_pull(cotangent), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def flat(definition):
    """The definition for (N, C), by way of (N, 1, 1, C)."""

    def of_rows(x, *vectors):
        y = definition(x[:, None, None], *vectors)
        return y.reshape(x.shape) if y.ndim > 1 else y

    return of_rows


def test_sums_do_not_lose_precision_over_many_rows():
    """131,072 rows, a mean of 100 and a spread of 1: far more than a layer's."""
    x = np.random.default_rng(0).normal(100, 1, (128, 32, 32, 4)).astype(np.float32)
    exact = x.astype(np.float64)
    mean, square = jax.jit(lambda x: (channel_sums.mean(x), channel_sums.mean_square(x)))(x)
    np.testing.assert_allclose(mean, exact.mean(AXES), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(square, np.float64), (exact**2).mean(AXES), rtol=1e-6)
