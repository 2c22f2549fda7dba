"""Every engine keeps the promises of `evo.protocol.Engine`, whatever is inside."""

import itertools

import jax
import numpy as np
import pytest

import evo
from helpers.objectives import generations, sphere

LOW, HIGH = np.array([-1.0, 0.5, 99.0, 2.0]), np.array([3.0, 1.5, 101.0, 2.0])


MEAN, STD = np.array([0.7, 1.0, 100.0, 2.0]), np.array([0.4, 0.15, 0.5, 0.1])


SIZE = 8


NAMES = ("scipy", "evosax", "evosax:CMA_ES", "jax", "lshade")


DE_NAMES = ("scipy", "evosax", "jax", "lshade")


def make(name, **settings):
    if name == "lshade":
        settings.setdefault("evaluations", 200)
    return evo.make_engine(name, LOW, HIGH, SIZE, **{"mean": MEAN, "std": STD, **settings})


def cost(points):
    return sphere(np.asarray(points, dtype=np.float64) - MEAN)


def leaves(state):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(leaves(left), leaves(right), strict=True):
        np.testing.assert_array_equal(a, b)


def inside(points):
    points = np.asarray(points)
    return bool(np.all((points >= LOW) & (points <= HIGH)))


@pytest.fixture(params=NAMES)
def engine(request):
    return make(request.param)


def test_a_run_stays_inside_and_improves(engine):
    state = engine.init(0)
    assert np.isinf(engine.costs(state)).all()
    first, state = engine.ask(state)
    assert first.shape == (SIZE, 4)
    first_cost = cost(first)
    state = engine.tell(state, first, first_cost)
    assert engine.best(state)[1] == pytest.approx(first_cost.min(), rel=1e-6)
    for _ in range(15):
        candidates, state = engine.ask(state)
        assert inside(candidates)
        assert np.all(np.asarray(candidates)[:, 3] == 2.0)
        state = engine.tell(state, candidates, cost(candidates))
    x, lowest = engine.best(state)
    assert inside(x) and inside(engine.parents(state))
    assert lowest == pytest.approx(cost(x), rel=1e-5, abs=1e-9)
    assert lowest < first_cost.min() / 2


@pytest.mark.parametrize("name", DE_NAMES)
def test_first_ask_is_the_initial_population(name):
    given = np.random.default_rng(3).uniform(LOW, HIGH, (SIZE, 4))
    engine = make(name, init=given)
    first, state = engine.ask(engine.init(1))
    np.testing.assert_allclose(first, given, rtol=1e-6)
    assert_same(engine.parents(state), first)


@pytest.mark.parametrize("name", DE_NAMES)
def test_selection_is_greedy_and_the_best_never_worsens(name):
    engine = make(name)
    lowest = [engine.best(state)[1] for state in generations(engine, engine.init(2), cost, 12)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(lowest))


def test_state_round_trips_through_savez(engine, tmp_path):
    start = generations(engine, engine.init(7), cost, 3)[-1]
    _, waiting = engine.ask(start)
    for state in (engine.init(7), start, waiting):
        np.savez(tmp_path / "state.npz", *leaves(state))
        with np.load(tmp_path / "state.npz") as file:
            loaded = [file[f"arr_{i}"] for i in range(len(file.files))]
        restored = jax.tree.unflatten(jax.tree.structure(state), loaded)
        onward = [generations(engine, s, cost, 4)[-1] for s in (state, restored)]
        assert_same(*onward)


def test_asking_and_telling_leave_the_old_state_alone(engine):
    state = generations(engine, engine.init(4), cost, 2)[-1]
    before = [leaf.copy() for leaf in leaves(state)]
    candidates, waiting = engine.ask(state)
    between = [leaf.copy() for leaf in leaves(waiting)]
    with pytest.raises(ZeroDivisionError):
        engine.tell(waiting, candidates, 1 / 0)
    engine.tell(waiting, candidates, cost(candidates))
    engine.rescore(waiting, np.arange(len(candidates), dtype=float))
    for kept, leaf in zip(before + between, leaves(state) + leaves(waiting), strict=True):
        np.testing.assert_array_equal(kept, leaf)
    assert_same(engine.ask(state)[0], candidates)


