"""benchmarks.rivals: rows are measured, kept and read again, and what is printed follows from them."""

import dataclasses
import json
import types

import numpy as np
import pytest
from rich.console import Console

from benchmarks.few.evaluate import CELLS
from benchmarks.few_timesteps import Inputs
from benchmarks.rivals import __main__ as rivals
from benchmarks.rivals.__main__ import Bench, Config, chosen, run
from benchmarks.rivals.figure import draw, frontier
from benchmarks.rivals.rows import code, own_files, right_of, row_of, seen_by
from benchmarks.rivals.systems import SYSTEMS
from benchmarks.rivals.table import best, nearest_drop, ours_less, published_table, sentences, table_of, why
from data import Dataset
from helpers.networks import PLAIN, dyadic_images, random_snn, with_bias
from jaxsnn.analysis.operations import macs
from jaxsnn.errors import UserError
from jaxsnn.networks.architectures import vgg

CHAIN = with_bias(vgg([[4]], [5], name="chain", pool="before", **PLAIN))
COUNT, STEPS = 12, (2, 4)
SETTINGS = Config(timesteps=STEPS, images=COUNT, training_images=COUNT, distillation=1, precision="float32")
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def inputs():
    labels, classes = (np.arange(COUNT) % 3).astype(np.int32), ("a", "b", "c")
    train = Dataset(dyadic_images(COUNT), labels, classes, "drawn", "train", "drawn")
    settings = SETTINGS.settings() | {"test_images": COUNT}
    return Inputs(random_snn(CHAIN, starts=False), train, train, settings)


def made_up(system, job, test):
    """A row of a system: the later in the table, the more images are right, ours least; more at larger T."""
    place = 0 if system.name == "ours" else list(SYSTEMS).index(system.name) / len(SYSTEMS)
    right = np.arange(COUNT) < COUNT * place * job.timesteps / 4
    return {
        "system": system.name,
        "timesteps": job.timesteps,
        "seed": job.seed,
        "accuracy": [float(right.mean())] * job.timesteps,
        "right": np.packbits(right).tobytes().hex(),
        "images": COUNT,
        "note": "drawn" if system.name == "cos" else "",
        "code": rivals.code(system),
        "simulated": "nowhere",
    } | dict.fromkeys(("spikes", "synops", "microjoules", "seconds", "test_seconds"), job.timesteps)


@pytest.fixture(scope="module")
def report(inputs, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rivals, "row_of", made_up)
        return run(SETTINGS, inputs, QUIET)


def test_rows_are_kept_by_content_and_code(inputs, tmp_path, monkeypatch):
    """Read again; run again where the code of their system has changed; refused where the images have."""
    config = dataclasses.replace(SETTINGS, json=tmp_path / "rivals.json", systems=("robust", "half-full"), seeds=2)
    ran = []
    monkeypatch.setattr(rivals, "row_of", lambda *given: ran.append(given[0].name) or made_up(*given))
    report = run(config, inputs, QUIET)
    assert ran == ["robust"] * 2 + ["half-full"] * 2  # neither draws, so that one seed is all
    assert run(config, inputs, QUIET)["rows"] == report["rows"] and len(ran) == 4
    usual = rivals.code
    monkeypatch.setattr(rivals, "code", lambda system: usual(system) + "!" * (system.name == "robust"))
    run(config, inputs, QUIET)
    assert ran[4:] == ["robust"] * 2 and len(json.loads(config.json.read_text())["rows"]) == 4
    run(dataclasses.replace(config, timesteps=(8,), minutes=1e-9), inputs, QUIET)
    assert len(ran) == 6
    with pytest.raises(UserError, match=r"rows with test_images 12, not 13: choose another --json"):
        run(config, dataclasses.replace(inputs, identity=inputs.identity | {"test_images": 13}), QUIET)


def test_the_code_of_a_system_is_its_own_files_and_what_all_share():
    names = {path.name for path in own_files(["benchmarks.rivals.trained", "benchmarks.few.ours"])}
    assert names == {"trained.py", "descent.py", "spike_norm.py", "system.py"}
    assert code(SYSTEMS["srp"]) == code(SYSTEMS["cos"]) != code(SYSTEMS["hybrid"])


@pytest.mark.parametrize("name", ["robust", "signed"])
def test_a_row_holds_what_was_measured(inputs, name):
    """In the package's simulator and with other neurons; shorter rows are the beginnings of the longest."""
    bench = Bench(SETTINGS, inputs)
    rows = [row_of(SYSTEMS[name], bench.job(steps, 0), inputs.test) for steps in STEPS]
    for row, steps in zip(rows, STEPS):
        assert len(row["accuracy"]) == steps and row["images"] == COUNT and row["synops"] >= row["spikes"] > 0
        assert right_of(row, COUNT).mean() == row["accuracy"][-1]
        image = macs(CHAIN)[0] * 4.6
        assert np.isclose(row["microjoules"], 1e-6 * (image + 0.9 * row["synops"]))
    assert rows[0]["accuracy"] == rows[1]["accuracy"][:2] and rows[0]["spikes"] < rows[1]["spikes"]
    assert (rows[0]["simulated"] == CELLS) == (name == "signed")


