"""Constraints and polishing of `evo.differential_evolution`, where SciPy is no measure or is not there."""

import subprocess
import sys

import numpy as np
import pytest

import evo
from evo.constraints import Constraints, best_row, is_accepted, is_feasible

optimize = pytest.importorskip("scipy.optimize")


NONE, ONE, TWO = np.zeros((0,)), np.array([0.0, 1.0]), np.array([0.0, 2.0])


@pytest.mark.parametrize(
    "cost, violation, parents_cost, parents_violation, accepted",
    [
        (1.0, NONE, 1.0, NONE, True),
        (1.1, NONE, 1.0, NONE, False),
        (9.0, ONE * 0, 1.0, ONE, True),
        (1.0, ONE, 9.0, ONE * 0, False),
        (np.inf, ONE, np.inf, TWO, True),
        (np.inf, ONE, np.inf, ONE, True),
        (np.inf, TWO, np.inf, ONE, False),
        (np.inf, np.array([0.1, 0.0]), np.inf, ONE, False),
    ],
)
def test_who_wins_by_lampinens_rules(cost, violation, parents_cost, parents_violation, accepted):
    assert bool(is_accepted(cost <= parents_cost, violation, parents_violation)) is accepted


def test_all_pairs_at_once_are_the_pairs_one_by_one():
    rng = np.random.default_rng(0)
    costs = rng.integers(0, 3, (2, 200)).astype(float)
    violations = rng.integers(0, 2, (2, 200, 3)).astype(float)
    better = costs[0] <= costs[1]
    together = is_accepted(better, *violations)
    alone = [is_accepted(*pair) for pair in zip(better, *violations, strict=True)]
    np.testing.assert_array_equal(together, alone)
    assert 0 < together.sum() < 200


def test_the_best_is_feasible_or_violates_least():
    energies = np.array([1.0, 3.0, 2.0])
    assert best_row(energies, np.array([[1.0], [0.0], [0.0]])) == 2
    assert best_row(energies, np.array([[5.0], [4.0], [4.5]])) == 1
    assert is_feasible(np.zeros((2, 0))).all()


LIMITS = [
    (evo.Bounds([0.0, 1.0, -1.0], [1.5, 2.0, 2.0]), [0.5, 0.5, 0.0]),
    (evo.LinearConstraint([[1, 1, 1], [1, 0, -1]], 0, [np.inf, 0.25]), [0.0, 1.75]),
    (evo.LinearConstraint([1, 1, 1], 0, 1), [1.5]),
    (evo.NonlinearConstraint(lambda x: x[0] * x[1] - x[2], 5, np.inf), [4.0]),
]


@pytest.mark.parametrize("limit, expected", LIMITS)
def test_violations_by_hand(limit, expected):
    point = np.array([2.0, 0.5, 0.0])
    np.testing.assert_array_equal(Constraints(limit, point).violation(point[None]), [expected])


def test_constraints_stand_side_by_side_and_agree_where_they_are_vectorized():
    points = np.random.default_rng(1).uniform(-3, 3, (7, 3))
    limits = [
        evo.Bounds(-1, 1),
        evo.LinearConstraint(np.eye(3)[:2], 0, 1),
        evo.NonlinearConstraint(lambda x: np.array([x[0] * x[1]]), -1, 1),
    ]
    constraints = Constraints(limits, points[0])
    together = constraints.violation(points, vectorized=True)
    assert together.shape == (7, 6)
    np.testing.assert_array_equal(together, constraints.violation(points))
    np.testing.assert_array_equal(np.concatenate(constraints.fields(points[3])["constr"]), together[3])


def test_a_matrix_of_numpys_old_class_is_all_its_rows():
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix([[1.0, 2.0], [3.0, 4.0]])
    point = np.ones(2)
    assert Constraints(evo.LinearConstraint(matrix, 0, 1), point).fields(point)["maxcv"] == 6


