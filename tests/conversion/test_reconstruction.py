"""Reconstruction of a layer's weights: what multiplies them, and the change that takes an error back."""

import dataclasses

import numpy as np
import pytest

from helpers.networks import NETWORKS, dyadic_images, dyadic_snn
from jaxsnn.conversion import reconstruction
from jaxsnn.conversion.channel_fit import Recipe
from jaxsnn.conversion.channels import maps_of
from jaxsnn.conversion.few_timesteps import calibrate_for
from jaxsnn.conversion.reconstruction import (
    _Sums,
    correction,
    fan_in,
    from_matrix,
    inputs_of,
    kernel_matrix,
    one_sided,
    rebuilt,
)
from jaxsnn.networks.description import layer_shapes
from jaxsnn.networks.linear_maps import linear_map


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_inputs_times_the_kernel_are_the_edges_value(name):
    """Pools in front of a map and behind it, strides, shortcuts, dense layers: each edge of small networks."""
    snn = dyadic_snn(name)
    network, shapes, seen = snn.network, layer_shapes(snn.network), 0
    for layer in network.layers:
        for edge in rebuilt(network, layer):
            shape = shapes[edge.source]
            x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
            op = maps_of(edge)[0]
            kernel = np.asarray(snn.params[f"{op.name}.kernel"])
            free = {f"{op.name}.kernel": kernel}
            plain = tuple(dataclasses.replace(o, bias=False) if o is op else o for o in edge.ops)
            expected = np.asarray(linear_map(plain, free, shape)(x)).reshape(3, -1, kernel.shape[-1])
            found = np.asarray(inputs_of(edge, x)) @ kernel_matrix(kernel)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
            np.testing.assert_array_equal(from_matrix(kernel_matrix(kernel), kernel.shape), kernel)
            seen += 1
        assert fan_in(network, layer) == sum(
            inputs_of(e, np.zeros((1, *shapes[e.source]), np.float32)).shape[-1] for e in rebuilt(network, layer)
        )
    assert seen


def test_an_error_that_the_inputs_explain_is_taken_back():
    rng = np.random.default_rng(1)
    inputs, wanted = rng.normal(1, 1, (4000, 6)), rng.normal(size=(6, 3))
    change = correction(inputs, inputs @ wanted + rng.normal(0, 0.1, (4000, 3)) + 5, centred=True)
    np.testing.assert_allclose(change, wanted, atol=0.02)


def test_a_ridge_that_rounding_makes_too_small_is_left_out(monkeypatch):
    """As 0.001 was in a layer of a CIFAR-100 network: 4,608 inputs, most of them alike, and 384 values."""
    rng = np.random.default_rng(3)
    inputs = (30 + rng.normal(size=(400, 600))).astype(np.float32)
    error = inputs[:, :2] - 30
    monkeypatch.setattr(reconstruction, "RIDGES", (1e-9, 1e-3))
    assert _Sums.of(inputs, error).solve(1e-9 * np.square(inputs).mean()) is None
    change = correction(inputs, error, centred=False)
    assert change.any() and np.square(error - inputs @ change).sum() < np.square(error).sum()
    monkeypatch.setattr(reconstruction, "RIDGES", (1e-9,))
    assert not correction(inputs, error, centred=False).any()


def test_noise_changes_nothing_much_and_silence_nothing():
    """An error that has nothing to do with the inputs is left alone; so are weights on silent inputs."""
    rng = np.random.default_rng(2)
    inputs, noise = rng.normal(size=(400, 50)), rng.normal(size=(400, 2))
    assert np.abs(correction(inputs, noise, centred=False)).max() < 0.1
    assert not correction(np.zeros((400, 5)), noise, centred=True).any()
    assert not correction(inputs[:1], noise[:1], centred=False).any()


def test_what_a_relu_hides_is_no_error():
    sums, found = np.array([2.0, -1.0, -1.0, 3.0]), np.array([1.5, -4.0, 0.5, -2.0])
    np.testing.assert_array_equal(one_sided(sums - found, sums), [0.5, 0.0, -0.5, 3.0])


def test_reconstruction_fits_the_layers_better():
    """Same images, same recipe: the layers after the first follow the ANN more closely with it than without."""
    snn, images = dyadic_snn("bias"), dyadic_images(64)
    plain, fitted = (calibrate_for(snn, images, Recipe(3, reconstruct=on)) for on in (False, True))
    assert fitted.fits[0].squared_error == plain.fits[0].squared_error  # it sees the image itself
    assert fitted.fits[1].before[1] < plain.fits[1].before[1]
    assert plain.snn.params is snn.params
