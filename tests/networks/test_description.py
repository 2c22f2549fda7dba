"""The network description: shapes, JSON, and the refusals that a wrong one must get."""

import json

import pytest

from helpers.networks import NETWORKS
from jaxsnn.errors import UserError
from jaxsnn.networks.architectures import ARCHITECTURES, architecture
from jaxsnn.networks.description import IMAGE, AvgPool, Conv, Dense, Edge, Layer, Network, layer_shapes, walk
from jaxsnn.networks.json_format import from_json, to_json


@pytest.mark.parametrize("network", [*NETWORKS.values(), *(make() for make in ARCHITECTURES.values())])
def test_json_round_trip(network):
    assert from_json(to_json(network)) == network


def test_the_papers_vgg15_has_14_thresholds_and_pools_in_front_of_the_activation():
    network = architecture("vgg15")
    assert len(network.spiking) == network.delay == 14
    assert layer_shapes(network)[1] == (16, 16, 64)
    assert layer_shapes(network)[12:14] == ((1, 1, 512), (4096,))


def test_residual_depth_is_the_longest_path():
    assert NETWORKS["residual"].depths == (1, 2, 3, 4, 4)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda raw: raw.pop("layers"), "layers"),
        (lambda raw: raw["layers"][0]["edges"][0]["ops"][0].update(op="Exec"), "Exec"),
        (lambda raw: raw["layers"][0]["edges"][0]["ops"][0].pop("features"), "features"),
        (lambda raw: raw.update(classes=7), "expected \\(7,\\)"),
        (lambda raw: raw["layers"][1]["edges"][0].update(source=40), "layer conv2 reads layer 40"),
        (lambda raw: raw["layers"][1]["edges"][0].update(source=-2), "layer conv2 reads layer -2"),
    ],
)
def test_a_wrong_description_is_refused(change, message):
    raw = json.loads(to_json(NETWORKS["pool_before"]))
    change(raw)
    with pytest.raises(UserError, match=message):
        from_json(json.dumps(raw))


def test_edges_of_different_shapes_are_refused():
    layers = (
        Layer("a", (Edge(IMAGE, (Conv("a", 4),)), Edge(IMAGE, (Conv("b", 4, stride=2),)))),
        Layer("c", (Edge(0, (Dense("c", 2),)),)),
    )
    with pytest.raises(UserError, match="layer a: its edges end in different shapes"):
        walk(Network("n", (8, 8, 1), 2, layers, (0.0,), (1.0,)))


def test_a_pool_that_does_not_divide_is_refused():
    layers = (Layer("a", (Edge(IMAGE, (AvgPool(3), Dense("a", 2))),)),)
    with pytest.raises(UserError, match="3x3 average pool does not divide"):
        walk(Network("n", (8, 8, 1), 2, layers, (0.0,), (1.0,)))


def test_an_unknown_architecture_names_its_neighbours():
    with pytest.raises(UserError, match="did you mean vgg15"):
        architecture("vgg16")
