"""Spiking max pools: the input of each window that has fired most passes its spikes, the same everywhere."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import reference
from helpers.exported import run_integers, run_torch, written
from helpers.integer_reference import integer_reference
from helpers.networks import BACKENDS, PLAIN, dyadic_images
from jaxsnn.analysis.neurobench import neurobench
from jaxsnn.conversion.few_timesteps import drive
from jaxsnn.conversion.start import calibrate
from jaxsnn.errors import UserError
from jaxsnn.exports.converted import Converted
from jaxsnn.exports.integers import integer_files
from jaxsnn.exports.torch_module import torch_files
from jaxsnn.networks.description import (
    IMAGE,
    AvgPool,
    Conv,
    Dense,
    Edge,
    Layer,
    MaxPool,
    Network,
    layer_shapes,
    shapes_of,
)
from jaxsnn.networks.fan_out import fan_out
from jaxsnn.networks.json_format import from_json, to_json
from jaxsnn.networks.linear_maps import max_pool
from jaxsnn.networks.senders import all_passed, from_start, senders
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.search.run import evolve
from jaxsnn.simulation import kernels
from jaxsnn.simulation.backends import describe
from jaxsnn.simulation.cells.leaky import Leaky
from jaxsnn.simulation.exits import trace
from jaxsnn.simulation.observe import observe_images, record
from jaxsnn.simulation.plan import Plan
from jaxsnn.simulation.surrogate import surrogate_scores

STEPS = 7
FREE = Dynamics(delay="none")
UNEVEN = MaxPool((3, 2), (1, 2), ((1, 0), (0, 1)))


def network(*layers):
    """Layers with one edge or more each, and a read-out behind an overlapping, padded max pool."""
    made = [Layer(f"l{i}", edges) for i, edges in enumerate(layers)]
    made.append(Layer("out", (Edge(len(made) - 1, (MaxPool(3, 2, 1), AvgPool((2, 1)), Dense("out", 3, True))),)))
    return Network("max pools", (8, 8, 2), 3, tuple(made), PLAIN["mean"], PLAIN["std"])


BRANCHED = network(
    (Edge(IMAGE, (Conv("a", 5, bias=True),)),),
    (Edge(0, (MaxPool(2), Conv("b", 5, bias=True))),),
    (Edge(1, (Conv("c", 5, bias=True),)), Edge(0, (MaxPool(2),)), Edge(0, (Conv("s", 5, 1, 2),))),
    (Edge(2, (UNEVEN, Conv("d", 6, bias=True))),),
)
CHAIN = network(
    (Edge(IMAGE, (Conv("a", 5, bias=True),)),),
    (Edge(0, (MaxPool(2), Conv("b", 5, bias=True))),),
    (Edge(1, (UNEVEN, Conv("d", 6, bias=True))),),
)
THETA = np.array([[4.0, 3.0, 4.0, 2.0]])
IMAGES = dyadic_images(3)


def dyadic(described, seed=0):
    rng = np.random.default_rng(seed)
    shapes = shapes_of(described)
    return SNN(described, {k: (rng.integers(-2, 4, s) / 4).astype(np.float32) for k, s in shapes.items()})


@pytest.fixture(scope="module")
def branched():
    """A network and what the reference makes of it: spikes by layer, scores."""
    snn = dyadic(BRANCHED)
    _, spikes, scores = reference.simulate(snn, THETA[0], IMAGES, STEPS, ">", "none", x=IMAGES.astype(float))
    assert all(s.any() and not s.all() for s in spikes)
    return snn, spikes, scores


def synops_of(snn, spikes):
    """Of each layer: the spikes that edges read, gates by the reference, times the weights that each drives."""
    found, reaches = np.zeros(len(spikes)), fan_out(snn.network)
    for sender, reach in zip(senders(snn.network), reaches):
        sent = spikes[sender.layer].astype(float)
        if sender.pool is not None:
            gates = reference.Gates(sender.pool, sent.shape[2:4])
            sent = np.array([gates.passed(step) for step in sent])
        found[sender.layer] += (sent.sum((0, 1, 4)) * reach).sum()
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_spikes_scores_and_synops_are_those_of_the_reference(branched, backend):
    """Shortcuts through a pool, overlapping and padded windows, in one pass and in blocks of steps."""
    snn, spikes, scores = branched
    for block in (1, 4) if backend == "xla" else (None,):
        plan = Plan(backend=backend, block=block, threads=1)
        found, right = observe_images(
            snn, Genes(THETA), IMAGES, np.arange(3), timesteps=STEPS, dynamics=FREE, plan=plan
        )
        np.testing.assert_array_equal(found.spikes[0], [s.sum() for s in spikes])
        np.testing.assert_array_equal(right[0], (scores.argmax(-1) == np.arange(3)).T)
        np.testing.assert_array_equal(found.synops[0], synops_of(snn, spikes))


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_kernels_of_ours_are_never_reached_and_a_sentence_says_so(monkeypatch, precision):
    """An empty module stands in for a device's kernels; a network without max pools reaches for them."""
    monkeypatch.setattr(kernels, "usable", lambda precision: SimpleNamespace())
    plain = dataclasses.replace(CHAIN, layers=(CHAIN.layers[0], Layer("out", (Edge(0, (Dense("out", 3),)),))))
    plan, labels = Plan(backend="xla", precision=precision), np.arange(2)

    def seen(described):
        theta = np.full((1, len(described.spiking)), 3.0)
        return observe_images(
            dyadic(described), Genes(theta), IMAGES[:2], labels, timesteps=3, dynamics=FREE, plan=plan
        )[0]

    with pytest.raises(AttributeError, match="layers_of"):
        seen(plain)
    assert seen(CHAIN).spikes.all()  # compiled here, for no other test takes three steps
    for device in ("gpu", "tpu"):
        monkeypatch.setattr(jax, "default_backend", lambda device=device: device)
        assert describe(plan, CHAIN) == f"XLA in {precision} (our kernels have no max pools: slower)"
        assert describe(plan, plain) == f"XLA in {precision}"


