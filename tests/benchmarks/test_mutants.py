"""Mutants are faults that the program would have, one each, and the tests' answer is taken as it is."""

import ast
import json

import pytest

from benchmarks import mutants
from benchmarks.mutants import EQUIVALENT, ROOT, MutantsConfig
from benchmarks.mutation.sites import mutant, sites, statements
from jaxsnn.runtime.files import read_json

SOURCE = '''
"""A docstring, 1 < 2."""

LIMIT: int = 3


def f(x: int = 1) -> int:
    """A docstring."""
    if x < LIMIT and not x:
        raise ValueError(f"{x + 1} is too few")
    x |= 0
    return min(x * 2 if x == 0 else x - 1, 2**30)
'''


def test_each_mutant_changes_one_thing_that_a_test_can_see():
    made = [mutant(SOURCE, site) for site in sites("f.py", SOURCE)]
    first, last = "return min(x * 2 if x == 0 else x - 1, 2 ** 30)", ("LIMIT: int = 3", "LIMIT: int = 4")
    found = {(one.before, one.after) for one in made}
    changed = {("x * 2", "x + 2"), ("x - 1", "x + 1"), ("x == 0", "x != 0"), ("min", "max"), ("** 30", "* 30")}
    assert last in found and ("x |= 0", "x &= 0") in found
    assert {(first, first.replace(*pair)) for pair in changed} <= found
    conditions = {after for before, after in found if before == "if x < LIMIT and (not x):"}
    assert conditions == {
        "if x < LIMIT or not x:",
        "if x <= LIMIT and (not x):",
        "if x < LIMIT and (not not x):",
        "if not (x < LIMIT and (not x)):",
    }
    assert not any("docstring" in before or "too few" in before for before, _ in found)
    same = ast.unparse(ast.parse(SOURCE))
    assert all(one.source != same and one.before != one.after and ast.parse(one.source) for one in made)
    assert len({one.key for one in made}) == len(made)
    inside = {one.before: one.site.inside for one in made}
    assert inside[first] and not inside["LIMIT: int = 3"]


@pytest.mark.slow
def test_a_mutant_is_caught_by_a_test_that_fails_and_is_taken_out_again(tmp_path, monkeypatch, capsys):
    source = "def f(x):\n    return x - 1 if x else x * 2\n"
    (tmp_path / "evo").mkdir()
    (tmp_path / "evo/f.py").write_text(source)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_f.py").write_text("from evo.f import f\n\ndef test_f():\n    assert f(4) == 3\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\npythonpath = .\n")
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    config = MutantsConfig(
        modules=("evo",), sample=(99,), slow=(), processes=1, json=tmp_path / "rows", cover=tmp_path / "cover"
    )
    mutants.main(config)
    rows = json.loads(config.json.read_text()).values()
    verdicts = {one["after"].strip().removeprefix("return "): (one["verdict"], one["test"]) for one in rows}
    caught, survived = ("caught", "tests/test_f.py::test_f"), ("survived", "")
    assert verdicts == {
        "x + 1 if x else x * 2": caught,
        "x - 2 if x else x * 2": caught,
        "x - 1 if not x else x * 2": caught,
        "x - 1 if x else x + 2": survived,
        "x - 1 if x else x * 3": survived,
    }
    assert "60.0 %" in capsys.readouterr().out
    assert (tmp_path / "evo/f.py").read_text() == source


def test_what_is_called_equivalent_is_still_in_the_program_and_has_a_reason():
    listed = read_json(EQUIVALENT)["equivalent"]
    held = {path: statements((ROOT / path).read_text()) for path in {one["path"] for one in listed}}
    assert [one for one in listed if one["before"] not in held[one["path"]]] == []
    assert all(len(one["reason"]) > 20 for one in listed)
