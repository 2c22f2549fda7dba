"""What CI says of dependencies: their licences, their files, and what is known against them."""

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def script(name):
    return runpy.run_path(str(ROOT / ".ci" / f"{name}.py"), run_name="imported")


def test_every_pinned_package_has_its_licence_on_the_page():
    pinned = script("licences")["pinned"]()
    rows = [line.split("|") for line in (ROOT / "docs" / "licences.md").read_text().splitlines()]
    listed = [(row[1].strip(), row[2].strip()) for row in rows if len(row) == 5][2:]
    assert listed == pinned and len(pinned) > 30


def test_files_are_locked_in_the_versions_that_are_pinned():
    pinned = {name.lower(): version for name, version in script("licences")["pinned"]()}
    for path in (ROOT / ".ci").glob("*-cp*.txt"):
        lines = [line.split(" --hash=sha256:") for line in path.read_text().splitlines()[1:]]
        locked = {what.partition("==")[0].lower(): what.partition("==")[2] for what, _ in lines}
        assert all(len(sha256) == 64 for _, sha256 in lines)
        assert "setuptools" in locked and "jaxsnn-evo" not in locked
        assert {name: version for name, version in locked.items() if name in pinned} == pinned


@pytest.mark.parametrize(
    "answer, complaint, sentence, known",
    [
        ("", "ConnectionError: no such host", "no service answers here (ConnectionError: no such host)", False),
        ("", "", "no service answers here (no answer)", False),
        (json.dumps({"dependencies": [{"name": "a", "skip_reason": "x"}]}), "", "knows none of 1 packages", False),
        (
            json.dumps({"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1"}]}]}),
            "",
            "known vulnerabilities: a 1: CVE-1",
            True,
        ),
        (
            json.dumps({"dependencies": [{"name": "a", "version": "1", "vulns": []}]}),
            "",
            "no known vulnerability in 1 of 1 packages",
            False,
        ),
    ],
)
def test_an_audit_fails_where_something_is_known_and_says_where_nobody_answers(answer, complaint, sentence, known):
    said, found = script("audit")["verdict"](answer, complaint)
    assert sentence in said and found is known
