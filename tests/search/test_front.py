"""Several objectives at once: what is measured, who is on the frontier, and a search that resumes bit for bit."""

from dataclasses import replace

import numpy as np
import pytest

import data
import evo
from evo import pareto
from helpers.networks import dyadic_images, dyadic_snn, dyadic_thresholds
from jaxsnn.analysis.energy import HOROWITZ, snn_energy
from jaxsnn.analysis.operations import Activity, neurons
from jaxsnn.conversion.start import Start
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import Genes
from jaxsnn.search.cost import UpperLimit
from jaxsnn.search.evolve import subsets
from jaxsnn.search.front import make_front, volume
from jaxsnn.search.job import make_job
from jaxsnn.search.measures import measures, microjoules
from jaxsnn.search.presets import FEW
from jaxsnn.search.settings import SearchSettings
from jaxsnn.simulation.observables import Observables
from jaxsnn.simulation.observe import observe
from jaxsnn.simulation.plan import Plan

SETTINGS = replace(
    FEW,
    objectives=("accuracy", "latency", "energy"),
    front_timesteps=(2, 5),
    population=8,
    generations=3,
    images=12,
    final_images=16,
)
PLAN = Plan(backend="xla", group=8, rows=96)


@pytest.fixture(scope="module")
def snn():
    return dyadic_snn("residual")


@pytest.fixture(scope="module")
def starts(snn):
    genes = Genes(dyadic_thresholds(len(snn.network.spiking)), np.full((1, len(snn.network.spiking)), 0.5))
    return {steps: Start(snn, genes, snn, steps) for steps in SETTINGS.front_timesteps}


@pytest.fixture(scope="module")
def train():
    labels = np.arange(24, dtype=np.int32) % 3
    return data.Dataset(dyadic_images(24), labels, ("a", "b", "c"), "own", "train", "arrays")


@pytest.fixture(scope="module")
def whole(starts, train):
    """All generations of a search: (generation, state, row)."""
    front = make_front(SETTINGS, starts, train, PLAN)
    return front, [*front.generations(front.engine.init(0))]


def test_measures_are_what_was_counted(snn):
    network, layers = snn.network, len(snn.network.spiking)
    rng = np.random.default_rng(0)
    correct = np.array([[3, 5, 7], [10, 2, 0]])
    spikes, synops = rng.integers(1, 99, (2, layers)), rng.integers(1, 999, (2, layers))
    seen = Observables(correct, 10, spikes, synops, divergence=np.array([[0, 0, 10 << 20], [0, 0, 5 << 20]]))
    found = measures(network, seen, 1, "INT8")
    np.testing.assert_allclose(found["accuracy"], [0.3, 1.0])
    np.testing.assert_array_equal(found["latency"], [3, 3])
    np.testing.assert_allclose(found["divergence"], [1.0, 0.5])
    np.testing.assert_allclose(found["synops"], synops.sum(1) / 10 / 1e6)
    for row in range(2):
        activity = Activity(2, tuple(spikes[row] / 10), tuple(synops[row] / 10))
        assert found["energy"][row] == pytest.approx(sum(snn_energy(network, activity, HOROWITZ["INT8"])) * 1e-6)
        busiest = max(count / 30 / size for count, size in zip(spikes[row], neurons(network)))
        assert found["peak"][row] == pytest.approx(busiest)
    assert (microjoules(network, seen, 2, "with memory") > found["energy"]).all()


def test_each_candidate_is_measured_at_its_own_timesteps(starts, train, snn):
    front = make_front(SETTINGS, starts, train, PLAN)
    vectors = np.array(front.engine.parents(front.engine.init(0)))
    indices = np.arange(12)
    found = front.measure(vectors, indices)
    steps = np.where(vectors[:, 0] < 1, 2, 5)
    np.testing.assert_array_equal(found["latency"], steps)
    for row in (0, 1, 5):
        genes = front.genes_of(vectors[row : row + 1], steps[row])
        seen = observe(
            snn,
            genes,
            train.images[indices],
            train.labels[indices],
            timesteps=int(steps[row]),
            dynamics=SETTINGS.dynamics,
            plan=PLAN,
        )
        alone = measures(snn.network, seen, 0, SETTINGS.energy_kind)
        assert {name: value[row] for name, value in found.items()} == {n: v[0] for n, v in alone.items()}


def test_the_calibrated_networks_compete_and_the_frontier_is_nowhere_behind_them(whole, starts):
    front, steps = whole
    first = np.array(front.engine.parents(front.engine.init(0)))
    for row, timesteps in enumerate(starts):
        genes = front.genes_of(first[row : row + 1], timesteps)
        np.testing.assert_allclose(genes.threshold, starts[timesteps].genes.threshold)
        np.testing.assert_allclose(genes.v0, starts[timesteps].genes.v0)
    _, state, last = steps[-1]
    points, costs = front.engine.front(state)
    assert len(points) == last["points"] == len(steps[-1][0].leaders)
    assert not pareto.dominates(costs).any()
    indices = next(subsets(front.train.labels, SETTINGS.images, "fixed", SETTINGS.seed))
    own = front.costs(front.measure(first[: len(starts)], indices))
    for row in range(len(starts)):  # it is there, or something that is no worse anywhere
        assert (costs <= own[row]).all(1).any()
    volumes = [row["hypervolume"] for *_, row in steps]
    assert 0 < volumes[0] <= volumes[-1] <= 1


