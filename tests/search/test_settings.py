"""Settings of a search: ranges to the last value, the paper's table, and the cost that they ask for."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from helpers.networks import dyadic_snn
from helpers.search import uniform_calibration
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import Dynamics
from jaxsnn.search import cost
from jaxsnn.search.objective import cost_terms, search_plan
from jaxsnn.search.presets import FEW, PRESETS, preset_values
from jaxsnn.search.racing import bounds
from jaxsnn.search.settings import SearchSettings
from jaxsnn.search.space import Codec
from jaxsnn.simulation.observables import Observables
from jaxsnn.simulation.plan import Plan

INF, NAN = float("inf"), float("nan")
CALIBRATED = {"start": "calibrated", "leak": 1.0, "v0": 0.0}
RANGES = {
    "seed": ((0,), (-1,)),
    "population": ((4, 10_000), (3, 10_001)),
    "generations": ((1,), (0,)),
    "images": ((1,), (0,)),
    "timesteps": ((2, 10_000), (1, 10_001)),
    "finalists": ((1, 8), (0, 9)),
    "limit_images": ((1,), (0,)),
    "calibration_images": ((1,), (0,)),
    "distillation_batch": ((1,), (0,)),
    "distillation": ((0,), (-1,)),
    **dict.fromkeys(("std", "tol", "alpha", "beta", "gamma", "area", "limit"), ((0.0, 1e9), (-0.1, INF, NAN))),
    **{f"{name}_weight": ((0.0, 1e9), (-0.1, INF)) for name in ("spike", "synop", "energy", "peak")},
    "race": ((0.51, 1.0), (0.5, 1.01)),
    "percentile": ((0.1, 100.0), (0.0, 100.1)),
    "v0": ((0.0, 0.99), (-0.1, 1.0)),
    "leak": ((0.01, 1.0), (0.0, 1.01)),
    "low": ((0.01, 0.99), (0.0, 1.0)),
    "high": ((1.01,), (1.0,)),
}


@pytest.mark.parametrize("name", RANGES)
def test_a_setting_is_taken_up_to_its_bounds_and_not_beyond(name):
    taken, refused = RANGES[name]
    for value in taken:
        assert getattr(SearchSettings(**{name: value}).checked(), name) == value
    for value in refused:
        with pytest.raises(UserError, match=f"{name.replace('_', ' ')}.* {value}"):
            SearchSettings(**{name: value}).checked()


@pytest.mark.parametrize(
    "name, taken, refused",
    [
        ("max_energy", 1e-9, 0.0),
        ("less_energy", 99.9, 100.0),
        ("less_energy", 0.1, 0.0),
        ("max_peak", 1e-9, 0.0),
        ("max_latency", 2, 1),
        ("front_timesteps", (2, 10_000), (2, 10_001)),
        ("front_timesteps", (1, 10_000), (0, 1)),
        ("front_timesteps", (2, 3), (2, 2)),
        ("population", 4, 3),
    ],
)
def test_limits_are_taken_up_to_their_bounds(name, taken, refused):
    front = {} if name == "less_energy" else {"objectives": ("accuracy", "energy"), "population": 4}
    settings = replace(FEW, **front)
    assert getattr(replace(settings, **{name: taken}).checked(), name) == taken
    with pytest.raises(UserError, match=name.replace("_", " ")):
        replace(settings, **{name: refused}).checked()


@pytest.mark.parametrize(
    "change, sentence",
    [
        (
            {"race": 1.0, "attack": "fgsm", "attack_mix": "both"},
            "race compares right answers on one kind of image",
        ),
        ({"race": 1.0, "engine": "evosax:CMA_ES"}, "race needs greedy selection, which evosax:CMA_ES does not do"),
        ({"reconstruct": True}, "reconstruct is a part of start calibrated"),
        ({"distillation": 1}, "distillation trains what start calibrated finds"),
        ({"divergence": 0.1, "attack": "pgd"}, "divergence compares with the ANN on clean images"),
        ({"max_energy": 1.0}, "a limit of energy or peak needs start calibrated"),
        ({"attack": "fgsm", "epsilon": -1.0}, "epsilon"),
        ({**CALIBRATED, "attack": "fgsm", "less_energy": 5.0}, "a limit of energy or peak is of clean images"),
        ({**CALIBRATED, "v0": 0.1}, "leave search, space, leak, v0 out"),
        ({**CALIBRATED, "space": "percentile"}, "leave search, space, leak, v0 out"),
        ({"max_peak": 0.5}, "a limit of energy or peak needs start calibrated"),
        ({"max_latency": 3}, "max latency is a limit of a frontier"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(change, sentence):
    with pytest.raises(UserError, match=sentence):
        SearchSettings(**change).checked()


def test_neighbours_of_what_is_refused_are_taken():
    for change in (
        {"race": 1.0, "attack": "fgsm"},
        {"race": 1.0, "engine": "evosax"},
        {"divergence": 0.1},
        {**CALIBRATED, "max_energy": 1.0, "reconstruct": True, "distillation": 1},
        {"attack": "pgd", "attack_mix": "worst"},
    ):
        SearchSettings(**change).checked()
    replace(FEW, objectives=("latency", "energy", "peak"), strategy="rand1exp", max_latency=2).checked()


def test_what_settings_come_to():
    usual, attacked = SearchSettings(), SearchSettings(attack="pgd", attack_mix="both", comparison=">=")
    assert usual.evaluations == 12 * 13 and usual.views == 1 and attacked.views == 2
    assert SearchSettings(attack="pgd").views == SearchSettings(attack_mix="both").views == 1
    assert usual.attack_used is None and attacked.attack_used is not None
    assert attacked.dynamics == Dynamics(">=", "layer") and FEW.dynamics == Dynamics(">", "none")
    assert [SearchSettings(**dict(zip(("alpha", "beta", "gamma"), w))).paper_cost for w in np.eye(3)] == [True] * 3
    assert not FEW.paper_cost
    limits = SearchSettings(max_energy=2, max_latency=3, max_peak=0.5).limits
    assert limits == {"energy": 2.0, "latency": 3.0, "peak": 0.5} and usual.limits == {}
    assert SearchSettings(max_energy=1.0).budgeted and SearchSettings(less_energy=1.0).budgeted
    assert not usual.budgeted and not SearchSettings(max_energy=1.0, objectives=("energy", "peak")).budgeted


TABLE_I = {
    "cifar10": (1, 10, 500, 99.7, 0.15, 25, 26, 3000, "none"),
    "cifar100-vgg15": (1, 40, 20, 99.7, 0.15, 25, 27, 3000, "none"),
    "cifar100-vgg11": (0.7, 60, 200, 99.7, 0.13, 35, 8, 3000, "none"),
    "imagenet": (1, 70, 110, 99.8, 0.13, 20, 6, 5000, "none"),
    "cifar10-attack": (1, 2, 60, 99.7, 0.25, 25, 22, 1200, "fgsm"),
    "cifar100-attack": (1, 2, 60, 99.7, 0.25, 25, 24, 1200, "fgsm"),
}
COLUMNS = ["alpha", "beta", "gamma", "percentile", "std", "population", "generations", "images", "attack"]


def test_the_presets_of_the_paper_are_its_table_i():
    """Each number of the table, and what it leaves out the same in every row."""
    rest = {"timesteps": 100, "area": 0, "limit": 0, "limit_images": 2000, "final_images": 5000}
    rest |= {"low": 0.2, "high": 2.0, "tol": 0.01, "start": "percentile", "divergence": 0}
    for name, row in TABLE_I.items():
        assert {c: getattr(PRESETS[name], c) for c in (*COLUMNS, *rest)} == dict(zip(COLUMNS, row)) | rest
        assert preset_values(name)["test_timesteps"] == 100 and "precision" not in preset_values(name)


def test_the_other_presets_differ_from_the_defaults_in_what_is_said_of_them():
    """Calibrated, by the divergence alone; how long and on how much is each preset's own."""
    few = {"start": "calibrated", "reconstruct": True, "delay": "none", "divergence": 1.0}
    few |= dict.fromkeys(("alpha", "beta", "gamma", "area", "limit"), 0.0)
    sizes = ("timesteps", "population", "generations", "images", "final_images", "calibration_images")
    for name in ("few", "demo"):
        found = vars(PRESETS[name])
        assert found == vars(SearchSettings(**few, **{size: found[size] for size in sizes}))
        assert preset_values(name)["precision"] == "int8"
        assert preset_values(name)["test_timesteps"] > found["timesteps"]
    assert PRESETS["thresholds"] == SearchSettings()


