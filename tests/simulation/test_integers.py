"""int8: integer arithmetic that is what its definition says, and says where it would not be."""

import jax
import numpy as np
import pytest

from helpers.integer_reference import integer_reference
from helpers.networks import BACKENDS, PLAIN, dyadic_images, dyadic_snn, dyadic_thresholds, random_snn
from jaxsnn.errors import UserError
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import IMAGE, AvgPool, Conv, Dense, Edge, Layer, Network
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.runtime import int8_products
from jaxsnn.simulation.integers import (
    _check_range,
    _check_size,
    _reach,
    integer_pixels,
    matrix_products,
    quantize,
    wire_integers,
)
from jaxsnn.simulation.observe import observe, observe_images
from jaxsnn.simulation.plan import Plan


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["pool_before", "pool_after", "bias"])
def test_spikes_equal_the_integer_reference(name, backend):
    snn, images, labels = dyadic_snn(name), dyadic_images(4), np.arange(4) % 3
    rng = np.random.default_rng(0)  # weights that int8 must round
    snn = SNN(snn.network, {k: v + rng.normal(0, 0.05, v.shape).astype(np.float32) for k, v in snn.params.items()})
    theta = np.float32(dyadic_thresholds(len(snn.network.spiking)))
    genes = Genes(theta, np.full_like(theta, 0.5))
    plan = Plan(backend=backend, precision="int8")
    found, right = observe_images(
        snn, genes, images, labels, timesteps=9, dynamics=Dynamics(delay="none"), plan=plan
    )
    spikes, scores = integer_reference(snn, theta[0].astype(float), images, 9, 0.5)
    assert all(s.any() for s in spikes)
    np.testing.assert_array_equal(found.spikes[0], [s.sum() for s in spikes])
    np.testing.assert_array_equal(right[0], (scores.argmax(-1) == labels).T)


@pytest.mark.skipif(not int8_products.fast(), reason="this CPU has no instructions for int8")
def test_a_cpu_multiplies_what_spikes_drive_in_int8():
    network = vgg([[16], [16]], [], name="wide", **PLAIN)
    snn, images, labels = random_snn(network, starts=False), dyadic_images(4), np.arange(4) % 3
    theta = np.full((1, 2), 0.25, np.float32)
    found, right = observe_images(
        snn,
        Genes(theta),
        images,
        labels,
        timesteps=5,
        dynamics=Dynamics(delay="none"),
        plan=Plan(backend="xla", precision="int8"),
    )
    spikes, scores = integer_reference(snn, theta[0].astype(float), images, 5, 0.0)
    assert all(s.any() for s in spikes)
    np.testing.assert_array_equal(found.spikes[0], [s.sum() for s in spikes])
    np.testing.assert_array_equal(right[0], (scores.argmax(-1) == labels).T)
    whole = quantize(snn)
    wiring = wire_integers(whole.network, whole.kernels, integer_pixels(whole, images), matrix_products)
    for maps, shape in zip(wiring.synapses[1:], [(4, 4, 16), (2, 2, 16)]):
        text = jax.jit(maps[0][1]).lower(np.ones((2, *shape), np.float32)).as_text()
        products = [line for line in text.splitlines() if "dot_general" in line]
        assert len(products) == 1 and "i8>" in products[0].split(":")[-1].split("->")[0]


@pytest.mark.slow
def test_batch_chunk_and_population_change_nothing():
    snn, images, labels = dyadic_snn("residual"), dyadic_images(6), np.arange(6) % 3
    theta = dyadic_thresholds(4, 3)
    whole = observe(snn, Genes(theta), images, labels, timesteps=12, plan=Plan(backend="xla", precision="int8"))
    parts = observe(
        snn, Genes(theta), images, labels, timesteps=12, plan=Plan(backend="xla", precision="int8", rows=4)
    )
    one = observe(snn, Genes(theta[1:2]), images, labels, timesteps=12, plan=Plan(backend="xla", precision="int8"))
    np.testing.assert_array_equal(whole.spikes, parts.spikes)
    np.testing.assert_array_equal(whole.correct, parts.correct)
    np.testing.assert_array_equal(whole.spikes[1], one.spikes[0])


