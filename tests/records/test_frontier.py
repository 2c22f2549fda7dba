"""frontier.json is read back as it was written, points are taken by number, and what is wrong with it is said."""

import json

import numpy as np
import pytest

from helpers.frontiers import frontier_of, write_frontier
from jaxsnn.errors import UserError
from jaxsnn.records.finished_run import read_run
from jaxsnn.records.frontier import most_accurate, read_frontier, thresholds_of


def test_a_frontier_is_read_back_as_it_was_written(tmp_path):
    frontier = frontier_of(3)
    write_frontier(tmp_path, frontier)
    found = read_frontier(tmp_path)
    assert found.to_json() == frontier.to_json()
    assert [point.genes.to_record() for point in found.points] == [p.genes.to_record() for p in frontier.points]


def test_a_point_is_taken_by_its_number(tmp_path):
    frontier = frontier_of(3)
    write_frontier(tmp_path, frontier)
    usual, second = thresholds_of(tmp_path), thresholds_of(tmp_path, 2)
    np.testing.assert_array_equal(second["thresholds"], frontier.points[1].genes.threshold[0])
    np.testing.assert_array_equal(second["v0"], frontier.points[1].genes.v0[0])
    assert second["leak"] is None
    assert second["calibrated"] == f"calibrated-{frontier.points[1].timesteps}.safetensors"
    assert second["timesteps"] == frontier.points[1].timesteps
    assert second["delay"] == usual["delay"] == "none"
    for number in (0, 4):
        with pytest.raises(UserError, match=f"--point is {number}, but .* has points 1 to 3"):
            thresholds_of(tmp_path, number)


def test_the_most_accurate_point_is_the_one_of_the_training_images():
    assert most_accurate(frontier_of(4).points) == 3


def test_a_run_without_a_frontier_and_a_damaged_one_are_named(tmp_path):
    (tmp_path / "thresholds.json").write_text('{"thresholds": [1.0]}')
    with pytest.raises(UserError, match=r"holds no frontier: only runs of jaxsnn.optimize --objectives"):
        thresholds_of(tmp_path, 1)
    good = frontier_of(1).to_json()
    wrong = [
        ({"points": []}, "expected at least one"),
        ({"objectives": 3}, "objectives is 3, expected a list of names"),
        ({"points": [good["points"][0] | {"timesteps": 0}]}, "expected a whole number of at least 1"),
        ({"points": [good["points"][0] | {"v0": [0.1]}]}, "v0 has 1 entries, expected 2"),
        ({"points": [good["points"][0] | {"energy": {"INT8": None}}]}, "INT8 is None, expected a finite number"),
        (
            {"points": [good["points"][0] | {"energy": {"FP32": 1.0}}]},
            "energy_kind is 'INT8', expected one that every",
        ),
        ({"layers": ["one"]}, "expected as many as points have thresholds"),
    ]
    for change, sentence in wrong:
        (tmp_path / "frontier.json").write_text(json.dumps(good | change))
        with pytest.raises(UserError, match=sentence):
            read_frontier(tmp_path)


def test_commands_for_one_network_say_that_a_run_holds_a_frontier(tmp_path):
    write_frontier(tmp_path, frontier_of(1))
    for name in ("config.json", "results.json", "history.jsonl"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=r"holds a frontier: use jaxsnn.evaluate or jaxsnn.export with --point"):
        read_run(tmp_path)
