"""NIR files hold the network, and the readers that are installed compute it with the program beside the file."""

import importlib.util

import numpy as np
import pytest

from helpers.exported import run_nir, written
from helpers.networks import PLAIN, dyadic_images, dyadic_snn, random_snn, with_all_ops
from jaxsnn.errors import UserError
from jaxsnn.exports.converted import Converted
from jaxsnn.exports.nir_graph import Dialect, nir_graph
from jaxsnn.exports.nir_readers import READERS, nir_files, says
from jaxsnn.networks.description import IMAGE, AvgPool, Conv, Dense, Edge, Layer, MaxPool, Network
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.simulation.observe import record

nir = pytest.importorskip("nir")


def converted(snn, comparison=">", steps=8, v0=0.25, leak=None):
    layers = len(snn.network.spiking)
    genes = Genes(np.full((1, layers), 0.5), np.full((1, layers), v0), leak)
    return Converted(snn, genes, Dynamics(comparison, "none"), steps)


def simulated(one, images):
    _, spikes, scores = record(one.snn, one.genes, images, one.steps, one.dynamics)
    assert all(s.any() for s in spikes)
    return scores[0]


def interpreted(graph, images, comparison):
    """Scores (steps, N, classes) of a graph, by what NIR's nodes say and its metadata add."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    mean, std = (graph.metadata[name][:, None, None] for name in ("mean", "std"))
    image = torch.from_numpy((images.astype(np.float32).transpose(0, 3, 1, 2) / np.float32(255) - mean) / std)
    before = {name: [a for a, b in graph.edges if b == name] for name in graph.nodes}
    order = []
    while len(order) < len(graph.nodes):
        order += [name for name in graph.nodes if name not in order and set(before[name]) <= set(order)]
    membranes, total, scores = {}, 0, []
    for _ in range(int(graph.metadata["timesteps"])):
        values = {"input": image}
        for name in order[1:]:
            node, x = graph.nodes[name], sum(values[source] for source in before[name])
            match node:
                case nir.Conv2d():
                    weight, bias = torch.tensor(node.weight), torch.tensor(node.bias)
                    geometry = (tuple(map(int, pair)) for pair in (node.stride, node.padding, node.dilation))
                    x = functional.conv2d(x, weight, bias, *geometry, groups=int(node.groups))
                case nir.SumPool2d() | nir.AvgPool2d():
                    sizes = [tuple(map(int, pair)) for pair in (node.kernel_size, node.stride, node.padding)]
                    x = functional.avg_pool2d(x, *sizes)
                    x = x * float(np.prod(sizes[0])) if isinstance(node, nir.SumPool2d) else x
                case nir.Flatten():
                    x = x.flatten(1)
                case nir.Affine():
                    x = x @ torch.tensor(node.weight).T + torch.tensor(node.bias)
                case nir.IF():
                    start = torch.tensor(node.metadata["initial_membrane"])
                    x = x + membranes.get(name, start.reshape(-1, *[1] * (x.ndim - 2)))
                    fired = x > 1 if comparison == ">" else x >= 1
                    membranes[name], x = x - fired.float(), fired.float()
            values[name] = x
        total = total + values["output"]
        scores.append(total.numpy())
    return np.stack(scores)


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("name", ["pool_before", "bias", "residual"])
def test_the_graph_is_the_network(name, sums, tmp_path):
    one, images = converted(dyadic_snn(name), ">="), dyadic_images(3)
    nir.write(tmp_path / "a.nir", nir_graph(one, Dialect(sum_pools=sums)))
    graph = nir.read(tmp_path / "a.nir")
    assert {np.unique(n.v_threshold).tolist()[0] for n in graph.nodes.values() if isinstance(n, nir.IF)} == {1.0}
    np.testing.assert_array_equal(interpreted(graph, images, ">="), simulated(one, images))


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("even", [True, False])
def test_the_graph_has_every_op_and_channels_that_start_apart(sums, even):
    """Also where rows and columns ask for kernels of sides that no zeros make equal."""
    one, images = converted(random_snn(with_all_ops(even=even))), dyadic_images(20, (8, 6, 2))
    found = interpreted(nir_graph(one, Dialect(sum_pools=sums)), images, ">")
    np.testing.assert_allclose(found, simulated(one, images), atol=1e-4)


def test_zeros_in_a_kernel_stand_for_uneven_padding():
    """As strides leave it behind where a framework pads "same"; also in front of an average pool."""
    layers = (
        Layer("a", (Edge(IMAGE, (Conv("a", 4, 3, bias=True, padding=((1, 0), (0, 1))),)),)),
        Layer("b", (Edge(0, (Conv("b", 4, 3, 2, padding=((0, 1), (0, 1))), AvgPool(2, 1, ((0, 1), (0, 1))))),)),
        Layer("c", (Edge(1, (Dense("c", 3),)),)),
    )
    network = Network("uneven", (8, 6, 2), 3, layers, PLAIN["mean"], PLAIN["std"])
    one, images = converted(random_snn(network)), dyadic_images(20, (8, 6, 2))
    found = interpreted(nir_graph(one, Dialect(sum_pools=False)), images, ">")
    np.testing.assert_allclose(found, simulated(one, images), atol=1e-4)


def test_the_metadata_say_how_to_run_it(tmp_path):
    one = converted(random_snn(dyadic_snn("residual").network))
    nir.write(tmp_path / "a.nir", nir_graph(one))
    graph = nir.read(tmp_path / "a.nir")
    assert graph.metadata["comparison"] == ">" and graph.metadata["reset"] == "subtract the threshold"
    assert (graph.metadata["timesteps"], graph.metadata["timesteps_with_layer_delay"]) == (8, 12)
    for layer, start in zip(one.network.spiking, one.starts()):
        node = graph.nodes[f"{layer.name}_if"]
        np.testing.assert_allclose(node.metadata["initial_membrane"], start / 0.5, rtol=1e-6)


@pytest.mark.parametrize("sums", [True, False])
def test_initial_membranes_in_the_biases_are_the_same_sum_after_the_last_step(sums):
    one = converted(random_snn(dyadic_snn("pool_before").network))
    with_starts, with_biases = (nir_graph(one, Dialect(sum_pools=sums), v0) for v0 in ("metadata", "bias"))
    node = with_biases.nodes["conv2_if"]
    assert not node.metadata["initial_membrane"].any()
    more = with_biases.nodes["conv2_conv"].bias - with_starts.nodes["conv2_conv"].bias
    share = one.starts()[1] / 0.5 / one.steps
    np.testing.assert_allclose(more, share, rtol=1e-4)
    pooled = with_biases.nodes["conv1_conv"].bias - with_starts.nodes["conv1_conv"].bias
    np.testing.assert_allclose(pooled * (4 if sums else 1), one.starts()[0] / 0.5 / one.steps, rtol=1e-4)


@pytest.mark.parametrize("name", ["pool_after", "residual"])
@pytest.mark.parametrize("reader", [name for name, reader in READERS.items() if reader.program])
def test_the_reader_computes_the_same_with_its_program(reader, name, tmp_path):
    if importlib.util.find_spec(reader) is None:
        pytest.skip(f"{reader} is not installed")
    one, images = converted(dyadic_snn(name), ">=" if READERS[reader].at_threshold else ">"), dyadic_images(3)
    found = run_nir(written(tmp_path, nir_files(one, reader)), reader, images)
    np.testing.assert_array_equal(found, simulated(one, images))


def test_the_readers_differences_are_a_sentence():
    one = converted(dyadic_snn("bias"))
    for reader in READERS:
        sentence = says(one, reader)
        assert sentence.endswith(".") and READERS[reader].title in sentence
    assert "exactly at the threshold, where it fires" in says(one, "sinabs")
    assert "where it does not fire" in says(converted(dyadic_snn("bias"), ">="), "norse")
    assert "in the biases" in says(one, "lava", "bias")
    assert "it stops at convolutions with biases, which this network has" in says(one, "lava")
    assert "it stops at branches" in says(converted(dyadic_snn("residual")), "lava")
    assert "stops" not in says(converted(dyadic_snn("pool_before")), "lava")


def test_what_nir_cannot_hold_ends_in_a_sentence():
    with pytest.raises(UserError, match="target is 'nest', expected one of snntorch"):
        nir_files(converted(dyadic_snn("bias")), "nest")
    leaks = np.full((1, 3), 0.5)
    with pytest.raises(UserError, match="membranes leak"):
        nir_files(converted(dyadic_snn("pool_after"), leak=leaks))
    uneven = Conv("a", 4, dilation=(1, 2), padding=((1, 1), (2, 1)))
    layers = (Layer("a", (Edge(IMAGE, (uneven,)),)), Layer("b", (Edge(0, (Dense("b", 3),)),)))
    with pytest.raises(
        UserError, match=r"convolution a has taps 1 x 2 apart and a padding that differs.*to torch"
    ):
        nir_files(converted(random_snn(Network("uneven", (8, 6, 2), 3, layers, PLAIN["mean"], PLAIN["std"]))))
    layers = (
        Layer("a", (Edge(IMAGE, (Conv("a", 4),)),)),
        Layer("b", (Edge(0, (MaxPool(2), Dense("b", 3))),)),
    )
    pooled = Network("pooled", (8, 6, 2), 3, layers, PLAIN["mean"], PLAIN["std"])
    with pytest.raises(UserError, match=r"NIR has no max pool.*export to torch or npz"):
        nir_files(converted(random_snn(pooled)))
