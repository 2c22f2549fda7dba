"""jaxsnn.optimize --objectives, from the command to a point; killed on the way, the same comes out."""

import json
from dataclasses import replace

import numpy as np
import pytest

from helpers.networks import save_tiny
from helpers.runs import SETTINGS, interrupted
from jaxsnn.errors import UserError
from jaxsnn.evaluate import EvaluateConfig, evaluate
from jaxsnn.optimize import OptimizeConfig, optimize
from jaxsnn.records.exported_run import read_converted
from jaxsnn.records.listing import read_run_state


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frontier")
    changes = {
        "objectives": ("accuracy", "latency", "energy"),
        "front_timesteps": (2, 3),
        "weights": save_tiny(folder),
        "generations": 2,
        "out": folder / "whole",
    }
    kept = {
        name: SETTINGS[name] for name in ("population", "images", "calibration_images", "test_images", "threads")
    }
    return OptimizeConfig.of("few", **(kept | {"final_images": 20, "reconstruct": False} | changes))


@pytest.fixture(scope="module")
def whole(config):
    optimize(config)
    return config.out


def test_a_killed_search_of_a_frontier_ends_like_one_that_was_not(config, whole, tmp_path, monkeypatch):
    interrupted(monkeypatch, replace(config, out=tmp_path / "killed"), 1)
    assert not (tmp_path / "killed" / "frontier.json").exists()
    optimize(OptimizeConfig(resume=tmp_path / "killed"))
    for name in ("frontier.json", "thresholds.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (whole / name).read_bytes()


def test_a_finished_frontier_is_listed_and_its_points_are_tested_and_exported(config, whole):
    frontier = json.loads((whole / "frontier.json").read_text())
    number = len(frontier["points"])
    point = frontier["points"][-1]
    state = read_run_state(whole)
    assert state is not None and (state.state, state.done) == ("finished", 2)
    found = evaluate(EvaluateConfig(whole, point=number, images=20, precision="int8", threads=1))
    assert found["timesteps"] == point["timesteps"]
    assert found["optimized"]["accuracy"][-1] == point["accuracy"]
    assert found["optimized"]["synops_per_image_by_layer"] == pytest.approx(point["synops_per_image_by_layer"])
    converted = read_converted(whole, point=number)
    assert converted.timesteps == point["timesteps"]
    np.testing.assert_array_equal(converted.genes.threshold[0], point["thresholds"])
    assert (whole / "report.html").stat().st_size > 1000
    with pytest.raises(UserError, match="--point is 0, but"):
        evaluate(EvaluateConfig(whole, point=0))
