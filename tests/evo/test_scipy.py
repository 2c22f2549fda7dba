"""`evo.differential_evolution` against SciPy's: its own tests, and equality to the last bit."""

import importlib.util
import inspect
import re
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import evo
from helpers.objectives import rastrigin, rosenbrock, sphere

scipy_optimize = pytest.importorskip("scipy.optimize")


SCIPY_TESTS = "scipy.optimize.tests.test__differential_evolution"


PRIVATE = "tests DifferentialEvolutionSolver, SciPy's private class"


CONSTRAINED = "needs constraints, which are not implemented"


POLISHED = "needs polishing, which is not implemented"


LEFT_OUT = {
    "test__strategy_resolves": PRIVATE,
    "test__mutate1": PRIVATE,
    "test__mutate2": PRIVATE,
    "test__randtobest1": PRIVATE,
    "test__currenttobest1": PRIVATE,
    "test_can_init_with_dithering": PRIVATE,
    "test_invalid_mutation_values_arent_accepted": PRIVATE,
    "test__scale_parameters": PRIVATE,
    "test__unscale_parameters": PRIVATE,
    "test_equal_bounds": PRIVATE + "; its last two lines are test_equal_bounds_fix_a_dimension below",
    "test__ensure_constraint": PRIVATE,
    "test_differential_evolution": PRIVATE,
    "test_best_solution_retrieval": PRIVATE,
    "test_intermediate_result": POLISHED + "; test_intermediate_results below checks the rest",
    "test_args_tuple_is_passed": POLISHED,
    "test_select_samples": PRIVATE,
    "test_maxiter_stops_solve": PRIVATE,
    "test_maxfun_stops_solve": PRIVATE,
    "test_quadratic": PRIVATE,
    "test_exp_runs": PRIVATE,
    "test_calculate_population_energies": PRIVATE,
    "test_iteration": PRIVATE,
    "test_convergence": PRIVATE,
    "test_maxiter_none_GH5731": PRIVATE,
    "test_population_initiation": PRIVATE,
    "test_deferred_updating": PRIVATE,
    "test_immediate_updating": PRIVATE,
    "test_parallel": PRIVATE,
    "test_parallel_threads": PRIVATE,
    "test_parallel_processes": PRIVATE,
    "test_converged": PRIVATE,
    "test_constraint_violation_fn": CONSTRAINED,
    "test_constraint_population_feasibilities": CONSTRAINED,
    "test_constraint_solve": CONSTRAINED,
    "test_impossible_constraint": CONSTRAINED,
    "test_accept_trial": CONSTRAINED,
    "test_constraint_wrapper": CONSTRAINED,
    "test_constraint_wrapper_violation": CONSTRAINED,
    "test_matrix_linear_constraint": CONSTRAINED,
    "test_L1": CONSTRAINED,
    "test_L2": CONSTRAINED,
    "test_L3": CONSTRAINED,
    "test_L4": CONSTRAINED,
    "test_L5": CONSTRAINED,
    "test_L6": CONSTRAINED,
    "test_L7": CONSTRAINED,
    "test_L8": CONSTRAINED,
    "test_L9": CONSTRAINED,
    "test_integrality": POLISHED,
    "test_integrality_limits": PRIVATE,
    "test_vectorized_constraints": CONSTRAINED,
    "test_polish_function": POLISHED,
    "test_constraint_violation_error_message": CONSTRAINED,
    "test_reference_cycles": PRIVATE,
    "test_strategy_fn": PRIVATE,
}


def scipys_test_class():
    """SciPy's test class in a fresh copy of its module, with our function where it calls SciPy's."""
    try:
        spec = importlib.util.find_spec(SCIPY_TESTS)
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        return None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        # Marks of SciPy's own that pytest does not know here.
        warnings.simplefilter("ignore", pytest.PytestUnknownMarkWarning)
        spec.loader.exec_module(module)
    module.differential_evolution = evo.differential_evolution
    module.OptimizeResult = evo.OptimizeResult
    return module.TestDifferentialEvolutionSolver


SCIPYS = scipys_test_class()


SCIPY_TEST_NAMES = [name for name in dir(SCIPYS) if name.startswith("test_") and name not in LEFT_OUT]


@pytest.mark.skipif(SCIPYS is None, reason="SciPy was installed without its tests")
@pytest.mark.parametrize("name", SCIPY_TEST_NAMES)
def test_scipys_own_test(name):
    case = SCIPYS()
    case.setup_method()
    try:
        getattr(case, name)()
    finally:
        case.teardown_method()


@pytest.mark.skipif(SCIPYS is None, reason="SciPy was installed without its tests")
def test_scipys_own_tests_really_call_ours():
    for name in SCIPY_TEST_NAMES:
        source = inspect.getsource(getattr(SCIPYS, name))
        assert "differential_evolution," in source or "differential_evolution(" in source, name
        assert "DifferentialEvolutionSolver" not in source, name


@pytest.mark.skipif(SCIPYS is None, reason="SciPy was installed without its tests")
def test_the_reasons_for_leaving_out_are_true():
    words = {PRIVATE: "olver", CONSTRAINED: "onstraint", POLISHED: "olish"}
    for name in set(LEFT_OUT) & set(dir(SCIPYS)):
        word = next(word for reason, word in words.items() if LEFT_OUT[name].startswith(reason))
        assert word in inspect.getsource(getattr(SCIPYS, name)), name


