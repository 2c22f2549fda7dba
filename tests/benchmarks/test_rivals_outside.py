"""Neurons and thresholds of benchmarks.rivals beside those of other packages, where these are installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.few import ltb
from benchmarks.few.task import Task
from helpers.networks import NETWORKS, dyadic_images, random_snn
from jaxsnn.simulation.cells.burst import Several
from jaxsnn.simulation.cells.leaky import Leaky
from jaxsnn.simulation.cells.refractory import Refractory

STEPS, NEURONS = 50, 40


def spikes_of(cell, drives, theta):
    """Of neurons that begin empty, step by step, (T, N)."""
    step = jax.jit(lambda state, drive: tuple(cell.step(state, drive, jnp.float32(theta), None, None)))
    state, found = cell.init(jnp.zeros(drives.shape[1]), jnp.float32(theta)), []
    for drive in drives:
        state, spikes, _ = step(state, jnp.asarray(drive, jnp.float32))
        found.append(np.asarray(spikes, np.float64))
    return np.stack(found)


def test_refractory_neurons_are_those_of_nengo():
    """Random currents; a spike may fall a step earlier or later where float32 rounds at the threshold."""
    nengo = pytest.importorskip("nengo")
    drives = np.random.default_rng(0).uniform(-0.2, 1.4, (STEPS, NEURONS))
    neurons, theta = nengo.LIF(tau_rc=0.02, tau_ref=0.002), 0.7
    voltage, waiting, output = (np.zeros(NEURONS) for _ in range(3))
    counts = np.zeros(NEURONS)
    for drive in drives:
        neurons.step(0.001, 1 + 10 * drive / theta, output, voltage=voltage, refractory_time=waiting)
        counts += output * 0.001
    found = spikes_of(Refractory(), drives, theta).sum(0)
    assert np.abs(found - counts).sum() <= 1 and counts.min() > 5


@pytest.mark.parametrize("to_zero", [False, True])
def test_leaky_neurons_are_those_of_spikingjelly(to_zero):
    """Integrate-and-fire, reset by subtraction or to zero, on currents that never tie with the threshold."""
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    torch = pytest.importorskip("torch")
    drives = np.random.default_rng(1).uniform(-0.5, 1.2, (STEPS, NEURONS)).astype(np.float32)
    other = neuron.IFNode(v_threshold=0.7, v_reset=0.0 if to_zero else None, step_mode="m")
    expected = other(torch.from_numpy(drives)).numpy()
    assert np.array_equal(spikes_of(Leaky(to_zero=to_zero), drives, 0.7), expected)
    assert spikes_of(Several(most=1), drives, 0.7).sum() > 0


def test_balanced_thresholds_are_those_of_spikingjelly():
    """Two passes of all images through a convolution with a pool and a dense layer."""
    recipes = pytest.importorskip("spikingjelly.activation_based.ann2snn.recipes.local_threshold_balancing")
    torch = pytest.importorskip("torch")
    snn, images = random_snn(NETWORKS["pool_before"], starts=False), dyadic_images(12)
    hooks = [recipes.LocalThresholdBalancingHook() for _ in snn.network.spiking]
    params = {name: torch.from_numpy(value) for name, value in snn.params.items()}
    for _ in range(2):
        x = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2)
        for layer, hook in zip(snn.network.spiking, hooks):
            for op in layer.edges[0].ops:
                kernel = params.get(f"{getattr(op, 'name', '')}.kernel")
                if kernel is None:
                    x = torch.nn.functional.avg_pool2d(x, op.window)
                elif kernel.ndim == 4:
                    x = torch.nn.functional.conv2d(x, kernel.permute(3, 2, 0, 1), padding=1)
                else:
                    x = (x if x.ndim == 2 else x.permute(0, 2, 3, 1).flatten(1)) @ kernel
            x = hook(x)
    found, _ = ltb.balance(Task(snn, images, 4, ltb_batches=2))
    for theta, hook in zip(found, hooks):
        expected = hook.compute_threshold().numpy()
        active = expected > hook.eps  # a silent channel folds with its layer's largest here
        assert np.allclose(theta[active], expected[active], rtol=1e-4) and active.sum() > 2
