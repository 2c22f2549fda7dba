"""`evo.differential_evolution` against SciPy's: its own tests, and equality to the last bit."""

import inspect
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evo
from benchmarks.optimizers_fuzz import compare, differences, outcome
from benchmarks.optimizers_suite import Counted, names, run, scipys_tests
from helpers.objectives import rastrigin, rosenbrock, sphere

scipy_optimize = pytest.importorskip("scipy.optimize")


SLOW = {"test_L1", "test_L3", "test_L4", "test_L8", "test_strategy_fn"}


COUNTED = Counted()


SCIPYS = scipys_tests(COUNTED)


def calls_the_function(name):
    """Whether a test of SciPy's names its function; the others test its private classes alone."""
    return re.search(r"\bdifferential_evolution[(,]", inspect.getsource(getattr(SCIPYS, name)))


SCIPY_TEST_NAMES = [name for name in names(SCIPYS) if calls_the_function(name)] if SCIPYS else []


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in SCIPY_TEST_NAMES],
)
@pytest.mark.filterwarnings("ignore")
def test_scipys_own_test_passes_and_calls_evo(name):
    outcome = run(SCIPYS, name, COUNTED)
    assert outcome.failure is None, outcome.failure
    assert outcome.calls > 0


@pytest.mark.skipif(SCIPYS is None, reason="SciPy was installed without its tests")
def test_what_is_left_out_of_scipys_tests_names_a_private_class():
    assert len(SCIPY_TEST_NAMES) > 25
    for name in set(names(SCIPYS)) - set(SCIPY_TEST_NAMES):
        source = inspect.getsource(getattr(SCIPYS, name))
        assert any(word in source for word in ("Solver", "solver", "_ConstraintWrapper")), name


@pytest.mark.parametrize("numbers", [range(start, start + 15) for start in range(0, 60, 15)], ids=str)
def test_equal_to_scipy_to_the_last_bit(numbers):
    for number in numbers:
        _, _, different = compare(number)
        assert not different, f"python -m benchmarks.optimizers_fuzz --configurations 1 --seed {number}"


def test_the_comparison_sees_one_bit():
    made, ours, _ = compare(2)
    nearly = outcome(evo.differential_evolution, made, ours=True)
    assert list(differences(nearly, ours)) == []
    nearly["result"]["population"][0, 0] = np.nextafter(nearly["result"]["population"][0, 0], np.inf)
    assert len(list(differences(nearly, ours))) == 1


ENGINE_INITS = ("latinhypercube", "random", "halton")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    strategy=st.sampled_from(evo.STRATEGIES),
    init=st.sampled_from(ENGINE_INITS),
    mutation=st.sampled_from((0.8, (0.5, 1.5))),
    popsize=st.integers(2, 5),
    seed=st.integers(0, 2**32),
)
def test_the_engine_is_scipys_deferred_algorithm(strategy, init, mutation, popsize, seed):
    low, high = np.array([-1.0, 0.3, 99.0]), np.array([2.5, 0.7, 101.0])
    shared = {"strategy": strategy, "init": init, "mutation": mutation}
    populations = []

    def remember(intermediate_result):
        populations.append(intermediate_result.population)

    scipy_optimize.differential_evolution(
        lambda x: float(rastrigin(x)),
        list(zip(low, high, strict=True)),
        popsize=popsize,
        maxiter=6,
        tol=0,
        polish=False,
        updating="deferred",
        rng=seed,
        callback=remember,
        **shared,
    )
    engine = evo.make_engine("scipy", low, high, 3 * popsize, **shared)
    state = engine.init(seed)
    for generation in range(7):
        candidates, state = engine.ask(state)
        state = engine.tell(state, candidates, np.array([rastrigin(x) for x in candidates]))
        if generation:
            np.testing.assert_array_equal(engine.parents(state), populations[generation - 1])


