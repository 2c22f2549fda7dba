"""The page of a run that was neither explained nor attacked, which jaxsnn.optimize writes."""

import json
import re
from dataclasses import replace
from html import unescape

import pytest

from helpers.results import attacked, explained, result, results_json
from jaxsnn.errors import UserError
from jaxsnn.reports import html_report


@pytest.fixture
def folder(tmp_path):
    """A run's folder without figures."""

    def write(record, name="run"):
        place = tmp_path / name
        place.mkdir()
        (place / "results.json").write_text(json.dumps(record))
        (place / "config.json").write_text(json.dumps({"population": 12, "versions": {"jax": "1"}}))
        return place

    return write


def cells(text, first):
    """The cells of the table rows that begin with ``first``."""
    rows = re.findall(r"<tr>(.*?)</tr>", text)
    found = [[unescape(re.sub("<.*?>", "", c)) for c in re.findall(r"<td.*?</td>", row)] for row in rows]
    return [row for row in found if row and row[0] == first]


def test_the_page_shows_v0_spikes_and_energy_of_every_layer(folder):
    path = html_report.write(folder(results_json()))
    assert path.name == "report.html"
    text = path.read_text()
    thresholds, spent = cells(text, "conv2")
    assert thresholds == ["conv2", "2", "2", "1.000", "99.100", "0.5", "0.5"]
    assert spent == ["conv2", "2.00", "2.00", "1.000", "1.000", "0.900", "0.900"]
    assert cells(text, "microjoules an image")[0][1:] == ["2.7", "2.7"]
    assert "99.7 percentile, v0 0.5" in text and "optimised, v0 0.31 to 0.62" in text


def test_the_page_shows_accuracy_after_few_timesteps_in_both_conventions(folder):
    text = html_report.build(folder(results_json()))
    (four,), (thirty_two,), (last,) = (cells(text, step) for step in ("4", "32", "40"))
    found = result()
    # with a layer delay of 3, step 4 is the first of the delay-free ones
    assert four[1].startswith(f"{100 * found.baseline.accuracy[3]:.2f} %")
    assert four[3].startswith(f"{100 * found.baseline.accuracy[6]:.2f} %")
    assert cells(text, "2")[0][1:3] == ["–", "–"]
    assert thirty_two[4].startswith(f"{100 * found.optimized.accuracy[34]:.2f} % (")
    assert last[3:] == ["–", "–"]  # 43 steps were not simulated


def test_the_page_of_an_earlier_version_lacks_what_was_not_recorded(folder):
    record = results_json()
    for name in ("baseline", "optimized"):
        del record[name]["spikes_per_image_by_layer"], record[name]["synops_per_image_by_layer"]
    text = html_report.build(folder(record))
    assert len(cells(text, "conv2")) == 1 and "Spikes and energy" not in text


def test_few_images_are_said(folder):
    few = replace(result(), test_images=3)
    assert "Only 3 images" in html_report.build(folder(results_json(few)))
    assert "Only" not in html_report.build(folder(results_json(), "many"))


def test_names_are_text_and_nothing_else(folder):
    text = html_report.build(folder(results_json(layers=("<b>", "$x$", "&amp;")), "<i>"))
    assert "&lt;b&gt;" in text and "<b>" not in text and "&amp;amp;" in text and "&lt;i&gt;" in text


def test_what_is_not_a_run_is_refused_in_a_sentence(folder, tmp_path):
    with pytest.raises(UserError, match=r"results\.json does not exist"):
        html_report.write(tmp_path)
    record = results_json()
    del record["optimized"]["percentiles"]
    with pytest.raises(UserError, match="optimized has no percentiles"):
        html_report.build(folder(record))
    for name, content in (("explain.json", {"correlations": []}), ("attack.json", {"fgsm-8": {"images": "3"}})):
        place = folder(results_json(), name)
        (place / name).write_text(json.dumps(content))
        with pytest.raises(UserError, match=f"{name} does not hold what jaxsnn.{name[:-5]} writes"):
            html_report.build(place)


def test_no_text_of_a_file_becomes_markup_or_names_a_file_elsewhere(folder):
    script = "<script>alert(1)</script>"
    fuzzed = {"page of attack.json": attacked(), "page of explain.json": explained()}
    for (name, whole), places in zip(
        fuzzed.items(), ([("timesteps",), ("title",), ("images",)], [("sweep", "population"), ("sweep", "images")])
    ):
        for place in places:
            record = json.loads(json.dumps(whole))
            inner = record["fgsm-8"] if "attack" in name else record
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = script
            where = folder(results_json(), f"{name}-{place[-1]}")
            (where / name.removeprefix("page of ")).write_text(json.dumps(record))
            try:
                assert script not in html_report.build(where)
            except UserError as error:
                assert "does not hold what" in str(error)
    where = folder(results_json(), "elsewhere")
    (where / "attack.json").write_text(json.dumps({"a": attacked()["fgsm-8"] | {"name": "../../x"}}))
    with pytest.raises(UserError, match="no name of an attack"):
        html_report.build(where)
    (where / "attack.json").write_text(json.dumps({"a": attacked()["fgsm-8"] | {"images": 1e300}}))
    with pytest.raises(UserError, match=r"attack.json does not hold what"):
        html_report.build(where)


def test_a_share_above_one_is_refused_and_no_traceback(folder):
    record = results_json()
    record["optimized"]["accuracy"][3] = 5.2
    with pytest.raises(UserError, match=r"accuracy is .*, expected numbers in \[0, 1\]"):
        html_report.build(folder(record))


def test_a_threshold_of_zero_in_a_file_has_no_ratio_and_no_traceback(folder):
    record = results_json()
    record["baseline"]["thresholds"][0] = 0.0
    assert "<td>–</td>" in html_report.build(folder(record)).replace(' class="number"', "")