def test_seeds_decide_everything(engine):
    runs = [generations(engine, engine.init(seed), cost, 3)[-1] for seed in (5, 5, 6)]
    assert_same(runs[0], runs[1])
    assert not np.array_equal(engine.parents(runs[0]), engine.parents(runs[2]))


def test_nan_counts_as_infinite(engine):
    def poisoned(points):
        costs = cost(points)
        costs[::3] = np.nan
        return costs

    first = generations(engine, engine.init(0), poisoned, 1)[-1]
    assert not np.isnan(engine.costs(first)).any()
    assert np.isfinite(engine.best(first)[1])
    assert not engine.converged(first)
    last = generations(engine, first, cost, 10)[-1]
    assert np.isfinite(engine.costs(last)).all()


@pytest.mark.parametrize("name", DE_NAMES)
def test_rescore_between_ask_and_tell_compares_on_the_same_terms(name):
    engine = make(name)
    state = generations(engine, engine.init(1), cost, 3)[-1]
    candidates, state = engine.ask(state)
    parents = np.asarray(engine.parents(state))
    new = cost(parents) + 1000.0
    rescored = engine.rescore(state, new)
    np.testing.assert_allclose(engine.costs(rescored), new, rtol=1e-6)
    told = engine.tell(rescored, candidates, cost(candidates))
    got = {tuple(row) for row in np.asarray(engine.parents(told)).tolist()}
    assert got <= {tuple(row) for row in np.asarray(candidates).tolist()}


@pytest.mark.parametrize("name", DE_NAMES)
def test_rescore_before_ask_moves_the_best(name):
    engine = make(name)
    state = generations(engine, engine.init(1), cost, 2)[-1]
    new = np.arange(len(engine.costs(state)), dtype=float)[::-1].copy()
    rescored = engine.rescore(state, new)
    x, lowest = engine.best(rescored)
    np.testing.assert_array_equal(x, np.asarray(engine.parents(state))[-1])
    assert lowest == 0.0
    candidates, waiting = engine.ask(rescored)
    assert engine.best(engine.tell(waiting, candidates, np.full(len(candidates), 9e9)))[1] == 0.0


def test_the_best_of_a_strategy_without_population_is_the_best_told_since_the_rescore():
    engine = make("evosax:CMA_ES")
    state = generations(engine, engine.init(0), cost, 5)[-1]
    candidates, state = engine.ask(state)
    worse = engine.tell(state, candidates, np.full(SIZE, 1e6))
    assert engine.best(worse)[1] == engine.best(state)[1] < 1e6
    assert engine.best(engine.rescore(worse, np.arange(float(SIZE)) + 5))[1] == 5.0


@pytest.mark.parametrize("name", DE_NAMES)
def test_an_equal_trial_replaces_its_parent(name):
    """On a plateau, where many accuracies on few images are equal, the population still moves."""
    engine = make(name)
    candidates, state = engine.ask(engine.init(0))
    state = engine.tell(state, candidates, np.ones(SIZE))
    candidates, state = engine.ask(state)
    state = engine.tell(state, candidates, np.ones(len(candidates)))
    kept = {tuple(row) for row in np.asarray(engine.parents(state)).tolist()}
    assert kept <= {tuple(row) for row in np.asarray(candidates).tolist()}


@pytest.mark.parametrize("name", ["scipy", "evosax", "jax"])
def test_after_a_rescore_the_new_best_is_mutated(name):
    # Trials are copies of the best; a second generation would leave nothing to tell apart.
    engine = make(name, strategy="best1bin", mutation=0.0, crossover=1.0)
    state = generations(engine, engine.init(1), cost, 1)[-1]
    new = np.arange(SIZE, dtype=float)[::-1].copy()
    candidates, _ = engine.ask(engine.rescore(state, new))
    best = np.asarray(engine.parents(state))[-1]
    assert not np.allclose(best, np.asarray(engine.parents(state))[0])
    np.testing.assert_allclose(candidates, np.broadcast_to(best, (SIZE, 4)), rtol=1e-6)


