"""The kernels for a GPU, interpreted on a CPU: bit for bit what the plain back-end computes."""

import functools

import numpy as np
import pytest

from helpers.networks import WIDE, dyadic_images, dyadic_snn, dyadic_thresholds, wide_snn
from jaxsnn.networks.description import IMAGE, AvgPool, Conv, Dense, Edge, Layer, Network, shapes_of
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.simulation import dense, gpu, kernels, tpu
from jaxsnn.simulation.observe import observe
from jaxsnn.simulation.plan import Plan


@pytest.fixture
def interpreted(monkeypatch):
    """Every kernel interpreted, in small tiles."""
    fire, box_sums = gpu.fire, gpu._box_sums
    small = gpu.Tile(32, 16, 32)
    monkeypatch.setattr(gpu, "fire", functools.partial(fire, interpret=True, tile=small))
    monkeypatch.setattr(gpu, "_box_sums", functools.partial(box_sums, interpret=True))
    monkeypatch.setattr(kernels, "usable", lambda precision: gpu)
    dense.simulate.clear_cache()
    yield
    dense.simulate.clear_cache()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("pool before", "bfloat16"),
        ("pool before", "int8"),
        ("pool after", "float32"),
        ("residual", "float32"),
        ("residual", "int8"),
    ],
)
def test_kernels_count_what_the_plain_back_end_counts(name, precision, request):
    snn = dyadic_snn(name) if name == "residual" else wide_snn(name)
    layers = gpu.layers_of(snn.network, snn.params, precision)
    assert (sum(layer is not None for layer in layers) == len(layers)) == (name != "residual")
    thresholds = dyadic_thresholds(len(layers), 2) * (1 if name == "residual" else 8)
    leak = None if precision == "int8" else np.full_like(thresholds, 0.5)
    genes = Genes(thresholds, None, leak)
    # one block, but for the residual network, which is quick: two and a rest
    plan = Plan(backend="xla", precision=precision, block=2 if name == "residual" else 4)
    steps = 5 if name == "residual" else 4
    options = {"timesteps": steps, "dynamics": Dynamics(">=", "none"), "plan": plan}
    images, labels = dyadic_images(3), np.arange(3) % 3
    plain = observe(snn, genes, images, labels, **options)
    request.getfixturevalue("interpreted")
    found = observe(snn, genes, images, labels, **options)
    for part in ("correct", "spikes", "synops"):
        np.testing.assert_array_equal(getattr(found, part), getattr(plain, part))


@pytest.mark.parametrize(
    "ops, known",
    [
        ((Conv("b", 32),), True),
        ((AvgPool(2), Conv("b", 32, 1)), True),
        ((Conv("b", 32, groups=32),), False),
        ((Conv("b", 32, dilation=2),), False),
        ((Conv("b", 32, (1, 3)),), False),
        ((Conv("b", 32, padding=0),), False),
        ((AvgPool(3, 2, 1), Conv("b", 32)), False),
        ((Conv("b", 32), AvgPool((2, 4))), False),
        ((Conv("b", 32, 1), Conv("c", 32)), False),
    ],
)
def test_what_the_kernels_do_not_know_is_left_to_xla(ops, known):
    layers = (Layer("a", (Edge(IMAGE, (Conv("a", 32),)),)), Layer("b", (Edge(0, ops),)))
    network = Network("n", (8, 8, 2), 3, (*layers, Layer("out", (Edge(1, (Dense("out", 3),)),))), (0, 0), (1, 1))
    params = {name: np.ones(shape, np.float32) for name, shape in shapes_of(network).items()}
    assert (gpu.layers_of(network, params, "int8")[1] is not None) == known