@pytest.mark.parametrize("how", ["rng", "seed", "position", "generator", "legacy", "global"])
def test_every_way_to_seed_is_scipys(how):
    def run(minimise):
        kwargs = {"polish": False, "maxiter": 3}
        arguments = (lambda x: float(sphere(x)), [(-1, 2)] * 2)
        if how == "position":
            return minimise(*arguments, (), "best1bin", 3, 5, 0.01, (0.5, 1), 0.7, 11, polish=False)
        if how == "global":
            np.random.seed(3)  # noqa: NPY002
            return minimise(*arguments, **kwargs)
        given = {
            "rng": {"rng": 11},
            "seed": {"seed": 11},
            "generator": {"seed": np.random.default_rng(5)},
            "legacy": {"seed": np.random.RandomState(5)},
        }[how]
        return minimise(*arguments, **given, **kwargs)

    ours, theirs = run(evo.differential_evolution), run(scipy_optimize.differential_evolution)
    np.testing.assert_array_equal(ours.population, theirs.population)


def test_two_ways_to_seed_at_once_are_refused():
    with pytest.raises(TypeError, match="multiple values"):
        evo.differential_evolution(sphere, [(0, 1)], rng=1, seed=1)


BAD = [
    {"mutation": 2},
    {"mutation": -0.1},
    {"mutation": (0.1, np.nan)},
    {"strategy": "abc"},
    {"strategy": None},
    {"init": "x"},
    {"init": np.ones((4, 2))},
    {"init": np.ones((6, 3))},
    {"x0": [2.0, 0.5]},
    {"bounds": [(0, 1), (0, np.inf)]},
    {"bounds": [(0, 1), (np.nan, 1)]},
    {"bounds": [(0, 1, 2), (0, 1, 2)]},
    {"integrality": [True, False], "bounds": [(0.2, 0.8), (0, 1)]},
    {"integrality": [True, False, True]},
    {"strategy": "rand2bin", "popsize": 2},
    {"strategy": "rand2exp", "popsize": 1},
    {"workers": 0, "updating": "deferred"},
    {"callback": 3},
    {"maxiter": 2.5},
    {"rng": "seed"},
    {"func": lambda x: x},
    {"func": lambda x: x.sum(), "vectorized": True, "updating": "deferred"},
    {"func": lambda x: "a"},
    {"func": lambda x: object()},
    {"func": lambda x: None},
    {"func": lambda x, y: 0.0},
    {"strategy": lambda candidate, population, rng=None: population},
]


ACCEPTED = [
    {"bounds": [(1, 0), (2, -2)]},
    {"bounds": scipy_optimize.Bounds([0, 0], [1, 2])},
    {"mutation": (0.5,)},
    {"mutation": (0.5, 0.6, 0.7)},
    {"recombination": 1.5},
    {"recombination": -1.0},
    {"init": np.full((5, 2), 7.0)},
    {"maxiter": 0},
    {"maxiter": 0, "strategy": "rand2bin", "popsize": 1},
    {"maxiter": -1},
    {"maxiter": None, "tol": 0.5},
    {"popsize": 0},
    {"args": None},
    {"tol": -1.0},
    {"func": lambda x: x[:1]},
    {"func": lambda x: int(x[0] > 0.5)},
    {"func": lambda x: x.sum() + 1j},
    {"workers": map, "updating": "deferred"},
    {"integrality": True},
    {"integrality": [True, False], "bounds": [(0.2, 3.7), (0, 1)]},
]


def call(minimise, change):
    arguments = {"func": lambda x: float(np.sum(x**2)), "bounds": [(0, 1), (0, 1)], "maxiter": 3, "rng": 1}
    return minimise(**{**arguments, **change}, polish=False)


