"""jaxsnn.optimize with limits of energy and peak activity: what keeps them, and what that costs, in one table."""

from io import StringIO

import pytest
from rich.console import Console

from helpers.networks import save_tiny
from helpers.runs import SETTINGS
from jaxsnn.optimize import OptimizeConfig, optimize
from jaxsnn.reports.limits import limits_table


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("limits")
    kept = {
        name: SETTINGS[name] for name in ("population", "images", "calibration_images", "test_images", "threads")
    }
    changes = {"weights": save_tiny(folder), "generations": 1, "timesteps": 3, "test_timesteps": 3}
    limits = {"less_energy": 1.0, "max_peak": 0.9, "out": folder / "run"}
    config = OptimizeConfig.of("few", **(kept | {"final_images": 20, "reconstruct": False} | changes | limits))
    with pytest.MonkeyPatch.context() as patch:
        # random weights: a rule that may change every answer stops all images at once
        patch.setattr("jaxsnn.cli.limits.WISHES", (0.0, 1.0))
        return optimize(config)


def test_both_limits_are_kept_on_training_images_and_what_they_cost_is_recorded(results):
    held = results["limits"]
    assert held["limits"].keys() == {"energy", "peak"} and held["limits"]["peak"] == 0.9
    usual, found = held["networks"]["calibrated"], held["networks"]["found"]
    assert found["microjoules"] < usual["microjoules"] and 0 < found["peak"] <= 1
    assert results["optimized"]["cost_parts"]["over_limit"] == 0
    assert found["accuracy"] == results["optimized"]["accuracy"][-1]


def test_images_that_stop_early_keep_the_limit_with_the_network_as_it_was_calibrated(results):
    early, usual = (results["limits"]["networks"][name] for name in ("early_exit", "calibrated"))
    assert early["mean_timesteps"] < usual["mean_timesteps"] == 3
    assert early["microjoules"] < usual["microjoules"]
    assert sum(early["rule"]["exits"]) == results["test_images"]


def test_the_table_of_limits_fits_eighty_columns_with_a_line_for_each_network(results):
    console = Console(width=80, record=True, file=StringIO())
    console.print(limits_table(results["limits"]))
    text = console.export_text()
    assert all(name in text for name in ("as calibrated", "searched below", "early exit", "0.9 spikes a neuron"))
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
