"""Figures: nothing lies on a curve, small parts of a cost are seen, and names from files break nothing."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.figures import kept_open
from helpers.results import HISTORY, network, result, results_json
from jaxsnn.reports import figures

HOSTILE = ["$x$", "_hidden $a^{$", "[bold]b[/]"]


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The figure that was last saved, left open; each is a PNG."""
    yield from kept_open(monkeypatch, figures)


def texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_legend_of_the_accuracies_says_what_is_saved_and_lies_above(drawn, tmp_path):
    figures.accuracy_curves(result(), tmp_path / "a.png")
    axes = drawn[-1].axes[0]
    assert texts(axes) == [
        "99.7 percentile, v0 0.5",
        "optimised, v0 0.31 to 0.62",
        "ANN, 86.00 %",
        "to ANN - 5: 29 instead of 34 steps (14.7 % fewer)",
        "at 29 steps: 82.0 % instead of 70.0 %",
    ]
    legend = axes.get_legend().get_window_extent()
    assert legend.y0 >= axes.get_window_extent().y1 - 1
    assert not axes.texts


def test_equal_networks_are_the_same(drawn, tmp_path):
    found = result()
    row = replace(found.latency[1], baseline_timesteps=34, optimized_timesteps=34, improvement_percent=0.0)
    figures.accuracy_curves(replace(found, optimized=found.baseline, latency=(row,)), tmp_path / "a.png")
    assert texts(drawn[-1].axes[0])[-2:] == ["to ANN - 5: the same 34 steps", "at 34 steps: the same 85.0 %"]


def test_results_of_a_file_are_drawn_alike(drawn, tmp_path):
    figures.accuracy_curves(result(), tmp_path / "a.png")
    figures.accuracy_curves(results_json(), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_every_part_of_a_cost_has_an_axis_of_its_own(drawn, tmp_path):
    figures.cost_history(HISTORY, tmp_path / "c.png")
    whole, *parts = drawn[-1].axes
    assert [axes.get_title(loc="left") for axes in parts] == [
        "latency: 25 → 22",
        "slope: 0",
        "accuracy: 5",
        "limit: 200",
    ]
    low, high = parts[0].get_ylim()
    assert 20 < low < 22 and 25 < high < 27  # the limit of 200 does not flatten it
    assert np.isnan(whole.lines[-1].get_ydata()).tolist() == [False, True, False, False]


def test_a_best_cost_that_stays_leaves_the_mean_in_view(drawn, tmp_path):
    figures.cost_history([row | {"best_cost": 200.0} for row in HISTORY], tmp_path / "c.png")
    low, high = drawn[-1].axes[0].get_ylim()
    assert low < 200 and high > 240
    figures.cost_history([row | {"best_cost": 200.0, "mean_cost": None} for row in HISTORY], tmp_path / "d.png")
    assert drawn[-1].axes[0].get_ylim() == pytest.approx((198, 202))


def test_a_search_of_one_generation_is_drawn(drawn, tmp_path):
    figures.cost_history(HISTORY[:1], tmp_path / "c.png")


def test_names_from_files_break_no_figure(drawn, tmp_path):
    record = results_json()
    figures.threshold_bars(HOSTILE, record["baseline"], record["optimized"], tmp_path / "t.png")
    figures.significance_and_thresholds(
        HOSTILE, [None, 1, -1], [99, 98, 97], result().baseline, tmp_path / "s.png"
    )
    noise = {name: [0.1, None, 0.3] for name in ("ann", "baseline", "optimized")}
    figures.sensitivity_and_thresholds(HOSTILE, noise, [99, 98, 97], result().baseline, tmp_path / "n.png")
    figures.clean_and_attacked({"clean": result(), "FGSM $a^{$": result()}, tmp_path / "f.png")
    ticks = drawn[0].axes[1].get_xticklabels()
    assert [tick.get_text().replace(r"\$", "$") for tick in ticks] == HOSTILE
    history = [row | {"parts": {"$a^{$": 1.0}} for row in HISTORY]
    figures.cost_history(history, tmp_path / "c.png")


def test_the_sweep_says_the_weights_above_its_panels(drawn, tmp_path):
    rows = [{"weight": float(w), "accuracy": [0.1, 0.5, 0.9]} for w in (0, 1, 4)]
    sweep = {
        "own": {"alpha": 1.0, "beta": 1.0, "gamma": 1.0},
        "weights": dict.fromkeys(("alpha", "beta", "gamma"), rows),
        "held_out_images": 40,
        "timesteps": 3,
    }
    figures.cost_sweep(sweep, tmp_path / "w.png")
    assert texts(drawn[-1].axes[0]) == ["α = 0", "α = 1 (the run's)", "α = 4"]


def test_a_baseline_of_no_percentile_is_drawn(drawn, tmp_path):
    base = network([0.5] * 40)
    figures.significance_and_thresholds(["a"], [1.0], [99.0], base, tmp_path / "s.png")
    figures.accuracy_curves(replace(result(), baseline=base), tmp_path / "a.png")
    assert texts(drawn[-1].axes[0])[0] == "baseline, v0 0"