@pytest.mark.slow
def test_bfloat16_gives_the_float32_spikes_where_it_holds_the_weights():
    """Weights in {-2..2} / 4 are exact in it, sums and membranes are float32 anyway."""
    snn, images, labels = dyadic_snn("pool_before"), dyadic_images(8), np.arange(8) % 3
    genes, none = Genes(dyadic_thresholds(5)), Dynamics(delay="none")
    exact = observe(snn, genes, images, labels, timesteps=16, dynamics=none, plan=Plan(backend="xla"))
    found = observe(snn, genes, images, labels, timesteps=16, dynamics=none, plan=Plan(precision="bfloat16"))
    np.testing.assert_array_equal(found.spikes, exact.spikes)
    np.testing.assert_array_equal(found.correct, exact.correct)


def test_bfloat16_rounds_the_weights_that_spikes_drive_and_no_others():
    """Times 1 + 1/256 is a tie that it rounds back; the image's own weights and the sums stay as they are."""
    snn, images, labels = dyadic_snn("pool_after"), dyadic_images(4), np.arange(4) % 3
    finer = {name: value * np.float32(1 + 2**-8) for name, value in snn.params.items()}
    first = {name: finer[name] for name in finer if name.startswith("conv1.")}
    genes, options = Genes(dyadic_thresholds(3)), {"timesteps": 8, "dynamics": Dynamics(delay="none")}
    counts = [
        observe(
            SNN(snn.network, params),
            genes,
            images,
            labels,
            plan=Plan(backend="xla", precision=precision, block=1),
            **options,
        )
        for params, precision in ((finer, "bfloat16"), (snn.params | first, "float32"), (finer, "float32"))
    ]
    np.testing.assert_array_equal(counts[0].spikes, counts[1].spikes)
    np.testing.assert_array_equal(counts[0].correct, counts[1].correct)
    assert (counts[0].spikes != counts[2].spikes).any()


def test_what_integers_cannot_do_is_refused():
    snn, images, labels = dyadic_snn("pool_after"), dyadic_images(2), np.zeros(2, int)
    plan, theta = Plan(precision="int8"), np.ones((1, 3))
    with pytest.raises(UserError, match="int8 membranes cannot leak"):
        observe(snn, Genes(theta, None, np.full((1, 3), 0.9)), images, labels, timesteps=4, plan=plan)
    with pytest.raises(UserError, match="membranes of layer conv1 could exceed 32 bits within 999997 timesteps"):
        observe(snn, Genes(theta), images, labels, timesteps=1_000_000, plan=plan)
    with pytest.raises(UserError, match="threshold of layer conv1 is too large"):
        observe(snn, Genes(np.full((1, 3), 1e12)), images, labels, timesteps=4, plan=plan)
    both = (Edge(IMAGE, (Conv("b", 4),)), Edge(0, ()))
    layers = (
        Layer("a", (Edge(IMAGE, (Conv("a", 4),)),)),
        Layer("b", both),
        Layer("c", (Edge(1, (Dense("c", 3),)),)),
    )
    mixed = Network("mixed", (8, 8, 2), 3, layers, PLAIN["mean"], PLAIN["std"])
    params = {"a.kernel": np.ones((3, 3, 2, 4)), "b.kernel": np.ones((3, 3, 2, 4)), "c.kernel": np.ones((256, 3))}
    with pytest.raises(UserError, match="cannot add the image to spikes in layer b"):
        observe(SNN(mixed, params), Genes(np.ones((1, 2))), images, labels, timesteps=4, plan=plan)


