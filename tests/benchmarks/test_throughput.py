"""The throughput benchmark: what it counts, that the peers simulate the same network, and a whole small run."""

import numpy as np
import pytest

from benchmarks import throughput, throughput_problem
from benchmarks.contenders import entries
from benchmarks.contenders.base import Scores, Unsupported
from benchmarks.contenders.bindsnet import strided_kernel, strided_macs
from benchmarks.contenders.ours import Ours
from benchmarks.contenders.pytorch import PlainTorch
from benchmarks.contenders.turns import spread
from benchmarks.problem import (
    CHECK_STEPS,
    Problem,
    additions_per_synop,
    load_problem,
    macs,
    make_problem,
    save_problem,
)
from benchmarks.throughput_report import figure_of
from benchmarks.training import module
from helpers.networks import NETWORKS, PLAIN, dyadic_images, dyadic_snn, dyadic_thresholds
from jaxsnn.errors import UserError
from jaxsnn.networks.architectures import architecture, vgg
from jaxsnn.networks.description import IMAGE, AvgPool, Conv, Dense, Edge, Layer, Network, shapes_of
from jaxsnn.networks.linear_maps import avg_pool, conv, conv_matrix
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.networks.weights import save_weights
from jaxsnn.simulation.observe import observe, record

AT_THRESHOLD = ("SpikingJelly", "SpikingJelly bf16", "BindsNET")
"""Peers whose neuron fires at the threshold too, with no way to say otherwise."""


def dyadic_problem(name, comparison=">"):
    snn = dyadic_snn(name)
    images, thresholds = dyadic_images(6), dyadic_thresholds(len(snn.network.spiking), 3).astype(np.float32)
    dynamics = Dynamics(comparison, "none")
    _, spikes, scores = record(snn, Genes(thresholds[:1]), images, CHECK_STEPS, dynamics)
    counts = np.array([layer.sum() for layer in spikes])
    return Problem(snn.network, snn.params, thresholds, images, scores[0, -1], counts)


