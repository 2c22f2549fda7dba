"""PCA of feature maps: that accumulating over batches gives what PCA of the whole matrix gives."""

import numpy as np
import pytest

from helpers.networks import NETWORKS, dyadic_images, dyadic_snn
from jaxsnn.analysis.significance import (
    components_for,
    images_needed,
    layer_moments,
    percent_changes,
    significance,
)
from jaxsnn.errors import UserError
from jaxsnn.networks.forward import ann_forward


@pytest.fixture(scope="module")
def snn():
    return dyadic_snn("pool_before")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).integers(0, 256, (24, 8, 8, 2), dtype=np.uint8)


@pytest.fixture(scope="module")
def rows(snn, images):
    """The whole matrix (B H W, F) of every spiking layer, in float64."""
    sums = ann_forward(snn.network, snn.params, images)[:-1]
    return [np.asarray(s, np.float64).reshape(-1, s.shape[-1]) for s in sums]


@pytest.fixture(scope="module")
def found(snn, images):
    return significance(snn.network, snn.params, images, batch=10)


def test_variances_over_batches_are_those_of_the_whole_matrix(found, rows):
    # batches of 10, 10 and 4 images with means of their own; NumPy's SVD sees all rows at once
    for variances, whole in zip(found.variances, rows):
        singular = np.linalg.svd(whole - whole.mean(0), compute_uv=False)
        expected = singular**2 / (len(whole) - 1)
        np.testing.assert_allclose(variances, expected, rtol=1e-5, atol=1e-6 * expected[0])


@pytest.mark.parametrize("ratio", [0.5, 0.9, 0.999])
def test_components_are_those_of_scikit_learn(found, rows, ratio):
    decomposition = pytest.importorskip("sklearn.decomposition", reason="compares with scikit-learn")
    for variances, whole in zip(found.variances, rows):
        pca = decomposition.PCA(n_components=ratio, svd_solver="full").fit(whole)
        assert components_for(variances, ratio) == pca.n_components_
        np.testing.assert_allclose(
            variances[: pca.n_components_], pca.explained_variance_, rtol=1e-5, atol=1e-6 * variances[0]
        )


def test_a_large_mean_does_not_drown_the_variance(snn):
    # all pixels near 255 and a constant offset between the batches: sums of squares would cancel in float32
    images = np.random.default_rng(4).integers(250, 256, (24, 8, 8, 2), dtype=np.uint8)
    images[10:] -= 120
    batches = [images[:10], images[10:20], images[20:]]
    moments = layer_moments(snn.network, snn.params, batches)
    sums = ann_forward(snn.network, snn.params, images)[:-1]
    for part, layer in zip(moments, sums):
        whole = np.asarray(layer, np.float64).reshape(-1, layer.shape[-1])
        expected = np.linalg.eigvalsh(np.cov(whole.T))[::-1]
        np.testing.assert_allclose(part.variances, expected, rtol=1e-5, atol=1e-6 * expected[0])


def test_eq_12_sums_variances_and_eq_13_their_squares():
    variances = np.array([3.0, 2.0, 1.0])
    assert components_for(variances, 0.8) == 2  # 5/6
    assert components_for(variances, 0.9) == 3
    assert components_for(variances, 0.9, power=2) == 2  # 13/14
    assert components_for(variances, 1.0) == 3
    assert components_for(np.array([2.0, 0.0]), 1.0) == 1


def test_the_change_is_relative_to_the_layer_before():
    assert percent_changes([10, 15, 12]) == [None, 50.0, pytest.approx(-20.0)]


def test_too_few_images_say_how_many_are_needed(snn):
    # after the last pool 6 features stand at one position
    assert images_needed(NETWORKS["pool_before"]) == 7
    with pytest.raises(UserError, match="conv4 with 6 features and 1 positions an image needs at least 7 images"):
        significance(snn.network, snn.params, dyadic_images(6))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((np.ones(3), 0.0), "share of the variance"),
        ((np.ones(3), 1.5), "share of the variance"),
        ((np.ones(3), 0.9, 3), "expected 1 .* or 2"),
        ((np.zeros(3), 0.9), "do not vary"),
    ],
)
def test_bad_input_is_refused(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        components_for(*arguments)