def test_integers_are_those_of_their_definition_on_both_back_ends():
    snn, theta = dyadic(CHAIN), THETA[:, [0, 1, 3]]
    spikes, _ = integer_reference(snn, theta[0], IMAGES, STEPS, 0)
    for backend in ("xla", "events"):
        plan = Plan(backend=backend, precision="int8", threads=1)
        found, _ = observe_images(
            snn, Genes(theta), IMAGES, np.arange(3), timesteps=STEPS, dynamics=FREE, plan=plan
        )
        np.testing.assert_array_equal(found.spikes[0], [s.sum() for s in spikes])


def test_what_passes_is_the_largest_count_at_every_step():
    """Also where inputs fire in turn, whose spikes the first of equals would pass all."""
    rng = np.random.default_rng(0)
    spikes = (rng.random((9, 2, 6, 6, 3)) < rng.random((2, 6, 6, 3))).astype(np.float32)
    spikes[:, 0, :2, :2, 0] = 0
    spikes[0::2, 0, 1, 1, 0] = spikes[1::2, 0, 0, 0, 0] = 1
    for pool in (MaxPool(2), MaxPool(3, 1, 1)):
        counts, passed = all_passed(pool, jnp.zeros(spikes.shape[1:]), spikes)
        assert set(np.unique(passed)) == {0, 1}
        np.testing.assert_array_equal(counts, spikes.sum(0))
        for t in range(len(spikes)):
            np.testing.assert_array_equal(passed[: t + 1].sum(0), max_pool(spikes[: t + 1].sum(0), pool))