def test_the_defaults_are_those_of_the_paper_s_search_made_small():
    """A configuration that names none of them goes on meaning the same search."""
    numbers = {"seed": 0, "population": 12, "generations": 12, "images": 80, "timesteps": 34, "finalists": 4}
    numbers |= {"final_images": 300, "calibration_images": 500, "limit_images": 1500, "distillation": 0}
    numbers |= {"alpha": 1, "beta": 10, "gamma": 100, "area": 1, "limit": 1500, "divergence": 0, "tol": 0}
    numbers |= {"spike_weight": 0, "synop_weight": 0, "energy_weight": 0, "peak_weight": 0, "epsilon": 8}
    numbers |= {"percentile": 99.7, "std": 0.15, "low": 0.3, "high": 1.5, "mutation": (0.5, 1.5), "crossover": 0.7}
    numbers |= {"v0": 0, "leak": 1, "reconstruct": False, "distillation_batch": 128}
    numbers |= {"front_timesteps": (2, 4, 8, 16)}
    assert {name: getattr(SearchSettings(), name) for name in numbers} == numbers


def test_terms_are_those_that_have_a_weight():
    network = dyadic_snn("residual").network
    paper = cost.AccuracyLatency(1.0, 10.0, 100.0)
    assert cost_terms(SearchSettings(), network) == [paper, cost.Area(1.0), cost.Limit(1500.0)]
    nothing = dict.fromkeys(("alpha", "beta", "gamma", "area", "limit"), 0.0)
    assert cost_terms(SearchSettings(**nothing), network) == [cost.AccuracyLatency(0, 0, 0)]
    weights = {
        "spike_weight": 2.0,
        "synop_weight": 3.0,
        "energy_weight": 4.0,
        "peak_weight": 5.0,
        "divergence": 6.0,
    }
    assert cost_terms(SearchSettings(**nothing | weights), network) == [
        cost.Spikes(2.0),
        cost.SynapticOperations(3.0),
        cost.Energy(4.0),
        cost.PeakActivity(5.0, (256, 256, 256, 96)),
        cost.Divergence(6.0, 0.03 * 6.0),
    ]