@pytest.mark.parametrize("precision, leak", [("bfloat16", 0.5), ("int8", None)])
def test_a_layer_is_its_equations_position_by_position(precision, leak):
    """Stride 2 and a drive of each position's own that all images share, as a padded pool makes of a bias."""
    rng = np.random.default_rng(1)
    kind = np.int32 if precision == "int8" else np.float32
    spikes, kernel = rng.integers(0, 2, (3, 2, 5, 7, 32)), rng.integers(-2, 3, (3, 3, 32, 20))
    fixed, bias = rng.integers(-9, 9, (1, 3, 4, 20)).astype(kind), rng.integers(-3, 3, 20).astype(kind)
    v, theta = rng.integers(0, 5, (2, 3, 4, 20)).astype(kind), rng.integers(3, 9, 20).astype(kind)
    layer = gpu.Layer(
        gpu.matrix_of(kernel.astype(np.float32), precision), gpu.Window(3, 2, 1, (5, 7, 32), (3, 4, 20))
    )
    held = spikes.astype(gpu.HELD[precision])
    rest = (
        kind(2),
        theta,
        None if leak is None else np.float32(leak),
        v,
        3,
        precision,
        ">=",
        gpu.Tile(16, 16, 32),
    )
    found = gpu.fire(held, layer, fixed, bias, *rest, interpret=True)
    padded = np.pad(spikes, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    expected, fired = v.astype(float), []
    for step in padded:
        taps = (step[:, i : i + 5 : 2, j : j + 7 : 2] @ kernel[i, j] for i in range(3) for j in range(3))
        expected = expected * (leak or 1) + fixed + bias + 2 * sum(taps)
        fired.append(expected >= theta)
        expected = expected - theta * fired[-1]
    for one, other in zip(found, (expected, fired, np.sum(fired, (0, -1)))):
        np.testing.assert_array_equal(np.asarray(one, np.float64), np.asarray(other, np.float64))


def test_weights_are_held_as_the_tensor_cores_multiply_them():
    """float32 as three terms whose sum it is; int8 with the sums along rows."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 16, 20)).astype(np.float32)
    terms = gpu.matrix_of(kernel, "float32")
    assert terms.dtype == "bfloat16" and terms.shape == (3 * 144, 20)
    first, second, third = np.asarray(terms, np.float32).reshape(3, 144, 20)
    np.testing.assert_array_equal((first + second) + third, kernel.reshape(144, 20))
    np.testing.assert_array_equal(gpu.matrix_of(kernel, "bfloat16"), terms[:144])
    whole = gpu.matrix_of(np.round(9 * kernel), "int8")
    np.testing.assert_array_equal(whole, np.round(9 * kernel).reshape(144, 20).T)
    assert whole.dtype == np.int8


def test_tiles_fit_the_layer():
    def window(channels):
        return gpu.Window(3, 1, 1, (4, 4, channels), (4, 4, 8))

    columns = [gpu.tile_for(None, "int8", features).columns for features in (3, 16, 17, 64, 100, 500)]
    assert columns == [16, 16, 32, 64, 128, 128]
    assert [gpu.depth_of(window(channels), "int8") for channels in (96, 512, 20)] == [32, 128, 4]
    assert gpu.depth_of(window(512), "float32") == 64 and gpu.tile_for(window(96), "int8", 9).depth == 32
    made = gpu._options(gpu.Tile(warps=4, stages=2), False)["compiler_params"]
    assert (made.num_warps, made.num_stages) == (4, 2) and gpu._options(gpu.Tile(), True) == {"interpret": True}


@pytest.mark.parametrize("precision", ["int8", "bfloat16", "float32"])
def test_the_probe_knows_right_from_wrong(precision, monkeypatch):
    """A device that computes the small case is used; one that gets a spike wrong is not."""
    results, jit = [], gpu.jax.jit
    monkeypatch.setattr(gpu, "fire", functools.partial(gpu.fire, interpret=True, tile=gpu.Tile(64, 32, 64)))
    monkeypatch.setattr(gpu.jax, "jit", lambda f: lambda *given: results.append(jit(f)(*given)) or results[0])
    assert gpu.probe(precision)
    monkeypatch.undo()
    for place in range(3):
        wrong = [
            part.at[(0,) * part.ndim].set(5) if index == place else part for index, part in enumerate(results[0])
        ]
        monkeypatch.setattr(gpu.jax, "jit", lambda f, wrong=wrong: lambda *given: wrong)
        assert not gpu.probe(precision)


def test_a_gpu_is_used_if_its_probe_is_right(monkeypatch):
    def refused(precision):
        raise RuntimeError("no such instruction")

    usable = kernels.usable.__wrapped__
    for backend, probe, expected in (
        ("gpu", lambda precision: True, gpu),
        ("gpu", lambda precision: False, None),
        ("gpu", refused, None),
        ("tpu", refused, None),
        ("cpu", lambda precision: True, None),
    ):
        monkeypatch.setattr(kernels.jax, "default_backend", lambda backend=backend: backend)
        for ours in (gpu, tpu):
            monkeypatch.setattr(ours, "probe", probe)
        assert usable("int8") is expected


def test_sums_over_squares_are_sums():
    """Overlapping ones with zeros around, and those of a pool, which leaves the rest of a side out."""
    x = np.random.default_rng(0).integers(0, 2, (2, 3, 5, 7, 70)).astype(np.int8)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    parts = [padded[:, :, i : i + 6, j : j + 8] for i in (0, 1) for j in (0, 1)]
    np.testing.assert_array_equal(gpu._box_sums(x, 1, interpret=True), sum(parts))
    pooled = gpu._sum_pool(x, 2)
    np.testing.assert_array_equal(pooled, sum(x[:, :, i:4:2, j:6:2] for i in (0, 1) for j in (0, 1)))
    assert pooled.dtype == np.int8


def test_a_device_without_the_kernels_goes_without():
    assert kernels.usable("int8") is None  # a CPU
    with pytest.raises(ValueError, match="interpret mode"):
        gpu.probe("int8")


def test_blocks_are_equal_parts_and_rows_stay_countable():
    assert [gpu.block_of(steps) for steps in (0, 1, 8, 9, 28, 86)] == [1, 1, 8, 5, 7, 8]
    network = WIDE["pool after"]
    rows = gpu.most_rows(network, 8)
    assert rows * 8 * 9 * 9 * 32 < 2**31 <= (rows + 1) * 8 * 9 * 9 * 32
    assert gpu.most_rows(network, 2**31) == 1
