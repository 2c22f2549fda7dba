"""The network description: shapes, JSON, and the refusals that a wrong one must get."""

import dataclasses
import json

import pytest
from hypothesis import given, settings

from helpers.networks import NETWORKS
from helpers.ops import ops
from jaxsnn.errors import UserError
from jaxsnn.networks.architectures import ARCHITECTURES, architecture
from jaxsnn.networks.description import (
    IMAGE,
    AvgPool,
    Conv,
    Dense,
    Edge,
    Layer,
    Network,
    layer_shapes,
    output_shape,
    parameter_shapes,
    shapes_of,
    then,
    walk,
)
from jaxsnn.networks.json_format import from_json, to_json
from jaxsnn.training.start import with_activation


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


def of_one(*ops, shape=(8, 8, 4)):
    """A network of ``ops`` with a read-out."""
    layers = (Layer("a", (Edge(IMAGE, ops),)), Layer("out", (Edge(0, (Dense("out", 2),)),)))
    return Network("n", shape, 2, layers, (0.0,) * shape[2], (1.0,) * shape[2])


@pytest.mark.parametrize(
    "op, message",
    [
        (AvgPool(9), "a 9x9 average pool does not fit into an input of shape \\(8, 8, 4\\)"),
        (Conv("a", 4, (3, 11), padding=1), "convolution a does not fit"),
        (Conv("a", 4, padding=10**6), "convolution a makes 2000006 x 2000006 x 4 values .* too many"),
        (Conv("a", 4, groups=3), "convolution a divides 4 channels and 4 features into 3 groups"),
    ],
)
def test_an_op_that_does_not_fit_its_input_is_refused(op, message):
    with pytest.raises(UserError, match=message):
        walk(of_one(op))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Conv("a", 4, kernel=(3, 0)), r"kernel of Conv is \(3, 0\), expected a whole number from 1"),
        (lambda: Conv("a", 4, stride=True), "stride of Conv is True"),
        (lambda: Conv("a", 4, padding=(1, 2)), r"a whole number or \(\(top, bottom\), \(left, right\)\)"),
        (lambda: AvgPool(2, padding=2), "padding of AvgPool is 2, expected less than its window"),
        (lambda: AvgPool((2, 2.0)), "window of AvgPool"),
    ],
)  # fmt: skip
def test_sizes_that_are_none_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_equal_ops_compare_equal_however_they_are_written():
    assert Conv("a", 4, (3, 3), (1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1)) == Conv("a", 4)
    assert Conv("a", 4, (3, 5), padding=((1, 1), (2, 2))) == Conv("a", 4, (3, 5))
    assert AvgPool((2, 2), 2, ((0, 0), (0, 0)), count_padding=False) == AvgPool(2)


@given(ops())
@settings(max_examples=60, deadline=None)
def test_shapes_are_those_of_pytorch(op):
    torch = pytest.importorskip("torch")
    (top, bottom), (left, right) = op.taps.pads
    x = torch.nn.functional.pad(torch.zeros(1, 8, 11, 13), (left, right, top, bottom))
    if isinstance(op, Conv):
        kernel = torch.zeros(tuple(parameter_shapes(op, (11, 13, 8))["a.kernel"][i] for i in (3, 2, 0, 1)))
        y = torch.nn.functional.conv2d(x, kernel, None, op.taps.strides, 0, op.taps.dilation, op.groups)
    else:
        y = torch.nn.functional.avg_pool2d(x, op.taps.sides, op.taps.strides)
    assert (*y.shape[2:], y.shape[1]) == output_shape(op, (11, 13, 8))


@given(ops())
@settings(max_examples=60, deadline=None)
def test_every_op_survives_json(op):
    network = of_one(op, shape=(11, 13, 8))
    assert from_json(to_json(network)) == network


def test_a_network_without_newer_fields_is_written_as_ever():
    layer = json.loads(to_json(of_one(Conv("a", 4), AvgPool(2))))["layers"][0]
    assert layer == {
        "name": "a",
        "edges": [
            {
                "source": -1,
                "ops": [
                    {"op": "Conv", "name": "a", "features": 4, "kernel": 3, "stride": 1, "bias": False},
                    {"op": "AvgPool", "window": 2},
                ],
            }
        ],
        "levels": None,
    }


@pytest.mark.parametrize("cap, levels", [(0, None), (True, None), ("6", None), (6.0, 4)])
def test_a_cap_is_a_number_and_not_beside_levels(cap, levels):
    raw = json.loads(to_json(of_one(Conv("a", 4))))
    raw["layers"][0].update(cap=cap, levels=levels)
    with pytest.raises(UserError, match="layer a: cap is"):
        from_json(json.dumps(raw))


def test_a_clipped_network_is_not_quantised_as_well():
    """Refused when it is made, as by jaxsnn.train --activation qcfs, not when its file is read again."""
    network = of_one(Conv("a", 4))
    clipped = dataclasses.replace(network.layers[0], cap=6.0)
    network = dataclasses.replace(network, layers=(clipped, *network.layers[1:]))
    with pytest.raises(UserError, match=r"layer a: cap is 6.0 and levels is 8, but quantised .* choose one"):
        with_activation(network, "qcfs", None)


def test_a_map_of_a_sum_shares_its_kernel_and_adds_its_bias_once():
    edges = then((Edge(0, (Conv("p", 4, 1),)), Edge(1, ())), Conv("e", 8, 1, bias=True))
    assert [edge.ops[-1].bias for edge in edges] == [True, False]
    layers = tuple(Layer(name, (Edge(IMAGE, (Conv(name, 4, 1),)),)) for name in "ab")
    layers += (Layer("e", edges), Layer("out", (Edge(2, (Dense("out", 2),)),)))
    network = Network("n", (2, 2, 4), 2, layers, (0.0,) * 4, (1.0,) * 4)
    assert from_json(to_json(network)) == network
    assert shapes_of(network)["e.kernel"] == (1, 1, 4, 8)


def test_an_unknown_architecture_names_its_neighbours():
    with pytest.raises(UserError, match="did you mean vgg15"):
        architecture("vgg16")
