"""Max pools of whole models: moved behind their activation, replaced, or refused by name."""

import numpy as np
import pytest

from jaxsnn.conversion.common_ops import pool
from jaxsnn.conversion.evaluate_graph import evaluate
from jaxsnn.conversion.graph import Affine, Builder, Convolution, Linear, Norm, Pool, Relu, Reshape
from jaxsnn.conversion.lower_graph import lower
from jaxsnn.conversion.pool_order import behind_activations, max_pools
from jaxsnn.errors import UserError
from jaxsnn.networks.description import MaxPool

MAX = Pool("max", (2, 2), (2, 2))
RNG = np.random.default_rng(0)


def norm(sign=1.0):
    gains = RNG.uniform(0.5, 1.5, 4) * np.array([sign, 1, 1, 1])
    return Norm(gains, RNG.normal(size=4), RNG.normal(size=4), RNG.uniform(0.5, 2, 4), 1e-3)


def scaled(shape=(1, 4, 1, 1)):
    return Affine(RNG.uniform(0.5, 1.5, shape), RNG.normal(size=shape))


def graph_of(*operations):
    """A convolution of images (2, 3, 6, 6), the operations, and a dense map."""
    builder = Builder((2, 3, 6, 6))
    x = builder.add(Convolution(RNG.normal(size=(4, 3, 3, 3)), RNG.normal(size=4)), 0, name="conv")
    for number, operation in enumerate(operations):
        x = builder.add(operation, x, name=f"{type(operation).__name__}{number}")
    count = int(np.prod(builder.shapes[x][1:]))
    x = builder.add(Reshape((2, count)), x, name="flatten")
    return builder.graph(builder.add(Linear(RNG.normal(size=(5, count)), None), x, name="head"))


@pytest.mark.parametrize(
    ("operations", "order"),
    [
        ((MAX, Relu()), (Relu, Pool)),
        ((MAX, norm(), Relu()), (Norm, Relu, Pool)),
        ((MAX, scaled(), Relu(6.0)), (Affine, Relu, Pool)),
        ((Relu(), norm(), MAX), (Relu, Pool, Norm)),
        ((Relu(), scaled(), norm(), MAX), (Relu, Pool, Affine, Norm)),
        ((Relu(), MAX, Relu()), (Relu, Relu, Pool)),
        ((Relu(), MAX, norm(), Relu()), (Relu, Pool, Norm, Relu)),
    ],
)
def test_a_max_pool_goes_behind_its_relu_and_in_front_of_norms(operations, order):
    """And the graph computes the same."""
    graph = graph_of(*operations)
    moved = behind_activations(graph)
    assert tuple(type(node.operation) for node in moved.nodes[1:-2]) == order
    x = RNG.normal(size=(2, 3, 6, 6))
    np.testing.assert_allclose(evaluate(moved, x), evaluate(graph, x), rtol=1e-12)
    network, _ = lower(moved, "small", (0.0,) * 3, (1.0,) * 3)
    assert isinstance(network.layers[1].edges[0].ops[0], MaxPool)


@pytest.mark.parametrize(
    "operations",
    [
        (MAX, norm(-1.0), Relu()),
        (Relu(), norm(-1.0), MAX, Convolution(RNG.normal(size=(4, 4, 1, 1)), None), Relu()),
        (MAX, Convolution(RNG.normal(size=(4, 4, 1, 1)), None), Relu()),
    ],
)
def test_a_max_pool_of_what_is_no_activation_is_refused_by_name(operations):
    """A norm that turns a channel round makes a minimum of it."""
    graph = graph_of(*operations)
    (name,) = max_pools(graph)
    with pytest.raises(UserError, match=f"{name} is a max pool of what is no activation.*behind a ReLU"):
        lower(behind_activations(graph), "small", (0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize("side", [7, 8, 9, 11])
@pytest.mark.parametrize(("window", "stride", "pad"), [(3, 2, 0), (3, 2, 1), (2, 2, 0), (2, 3, 1), (5, 3, 2)])
def test_ceil_mode_reads_what_pytorch_reads(side, window, stride, pad):
    """Windows that begin on the input or its padding in front, and -inf beyond."""
    builder = Builder((1, 1, side, side))
    pads = ((pad, pad), (pad, pad))
    made = pool(builder, 0, "max", "pool", window, stride, pads, ceil=True)
    x = RNG.normal(size=(1, 1, side, side))
    starts = [start for start in range(-pad, side, stride) if start < side]
    count = -(-(side + 2 * pad - window) // stride) + 1
    expected = [
        [x[0, 0, max(0, i) : i + window, max(0, j) : j + window].max() for j in starts[:count]]
        for i in starts[:count]
    ]
    np.testing.assert_array_equal(evaluate(builder.graph(made), x)[0, 0], expected)