def test_a_longer_row_is_not_taken_for_one_with_other_weights(inputs):
    """Same thresholds, other kernels: each is simulated."""
    bench = Bench(SETTINGS, inputs)
    job = bench.job(STEPS[0], 0)
    converted = SYSTEMS["signed"].prepare(job)
    params = {key: -value if key == "dense2.kernel" else value for key, value in inputs.snn.params.items()}
    other = dataclasses.replace(converted, snn=dataclasses.replace(inputs.snn, params=params))
    one, two = (seen_by("signed", given, job, inputs.test).right for given in (converted, other))
    assert (one != two).any()


def test_an_image_of_spikes_costs_additions_at_every_step(inputs):
    row = row_of(SYSTEMS["phase"], Bench(SETTINGS, inputs).job(4, 0), inputs.test)
    assert np.isclose(row["microjoules"], 1e-6 * 0.9 * (4 * macs(CHAIN)[0] + row["synops"]))


def test_systems_are_chosen_by_what_they_need():
    plain = Config()
    assert not any(SYSTEMS[name].trained or name == "ours-distilled" for name in chosen(plain))
    assert list(chosen(SETTINGS)) == list(SYSTEMS)
    for systems, message in (
        (("nothing",), "--systems nothing is unknown: the systems are max-norm"),
        (("qcfs",), "--systems qcfs is trained: say on how many images with --training-images"),
        (("ours-distilled",), "--systems ours-distilled needs --distillation"),
    ):
        with pytest.raises(UserError, match=message):
            chosen(dataclasses.replace(plain, systems=systems))


def test_the_tables_say_who_is_best(report, tmp_path):
    assert table_of(report, SYSTEMS, STEPS).row_count == len(SYSTEMS)
    assert published_table(report, SYSTEMS).row_count == sum(len(s.published) for s in SYSTEMS.values())
    assert published_table(report | {"rows": []}, SYSTEMS).row_count == 0
    rivals = {name: system for name, system in SYSTEMS.items() if not name.startswith("ours")}
    leader = best(report, rivals, 4)
    assert best(report, SYSTEMS, 4) not in rivals
    said = sentences(report, SYSTEMS, STEPS)
    gain = ours_less(report, leader, 4)
    assert gain[0] < 0 and gain[1] <= gain[0] <= gain[2]
    assert f"T = 4: {SYSTEMS[leader].title} is ahead of ours, calibrated, by {-gain[0]:.2f} points" in said[1]
    assert (
        said[-1] == f"Preparation and simulation of all these rows: at most {len(SYSTEMS) * 12 / 60:.1f} minutes."
    )
    assert said[-3] == "COS: drawn."
    ahead = [row | {"right": "ff" * 2} if row["system"] == "ours" else row for row in report["rows"]]
    assert "ahead of ours" not in "".join(sentences(report | {"rows": ahead}, SYSTEMS, STEPS))
    assert said[-2] == "No published figure is at hand for MMSE a channel, LTB, DA-QCFS's folds, AdaFire, " + (
        "BPTT, weights, binary weights."
    )
    draw(report, SYSTEMS, tmp_path / "rivals.png")
    assert (tmp_path / "rivals.png").read_bytes().startswith(b"\x89PNG")


def test_published_drops_stand_beside_the_nearest_t(report):
    system = SYSTEMS["qcfs"]
    figure = system.published[0]
    steps, drop = nearest_drop(report, "qcfs", figure)
    value = next(r for r in report["rows"] if (r["system"], r["timesteps"]) == ("qcfs", 4))["accuracy"][-1]
    assert steps == 4 and np.isclose(drop, 100 * (report["ann_accuracy"] - value))
    far = figure.drop + 2.1
    assert why(system, figure, steps, figure.drop + 1.9) == why(system, figure, None, None) == ""
    assert why(system, figure, steps, far) == system.deviates
    assert why(system, figure, 32, far) == f"4 steps in theirs, 32 here; {system.deviates}"
    unknown = why(SYSTEMS["several"], SYSTEMS["several"].published[0], 32, 0.0)
    assert unknown == "their ANN's accuracy is not known here; another network, trained otherwise"
    assert nearest_drop(types.MappingProxyType(report | {"rows": []}), "qcfs", figure) == (None, None)


def test_the_frontier_is_what_nothing_cheaper_matches():
    points = [(4, 10), (1, 50), (2, 20), (2, 30), (3, 20), (8, 10)]
    assert frontier(points) == [(1, 50), (2, 20), (4, 10)]