def test_groups_of_one_size_where_the_population_shrinks():
    plan = Plan(group=7)
    assert search_plan(SearchSettings(), plan) == plan
    for settings in (SearchSettings(race=1.0), SearchSettings(engine="lshade")):
        assert search_plan(settings, plan) == Plan(group=4)


def test_terms_by_hand_and_what_they_cannot_fall_below():
    zero = np.zeros((2, 1), int)
    seen = Observables(np.array([[1, 2], [3, 4]]), 4, zero, zero, np.array([30, 20]), 40)
    seen = replace(seen, divergence=np.array([[4, 8], [0, 12]]) << 20)
    np.testing.assert_allclose(cost.Divergence(2, 0.5)(seen)["divergence"], [4 + 0.75, 6 + 0.75])
    known = bounds(seen, 8, 1.0)
    np.testing.assert_allclose(cost.Divergence(2, 0.5).lower(seen, known, 8), [(4 + 0.75) / 2, (6 + 0.75) / 2])
    np.testing.assert_allclose(cost.Limit(2).lower(seen, known, 8), [0.5, 1.0])
    np.testing.assert_allclose(cost.Area(2).lower(seen, known, 8), 2 * np.array([(3 + 2) / 8, (1 + 0) / 8]))
    paper = cost.AccuracyLatency(1, 10, 100).lower(seen, known, 8)
    # right answers end between 1 and 5 of 8 and between 2 and 6: a slope of at most 5 / 8
    np.testing.assert_allclose(paper, [1 + 10 * 3 / 8 + 100 * 2 / 8, 1 + 10 * 3 / 8 + 100 * 0])
    with pytest.raises(UserError, match="counted with the ANN's probabilities"):
        cost.Divergence()(replace(seen, divergence=None))
    limit = cost.UpperLimit("energy", lambda counts: 6.0 / counts.images * np.array([1, 2]), 1.0)
    np.testing.assert_allclose(limit(seen)["over_limit"], [1e4 * 1.5, 1e4 * 3.0])
    np.testing.assert_allclose(limit.lower(seen, known, 8), [0, 1e4 * 1.5])
    with pytest.raises(UserError, match="leave race out"):
        cost.bounded([cost.Area(1), lambda observed: {}])


