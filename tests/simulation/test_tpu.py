"""The kernels for a TPU, interpreted on a CPU: bit for bit what the plain back-end computes."""

import functools

import numpy as np
import pytest

from helpers.networks import WIDE, dyadic_images, dyadic_snn, dyadic_thresholds, wide_snn
from jaxsnn.networks.description import IMAGE, AvgPool, Conv, Dense, Edge, Layer, Network, shapes_of
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.simulation import dense, kernels, tpu, tpu_layers
from jaxsnn.simulation.observe import observe
from jaxsnn.simulation.plan import Plan
from jaxsnn.simulation.rows import PACKED, from_rows, grid_of, to_rows


@pytest.fixture
def interpreted(monkeypatch):
    """Every kernel interpreted."""
    monkeypatch.setattr(tpu, "fire", functools.partial(tpu.fire, interpret=True))
    monkeypatch.setattr(kernels, "usable", lambda precision: tpu)
    dense.simulate.clear_cache()
    yield
    dense.simulate.clear_cache()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision"),
    [("pool before", "int8"), ("pool before", "float32"), ("pool after", "bfloat16"), ("residual", "int8")],
)
def test_kernels_count_what_the_plain_back_end_counts(name, precision, request):
    snn = dyadic_snn(name) if name == "residual" else wide_snn(name)
    thresholds = dyadic_thresholds(len(snn.network.spiking), 2) * (1 if name == "residual" else 8)
    leak = None if precision == "int8" else np.full_like(thresholds, 0.5)
    genes, plan = Genes(thresholds, None, leak), Plan(backend="xla", precision=precision, block=2)
    # two blocks, and for the residual network a rest
    options = {"timesteps": 5 if name == "residual" else 4, "dynamics": Dynamics(">=", "none"), "plan": plan}
    images, labels = dyadic_images(3), np.arange(3) % 3
    plain = observe(snn, genes, images, labels, **options)
    request.getfixturevalue("interpreted")
    found = observe(snn, genes, images, labels, **options)
    for part in ("correct", "spikes", "synops"):
        np.testing.assert_array_equal(getattr(found, part), getattr(plain, part))


@pytest.mark.parametrize(
    ("ops", "known"),
    [
        ((Conv("b", 32),), True),
        ((Conv("b", 32), AvgPool(2)), True),
        ((AvgPool(2), Conv("b", 32, 1)), True),
        ((AvgPool(2), Dense("b", 9)), True),
        ((Conv("b", 32, 1), AvgPool(2)), False),
        ((Conv("b", 32, stride=2),), False),
        ((Conv("b", 32, groups=32),), False),
        ((Conv("b", 32, dilation=2),), False),
        ((Conv("b", 32, (1, 3)),), False),
        ((Conv("b", 32, padding=0),), False),
        ((Conv("b", 32), AvgPool((2, 4))), False),
        ((Conv("b", 32, 1), Conv("c", 32)), False),
    ],
)
def test_what_the_kernels_do_not_know_is_left_to_xla(ops, known):
    layers = (Layer("a", (Edge(IMAGE, (Conv("a", 32),)),)), Layer("b", (Edge(0, ops),)))
    network = Network("n", (8, 8, 2), 3, (*layers, Layer("out", (Edge(1, (Dense("out", 3),)),))), (0, 0), (1, 1))
    params = {name: np.ones(shape, np.float32) for name, shape in shapes_of(network).items()}
    assert (tpu.layers_of(network, params, "int8")[1] is not None) == known


def test_a_layer_that_does_not_fit_on_the_chip_is_left_to_xla(monkeypatch):
    network = WIDE["pool after"]
    params = wide_snn("pool after").params
    assert all(tpu.layers_of(network, params, "bfloat16"))
    monkeypatch.setattr(tpu_layers, "MEMORY", 1 << 20)
    assert not all(tpu.layers_of(network, params, "bfloat16"))


@pytest.mark.parametrize("side", [1, 2, 4, 8, 33])
def test_images_lie_as_rows_and_come_back(side):
    """Programs own whole tiles, and as many images as PACKED fill whole programs."""
    grid = grid_of((side, side))
    assert grid.rows * grid.together % PACKED == 0 and PACKED % grid.together == 0 and grid.rows >= side**2
    shape = (3, max(1, side - 1), max(1, side - 1), 5)
    x = np.random.default_rng(side).integers(0, 9, (2, *shape)).astype(np.int8)
    rows = to_rows(x, grid)
    assert rows.shape == (2, PACKED * grid.rows, 5) and int(rows.sum()) == int(x.sum())
    np.testing.assert_array_equal(from_rows(rows, grid, shape), x)


@pytest.mark.slow
def test_the_probe_knows_right_from_wrong(monkeypatch):
    """A device that computes the small cases is used; one that gets a spike wrong is not."""
    fire = functools.partial(tpu.fire, interpret=True)
    monkeypatch.setattr(tpu, "fire", fire)
    assert tpu.probe("int8")

    def wrong(*given):
        v, spikes = fire(*given)
        return v, spikes.at[0, 0, 0].set(1 - spikes[0, 0, 0])

    monkeypatch.setattr(tpu, "fire", wrong)
    assert not tpu.probe("int8")
