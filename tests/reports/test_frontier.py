"""The table, the figures and the page of a frontier show every point, and text from files is no markup."""

import itertools
import re
from html.parser import HTMLParser
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from helpers.frontiers import frontier_of, write_frontier
from jaxsnn.reports.frontier import (
    build_page,
    frontier_figure,
    frontier_table,
    number_offsets,
    volume_figure,
    write_page,
)


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.points, self.open, self.ids = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in ("meta", "img", "br", "line", "circle"):
            self.open.append(tag)
        if "data-point" in values:
            self.points.append((tag, int(values["data-point"])))
        self.ids |= {values["id"]} if "id" in values else set()

    def handle_endtag(self, tag):
        if tag not in ("line", "circle"):
            assert self.open.pop() == tag


@pytest.mark.parametrize("count", [1, 3, 12])
def test_the_page_has_every_point_in_every_chart_the_table_and_the_details(tmp_path, count):
    frontier = frontier_of(count)
    write_frontier(tmp_path, frontier)
    text = write_page(tmp_path, "a & b").read_text()
    page = Page(text)
    assert not page.open
    numbers = [*range(1, count + 1)]
    circles = [number for tag, number in page.points if tag == "circle"]
    assert circles == 2 * numbers  # over timesteps and over energy
    assert [number for tag, number in page.points if tag == "tr"] == numbers
    assert page.ids >= {f"point-{number}" for number in numbers}
    assert "a &amp; b" in text and "conv &lt;1&gt;" in text and "conv <1>" not in text
    assert f"jaxsnn.export {tmp_path} --point {count} --to nir" in text
    places = re.findall(r'<circle[^>]* cx="([\d.]+)" cy="([\d.]+)"', text)
    assert all(0 <= float(x) <= 640 and 0 <= float(y) <= 330 for x, y in places)


def test_a_page_without_history_is_whole(tmp_path):
    assert "hypervolume.png" not in build_page(tmp_path, frontier_of(2), "run")


def test_the_table_fits_eighty_columns():
    console = Console(width=80, record=True, file=StringIO())
    console.print(frontier_table(frontier_of(3)))
    text = console.export_text()
    assert "as calibrated" in text and "58.00 %" in text and "…" not in text


def test_numbers_of_points_that_are_close_lie_beside_each_other_in_their_order():
    places = np.array([[0, 0], [1, 2], [1, 5], [40, 0], [46, 1]], float)
    bars = np.stack([places[:, 1] - 20, places[:, 1] + 20], 1)
    offsets = np.array(number_offsets(places, bars))
    corners = places + offsets
    for one, other in itertools.combinations(corners, 2):
        assert abs(one[0] - other[0]) >= 4.5 or abs(one[1] - other[1]) >= 6
    assert (np.diff(corners[:3, 1]) > 0).all() and offsets[4].tolist() == [5.0, -3.0]
    for corner in corners:  # no number lies on a bar
        assert not ((corner[0] < places[:, 0]) & (places[:, 0] < corner[0] + 4.5)).any()


def test_the_figures_are_drawn(tmp_path):
    frontier_figure(frontier_of(1), tmp_path / "one.png")
    rows = [{"generation": n, "hypervolume": 0.1 * n} for n in range(3)]
    volume_figure(rows, tmp_path / "volume.png")
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("one.png", "volume.png"))
