"""The house keeps its shape: arrows point one way, the top stays small, the front door opens quickly."""

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import jaxsnn
from jaxsnn.__main__ import COMMANDS
from jaxsnn.runtime.provenance import code_digest, code_version

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"errors"},
    {"runtime"},
    {"networks"},
    {"conversion", "simulation"},
    {"analysis", "exports", "training"},
    {"search"},
    {"records"},
    {"cli", "reports"},
]
"""Wings from the ground up; one may import from those below it and beside it, but never in a circle."""
LONGEST_FILE, LONGEST_FUNCTION = 450, 80


def sources(*packages):
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path):
    """Modules of ours that a file imports, as dotted names, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            # ``from jaxsnn.wing import module`` names a module as well
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def floor_of(wing):
    return next((number for number, wings in enumerate(FLOORS) if wing in wings), len(FLOORS))


def wing_of(path):
    parts = path.relative_to(ROOT / "jaxsnn").parts
    return parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sources("jaxsnn"), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_down(path):
    if path.name == "__init__.py" and path.parent.name == "jaxsnn":
        return  # the front door names modules of every floor, and imports none of them
    own = floor_of(wing_of(path))
    for name in imported(path):
        parts = name.split(".")
        assert parts[0] not in ("benchmarks", "tests", "helpers"), name
        if parts[0] != "jaxsnn" or len(parts) == 1:
            continue
        assert floor_of(parts[1]) <= own, f"{name} is above {path.name}"
        assert floor_of(parts[1]) < len(FLOORS), f"{path.name} imports the command {parts[1]}"


def test_wings_on_one_floor_do_not_import_each_other_in_a_circle():
    arrows = {(wing_of(p), n.split(".")[1]) for p in sources("jaxsnn") for n in imported(p) if n.count(".") > 1}
    circles = [(a, b) for a, b in arrows if a < b and (b, a) in arrows and floor_of(a) < len(FLOORS)]
    assert circles == []


@pytest.mark.parametrize("package", ["evo", "data"])
def test_evo_and_data_stand_alone(package):
    others = {"jaxsnn", "evo", "data", "benchmarks"} - {package}
    for path in sources(package):
        assert not {name.split(".")[0] for name in imported(path)} & others, path


def test_only_commands_stand_at_the_top():
    top = {path.stem for path in (ROOT / "jaxsnn").glob("*.py")}
    assert top == {"__init__", "__main__", "errors", *COMMANDS}


def test_files_and_functions_stay_short():
    for path in sources("jaxsnn", "evo", "data", "benchmarks"):
        text = path.read_text()
        assert text.count("\n") <= LONGEST_FILE, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < LONGEST_FUNCTION, f"{path}: {node.name}"


def test_importing_the_package_is_quick_and_loads_nothing_heavy():
    program = (
        "import sys, time; start = time.perf_counter(); import jaxsnn; seconds = time.perf_counter() - start;"
        "print(*({'jax', 'numpy', 'data', 'evo', 'scipy', 'matplotlib', 'tyro'} & set(sys.modules)), seconds)"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    *loaded, seconds = run.stdout.split()
    assert loaded == []
    assert float(seconds) < 0.1


def test_every_public_name_is_there_and_documented():
    for name in jaxsnn.__all__:
        assert getattr(jaxsnn, name).__doc__, name
    assert set(jaxsnn.__all__) <= set(dir(jaxsnn))
    assert not set(jaxsnn.__all__) & {*COMMANDS, *(wing for wings in FLOORS for wing in wings)}
    with pytest.raises(AttributeError, match="no attribute 'simulate'"):
        _ = jaxsnn.simulate


@pytest.mark.parametrize("module", sorted({jaxsnn.__name__ + "." + home for home in jaxsnn._HOMES.values()}))
def test_the_examples_of_the_front_door_run(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_the_commands_are_listed():
    run = subprocess.run([sys.executable, "-m", "jaxsnn"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in COMMANDS:
        assert f"jaxsnn.{name} " in run.stdout


@pytest.mark.parametrize("name", ["data.py", "evo.py"])
def test_a_file_that_hides_a_package_of_ours_is_named(name, tmp_path):
    (tmp_path / name).write_text("")
    run = subprocess.run(
        [sys.executable, "-m", "jaxsnn.optimize"], cwd=tmp_path, capture_output=True, text=True, env=None
    )
    assert run.returncode != 0
    assert f"{tmp_path / name} hides the package '{name[:-3]}'" in run.stderr
    assert "Traceback" not in run.stderr


def test_the_code_version_changes_with_any_file_of_a_wing(tmp_path):
    for name in ("wing", "wing/inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.py").write_text("a = 1\n")
    seen = {code_digest({"package": tmp_path})}
    (tmp_path / "wing/inner/module.py").write_text("a = 2\n")
    seen.add(code_digest({"package": tmp_path}))
    (tmp_path / "wing/inner/module.py").rename(tmp_path / "wing/inner/other.py")
    seen.add(code_digest({"package": tmp_path}))
    assert len(seen) == 3
    with pytest.raises(RuntimeError, match="no source files"):
        code_digest({"package": tmp_path / "wing" / "nothing"})
    assert len(code_version()) == 64