def test_a_resumed_search_ends_bit_for_bit_as_if_never_stopped(whole, starts, train):
    _, steps = whole
    again = make_front(SETTINGS, starts, train, PLAN)
    generation, state, row = steps[1]
    state = evo.state_from(again.engine, evo.state_arrays(state))
    rest = [*again.generations(state, generation, row["reference"])]
    assert [g.number for g, *_ in rest] == [2, 3]
    for (_, mine, own), (_, other, usual) in zip(rest, steps[2:]):
        assert {k: v for k, v in own.items() if k != "seconds"} == {
            k: v for k, v in usual.items() if k != "seconds"
        }
        for name, array in evo.state_arrays(other).items():
            np.testing.assert_array_equal(evo.state_arrays(mine)[name], array)


def test_the_final_points_keep_limits_and_are_not_dominated(starts, train):
    settings = replace(SETTINGS, max_latency=2)
    front = make_front(settings, starts, train, PLAN)
    *_, (generation, _, _) = front.generations(front.engine.init(0))
    vectors, measured, images = front.final(generation)
    assert images == len(generation.leaders) * 16
    assert set(measured["latency"]) == {2.0}
    assert not pareto.dominates(front.costs(measured)).any()
    assert len(np.unique(front.costs(measured), axis=0)) == len(vectors)
    none = make_front(replace(SETTINGS, max_energy=1e-9), starts, train, PLAN)
    *_, (generation, _, row) = none.generations(none.engine.init(0))
    assert (row["points"], row["hypervolume"]) == (0, 0.0)
    with pytest.raises(UserError, match="no candidate has energy of at most 1e-09"):
        none.final(generation)


def test_a_volume_is_a_share_of_the_box():
    reference = np.array([2.0, 4.0])
    assert volume(np.array([[1.0, 2.0]]), reference) == pytest.approx(0.25)
    assert volume(np.array([[0.0, 0.0], [1.0, 1.0]]), reference) == pytest.approx(1)
    assert volume(np.empty((0, 2)), reference) == 0


def test_whoever_keeps_the_energy_limit_is_ahead_and_of_others_the_nearer():
    limit = UpperLimit("energy", lambda seen: seen.synops.sum(1).astype(float), 10.0)
    nothing = np.zeros((4, 1), int)
    cost = limit(Observables(nothing, 1, nothing, np.array([[5], [10], [11], [20]])))["over_limit"]
    assert cost[0] == cost[1] == 0 < 1000 < cost[2] < cost[3]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"objectives": ("energy",)}, "objectives is energy, expected two or three different ones"),
        ({"objectives": ("energy", "energy")}, "expected two or three different ones"),
        ({"race": 0.9}, "race stops candidates that lose by one cost, which a frontier does not have"),
        ({"front_timesteps": (4, 2)}, "front timesteps is 4 2, expected whole numbers in ascending order"),
        ({"front_timesteps": ()}, "front timesteps is empty"),
        ({"front_timesteps": (1, 2, 3, 4, 5, 6, 7, 8, 9)}, "population is 8, expected at least one candidate"),
        ({"max_latency": 1}, "max latency is 1, below all front timesteps"),
        ({"subset": "resample"}, "subset is resample, which does not go with objectives: expected fixed"),
        ({"engine": "lshade"}, "engine is lshade, which does not go with objectives"),
        ({"strategy": "best1bin"}, "strategy is best1bin, expected one of rand1bin"),
        ({"less_energy": 30.0}, "less energy is 30.0, which does not go with objectives: leave it out"),
        (
            {"objectives": (), "max_latency": 5},
            "max latency is a limit of a frontier: give objectives, too, or set ti",
        ),
        ({"objectives": (), "max_energy": 1.0, "less_energy": 3.0}, "are two limits of the energy: give one"),
        ({"less_energy": 100.0}, "less energy is 100.0, expected in"),
    ],
)
def test_what_contradicts_a_frontier_is_said(change, sentence):
    with pytest.raises(UserError, match=sentence):
        replace(SETTINGS, **change).checked()


def test_a_limit_of_the_energy_needs_a_calibrated_start():
    with pytest.raises(UserError, match="a limit of energy or peak needs start calibrated"):
        SearchSettings(less_energy=30.0).checked()


def test_a_limit_below_what_silence_takes_is_refused_and_one_above_is_searched(starts, train):
    settings = replace(SETTINGS, objectives=(), timesteps=5)
    with pytest.raises(UserError, match="without a single spike an image takes"):
        make_job(replace(settings, max_energy=1e-9), starts[5].ann, train, None, start=starts[5], plan=PLAN)
    job = make_job(replace(settings, less_energy=20.0), starts[5].ann, train, None, start=starts[5], plan=PLAN)
    term = job.objective.terms[-1]
    assert isinstance(term, UpperLimit) and term.name == "energy"
    indices = next(subsets(train.labels, settings.images, "fixed", settings.seed))
    usual = term.measured(job.objective(job.codec.baseline(), indices))[0]
    assert term.limit == pytest.approx(0.8 * usual)
    first = job.codec.decode(np.array(job.engine.parents(job.start())))
    assert (term.measured(job.objective(first, indices)) < usual).any()
