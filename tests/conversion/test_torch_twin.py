"""PyTorch computes what a description says: the twin that imports are compared with, and an export's modules."""

import numpy as np
import pytest

from helpers.networks import PLAIN, dyadic_images
from jaxsnn.conversion.state_dicts import Module
from jaxsnn.conversion.torch_twin import sequential, state_dict, torch_logits
from jaxsnn.errors import UserError
from jaxsnn.networks.description import IMAGE, AvgPool, Conv, Dense, Edge, Layer, Network, shapes_of
from jaxsnn.networks.forward import ann_forward

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


def of_ops(*ops, cap=None):
    layers = (
        Layer("s", (Edge(IMAGE, (Conv("s", 4, 1, bias=True),)),), cap=6.0),
        Layer("l", (Edge(0, ops),), cap=cap),
        Layer("out", (Edge(1, (Dense("out", 3),)),)),
    )
    return Network("n", (7, 9, 2), 3, layers, PLAIN["mean"], PLAIN["std"])


NETWORKS = [
    of_ops(Conv("c", 8, (1, 3), (2, 1), True, groups=2, dilation=(1, 2), padding=((0, 0), (1, 1)))),
    of_ops(Conv("c", 4, groups=4, padding=((0, 2), (1, 0))), AvgPool((2, 3), 1, 1), cap=2.5),
    of_ops(
        AvgPool(3, 2, 1, count_padding=False), Conv("c", 5, padding=0), AvgPool((2, 3), padding=((1, 0), (0, 0)))
    ),
]


@pytest.mark.parametrize("network", NETWORKS)
def test_pytorch_computes_the_same(network):
    rng = np.random.default_rng(0)
    params = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes_of(network).items()}
    images = dyadic_images(3, (7, 9, 2))
    expected = np.asarray(ann_forward(network, params, images)[-1])
    written, lines = state_dict(network, params), sequential(network)
    assert lines is not None
    model = torch.nn.Sequential(*(eval(f"torch.nn.{line}") for _, line in lines))
    model.load_state_dict(written)
    found = model(torch.from_numpy(images).float().permute(0, 3, 1, 2)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    modules = {}
    for position, (name, _) in enumerate(lines):
        parts = {
            key.split(".")[1]: np.asarray(value)
            for key, value in written.items()
            if key.startswith(f"{position}.")
        }
        modules |= {name: Module(name, "", parts)} if name else {}
    np.testing.assert_allclose(torch_logits(network, modules, images), expected, rtol=1e-4, atol=1e-4)


def test_a_pool_that_pytorch_does_not_have_is_refused():
    with pytest.raises(UserError, match="layer l has a pool that does not count uneven padding"):
        sequential(of_ops(AvgPool(2, padding=((0, 1), (0, 0)), count_padding=False)))