def test_a_channel_without_weights_is_no_error():
    network = vgg([[4]], [], name="one", **PLAIN)
    params = {"conv1.kernel": np.zeros((3, 3, 2, 4), np.float32), "dense1.kernel": np.ones((64, 3), np.float32)}
    found = observe(
        SNN(network, params),
        Genes(np.ones((1, 1))),
        dyadic_images(2),
        np.zeros(2, int),
        timesteps=4,
        plan=Plan(precision="int8"),
    )
    assert found.spikes.sum() == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_channel_with_next_to_no_weights_is_counted_in_the_narrowest_unit(backend):
    """Weight decay leaves such channels; in a unit of their own weights a threshold would leave int32."""
    snn, images, labels = dyadic_snn("bias"), dyadic_images(4), np.arange(4) % 3
    params = {name: np.array(value) for name, value in snn.params.items()}
    silent = snn.network.layers[1].edges[0].ops[0].name
    params[f"{silent}.kernel"][..., 0] *= 1e-12
    params[f"{silent}.bias"][0] = 0.25
    snn, theta = SNN(snn.network, params), dyadic_thresholds(len(snn.network.spiking))
    plan = Plan(backend=backend, precision="int8")
    found, right = observe_images(
        snn, Genes(theta), images, labels, timesteps=9, dynamics=Dynamics(delay="none"), plan=plan
    )
    spikes, scores = integer_reference(snn, theta[0], images, 9, 0)
    assert spikes[1][..., 0].any() and not spikes[1][..., 0].all()  # it fires by its bias
    np.testing.assert_array_equal(found.spikes[0], [s.sum() for s in spikes])
    np.testing.assert_array_equal(right[0], (scores.argmax(-1) == labels).T)


def test_ranges_are_held_to_the_last_integer():
    """Sums below 2^24, membranes below 2^31 and thresholds below 2^30 are allowed, and nothing above them."""
    integers = quantize(dyadic_snn("pool_after"))
    image, layer = integers.network.layers[:2]
    _check_size(layer, np.array([[1, 2**30 - 1]]))
    with pytest.raises(UserError, match="threshold of layer conv2 is too large"):
        _check_size(layer, np.array([[1, 2**30]]))

    def check(where, reach, factor, bias, steps):
        _check_range(where, integers, (reach,), [np.array([1, -factor])], np.array([bias, 0]), steps)

    check(layer, 2**24 - 1, 1, 0, 1)
    check(layer, 5, 3, -7, (2**31 - 1) // 22)  # 3 x 5 by spikes and 7 by the bias in each step
    check(image, (2**24 - 1) / 255 / integers.pixel, 1000, 0, 2)  # whose sums are in the layer's unit
    kernels = {"c.kernel": np.array([[[[1.0, -2], [3, 4]]]])}  # of channel 0 |1| + |3|, of channel 1 |-2| + |4|
    chains = ((), (AvgPool(2),), (Conv("c", 2, 1),), (Conv("c", 2, 1), AvgPool(2)))
    assert [_reach(Edge(0, ops), kernels, (4, 4, 2)) for ops in chains] == [1, 4, 6, 24]
    with pytest.raises(UserError, match="layer conv2 has too many weights to sum exactly"):
        check(layer, 2**24, 1, 0, 1)
    with pytest.raises(UserError, match="layer conv1 has too many weights"):
        check(image, 2**24 / 255 / integers.pixel, 1, 0, 1)
    with pytest.raises(UserError, match="could exceed 32 bits within 2147483648 timesteps"):
        check(layer, 1, 1, 0, 2**31)
    with pytest.raises(UserError, match="could exceed 32 bits"):
        check(layer, 5, 3, -7, 2**31 // 22 + 1)


@pytest.mark.parametrize("brightest, pixel", [(2**8, 256), (2**9, 256), (2**10, 128), (2**17, 1)])
def test_pixels_are_as_fine_as_sums_stay_exact(brightest, pixel):
    """One weight of 127: pixels up to ``brightest`` times ``pixel`` are summed below 2^24."""

    def made(largest):
        layers = (
            Layer("a", (Edge(IMAGE, (Conv("a", 1, 1),)),)),
            Layer("b", (Edge(0, (Dense("b", 2),)),)),
        )
        network = Network("one", (1, 1, 1), 2, layers, (0.25,), (0.75 / largest,))
        return quantize(SNN(network, {"a.kernel": np.ones((1, 1, 1, 1)), "b.kernel": np.ones((1, 2))}))

    assert made(brightest).pixel == pixel and 127 * brightest * pixel < 2**24
    with pytest.raises(UserError, match="too many weights to sum exactly: use float32"):
        made(2**18)
