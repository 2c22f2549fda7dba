"""The accuracy as T grows is that of the ANN clipped at the thresholds."""

import numpy as np
import pytest

from helpers import reference
from helpers.networks import dyadic_images, dyadic_snn, dyadic_thresholds
from jaxsnn.errors import UserError
from jaxsnn.networks.description import IMAGE
from jaxsnn.networks.spiking import Genes
from jaxsnn.search.cost import Limit
from jaxsnn.simulation.clipped_ann import limit_correct
from jaxsnn.simulation.observables import Observables
from jaxsnn.simulation.observe import record
from jaxsnn.simulation.plan import Plan


def clipped(snn, theta, images):
    """Scores of the clipped ANN in float64 NumPy."""
    outputs = []
    for index, layer in enumerate(snn.network.layers):
        values = [images if e.source == IMAGE else outputs[e.source] for e in layer.edges]
        total = sum(reference.apply_edge(e.ops, snn.params, v, bias=True) for e, v in zip(layer.edges, values))
        outputs.append(np.clip(total, 0, theta[index]) if index < len(theta) else total)
    return outputs[-1]


@pytest.mark.parametrize("name", ["pool_before", "residual"])
def test_it_equals_numpys_for_any_chunking(name):
    snn, images = dyadic_snn(name), dyadic_images(11)
    theta = dyadic_thresholds(len(snn.network.spiking), 3)
    scores = np.stack([clipped(snn, t, images.astype(float)) for t in theta])
    labels = scores[0].argmax(-1)
    expected = (scores.argmax(-1) == labels).sum(1)
    for rows in (3, 12, 100):
        np.testing.assert_array_equal(limit_correct(snn, Genes(theta), images, labels, Plan(rows=rows)), expected)
    np.testing.assert_array_equal(
        limit_correct(snn, Genes(theta), images, labels, Plan(rows=8, group=2)), expected
    )


def test_the_simulated_scores_approach_it():
    """Mean scores after 1,024 steps lie within 3 % of the clipped ANN's, and closer than after 64."""
    snn, images = dyadic_snn("pool_before"), dyadic_images(6)
    theta = dyadic_thresholds(5)
    goal = clipped(snn, theta[0], images.astype(float))
    _, _, scores = record(snn, Genes(theta), images, 1024)
    errors = [np.abs(scores[0, t - 1] / t - goal).max() / np.abs(goal).max() for t in (64, 1024)]
    assert errors[1] < 0.03 and errors[1] < errors[0]


def test_its_cost_needs_it():
    correct, spikes = np.ones((2, 3)), np.ones((2, 1))
    observed = Observables(correct, 1, spikes, spikes, np.array([30, 20]), 40)
    np.testing.assert_allclose(Limit(100)(observed)["limit"], [25, 50])
    with pytest.raises(UserError, match="limit_correct"):
        Limit(1)(Observables(correct, 1, spikes, spikes))