def test_nan_violates_without_limit():
    limit = evo.NonlinearConstraint(lambda x: np.log(x[:1]), -np.inf, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        result = evo.differential_evolution(lambda x: x[0], [(-1, 1)], constraints=limit, polish=False, rng=0)
    assert result.success and 0 <= result.x[0] < 0.01
    assert Constraints(limit, np.ones(1)).violation(np.array([[np.nan]])) == np.inf


def test_an_infinite_value_at_an_infinite_bound_is_no_violation():
    limit = evo.NonlinearConstraint(lambda x: np.array([-np.inf, np.inf]), -np.inf, np.inf)
    np.testing.assert_array_equal(Constraints(limit, np.ones(1)).violation(np.ones((2, 1))), np.zeros((2, 2)))


@pytest.mark.parametrize("given", [{"type": "ineq", "fun": len}, 3, [lambda x: x]], ids=["dict", "number", "list"])
def test_what_is_no_constraint_is_refused(given):
    with pytest.raises(ValueError, match="unknown type"):
        evo.differential_evolution(np.sum, [(0, 1)], constraints=[given])


@pytest.mark.parametrize("vectorized", [False, True])
def test_a_constraint_of_changing_shape_is_refused(vectorized):
    shapes = iter([np.zeros(2)] + [np.zeros(3)] * 99)
    limit = evo.NonlinearConstraint(lambda x: next(shapes), 0, 1)
    arguments = {"constraints": limit, "vectorized": vectorized, "updating": "deferred", "polish": False}
    with pytest.raises(RuntimeError, match="wrong shape"):
        evo.differential_evolution(lambda x: x[0], [(0, 1)] * 2, **arguments)


def test_infeasible_points_are_never_evaluated():
    seen = []

    def cost(x):
        seen.append(np.copy(x))
        return float(np.sum(x**2))

    limit = evo.LinearConstraint([1, 1], 1, np.inf)
    evo.differential_evolution(cost, [(0, 2)] * 2, constraints=limit, maxiter=5, polish=False, rng=0)
    assert len(seen) > 50 and min(np.sum(seen, axis=1)) >= 1


@pytest.mark.parametrize("classes", [evo, optimize], ids=["evo's classes", "SciPy's"])
def test_bounds_are_polished_with_where_scipy_cannot(classes):
    arguments = {"func": lambda x: float(np.sum(x**2)), "bounds": [(0, 2)] * 2, "maxiter": 3}
    with pytest.raises(TypeError):
        optimize.differential_evolution(**arguments, rng=0, constraints=optimize.Bounds(0.5, 1.5))
    result = evo.differential_evolution(**arguments, rng=0, constraints=classes.Bounds(0.5, 1.5))
    rows = optimize.LinearConstraint(np.eye(2), 0.5, 1.5)
    same = optimize.differential_evolution(**arguments, rng=0, constraints=rows)
    np.testing.assert_array_equal(result.x, same.x)
    assert result.nfev == same.nfev and result.maxcv == 0 and "jac" in result


def test_the_readers_example_is_scipys_result():
    arguments = {"func": optimize.rosen, "bounds": [(0, 2)] * 3, "rng": 0}
    ours, theirs = evo.differential_evolution(**arguments), optimize.differential_evolution(**arguments)
    assert (ours.fun, ours.nfev, list(ours.x)) == (theirs.fun, theirs.nfev, list(theirs.x))
    assert ours.fun < 1e-9


WITHOUT_SCIPY = """
import sys
sys.modules['scipy'] = None
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == 'scipy' else real(name, *more)
import numpy as np, evo
limit = evo.LinearConstraint([1, 1], 1, np.inf)
result = evo.differential_evolution(np.sum, [(0, 2)] * 2, constraints=limit, polish=False, maxiter=40, rng=0)
print(bool(1 <= result.fun < 1.01))
for change in ({}, {'polish': False, 'init': 'sobol', 'bounds': [(0, 1)] * 65}):
    try:
        evo.differential_evolution(**{'func': np.sum, 'bounds': [(0, 2)] * 2, **change})
    except ModuleNotFoundError as error:
        print(error)
"""


def test_without_scipy_constraints_work_and_polish_says_what_to_do():
    done = subprocess.run([sys.executable, "-c", WITHOUT_SCIPY], capture_output=True, text=True, check=True)
    worked, polish, sobol = done.stdout.splitlines()
    assert worked == "True"
    assert polish == "polish needs SciPy: install it (pip install scipy) or say polish=False"
    assert sobol.startswith("init='sobol' knows 65 dimensions only where SciPy is installed")
