"""Mutants are faults that the program would have, one each, and the tests' answer is taken as it is."""

import ast

from benchmarks.mutants import MutantsConfig, all_mutants, mutants, verdict

SOURCE = '''
"""A docstring, 1 < 2."""

LIMIT: int = 3


def f(x: int = 1) -> int:
    if x < LIMIT and not x:
        raise ValueError(f"{x + 1} is too few")
    return x * 2 if x == 0 else x - 1
'''


def test_each_mutant_changes_one_thing_that_a_test_can_see():
    found = {(one.before, one.after) for one in mutants("f.py", SOURCE)}
    assert ("x < LIMIT", "x <= LIMIT") in found and ("x * 2", "x + 2") in found and ("x - 1", "x + 1") in found
    assert ("x < LIMIT and (not x)", "x < LIMIT or not x") in found and ("not x", "not not x") in found
    assert ("3", "4") in found and ("x == 0", "x != 0") in found
    assert not any(
        "docstring" in before or ("too few" in before and before.startswith("f")) for before, _ in found
    )
    same = ast.unparse(ast.parse(SOURCE))
    for one in mutants("f.py", SOURCE):
        assert one.source != same
        ast.parse(one.source)
    assert len(all_mutants("jaxsnn/simulation/neuron.py")) > 3


def test_a_mutant_is_caught_by_a_test_that_fails_and_is_taken_out_again(tmp_path):
    (tmp_path / "f.py").write_text(SOURCE)
    (tmp_path / "test_f.py").write_text("from f import f\n\ndef test_f():\n    assert f(4) == 3\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\npythonpath = .\n")
    config = MutantsConfig(tests=("test_f.py",), timeout=300)
    wanted = {("x - 1", "x + 1"): "caught", ("x * 2", "x + 2"): "survived"}
    chosen = {(one.before, one.after): one for one in mutants("f.py", SOURCE) if (one.before, one.after) in wanted}
    assert {key: verdict(config, tmp_path, one) for key, one in chosen.items()} == wanted
    assert verdict(config, tmp_path, None) == "survived" and (tmp_path / "f.py").read_text() == SOURCE
