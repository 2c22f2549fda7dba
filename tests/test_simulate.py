"""The simulator does what eq. 1-2 say, spike for spike, and counts it right."""

import numpy as np
import pytest

import reference
from jaxsnn.network import layer_shapes
from jaxsnn.simulate import Plan, observe, observe_images, record
from jaxsnn.snn import Dynamics, Genes
from networks import NETWORKS, dyadic_images, dyadic_snn, dyadic_thresholds

T = 12


@pytest.mark.parametrize("comparison", [">", ">="])
@pytest.mark.parametrize("name", NETWORKS)
def test_membranes_and_spikes_equal_the_reference_bit_for_bit(name, comparison):
    snn, images = dyadic_snn(name), dyadic_images(3)
    theta = dyadic_thresholds(len(snn.network.spiking))
    membranes, spikes, scores = record(snn, Genes(theta), images, T, Dynamics(comparison, "none"))
    expected = reference.simulate(snn, theta[0], images, T, comparison, "none", x=images.astype(float))
    assert all(s.any() for s in expected[1])
    for layer in range(len(snn.network.spiking)):
        np.testing.assert_array_equal(spikes[layer][0], expected[1][layer])
        np.testing.assert_array_equal(membranes[layer][0], expected[0][layer])
    np.testing.assert_array_equal(scores[0], expected[2])


@pytest.mark.parametrize("comparison", [">", ">="])
@pytest.mark.parametrize("name", NETWORKS)
def test_layer_delay_is_a_shift_of_eq_1_as_printed(name, comparison):
    """The simulator runs without delay and shifts; the reference runs eq. 1-2 with the old membrane."""
    snn, images = dyadic_snn(name), dyadic_images(6)
    theta = dyadic_thresholds(len(snn.network.spiking), 2)
    labels = np.arange(6) % 3
    total = T + snn.network.delay
    observed = observe(snn, Genes(theta), images, labels, total, Dynamics(comparison, "layer"))
    for candidate in range(2):
        _, spikes, scores = reference.simulate(
            snn, theta[candidate], images, total, comparison, "layer", x=images.astype(float)
        )
        correct = (scores.argmax(-1) == labels).sum(1)
        np.testing.assert_array_equal(observed.correct[candidate], correct)
        # spikes that no longer reach the read-out within T are not simulated: layer l loses its last
        # (delay - l) steps
        for layer, depth in enumerate(snn.network.depths[:-1]):
            arriving = spikes[layer][: total - (snn.network.delay - depth)]
            assert observed.spikes[candidate, layer] == arriving.sum()