def label(change):
    """An id that every worker process agrees on: a repr without the addresses of functions."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(change))


@pytest.mark.parametrize("change", BAD, ids=label)
def test_what_scipy_refuses_is_refused(change):
    with pytest.raises(Exception) as theirs:
        call(scipy_optimize.differential_evolution, change)
    with pytest.raises(theirs.type) as ours:
        call(evo.differential_evolution, change)
    if isinstance(theirs.value, RuntimeError) or "mutation" in change or "x0" in change:
        assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("change", ACCEPTED, ids=label)
@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_what_scipy_accepts_is_accepted(change):
    ours, theirs = (call(m, change) for m in (evo.differential_evolution, scipy_optimize.differential_evolution))
    for field in theirs:
        np.testing.assert_array_equal(ours[field], theirs[field])


def test_equal_bounds_fix_a_dimension():
    result = evo.differential_evolution(sphere, [(2.0, 2.0), (3.0, 3.0)])
    np.testing.assert_array_equal(result.x, [2.0, 3.0])


@pytest.mark.parametrize("updating", ["immediate", "deferred"])
def test_nan_is_replaced_where_scipy_keeps_it(updating):
    def half_nan(x):
        return np.nan if x[0] > 0.5 else float(x[0])

    arguments = {"bounds": [(0, 1)], "rng": 0, "polish": False, "updating": updating, "maxiter": 30}
    ours = evo.differential_evolution(half_nan, **arguments)
    assert np.isfinite(ours.population_energies).all() and ours.fun < 1e-3
    theirs = scipy_optimize.differential_evolution(half_nan, **arguments)
    assert np.isnan(theirs.population_energies).any()


def test_an_unknown_updating_is_refused():
    with pytest.raises(ValueError, match="'sometimes'"):
        evo.differential_evolution(sphere, [(0, 1)], updating="sometimes")


def test_an_objective_that_raises_is_heard():
    def broken(x):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        evo.differential_evolution(broken, [(0, 1)])


def test_intermediate_results():
    seen = []

    def stop_at_four(intermediate_result):
        seen.append(intermediate_result)
        if intermediate_result.nit == 4:
            raise StopIteration

    arguments = {
        "func": lambda x: float(rosenbrock(x)),
        "bounds": [(0, 2), (0, 2)],
        "rng": 838245,
        "polish": False,
    }
    stopped = evo.differential_evolution(**arguments, callback=stop_at_four)
    counted = evo.differential_evolution(**arguments, maxiter=4)
    assert (stopped.message, stopped.success) == ("callback function requested stop early", False)
    assert (counted.message, counted.success) == ("Maximum number of iterations has been exceeded.", False)
    assert [result.nit for result in seen] == [1, 2, 3, 4]
    for result in seen:
        assert (result.message, result.success) == ("in progress", True)
        np.testing.assert_array_equal(result.population_energies, rosenbrock(result.population))
        np.testing.assert_array_equal(result.x, result.population[0])
    for field in ("x", "fun", "nfev", "population", "population_energies"):
        np.testing.assert_array_equal(stopped[field], counted[field])


def test_results_are_dictionaries_with_attributes():
    result = evo.differential_evolution(sphere, [(0, 1)], maxiter=1, rng=0, polish=False)
    assert result.fun == result["fun"] and "nfev" in dir(result) and "message" in repr(result)
    with pytest.raises(AttributeError, match="jac"):
        _ = result.jac


def test_processes_evaluate_the_population():
    arguments = {"func": rosenbrock, "bounds": [(0, 2)] * 2, "rng": 3, "maxiter": 2, "updating": "deferred"}
    alone = evo.differential_evolution(**arguments)
    together = evo.differential_evolution(**arguments, workers=2)
    np.testing.assert_array_equal(alone.population, together.population)


def test_disp_prints_each_generation(capsys):
    evo.differential_evolution(sphere, [(0, 1)], maxiter=2, tol=0, rng=0, disp=True)
    ours = capsys.readouterr().out
    scipy_optimize.differential_evolution(sphere, [(0, 1)], maxiter=2, tol=0, rng=0, disp=True)
    assert ours == capsys.readouterr().out