def test_macs_of_vgg15_by_hand():
    """3x3 taps x positions x channels in and out, in thousands; then the dense layers."""
    sides = [32, 32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2]
    channels = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = [9 * s * s * a * b for s, a, b in zip(sides, channels, channels[1:])]
    dense = 512 * 4096 + 4096 * 10
    network = architecture("vgg15")
    assert macs(network) == sum(convolutions) + dense == 315_334_656
    assert macs(network, first=False) == 315_334_656 - 9 * 32 * 32 * 3 * 64 == 313_565_184
    pooled = [1, 3, 6, 9, 12]
    saved = sum(convolutions[i] * 3 // 4 for i in pooled)
    assert macs(network, fold=True, first=False) == 313_565_184 - saved == 193_241_088


@pytest.mark.parametrize(
    "op",
    [
        Conv("a", 4, padding=0),
        Conv("a", 4, groups=2),
        Conv("a", 4, (1, 3)),
        Conv("a", 4, dilation=2),
        AvgPool(3, 2, 1),
    ],
)
def test_maps_that_are_counted_and_built_otherwise_are_refused_in_a_sentence(op):
    """They were taken for convolutions padded by half of their kernel."""
    layers = (Layer("a", (Edge(IMAGE, (op,)),)), Layer("d", (Edge(0, (Dense("d", 3),)),)))
    network = Network("other", (8, 8, 2), 3, layers, PLAIN["mean"], PLAIN["std"])
    nothing = np.zeros((0, 8, 8, 2), np.uint8)
    for refused in (macs, additions_per_synop, module, lambda n: make_problem(n, {}, nothing, nothing, 1, 1, 0)):
        with pytest.raises(UserError, match="layer a of other: this benchmark takes square convolutions"):
            refused(network)


def test_macs_of_small_layers_as_matrices():
    """4x4 with a pool, 2x2, 2x2 with a pool: taps of the strided kernels, or input times output positions."""
    network = vgg([[4, 4], [4, 6]], name="n", **(PLAIN | {"input_shape": (4, 4, 2)}))
    dense = 1 * 1 * 6 * 3
    folded = 9 * 4 * (4 * 4) + 9 * 4 * (4 * 4) + 9 * 1 * (4 * 6) + dense
    assert macs(network, fold=True, first=False) == folded
    matrices = 16 * 4 * (4 * 4) + 4 * 4 * (4 * 4) + 4 * 1 * (4 * 6) + dense
    assert macs(network, fold=True, first=False, matrix_positions=64) == matrices
    only_small = 9 * 4 * (4 * 4) + 4 * 4 * (4 * 4) + 4 * 1 * (4 * 6) + dense
    assert macs(network, fold=True, first=False, matrix_positions=16) == only_small


def test_a_strided_kernel_is_the_convolution_and_its_pool():
    rng = np.random.default_rng(0)
    kernel = rng.integers(-4, 5, (3, 3, 2, 5)).astype(np.float32)
    x = rng.integers(0, 4, (2, 8, 8, 2)).astype(np.float32)
    wide = strided_kernel(kernel, 2)
    assert wide.shape == (4, 4, 2, 5)
    np.testing.assert_array_equal(conv(x, wide, 2, 1), avg_pool(conv(x, kernel), AvgPool(2)))


def test_work_of_strided_kernels_in_vgg15():
    """16 taps at a quarter of the positions instead of 9 at all, after five convolutions."""
    pooled = 9 * (32**2 * 64 * 64 + 16**2 * 128**2 + 8**2 * 256**2 + 4**2 * 512**2 + 2**2 * 512**2)
    assert strided_macs(architecture("vgg15")) == 315_334_656 - pooled + pooled * 4 // 9


def test_additions_of_a_spike_are_the_entries_of_its_row():
    """A layer drives a convolution and its pool: entries of that matrix over entries of the convolution's."""
    ones = np.ones((3, 3, 4, 6), np.float32)
    pooled, plain = (
        (np.asarray(conv_matrix(ones, Conv("", 6), (4, 4, 4), pool)) > 0).sum() for pool in (AvgPool(2), None)
    )
    # conv1 drives a convolution, conv2 one with a pool at 4x4, conv3 one with a pool at 2x2, the rest dense layers
    assert additions_per_synop(NETWORKS["pool_before"]) == pytest.approx([1, pooled / plain, 1 / 4, 1, 1])


def test_a_problem_survives_its_file(tmp_path):
    problem = dyadic_problem("bias")
    save_problem(tmp_path / "problem.npz", problem)
    back = load_problem(tmp_path / "problem.npz")
    assert back.network == problem.network and back.params.keys() == problem.params.keys()
    for name in ("thresholds", "images", "check_scores", "check_spikes"):
        np.testing.assert_array_equal(getattr(back, name), getattr(problem, name))


@pytest.mark.parametrize("name", [name for name in entries.PEERS if "compiled" not in name])
@pytest.mark.parametrize("network", ["pool_before", "bias"])
def test_peers_simulate_the_same_network(name, network):
    """Bit for bit: every sum is exact, in bfloat16 too. Spyx starts biases too early (the worker's docstring)."""
    absent = entries.missing(entries.PEERS[name])
    if absent:
        pytest.skip(f"{' and '.join(absent)} not installed")
    if name == "Spyx" and network == "bias":
        pytest.skip("Spyx starts a bias before the layer's first input")
    problem = dyadic_problem(network, ">=" if name in AT_THRESHOLD else ">")
    assert problem.check_spikes.min() > 0
    contender = entries.PEERS[name].make(problem)
    for layout in (False, True) if entries.PEERS[name].channels_last else (False,):
        contender.set_layout(layout)
        assert contender.check(6) == {"differing": 0, "error": 0.0, "of": "scores"}


def test_a_peer_does_not_depend_on_its_batch():
    pytest.importorskip("torch")
    contender = PlainTorch(dyadic_problem("pool_before"))
    np.testing.assert_array_equal(contender.predict(6, 9, 6), contender.predict(6, 9, 4))


def test_a_peer_refuses_what_it_cannot_express():
    problem = dyadic_problem("residual")
    with pytest.raises(Unsupported, match="layer c does not read the layer before it alone"):
        list(Scores.edges(type("Peer", (), {"problem": problem})))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A trained network to the command: 2 spiking layers, so 2 steps of delay."""
    network = vgg([[4], [6]], name="tiny", classes=3, input_shape=(8, 8, 3))
    rng = np.random.default_rng(0)
    params = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes_of(network).items()}
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, network, params)
    return path


def test_a_whole_run(weights, tmp_path, monkeypatch):
    """Both processes and all files, at a size that takes seconds; the machine's own peaks are not measured."""
    peak = {"cpu": "c", "cores": 1, "dot_gflops": {"float32": {"jax": 50.0}}, "gigaadditions": {"sum": 20.0}}
    monkeypatch.setattr(throughput, "machine", lambda: peak)
    problems = []
    monkeypatch.setattr(
        throughput_problem, "load_problem", lambda path: problems.append(load_problem(path)) or problems[-1]
    )
    config = throughput.ThroughputConfig(
        networks=(),
        weights=(weights,),
        population=(3,),
        timesteps=(2, 6),
        images=5,
        rounds=2,
        peers=False,
        contenders=("jaxsnn XLA",),
        out=tmp_path / "out",
    )
    # an image of 8x8 has 1/16 of the pixels
    results = throughput.throughput(config)
    [row] = results["grid"]
    assert (row["population"], row["timesteps"], row["executed_steps"], row["images"]) == (3, 6, 4, 80)
    assert results["left_out"] == ["tiny, P = 3, T = 2: all steps are delay (2 layers)"]
    median = row["seconds"]["median"]
    assert row["nominal_itc_per_second"] == pytest.approx(3 * 80 * 6 / median)
    assert row["executed_itc_per_second"]["median"] == pytest.approx(3 * 80 * 4 / median)
    work = 9 * 64 * 3 * 4 + 9 * 16 * 4 * 6 + 4 * 6 * 3
    assert row["dense_equivalent_gflops"] == pytest.approx(2e-9 * work * 3 * 80 * 4 / median)
    assert row["executed_share_of_best_dot"] == pytest.approx(row["executed_gflops"] / 50)
    assert row["executed_gflops"] < row["dense_equivalent_gflops"]
    assert 50 < row["loaded_mb"] <= row["peak_mb"]

    problem = problems[0]
    observed = observe(
        SNN(problem.network, problem.params),
        Genes(problem.thresholds),
        problem.images[:80],
        np.zeros(80, np.int64),
        timesteps=6,
        dynamics=Dynamics(delay="layer"),
    )
    assert row["spikes_per_image_step"] == pytest.approx(observed.spikes.sum() / (3 * 80 * 4), rel=1e-3)
    assert {p.name for p in config.out.iterdir()} >= {
        "throughput.json",
        "throughput.csv",
        "population.png",
        "timesteps.png",
        "memory.png",
    }
    header, line = (config.out / "throughput.csv").read_text().splitlines()
    record = dict(zip(header.split(","), line.split(",")))
    assert float(record["seconds_median"]) == median and record["contender"] == "jaxsnn XLA"


def test_a_ratio_is_the_median_of_the_rounds():
    values = spread([a / b for a, b in zip([3.0, 8.0, 10.0], [1.0, 2.0, 5.0])])
    assert values == {"median": 3.0, "min": 2.0, "max": 4.0}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"contenders": ("SpikingJeli",)}, "no contender 'SpikingJeli': the names are jaxsnn"),
        ({"contenders": ("BindsNET",)}, "names none of ours"),
        ({"population": (0,)}, "--population is 0, expected at least 1"),
        ({"rounds": 0}, "--rounds is 0, expected at least 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        throughput.throughput(throughput.ThroughputConfig(**options))


@pytest.mark.parametrize(
    "value, text", [(None, "-"), (0, "0"), (1234.5, "1,234"), (12.34, "12.3"), (0.01234, "0.0123"), (123.4, "123")]
)
def test_numbers_for_people(value, text):
    assert figure_of(value) == text


def test_our_contender_is_observe():
    problem = dyadic_problem("pool_before")
    contender = Ours(problem, {"backend": "xla"})
    found = contender.run(images=6, timesteps=9, delay="none", candidates=1)
    observed = observe(
        SNN(problem.network, problem.params),
        Genes(problem.thresholds[:1]),
        problem.images,
        np.zeros(6, int),
        timesteps=9,
        dynamics=Dynamics(delay="none"),
    )
    assert found["spikes"] == observed.spikes[0].tolist() and found["synops"] == observed.synops[0].tolist()
    assert contender.check(6) == {"differing": 0, "error": 0.0, "of": "spikes"}
