"""Networks with torchvision's structure build at full size and run, small, with the same spikes everywhere."""

import math

import numpy as np
import pytest

from helpers.torchvision_networks import mobilenet_v2, resnet
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.conversion.folding import convert
from jaxsnn.networks.description import shapes_of
from jaxsnn.networks.json_format import from_json, to_json
from jaxsnn.networks.spiking import Dynamics
from jaxsnn.simulation.events.lowering import available
from jaxsnn.simulation.observe import observe_images
from jaxsnn.simulation.plan import Plan


@pytest.mark.parametrize(
    "network, parameters",
    [
        (resnet(18), 11_689_512),
        (resnet(34), 21_797_672),
        (resnet(50), 25_557_032),
        (mobilenet_v2(), 3_504_872 - 17_056),  # a folded norm's bias, without its scale
    ],
    ids=lambda case: getattr(case, "name", None),
)
def test_they_have_torchvisions_parameters_and_survive_json(network, parameters):
    sizes = {name: math.prod(shape) for name, shape in shapes_of(network).items()}
    assert sum(n for name, n in sizes.items() if not name.endswith((".mean", ".var"))) == parameters
    assert from_json(to_json(network)) == network


@pytest.mark.slow
@pytest.mark.skipif(not available(), reason="Numba is not installed")
@pytest.mark.parametrize(
    "network", [resnet(18, 32, 10, 1 / 8), resnet(50, 32, 10, 1 / 16), mobilenet_v2(32, 10, 1 / 8)]
)
def test_one_step_is_the_same_on_both_back_ends(network):
    rng = np.random.default_rng(0)
    params = {
        name: rng.normal(size=shape) * (2 / math.prod(shape[:-1])) ** 0.5
        if len(shape) > 1
        else rng.uniform(0.5, 1, shape)
        for name, shape in shapes_of(network).items()
    }
    snn = convert(network, {name: np.float32(value) for name, value in params.items()})
    images, labels = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8), np.arange(2)
    genes = calibrate(snn.network, snn.params, images).genes(99.0, v0=0.9)
    found = [
        observe_images(
            snn,
            genes,
            images,
            labels,
            timesteps=1,
            dynamics=Dynamics(delay="none"),
            plan=Plan(backend=backend, threads=1),
        )
        for backend in ("xla", "events")
    ]
    assert (found[0][0].spikes > 0).all()
    np.testing.assert_array_equal(found[0][0].spikes, found[1][0].spikes)
    np.testing.assert_array_equal(found[0][0].synops, found[1][0].synops)
    np.testing.assert_array_equal(found[0][1], found[1][1])
