"""Optimisation under attack, and the commands that explain and attack a run: what they write and refuse."""

import csv
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from jaxsnn.analysis.adversarial import Attack, ann_victim, perturb
from jaxsnn.analysis.comparison import ann_right
from jaxsnn.analysis.correlation import correlations, verdict
from jaxsnn.analysis.latency import LatencyRow
from jaxsnn.analysis.paper_results import PAPER
from jaxsnn.analysis.results import NetworkResult, TestResult
from jaxsnn.attack import AttackConfig, attack, our_rows
from jaxsnn.errors import UserError
from jaxsnn.explain import ExplainConfig, explain
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import shapes_of
from jaxsnn.networks.weights import save_weights
from jaxsnn.optimize import OptimizeConfig, optimize
from jaxsnn.records.finished_run import read_run
from jaxsnn.reports import html_report

SMALL = OptimizeConfig.of(
    "cifar10-attack",
    population=4,
    generations=1,
    images=10,
    calibration_images=20,
    timesteps=8,
    test_timesteps=10,
    test_images=20,
    finalists=2,
    final_images=12,
    tol=0,
    epsilon=1,
    attack_mix="worst",
)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A small finished run of the preset cifar10-attack."""
    folder = tmp_path_factory.mktemp("run")
    network = vgg([[4], [4], [6]], name="tiny")
    rng = np.random.default_rng(0)
    params = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes_of(network).items()}
    save_weights(folder / "tiny.safetensors", network, params)
    optimize(replace(SMALL, weights=folder / "tiny.safetensors", out=folder / "run"))
    return folder / "run"


@pytest.fixture(scope="module")
def explained(run_folder):
    config = ExplainConfig(
        run_folder,
        images=20,
        attack_images=12,
        sweep_population=4,
        sweep_generations=1,
        sweep_images=10,
        held_out_images=10,
        sweep_factors=(0.0,),
    )
    return explain(config)


@pytest.fixture(scope="module")
def attacked(run_folder, explained):
    return attack(AttackConfig(run_folder, epsilon=1, images=20, transfer_images=10, batch=10))


def test_the_presets_under_attack_optimise_on_attacked_images(run_folder):
    results = json.loads((run_folder / "results.json").read_text())
    config = json.loads((run_folder / "config.json").read_text())
    assert config["attack"] == "fgsm" and OptimizeConfig().epsilon == 8
    assert OptimizeConfig.of("cifar100-attack").checked().attack == "fgsm"
    assert OptimizeConfig().checked().attack == "none"
    assert results["attack"]["epsilon"] == pytest.approx(1 / 255) and results["attack"]["mix"] == "worst"
    # 10 images of the subset and those of the final comparison that are not among them, each crafted once
    assert 12 <= results["gradient_passes"] <= 22
    # two generations of 4 and two finalists, every image clean and attacked
    simulated = 2 * (2 * 4 * 10 + 2 * 12)
    assert results["training_cost_epochs"] == pytest.approx((simulated + results["gradient_passes"]) / 2000)


def test_the_comparison_is_on_attacked_test_images(run_folder):
    results = json.loads((run_folder / "results.json").read_text())
    run = read_run(run_folder, "test", 20)
    images = perturb(ann_victim(run.snn), Attack("fgsm", 1 / 255), run.dataset.images, run.dataset.labels)
    expected = ann_right(run.snn.network, run.snn.params, images, run.dataset.labels).mean()
    clean = ann_right(run.snn.network, run.snn.params, run.dataset.images, run.dataset.labels).mean()
    assert results["ann_accuracy"] == pytest.approx(expected)
    assert results["clean"]["ann_accuracy"] == pytest.approx(clean)


def test_our_rows_of_table_iii_are_at_the_closest_target_that_both_reach(run_folder):
    run = read_run(run_folder, "test", 20)

    def attacked(*latency):
        rows = tuple(LatencyRow(*row, None, None) for row in latency)
        genes = {"thresholds": (1.0, 1.0, 1.0)}
        optimized = NetworkResult((0.1, 0.3, 0.5, 0.6), 0.0, 0.0, **genes)
        baseline = replace(optimized, percentile=99.7, v0=(0.5, 0.5, 0.5))
        return TestResult(0.62, 20, 4, "layer", 3, baseline, optimized, rows, ())

    found = attacked((0.615, "ANN - 0.5", None, 4), (0.6, "ANN - 2", 4, 3), (0.57, "ANN - 5", 3, 3))
    rows = our_rows(run, Attack(), found)
    assert [row[3:] for row in rows] == [
        ("99.7 percentile, v0 0.5, to ANN - 2", "tiny", 62.0, 60.0, 4),
        ("optimised, v0 0, to ANN - 2", "tiny", 62.0, 50.0, 3),
    ]
    # an ANN that is no better than the silent read-out is no target
    rows = our_rows(run, Attack(), attacked((0.1, "ANN - 0.5", 1, 1)))
    assert [row[3:] for row in rows] == [
        ("99.7 percentile, v0 0.5", "tiny", 62.0, 60.0, None),
        ("optimised, v0 0", "tiny", 62.0, 60.0, None),
    ]


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_explain_writes_its_figures_with_their_numbers(run_folder, explained):
    for name in ("significance", "sensitivity", "cost_sweep"):
        assert (run_folder / "figures" / f"{name}.png").stat().st_size > 5000
    rows = read_csv(run_folder / "figures" / "significance.csv")
    assert [row["layer"] for row in rows] == ["conv1", "conv2", "conv3"]
    assert rows[0]["change_percent"] == "" and 1 <= int(rows[2]["components"]) <= 6
    for name in ("accuracy", "thresholds", "cost"):  # beside what optimize has drawn
        assert (run_folder / "figures" / f"{name}.png").exists()
        assert len(read_csv(run_folder / "figures" / f"{name}.csv")) >= 2
    noise = read_csv(run_folder / "figures" / "sensitivity.csv")
    assert [float(row["ann"]) for row in noise] == explained["sensitivity"]["ann"]
    assert all(0 < value < 2 for value in explained["sensitivity"]["ann"])
    assert [row["n"] for row in explained["correlations"]] == [2, 3, 3, 3, 3]
    assert explained["correlations"][0]["rho"] is None  # two layers have no rank correlation


def test_the_sweep_changes_one_weight_at_a_time(run_folder, explained):
    sweep = explained["sweep"]
    assert sweep["own"] == {"alpha": 1, "beta": 2, "gamma": 60}
    for name in ("alpha", "beta", "gamma"):
        assert [row["weight"] for row in sweep["weights"][name]] == [0, sweep["own"][name]]
        # the search with the run's own weights is one and the same
        assert sweep["weights"][name][1]["accuracy"] == sweep["weights"]["alpha"][1]["accuracy"]
        part = {"alpha": "latency", "beta": "slope", "gamma": "accuracy"}[name]
        assert sweep["weights"][name][0]["cost_parts"][part] == 0
    assert len(read_csv(run_folder / "figures" / "cost_sweep.csv")) == 6 * 8


def test_attack_writes_table_iii_and_how_attacks_transfer(run_folder, attacked):
    results = json.loads((run_folder / "results.json").read_text())
    # the run was itself tested under this attack, on the same images
    assert attacked["attacked"]["optimized"]["accuracy"] == results["optimized"]["accuracy"]
    assert attacked["clean"]["baseline"]["accuracy"] == results["clean"]["baseline"]["accuracy"]
    rows = read_csv(run_folder / "figures" / "attack-fgsm-1-table.csv")
    assert len(rows) == len(PAPER) + 2
    assert rows[4]["SNN %"] == "68.9" and rows[4]["timesteps"] == "42"
    assert float(rows[-1]["ANN %"]) == pytest.approx(100 * results["ann_accuracy"])
    sources = attacked["transfer"]["accuracy"]
    assert list(sources) == ["clean", "ann", "baseline", "optimized"]
    assert sources["ann"]["ann"] <= sources["clean"]["ann"]


def test_another_attack_is_added_to_the_first(run_folder, attacked):
    config = AttackConfig(
        run_folder, attack="pgd", epsilon=4, steps=2, targeted=True, images=20, transfer_images=0
    )
    found = attack(config)
    assert 0 <= found["targets_reached"] <= 1 and found["transfer"] is None
    kept = json.loads((run_folder / "attack.json").read_text())
    assert list(kept) == ["fgsm-1", "pgd-4-targeted"]


def test_the_page_needs_nothing_else(run_folder, attacked):
    text = (run_folder / "report.html").read_text()
    assert text.startswith("<!doctype html>") and "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    sources = re.findall(r'(?:src|href)="([^"]{0,22})', text)
    assert len(sources) >= 7 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"https?://|<script|<link|@import|url\(", text)
    for title, reading in (each for name, each in html_report.FIGURES.items() if name != "layers"):
        assert title in text and reading.split(",")[0].split("'")[0] in text


def test_the_page_shows_a_run_that_was_not_explained_and_escapes_what_it_shows(run_folder, tmp_path):
    bare = tmp_path / "<b>"
    bare.mkdir()
    for name in ("results.json", "config.json"):
        shutil.copy(run_folder / name, bare)
    text = html_report.build(bare)
    assert "&lt;b&gt;" in text and "<b></title>" not in text and "Noise" not in text


def test_claims_hold_only_with_the_right_sign():
    noise = {name: [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] for name in ("ann", "baseline", "optimized")}
    rows = correlations([99.0, 98.5, 98.0, 97.0, 96.0, 95.0], [None, 6.0, 5.0, 4.0, 3.0, 2.0], noise)
    assert rows[0]["rho"] == pytest.approx(1) and rows[0]["n"] == 5
    assert rows[1]["rho"] == pytest.approx(-1) and rows[1]["holds"]
    assert "holds here" in verdict(rows[1])
    opposite = correlations([95.0, 96.0, 97.0, 98.0, 98.5, 99.0], [None] * 6, noise)
    assert not opposite[1]["holds"] and "the other way round" in verdict(opposite[1])
    assert "no rank correlation" in verdict(opposite[0])
    # what follows depth is told so, and depth itself is no claim
    assert rows[1]["rho_with_depth"] == pytest.approx(1) and "with depth is +1.00" in verdict(rows[1])
    assert rows[-1]["explanation"] == "depth of the layer" and not rows[-1]["holds"]
    assert "No claim" in verdict(rows[-1])


def without(run_folder, tmp_path, name):
    folder = tmp_path / "copy"
    shutil.copytree(run_folder, folder, ignore=shutil.ignore_patterns("figures"))
    (folder / name).unlink()
    return folder


def test_the_searches_with_other_weights_can_be_left_out(run_folder, explained, tmp_path):
    """With no images for them."""
    folder = without(run_folder, tmp_path, "explain.json")
    found = explain(ExplainConfig(folder, images=20, attack_images=12, sweep=False, held_out_images=5000))
    assert explained["sweep"] and found["sweep"] is None
    assert "<h2>The cost</h2>" not in (folder / "report.html").read_text()
    assert not (folder / "figures" / "cost_sweep.png").exists()


@pytest.mark.parametrize("command", [lambda f: explain(ExplainConfig(f)), lambda f: attack(AttackConfig(f))])
def test_a_folder_without_thresholds_is_refused(run_folder, tmp_path, command):
    with pytest.raises(UserError, match=r"has no thresholds.json: it is not the folder of a finished run"):
        command(without(run_folder, tmp_path, "thresholds.json"))
    with pytest.raises(UserError, match="is not a folder"):
        command(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epsilon": -1}, "--epsilon is -1 in grey levels"),
        ({"epsilon": 300}, r"expected in \[0, 255\]"),
        ({"images": 5000}, "5000 training images were asked for, but embedded has only 2000"),
        ({"sweep_population": 3}, "--sweep-population is 3, expected at least 4"),
        ({"sweep_factors": (-1.0,)}, "--sweep-factors"),
    ],
)
def test_explain_refuses_bad_input(run_folder, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        explain(replace(ExplainConfig(run_folder), **changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epsilon": 0.03}, "less than one grey level"),
        ({"transfer_images": 600}, "--transfer-images is 600, expected at most --images, 500"),
        ({"timesteps": 3}, "--timesteps is 3, expected more than the layer delay of 3 steps"),
        ({"batch": 0}, "--batch is 0"),
        ({"precision": "int8"}, "an SNN in int8 has no gradient to attack"),
    ],
)
def test_attack_refuses_bad_input(run_folder, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        attack(replace(AttackConfig(run_folder), **changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"attack": "fgsm", "epsilon": -8.0}, "--epsilon is -8 in grey levels, 1/255 of the pixel range"),
        (
            {"attack": "pgd", "race": 1.0, "attack_mix": "both"},
            "--race compares right answers on one kind of image",
        ),
    ],
)
def test_optimize_refuses_bad_attacks(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        OptimizeConfig(**changes).checked()