def test_gradients_calibration_and_single_images_see_the_same_spikes(branched):
    snn, spikes, scores = branched
    genes = Genes(THETA)
    _, recorded, curve = record(snn, genes, IMAGES, STEPS)
    np.testing.assert_array_equal(curve[0], scores)
    for one, other in zip(recorded, spikes):
        np.testing.assert_array_equal(one[0], other)
    last = surrogate_scores(snn.network, snn.params, genes.map(lambda p: p[0]), jnp.asarray(IMAGES), STEPS)
    np.testing.assert_array_equal(last, scores[-1])
    followed = trace(snn, genes, IMAGES, STEPS, plan=Plan(backend="events", threads=1))
    np.testing.assert_array_equal(followed.spikes.sum((0, 1)), [s.sum() for s in spikes])
    np.testing.assert_array_equal(followed.synops.sum((0, 1)), synops_of(snn, spikes))
    bits = np.packbits(spikes[2].reshape(STEPS, 3, -1), axis=-1)
    gates = reference.Gates(UNEVEN, layer_shapes(snn.network)[2][:2])
    sent = [gates.passed(step.astype(float)) for step in spikes[2]]
    np.testing.assert_array_equal(from_start(snn.network.layers[3].edges[0], spikes[2].astype(np.uint8)), sent)
    found = drive(snn.network, 3, snn.params, IMAGES, [(bits, jnp.full(5, 0.5))])
    expected = [
        0.5 * reference.apply_edge(snn.network.layers[3].edges[0].linear[:1], snn.params, s, False) for s in sent
    ]
    np.testing.assert_array_equal(found, np.array(expected) + snn.params["d.bias"])


def test_neurons_that_send_several_spikes_a_step_are_refused():
    with pytest.raises(UserError, match="max pools choose among single spikes: calibrate this"):
        calibrate(dyadic(CHAIN), IMAGES, 4, most=2)
    with pytest.raises(UserError, match="max pools choose among single spikes: leave spikes per step out"):
        evolve(dyadic(CHAIN), (IMAGES, np.arange(3)), spikes_per_step=2, images=3, calibration_images=3)
    with pytest.raises(UserError, match="spiking max pools are for neurons that send one spike in a step"):
        torch_files(Converted(dyadic(CHAIN), Genes(THETA[:, [0, 1, 3]]), Dynamics(most=2), 9))


def test_operations_are_those_that_neurobench_counts():
    """Of the spikes that pass, none of the weights being 0; the image's are multiplications."""
    layers = (BRANCHED.layers[0], Layer("out", (Edge(0, (MaxPool(2), Dense("out", 3))),)))
    snn = dyadic(dataclasses.replace(BRANCHED, layers=layers))
    snn = SNN(snn.network, {k: np.where(v == 0, np.float32(0.25), v) for k, v in snn.params.items()})
    genes, plan = Genes(THETA[:, :1]), Plan(backend="events", threads=1)
    seen, _ = observe_images(snn, genes, IMAGES, np.arange(3), timesteps=3, dynamics=FREE, plan=plan)
    found = neurobench(snn, genes, IMAGES, timesteps=3)
    assert round(found.effective_acs * len(IMAGES)) == seen.synops[0].sum() > 0


def test_exports_to_pytorch_and_to_integers_compute_it(branched, tmp_path):
    snn, _, scores = branched
    one = Converted(snn, Genes(THETA), FREE, STEPS)
    pytest.importorskip("torch")
    np.testing.assert_array_equal(run_torch(written(tmp_path, torch_files(one)), IMAGES), scores)
    chain = Converted(dyadic(CHAIN), Genes(THETA[:, [0, 1, 3]]), FREE, STEPS)
    (tmp_path / "npz").mkdir()
    expected, curve = integer_reference(chain.snn, chain.genes.threshold[0], IMAGES, STEPS, 0)
    found, counts = run_integers(written(tmp_path / "npz", integer_files(chain)), IMAGES)
    np.testing.assert_array_equal(found.argmax(-1), curve.argmax(-1))
    np.testing.assert_array_equal(counts, [s.sum() for s in expected])


def test_descriptions_are_kept_and_pools_in_the_wrong_place_refused():
    assert from_json(to_json(BRANCHED)) == BRANCHED
    first, *rest = BRANCHED.layers
    for ops, sentence in (
        ((MaxPool(1), Conv("a", 5)), "has a max pool of the image"),
        ((Conv("a", 5), MaxPool(1)), "has a max pool behind other ops"),
    ):
        wrong = dataclasses.replace(BRANCHED, layers=(Layer(first.name, (Edge(IMAGE, ops),)), *rest))
        with pytest.raises(UserError, match=sentence):
            from_json(to_json(wrong))
    with pytest.raises(UserError, match=r"leave cell \(or most\) out"):
        observe_images(
            dyadic(BRANCHED), Genes(THETA), IMAGES, np.arange(3), timesteps=2, dynamics=FREE, cell=Leaky()
        )
