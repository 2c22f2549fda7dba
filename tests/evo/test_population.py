"""Initial populations, bounds, convergence, the generator in an array, and what importing evo loads."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evo
from evo import bounds, convergence, costs, low_discrepancy, population, rng
from evo.problem import make_search


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
@pytest.mark.parametrize("dimension", [1, 2, 14, 64, 65, 300])
@pytest.mark.parametrize("size", [1, 16, 25, 128])
@pytest.mark.filterwarnings("ignore:The balance properties")
def test_low_discrepancy_points_are_scipys(make, dimension, size):
    qmc = pytest.importorskip("scipy.stats.qmc")
    for ours, theirs in ((low_discrepancy.sobol, qmc.Sobol), (low_discrepancy.halton, qmc.Halton)):
        sampler = theirs(d=dimension, seed=make(7))
        np.testing.assert_array_equal(ours(make(7), size, dimension), sampler.random(size))


@pytest.mark.parametrize("init", population.SAMPLERS)
def test_points_fill_the_cube(init):
    points = population.SAMPLERS[init](np.random.default_rng(0), 64, 5)
    assert points.shape == (64, 5) and points.min() >= 0 and points.max() < 1
    assert np.all(np.bincount(np.floor(points * 4).astype(int).ravel(), minlength=4) > 40)


def test_latin_hypercube_has_one_point_a_slice():
    points = population.latin_hypercube(np.random.default_rng(0), 25, 6)
    slices = np.sort(np.floor(points * 25), axis=0)
    np.testing.assert_array_equal(slices, np.broadcast_to(np.arange(25)[:, None], (25, 6)))


def test_normal_population_is_algorithm_1():
    search = make_search([0, 90, 5], [2, 100, 5], 20_000, mean=[1.0, 99.7, 5], std=[0.15, 0.5, 1.0])
    points = bounds.points_inside(search.box, search.draw(np.random.default_rng(0)))
    assert points[:, 0].mean() == pytest.approx(1.0, abs=0.005)
    assert points[:, 0].std() == pytest.approx(0.15, abs=0.005)
    assert points[:, 1].max() <= 100 and np.mean(points[:, 1] > 99.999) < 0.01, "reflected, not clipped"
    assert np.all(points[:, 2] == 5)


coordinates = st.floats(-50, 50)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(coordinates, min_size=1, max_size=6), st.sampled_from(bounds.REPAIRS))
def test_repair(values, how):
    unit = np.array(values)
    fresh = np.random.default_rng(0).uniform(size=unit.shape)
    repaired = bounds.repair(unit, how, fresh)
    inside = ~bounds.outside(unit)
    assert not bounds.outside(repaired).any()
    np.testing.assert_array_equal(repaired[inside], unit[inside])
    if how == "redraw":
        np.testing.assert_array_equal(repaired[~inside], fresh[~inside])


def test_reflection_by_hand():
    unit = np.array([-0.25, 1.25, 2.25, -1.5, 0.3, 1.0, 0.0])
    np.testing.assert_allclose(bounds.repair(unit, "reflect"), [0.25, 0.75, 0.25, 0.5, 0.3, 1.0, 0.0])
    with pytest.raises(ValueError, match="'bounce'"):
        bounds.check_repair("bounce")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(low=coordinates, width=st.just(0.0) | st.floats(1e-6, 50), unit=st.floats(0, 1))
def test_the_cube_and_back(low, width, unit):
    box = bounds.make_box([low], [low + width])
    point = bounds.points_inside(box, np.array([unit]))
    assert box.low <= point <= box.high
    if box.high > box.low:
        tolerance = 1e-14 * (1 + np.abs(box.low) / (box.high - box.low)).item()
        np.testing.assert_allclose(bounds.to_unit(*box, point), unit, atol=tolerance)
    else:
        assert bounds.to_unit(*box, point) == 0.5


def test_a_packed_generator_goes_on_where_it_was():
    generator = np.random.default_rng(123456789)
    generator.integers(5)
    words = rng.pack(generator)
    assert words.shape == (6,) and words.dtype == np.uint64
    copy = rng.unpack(words)
    assert copy.bit_generator.state == generator.bit_generator.state
    np.testing.assert_array_equal(copy.permutation(50), generator.permutation(50))


def test_convergence_rule():
    assert convergence.converged(np.array([1.0, 1.0, 1.0]), 0.0, 0.0)
    assert convergence.converged(np.array([99.0, 101.0]), 0.01, 0.0)
    assert convergence.converged(np.array([-99.0, -101.0]), 0.01, 0.0)
    assert not convergence.converged(np.array([99.0, 101.0]), 0.0099, 0.0)
    assert convergence.converged(np.array([99.0, 101.0]), 0.0, 1.0)
    assert not convergence.converged(np.array([np.inf, np.inf]), 1e9, 1e9)
    assert convergence.spread(np.array([np.inf, 1.0])) == np.inf


def test_costs_are_copied_and_real():
    given = np.array([1.0, np.nan, -np.inf])
    taken = costs.as_costs(given, 3)
    np.testing.assert_array_equal(taken, [1.0, np.inf, -np.inf])
    assert np.isnan(given[1])
    assert costs.as_costs(np.array([1, 2], dtype=np.int32), 2).dtype == np.float64


def test_import_loads_numpy_and_nothing_else_that_is_installed():
    code = (
        "import sys, evo; files = [n for n, m in sys.modules.items() if getattr(m, '__file__', None)]; "
        "loaded = {name.partition('.')[0] for name in files}; "
        "print(sorted(loaded - set(sys.stdlib_module_names) - {'evo', 'numpy'}))"
    )
    # -S: without the .pth files of the environment, which load what they like
    path = [str(Path(module.__file__).parents[1]) for module in (evo, np)]
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {path}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_engines_in_numpy_load_no_other_package():
    code = (
        "import sys, evo; evo.make_engine('scipy', [0.0], [1.0], 8); "
        "evo.make_engine('lshade', [0.0], [1.0], 8, evaluations=90); "
        "print(sorted(m for m in ('jax', 'evosax', 'scipy', 'jaxsnn', 'data') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def imports_of(path):
    """Modules of evo that a file imports, inside functions and for types alone included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module


def test_modules_do_not_import_each_other_in_a_circle():
    root = Path(evo.__file__).parent
    files = {f"evo.{'.'.join(p.relative_to(root).with_suffix('').parts)}": p for p in root.rglob("*.py")}
    arrows = {name: set(imports_of(path)) & set(files) - {name} for name, path in files.items()}
    TopologicalSorter(arrows).prepare()  # raises CycleError with the circle
    assert "evo.population" in arrows["evo.problem"]
