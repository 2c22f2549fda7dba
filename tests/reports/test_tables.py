"""Tables fit 80 columns, cut nothing, and show names from files as they are."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from helpers.results import result
from jaxsnn.analysis.paper_results import HEADINGS, OURS, PAPER, PaperRow
from jaxsnn.reports.tables import attack_tables, comparison_table, iso_times

HOSTILE = "[bold]x[/] $y$ [/red]"
LONG = "a-network-whose-name-is-longer-than-any-column-of-a-table-with-80-characters"


def printed(*tables):
    console = Console(file=io.StringIO(), width=80)
    for table in tables:
        console.print(table)
    text = console.file.getvalue()
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    return text


def attacked(name="tiny", images=500, title="FGSM at 8/255"):
    rows = [
        PaperRow("embedded", OURS, title, f"{method}, v0 0.5, to ANN - 0.5", name, 100.0, 67.42, steps)
        for method, steps in (("99.7 percentile", 74), ("optimised", None))
    ]
    accuracy = {name: {"ann": 1.0, "baseline": 2 / 3, "optimized": 0.0} for name in ("clean", "ann", "optimized")}
    return {
        "title": title,
        "images": images,
        "table": {"headings": HEADINGS, "rows": [list(row) for row in (*PAPER, *rows)]},
        "transfer": {"images": images, "timesteps": 100, "accuracy": accuracy},
    }


def test_the_comparison_says_v0_and_the_interval_of_what_is_gained():
    text = printed(comparison_table(result()))
    for words in ("99.7 pct.", "v0 0.5", "> 40", "-14.7 %", "-18..-10 %", "-14.2..-10.3", "85.00 %"):
        assert words in text
    assert text == printed(comparison_table(result().to_json()))
    assert "Only" not in text and "Only 20 images" in printed(comparison_table(result(images=20)))


def test_the_widest_numbers_fit():
    found = result(ann_accuracy=1.0)
    row = replace(found.latency[1], target=1.0, target_name="ANN - 0.5", improvement_percent=-300.0)
    row = replace(row, baseline_timesteps=1000, optimized_timesteps=40, ci95=(-420.0, -210.0))
    printed(comparison_table(replace(found, latency=(row,), accuracy_gain_ci95=((-100.0, -99.9),) * 40)))


def test_where_only_the_optimised_network_gets_there_the_least_saving_is_said():
    """In both conventions: the baseline takes at least one step more than were simulated."""
    found = result()
    row = replace(
        found.latency[1], baseline_timesteps=None, optimized_timesteps=10, improvement_percent=None, ci95=None
    )
    text = printed(comparison_table(replace(found, latency=(row,), latency_other_delay=(row,))))
    other = "none" if found.delay == "layer" else "layer"
    assert found.horizon(found.delay) == 40 and found.horizon(other) != 40
    for delay in (found.delay, other):
        assert f"< -{100 * (1 - 10 / (found.horizon(delay) + 1)):.1f} %" in text
        assert f"> {found.horizon(delay)}" in text


def test_no_change_has_no_sign():
    row = replace(result().latency[1], baseline_timesteps=34, optimized_timesteps=34, improvement_percent=0.0)
    assert " 0.0 %" in printed(comparison_table(result(latency=(row,))))


def test_accuracies_are_compared_where_targets_are_reached():
    assert iso_times(result()) == [29, 31, 40]


@pytest.mark.parametrize("images", [3, 500])
def test_an_attack_shows_every_accuracy_with_its_interval(images):
    text = printed(*attack_tables(attacked(images=images)))
    assert "67.42" in text and "100.00" in text and "SNN, optimised" in text
    # an accuracy below, its interval under it
    intervals = {3: ("43.9..100.0", "0.0..56.1"), 500: ("99.2..100.0", "0.0..0.8")}
    for ends in intervals[images]:
        assert ends in text
    assert ("Only 3 images" in text) == (images == 3)


@pytest.mark.parametrize("name", [HOSTILE, LONG])
def test_names_from_files_are_shown_as_they_are(name):
    text = printed(*attack_tables(attacked(name=name, title=f"FGSM {name}")))
    joined = "".join(line.split("│")[1].strip() if "│" in line else line for line in text.splitlines())
    assert name.replace(" ", "") in joined.replace(" ", "")