def ackley_with_holes(points):
    """Ackley's function, infinite on a slice and NaN nowhere."""
    size = points.shape[-1]
    radius = np.sqrt(np.sum(points**2, axis=-1) / size)
    waves = np.sum(np.cos(2 * np.pi * points), axis=-1) / size
    value = 20 + np.e - 20 * np.exp(-0.2 * radius) - np.exp(waves)
    return np.where(points[..., 0] > 1.5, np.inf, value)


def everywhere_infinite(points):
    return np.full(points.shape[:-1], np.inf)


def steps(points):
    """Many equal values: ties decide the order of the population."""
    return np.sum(np.floor(np.abs(points)), axis=-1)


OBJECTIVES = (sphere, rosenbrock, rastrigin, ackley_with_holes, steps, everywhere_infinite)


def custom(candidate, population, rng=None):
    a, b = rng.integers(len(population), size=2)
    return population[candidate] + 0.7 * (population[a] - population[b])


@st.composite
def configurations(draw):
    dimension = draw(st.integers(1, 5))
    low = draw(st.lists(st.floats(-9, 9), min_size=dimension, max_size=dimension))
    width = draw(st.lists(st.just(0.0) | st.floats(1e-3, 12), min_size=dimension, max_size=dimension))
    bounds = [(a, a + w) for a, w in zip(low, width, strict=True)]
    whole = draw(st.none() | st.lists(st.booleans(), min_size=dimension, max_size=dimension))
    if whole:
        bounds = [
            (round(a), round(a) + int(w)) if i else (a, b)
            for (a, b), w, i in zip(bounds, width, whole, strict=True)
        ]
    number = st.floats(0, 1.99)
    popsize = draw(st.integers(1, 5))
    free = sum(a != b or bool(whole and whole[i]) for i, (a, b) in enumerate(bounds))
    strategy = draw(st.sampled_from((*evo.STRATEGIES, custom)))
    if not callable(strategy) and strategy.startswith("rand2") and popsize * max(1, free) < 6:
        popsize = 6
    init = draw(st.sampled_from(("latinhypercube", "random", "halton", "sobol", "array")))
    if init == "array":
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        init = rng.uniform(-12, 12, (draw(st.integers(6, 12)), dimension))
    start = draw(st.none() | st.lists(st.floats(0.01, 0.99), min_size=dimension, max_size=dimension))
    return {
        "bounds": bounds,
        "integrality": whole,
        "strategy": strategy,
        "popsize": popsize,
        "init": init,
        "x0": start and [a + f * (b - a) for f, (a, b) in zip(start, bounds, strict=True)],
        "mutation": draw(number | st.tuples(number, number)),
        "recombination": draw(st.floats(0, 1)),
        "maxiter": draw(st.integers(0, 8)),
        "tol": draw(st.sampled_from((0.0, 0.01, 0.5))),
        "atol": draw(st.sampled_from((0.0, 1e-3))),
        "updating": draw(st.sampled_from(("deferred", "immediate"))),
        "vectorized": draw(st.booleans()),
        "objective": draw(st.sampled_from(OBJECTIVES)),
        "seed": draw(st.integers(0, 2**40)),
    }


def trajectory(minimise, configuration):
    """The result and every generation's population and energies."""
    configuration = dict(configuration)
    objective, seed = configuration.pop("objective"), configuration.pop("seed")
    history = []

    def remember(intermediate_result):
        fields = ("population", "population_energies", "nit", "nfev", "convergence")
        history.append([np.copy(intermediate_result[field]) for field in fields])

    def func(x):
        return objective(x.T) if configuration["vectorized"] else float(objective(x))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        rng = np.random.default_rng(seed)
        result = minimise(func, polish=False, rng=rng, callback=remember, **configuration)
    return result, history, rng.bit_generator.state


@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(configurations())
def test_equal_to_scipy_to_the_last_bit(configuration):
    ours, our_history, our_rng = trajectory(evo.differential_evolution, configuration)
    theirs, their_history, their_rng = trajectory(scipy_optimize.differential_evolution, configuration)
    assert set(ours) == set(theirs)
    for field, value in theirs.items():
        np.testing.assert_array_equal(ours[field], value, err_msg=field, strict=isinstance(value, np.ndarray))
    assert len(our_history) == len(their_history)
    for mine, reference in zip(our_history, their_history, strict=True):
        for left, right in zip(mine, reference, strict=True):
            np.testing.assert_array_equal(left, right)
    assert our_rng == their_rng


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


def test_what_is_not_implemented_says_so():
    for change in ({"polish": True}, {"constraints": scipy_optimize.LinearConstraint([[1]], 0, 1)}):
        with pytest.raises(NotImplementedError, match=r"scipy\.optimize\.differential_evolution"):
            evo.differential_evolution(sphere, [(0, 1)], **change)
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

    arguments = {"func": lambda x: float(rosenbrock(x)), "bounds": [(0, 2), (0, 2)], "rng": 838245}
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
    result = evo.differential_evolution(sphere, [(0, 1)], maxiter=1, rng=0)
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
    scipy_optimize.differential_evolution(sphere, [(0, 1)], maxiter=2, tol=0, rng=0, disp=True, polish=False)
    assert ours == capsys.readouterr().out
