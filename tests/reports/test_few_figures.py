"""Figures of few timesteps: the numbers are the fits', the axis is logarithmic, nothing lies on a curve."""

import numpy as np
import pytest

from helpers.figures import kept_open
from jaxsnn.conversion.channel_fit import LayerFit
from jaxsnn.reports import few_figures

FITS = (LayerFit("conv$1", 0.03, 0.0025, (0.3, 0.25), 1.0), LayerFit("dense1", 0.0, 0.01, (0.1, 0.0100), 2.0))


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The figure that was last saved, left open; each is a PNG."""
    yield from kept_open(monkeypatch, few_figures)


def test_errors_of_layers_are_split_into_mean_and_spread(drawn, tmp_path):
    few_figures.layer_errors(FITS, tmp_path / "layers.png")
    top, bottom = drawn[-1].axes
    heights = [[bar.get_height() for bar in axes.patches] for axes in (top, bottom)]
    assert np.allclose(heights[0], [30, 10, 3, 0])
    assert np.allclose(heights[1], [40, 0, 4, 10])
    assert [text.get_text() for text in top.get_legend().get_texts()] == ["before", "after"]
    assert top.get_legend().get_window_extent().y0 >= top.get_window_extent().y1 - 1
    assert [tick.get_text() for tick in bottom.get_xticklabels()] == ["conv$1", "dense1"]


def test_accuracies_over_timesteps_are_on_a_logarithmic_axis(drawn, tmp_path):
    curves = {"a$b": ((2, 4, 8), (0.5, 0.6, 0.7)), "ours": ((4, 8), (0.8, 0.85))}
    few_figures.accuracy_over_timesteps(curves, 0.9, "accuracy [%]", tmp_path / "t.png", bold=("ours",))
    axes = drawn[-1].axes[0]
    assert axes.get_xscale() == "log"
    lines = axes.get_lines()
    assert np.allclose(lines[1].get_xdata(), (4, 8)) and np.allclose(lines[1].get_ydata(), (80, 85))
    assert lines[1].get_linewidth() > lines[0].get_linewidth()
    assert np.allclose(lines[2].get_ydata(), 90)
    assert axes.get_legend().get_window_extent().y0 >= axes.get_window_extent().y1 - 1
    shown = [tick.get_text() for tick in axes.get_xticklabels() if tick.get_text()]
    assert {"2", "4", "8"} <= {text.replace("$\\mathdefault{", "").replace("}$", "") for text in shown}
