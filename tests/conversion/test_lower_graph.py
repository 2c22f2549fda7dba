"""Graphs become networks that compute the same, whatever stands between two activations."""

import io

import numpy as np
import pytest

from jaxsnn.conversion.evaluate_graph import evaluate
from jaxsnn.conversion.folding import fold
from jaxsnn.conversion.graph import (
    Add,
    Affine,
    Builder,
    Concat,
    Convolution,
    Linear,
    Norm,
    Pad,
    Pool,
    Relu,
    Reshape,
    Transpose,
)
from jaxsnn.conversion.lower_graph import lower
from jaxsnn.errors import UserError
from jaxsnn.exports.converted import Converted, plain_names
from jaxsnn.exports.integers import integer_files
from jaxsnn.networks.description import BatchNorm, Conv
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.simulation.observe import observe
from jaxsnn.simulation.plan import Plan

ONE = ((1, 1), (1, 1))


def drawn(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape) / max(1, np.prod(shape[1:])) ** 0.5


class Chain(Builder):
    """A builder of images (2, 3, 6, 6) whose operations follow one another; seeds count up by themselves."""

    def __init__(self):
        super().__init__((2, 3, 6, 6))
        self.x = 0

    def then(self, operation, *others):
        self.x = self.add(operation, self.x, *others, name=f"{type(operation).__name__}{len(self.nodes)}")
        return self.x

    def conv(self, features, size=3, pads=ONE, **options):
        channels, seed = self.shapes[self.x][1], len(self.nodes)
        bias = drawn(seed + 100, features)
        groups = options.get("groups", 1)
        return self.then(
            Convolution(drawn(seed, features, channels // groups, size, size), bias, pads=pads, **options)
        )

    def norm(self):
        count, seed = self.shapes[self.x][1], len(self.nodes)
        scale, bias, mean = (drawn(seed + k, count) for k in (1, 2, 3))
        return self.then(Norm(scale, bias, mean, drawn(seed + 4, count) ** 2 + 0.1, 1e-3))

    def head(self):
        count = int(np.prod(self.shapes[self.x][1:]))
        self.then(Reshape((2, count)))
        return self.then(Linear(drawn(len(self.nodes), 4, count), drawn(1, 4)))


def check(chain):
    """Lower a graph, fold it, compare with float64; returns the network."""
    graph = chain.graph(chain.x)
    network, params = lower(graph, "small", (0.25,) * 3, (0.5,) * 3)
    pixels = np.random.default_rng(5).random((2, 6, 6, 3), np.float32)
    folded, arrays = fold(network, params)
    expected = evaluate(graph, ((pixels - 0.25) / 0.5).transpose(0, 3, 1, 2))
    ours = np.asarray(ann_forward(folded, arrays, pixels)[-1])
    np.testing.assert_allclose(ours, expected, atol=3e-5 * max(1, np.abs(expected).max()))
    return network


def ops(network, layer):
    return [op for edge in network.layers[layer].edges for op in edge.ops]


def test_a_norm_behind_a_convolution_and_a_pool_stays_a_norm():
    chain = Chain()
    chain.conv(4)
    chain.then(Pool("average", (2, 2), (2, 2)))
    chain.norm()
    chain.then(Relu())
    chain.head()
    assert any(isinstance(op, BatchNorm) for op in ops(check(chain), 0))


@pytest.mark.parametrize(("pads", "extra"), [(ONE, 1), (((0, 0), (0, 0)), 0)])
def test_a_norm_behind_a_relu_is_exact_at_padded_borders(pads, extra):
    """Its shift must not fill the padding: there it becomes a map of its own, elsewhere it is folded."""
    chain = Chain()
    chain.conv(4)
    chain.then(Relu())
    chain.norm()
    chain.conv(5, pads=pads)
    chain.then(Relu())
    chain.head()
    network = check(chain)
    assert sum(isinstance(op, Conv) for op in ops(network, 1)) == 1 + extra


def test_norms_in_odd_places_are_exact():
    """In front of everything, twice in a row, behind a pool that counts its padding, in front of a dense map."""
    chain = Chain()
    chain.norm()
    chain.conv(4)
    chain.norm()
    chain.norm()
    chain.then(Relu())
    chain.norm()
    chain.then(Pool("average", (3, 3), (2, 2), ONE, True))
    chain.norm()
    chain.then(Relu(1.5))
    chain.norm()
    chain.head()
    check(chain)


def test_pads_merge_or_stand_alone():
    chain = Chain()
    chain.then(Pad(((1, 0), (0, 2))))
    chain.conv(4)
    chain.then(Pad(((0, 1), (1, 0))))
    chain.then(Relu())
    chain.then(Pad(((1, 1), (1, 1))))
    chain.then(Pool("average", (2, 2), (2, 2)))
    chain.norm()
    chain.then(Pad(((2, 0), (0, 1))))
    chain.norm()
    chain.head()
    check(chain)


def test_a_stem_without_activations_is_many_edges():
    """Pre-activation blocks: each sum goes on as it is, and every norm reads all that was added."""
    chain = Chain()
    stem = chain.conv(4)
    for _ in range(3):
        chain.norm()
        chain.then(Relu())
        branch = chain.conv(4)
        chain.x = stem
        stem = chain.then(Add(), branch)
    chain.norm()
    chain.then(Relu())
    chain.head()
    network = check(chain)
    assert [len(layer.edges) for layer in network.layers] == [1, 2, 3, 4, 1]


def test_maps_without_neurons_between_them_are_simulated_and_exported_as_integers():
    """A linear bottleneck, as a graph and in int8: the two maps of an edge become one."""
    chain = Chain()
    chain.conv(4)
    chain.then(Relu())
    chain.conv(2, 1, ((0, 0), (0, 0)))
    chain.norm()
    chain.conv(5, 1, ((0, 0), (0, 0)))
    chain.then(Relu())
    chain.head()
    network, params = lower(chain.graph(chain.x), "small", (0.25,) * 3, (0.5,) * 3)
    snn = SNN(*fold(network, params))
    genes = Genes(np.array([[0.5, 0.5]]), np.array([[0.5, 0.5]]))
    images = np.random.default_rng(5).integers(0, 256, (4, 6, 6, 3), dtype=np.uint8)
    seen = observe(
        snn, genes, images, np.zeros(4, np.int32), timesteps=8, plan=Plan(backend="xla", precision="int8")
    )
    assert (seen.spikes > 0).all()
    files = integer_files(Converted(snn, genes, Dynamics(), 8))
    with np.load(io.BytesIO(files["network.npz"])) as arrays:
        assert arrays[f"{plain_names(network.layers)[1]}.0.weight"].shape == (5, 4, 1, 1)


def test_concatenated_parts_go_through_norms_groups_and_dense_maps():
    chain = Chain()
    chain.conv(4)
    left = chain.then(Relu())
    chain.conv(2)
    right = chain.then(Relu())
    chain.x = left
    chain.then(Concat(1), right)
    chain.norm()
    chain.conv(6, groups=3)
    joined = chain.then(Relu())
    chain.then(Concat(1), left)
    chain.then(Affine(np.array(0.5), np.array(0.25)))
    chain.then(Pool("average", (2, 2), (2, 2)))
    assert chain.shapes[joined][1] == 6
    chain.head()
    check(chain)


def test_a_bare_sum_of_activations_and_a_pooled_read_out_get_a_map():
    chain = Chain()
    chain.conv(4)
    one = chain.then(Relu())
    chain.conv(4)
    chain.then(
        Relu(),
    )
    chain.then(Add(), one)
    chain.then(Relu(2.0))
    chain.then(Pool("average", (6, 6), (6, 6)))
    chain.then(Reshape((2, 4)))
    assert check(chain).classes == 4


def test_flattening_another_order_of_axes_reorders_the_dense_map():
    chain = Chain()
    chain.conv(4)
    chain.then(Relu())
    chain.then(Transpose((0, 2, 1, 3)))
    chain.head()
    check(chain)


def test_numbers_for_each_position_need_a_dense_map_behind_them():
    chain = Chain()
    chain.conv(4)
    chain.then(Relu())
    chain.then(Reshape((2, 144)))
    chain.then(Norm(*(drawn(k, 144) ** 2 + 0.1 for k in range(4)), 0.0))
    before = chain.x
    chain.head()
    check(chain)
    chain.x = before
    chain.then(Relu())
    chain.head()
    with pytest.raises(UserError, match="each position by a number of its own"):
        lower(chain.graph(chain.x), "small", (0.0,) * 3, (1.0,) * 3)


def test_a_copied_map_is_folded_apart():
    """One convolution read through two norms: two copies under two names."""
    chain = Chain()
    shared = chain.conv(4)
    chain.norm()
    one = chain.then(Relu())
    chain.x = shared
    chain.norm()
    chain.then(Relu())
    chain.then(Add(), one)
    chain.head()
    names = [op.name for layer in (0, 1) for op in ops(check(chain), layer) if isinstance(op, Conv)]
    assert names == ["Convolution0", "Convolution0_2"]


def test_a_channel_shuffle_is_refused():
    chain = Chain()
    chain.conv(4)
    chain.then(Relu())
    chain.then(Reshape((2, 2, 2, 6, 6)))
    chain.then(Transpose((0, 2, 1, 3, 4)))
    chain.then(Reshape((2, 4, 6, 6)))
    chain.head()
    with pytest.raises(UserError, match=r"Reshape2 cuts an axis of .*a channel shuffle"):
        lower(chain.graph(chain.x), "small", (0.0,) * 3, (1.0,) * 3)
