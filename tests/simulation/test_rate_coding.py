"""The image as spikes: evenly spaced ones, exactly, and what a network makes of them."""

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.networks import dyadic_images, dyadic_snn, dyadic_thresholds
from helpers.reference import apply_edge
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.simulation.cells.leaky import Leaky
from jaxsnn.simulation.cells.rate import Rate
from jaxsnn.simulation.observe import observe_images

STEPS = 8


def slow(x, steps, largest):
    """Spikes (steps, ...) by a loop over pixels that keeps what each still owes."""
    found = np.zeros((steps, *x.shape))
    for place in np.ndindex(x.shape):
        rate, sent = min(abs(x[place]) / largest, 1.0), 0
        for t in range(steps):
            due = int(np.floor((t + 1) * rate + 0.5))
            found[t][place], sent = np.sign(x[place]) * (due - sent) * largest, due
    return found


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-24, 24), min_size=4, max_size=4), st.sampled_from([1.0, 2.0]))
def test_spikes_are_those_of_a_loop_and_half_a_spike_from_the_current(pixels, largest):
    x, coding = np.array(pixels, np.float32) / 8, Rate(largest)
    found = np.stack([coding(x, np.float32(t), jax.random.key(0)) for t in range(STEPS)])
    np.testing.assert_array_equal(found, slow(x, STEPS, largest))
    assert set(np.abs(found).ravel()) <= {0.0, largest}
    owed = np.arange(1, STEPS + 1)[:, None] * np.clip(x, -largest, largest)
    assert (np.abs(found.cumsum(0) - owed) <= largest / 2).all()


def test_a_network_that_is_sent_spikes_alone_does_what_a_slow_loop_does():
    snn, images = dyadic_snn("pool_after"), dyadic_images(4)
    theta = dyadic_thresholds(len(snn.network.spiking))
    coded = slow(images.astype(float), STEPS, 4.0)
    membranes, right = [0.0] * len(snn.network.spiking), np.zeros((4, STEPS), bool)
    scores, labels = 0.0, np.arange(4) % 3
    for t in range(STEPS):
        sent = coded[t]
        for index, layer in enumerate(snn.network.layers):
            drive = apply_edge(layer.edges[0].ops, snn.params, sent, bias=True)
            if index == len(membranes):
                scores = scores + drive
                break
            v = membranes[index] + drive
            sent = theta[0, index] * (v > theta[0, index])
            membranes[index] = v - sent
        right[:, t] = scores.argmax(-1) == labels
    cell, dynamics = Leaky(coding=Rate(4.0)), Dynamics(delay="none")
    _, found = observe_images(snn, Genes(theta), images, labels, timesteps=STEPS, dynamics=dynamics, cell=cell)
    np.testing.assert_array_equal(found[0], right)
