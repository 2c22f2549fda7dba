"""Names that people read: what a baseline is, what a target saves, and names from files that mean no harm."""

from dataclasses import replace

import pytest

from helpers.results import network, result
from jaxsnn.analysis.latency import LatencyRow
from jaxsnn.reports import labels


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"percentile": 99.7}, "99.7 percentile, v0 0"),
        ({"percentile": 99.7, "v0": (0.5, 0.5, 0.5)}, "99.7 percentile, v0 0.5"),
        ({"v0": (0.3, 0.5, 0.62)}, "baseline, v0 0.3 to 0.62"),
        ({"v0": (0.0, 0.0, 0.0), "leak": (0.9, 0.9, 0.9)}, "baseline, v0 0, leak 0.9"),
        ({"leak": (1.0, 1.0, 1.0)}, "baseline, v0 0"),
        ({"percentile": 99.7, "thresholds": None}, "99.7 percentile"),  # nothing is known of its membranes
    ],
)
def test_a_baseline_says_where_its_membranes_start(changes, name):
    assert labels.baseline_name(network([0.5], **changes)) == name


def test_headings_of_columns_are_narrow():
    found = result()
    found = replace(found, optimized=replace(found.optimized, leak=(0.9, 0.95, 1.0)))
    assert labels.columns(found) == ("99.7 pct.\nv0 0.5", "optimised\nv0 0.31\nto 0.62\nleak 0.9\nto 1")


@pytest.mark.parametrize(
    ("before", "after", "clause"),
    [
        (36, 32, "32 instead of 36 steps (11.1 % fewer)"),
        (46, 60, "60 instead of 46 steps (30.4 % more)"),
        (34, 34, "the same 34 steps"),
    ],
)
def test_what_is_saved_in_a_clause(before, after, clause):
    row = LatencyRow(0.8, "ANN - 5", before, after, 100 * (1 - after / before), None)
    assert labels.saving(row) == clause


def test_few_images_are_said():
    assert labels.few(100) == "" and labels.few(3).startswith("Only 3 images:") and "1 image:" in labels.few(1)
    assert labels.accuracy_interval(2 / 3, 3) == "20.8..93.9"