def test_bounds_are_those_of_a_draw_without_replacement():
    """One-sided normal, a variance that one right and one wrong answer more give, and never beyond the certain."""
    zero = np.zeros((1, 1), int)
    seen = Observables(np.array([[0, 30, 40]]), 40, zero, zero)
    certain, likely = bounds(seen, 100, 1.0), bounds(seen, 100, 0.9)
    np.testing.assert_array_equal(certain.low, [[0, 30, 40]])
    np.testing.assert_array_equal(certain.high, [[60, 90, 100]])
    share = 31 / 42
    slack = NormalDist().inv_cdf(0.9) * 100 * (share * (1 - share) / 40 * 0.6) ** 0.5
    assert likely.low[0, 1] == pytest.approx(75 - slack) and likely.high[0, 1] == pytest.approx(75 + slack)
    assert (
        likely.low[0, 0] == 0 and 0 < likely.high[0, 0] < 10 and 90 < likely.low[0, 2] < likely.high[0, 2] == 100
    )
    assert bounds(replace(seen, images=0, correct=0 * seen.correct), 100, 0.9).high.tolist() == [[100] * 3]


def test_each_kind_of_gene_has_its_own_range():
    every = Codec(uniform_calibration(), search=("leak", "v0", "threshold"), low=0.4, high=1.7, std=0.2)
    rows = [[block.low, block.high, block.mean, block.std] for block in every.blocks]
    assert rows == [[0.4, 1.7, 1.0, 0.2], [0, 1, 0.5, 0.15], [0.8, 1, 0.98, 0.02]]
    for base, low in ((99.0, 89.0), (55.0, 50.0)):
        (block,) = Codec(uniform_calibration(), space="percentile", base=base, std=2.0).blocks
        assert (block.low, block.high, block.mean, block.std) == (low, 100.0, base, 2.0)
    Codec(uniform_calibration(), search=("leak",), leak=0.8, base=100.0)
    for wrong in ({"search": ("leak",), "leak": 0.79}, {"search": ("leak",), "leak": 1.01}, {"base": 100.1}):
        with pytest.raises(UserError, match="expected in"):
            Codec(uniform_calibration(), **wrong)
    fixed = Codec(uniform_calibration(), v0=0.25, leak=0.9).baseline()
    assert (fixed.v0 == 0.25).all() and (fixed.leak == 0.9).all()
    plain = Codec(uniform_calibration()).baseline()
    assert plain.v0 is None and plain.leak is None
