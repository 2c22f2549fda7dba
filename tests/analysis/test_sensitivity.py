"""Noise sensitivity (eq. 14-15) against NumPy, and the rank correlation against SciPy."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.networks import dyadic_images, dyadic_snn, dyadic_thresholds
from jaxsnn.analysis.correlation import spearman
from jaxsnn.analysis.sensitivity import ann_sensitivity, snn_sensitivity
from jaxsnn.errors import UserError
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.simulation.observe import record


@pytest.fixture(scope="module")
def snn():
    return dyadic_snn("pool_before")


@pytest.fixture(scope="module")
def pair():
    """Clean and changed images."""
    return dyadic_images(8), dyadic_images(8, seed=5)


def test_of_the_ann_is_the_ratio_of_norms(snn, pair):
    expected = []
    for before, after in zip(*(ann_forward(snn.network, snn.params, images)[:-1] for images in pair)):
        before, after = (np.maximum(np.asarray(a, np.float64), 0) for a in (before, after))
        expected.append(np.linalg.norm(after - before) / np.linalg.norm(before))
    # the norm is over all images, not a mean of batches
    assert ann_sensitivity(snn, *pair, batch=4) == pytest.approx(expected, rel=1e-6)


def test_of_a_quantised_ann_is_that_of_its_own_activation(snn, pair):
    """QCFS: ceiling * clip(floor(z * levels / ceiling + 1/2) / levels, 0, 1), not the ReLU."""
    layers = tuple(replace(layer, levels=4) for layer in snn.network.spiking)
    network = replace(snn.network, layers=(*layers, snn.network.layers[-1]))
    params = snn.params | {f"{layer.name}.ceiling": np.full(1, 2, np.float32) for layer in layers}
    expected = []
    for sums in zip(*(ann_forward(network, params, images)[:-1] for images in pair)):
        before, after = (2 * np.clip(np.floor(np.asarray(z, np.float64) * 2 + 0.5) / 4, 0, 1) for z in sums)
        expected.append(np.linalg.norm(after - before) / np.linalg.norm(before))
    assert ann_sensitivity(SNN(network, params), *pair, batch=4) == pytest.approx(expected, rel=1e-6)
    assert ann_sensitivity(snn, *pair, batch=4) != pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("delay", ["layer", "none"])
def test_of_the_snn_counts_the_spikes_that_the_simulator_records(snn, pair, delay):
    genes = Genes(dyadic_thresholds(len(snn.network.spiking)))
    dynamics = Dynamics(delay=delay)
    timesteps = 12 + dynamics.silent_steps(snn.network)
    counts = [[s[0].sum(0) for s in record(snn, genes, images, 12)[1]] for images in pair]
    expected = [float(np.linalg.norm(b * 1.0 - a) / np.linalg.norm(a * 1.0)) for a, b in zip(*counts)]
    found = snn_sensitivity(snn, genes, *pair, timesteps, dynamics, batch=4)
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_silent_layer_has_no_sensitivity(snn, pair):
    thresholds = dyadic_thresholds(len(snn.network.spiking))
    thresholds[0, 2] = 1e6  # layer 3 never fires, so nothing after it does
    found = snn_sensitivity(snn, Genes(thresholds), *pair, 12, Dynamics(delay="none"), batch=4)
    assert found[2:] == [None] * (len(found) - 2)
    assert all(value is not None for value in found[:2])


def test_no_change_is_zero(snn, pair):
    assert ann_sensitivity(snn, pair[0], pair[0], batch=4) == [0.0] * len(snn.network.spiking)


def test_bad_input_is_refused(snn, pair):
    genes = Genes(dyadic_thresholds(len(snn.network.spiking)))
    with pytest.raises(UserError, match="not of one shape"):
        ann_sensitivity(snn, pair[0], pair[1][:3])
    with pytest.raises(UserError, match="more than the layer delay of 5 steps"):
        snn_sensitivity(snn, genes, *pair, 5)


def test_spearman_is_scipys():
    stats = pytest.importorskip("scipy.stats", reason="compares with SciPy")
    rng = np.random.default_rng(0)
    x = rng.normal(size=6)
    y = x + rng.normal(size=6)
    y[3] = y[2]  # a tie
    found = spearman(x, y)
    assert found["rho"] == pytest.approx(stats.spearmanr(x, y).statistic)
    # all 720 orders
    exact = stats.permutation_test(
        (x,),
        lambda x: stats.spearmanr(x, y).statistic,
        permutation_type="pairings",
        n_resamples=np.inf,
        vectorized=False,
    )
    assert found["p"] == pytest.approx(exact.pvalue, abs=0.01)


def test_spearman_leaves_undefined_pairs_out():
    assert spearman([1, 2, 3, 4], [None, 5.0, 7.0, 9.0])["rho"] == pytest.approx(1)
    assert spearman([1, 2, 3], [None, 5.0, 7.0]) == {"n": 2, "rho": None, "p": None}
    assert spearman([1, 1, 1], [4.0, 5.0, 7.0])["rho"] is None