def test_a_candidate_the_caller_changed_is_taken_as_it_is_now(engine):
    candidates, state = engine.ask(engine.init(0))
    changed = np.array(candidates)
    changed[3] = MEAN
    state = engine.tell(state, changed, cost(changed))
    np.testing.assert_allclose(engine.best(state)[0], MEAN, rtol=1e-6)
    assert engine.best(state)[1] == pytest.approx(0.0, abs=1e-12)


def test_candidates_may_come_back_in_single_precision(engine):
    if not isinstance(engine.ask(engine.init(0))[0], np.ndarray):
        pytest.skip("its candidates are in single precision already")
    ends = []
    for dtype in (np.float64, np.float32):
        state = engine.init(0)
        for _ in range(3):
            candidates, state = engine.ask(state)
            state = engine.tell(state, candidates.astype(dtype), cost(candidates))
        ends.append(state)
    assert_same(*ends)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros(SIZE - 1), r"\(8,\)"),
        (np.zeros((SIZE, 1)), r"\(8, 1\)"),
        (np.zeros(SIZE, dtype=complex), "complex"),
        (np.array([None] * SIZE), "object"),
        (np.array(["low"] * SIZE), "<U3"),
        (0.0, r"\(\)"),
    ],
)
def test_wrong_costs_are_refused(engine, wrong, message):
    candidates, state = engine.ask(engine.init(0))
    with pytest.raises(ValueError, match=message):
        engine.tell(state, candidates, wrong)


def test_wrong_candidates_are_refused(engine):
    candidates, state = engine.ask(engine.init(0))
    with pytest.raises(ValueError, match=r"\(8, 4\)"):
        engine.tell(state, candidates[:, :3], np.zeros(SIZE))
    with pytest.raises(ValueError, match="complex"):
        engine.tell(state, np.array(candidates) + 1j, np.zeros(SIZE))
    moved = np.array(candidates)
    moved[2, 1] = 1.75
    with pytest.raises(ValueError, match=r"\[2, 1\] is 1\.75"):
        engine.tell(state, moved, np.zeros(SIZE))


def test_convergence_is_scipys_rule(engine):
    candidates, state = engine.ask(engine.init(0))
    near = np.linspace(100.0, 100.1, SIZE)
    assert engine.converged(engine.tell(state, candidates, near))
    assert not engine.converged(engine.tell(state, candidates, near * np.arange(1, SIZE + 1)))
    assert not engine.converged(state)


BAD_SEARCH = [
    ({"low": HIGH, "high": LOW}, r"dimension 0 are reversed.*low 3\.0, high -1\.0"),
    ({"low": np.where(LOW == 99.0, np.nan, LOW)}, "dimension 2 are not finite.*nan"),
    ({"high": np.where(HIGH == 3.0, np.inf, HIGH)}, "dimension 0 are not finite.*inf"),
    ({"low": LOW[:3]}, r"\(3,\) and \(4,\)"),
    ({"low": LOW[None], "high": HIGH[None]}, r"\(1, 4\)"),
    ({"low": [], "high": []}, r"\(0,\)"),
    ({"population": 3}, "at least 4, got 3"),
    ({"population": 8.5}, r"8\.5"),
    ({"tol": -1.0}, r"-1\.0"),
    ({"atol": np.nan}, "nan"),
    ({"init": "soboll"}, "soboll"),
    ({"init": "normal", "mean": MEAN}, "needs both mean and std"),
    ({"mean": MEAN[:2], "std": 0.1}, "mean must be"),
    ({"mean": HIGH + 1, "std": 0.1}, r"mean\[0\] is 4\.0, outside the bounds"),
    ({"mean": MEAN, "std": -0.1}, r"-0\.1"),
    ({"init": np.zeros((7, 4))}, r"\(8, 4\), got \(7, 4\)"),
    ({"init": np.tile(HIGH + np.eye(4)[2], (8, 1))}, r"init\[0, 2\] is 102\.0, outside the bounds \[99\.0"),
    ({"init": np.full((8, 4), np.nan)}, "nan"),
]


@pytest.mark.parametrize(("change", "message"), BAD_SEARCH)
@pytest.mark.parametrize("name", NAMES)
def test_bad_searches_are_refused_before_anything_is_evaluated(name, change, message):
    settings = {"low": LOW, "high": HIGH, "population": SIZE, **change}
    if name == "lshade":
        settings["evaluations"] = 200
    with pytest.raises(ValueError, match=message):
        evo.make_engine(name, **settings)


@pytest.mark.parametrize("name", ["scipy", "evosax", "jax"])
@pytest.mark.parametrize(
    "settings",
    [
        {"mutation": 2.5},
        {"mutation": -0.1},
        {"mutation": (0.5, 2.1)},
        {"mutation": (0.1, np.nan)},
        {"mutation": np.inf},
        {"mutation": (0.1, 0.2, 0.3)},
        {"crossover": 1.1},
        {"crossover": -0.1},
        {"crossover": np.nan},
        {"strategy": "best1bim"},
    ],
)
def test_bad_settings_are_refused(name, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        make(name, **settings)


@pytest.mark.parametrize(("strategy", "minimum"), [("best1bin", 4), ("best2bin", 5), ("rand2exp", 6)])
@pytest.mark.parametrize("name", ["scipy", "jax"])
def test_the_population_must_supply_the_partners(name, strategy, minimum):
    for size in range(4, minimum):
        with pytest.raises(ValueError, match=f"at least {minimum}, got {size}"):
            evo.make_engine(name, LOW, HIGH, size, strategy=strategy)
    engine = evo.make_engine(name, LOW, HIGH, minimum, strategy=strategy)
    generations(engine, engine.init(0), cost, 3)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("scypy", "'scipy'"), ("evosax:CMAES", "'CMA_ES'"), ("scipy:CMA_ES", "Known"), ("evosax:DE", "Known")],
)
def test_unknown_names_suggest_the_nearest(name, hint):
    with pytest.raises(ValueError, match=hint) as caught:
        evo.make_engine(name, LOW, HIGH, SIZE)
    assert len(str(caught.value)) < 150  # evosax has some 40 strategies, which are not all listed


def test_options_an_engine_does_not_have_are_refused():
    with pytest.raises(ValueError, match=r"'scipy' has no option 'memory'; it takes evaluations, strategy"):
        make("scipy", memory=6)
    with pytest.raises(ValueError, match=r"'jax' has no option 'crosover' \(did you mean crossover\?\)"):
        make("jax", crosover=0.7)
    with pytest.raises(ValueError, match="'evosax:CMA_ES' has no option 'strategy'; it takes evaluations, repair"):
        make("evosax:CMA_ES", strategy="best1bin")
    with pytest.raises(ValueError, match="array"):
        make("evosax:CMA_ES", init=np.tile(MEAN, (SIZE, 1)))


@pytest.mark.parametrize("name", NAMES)
def test_every_engine_takes_a_budget_that_covers_its_first_generation(name):
    make(name, evaluations=SIZE)
    for wrong in (SIZE - 1, 0, SIZE + 0.5, float("inf"), "many"):
        with pytest.raises(ValueError, match=rf"at least the population of {SIZE}; got {wrong}"):
            make(name, evaluations=wrong)


@pytest.mark.parametrize("name", ["scipy", "jax", "evosax"])
def test_a_budget_changes_nothing_where_the_population_keeps_its_size(name):
    runs = [generations(e, e.init(5), cost, 3)[-1] for e in (make(name), make(name, evaluations=100))]
    assert_same(*runs)
