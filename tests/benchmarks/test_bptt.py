"""The benchmark of the search against BPTT: largest batches, eq. 19, and a whole small Fig. 4."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tyro
from rich.console import Console

import data
from benchmarks import bptt_accuracy, bptt_memory
from benchmarks.bptt_accuracy import accuracy_rows, run_apart, search_after_once
from benchmarks.bptt_config import Config
from benchmarks.bptt_memory import compiled_bptt, compiled_search, largest_batch, memory_rows
from benchmarks.problem import macs
from helpers.networks import save_tiny
from jaxsnn.errors import UserError
from jaxsnn.finetune import FinetuneConfig, finetune
from jaxsnn.networks.architectures import architecture
from jaxsnn.networks.description import layer_shapes, shapes_of
from jaxsnn.networks.linear_maps import MATRIX_POSITIONS
from jaxsnn.optimize import OptimizeConfig, optimize
from jaxsnn.training.bptt import step_bytes


@pytest.mark.parametrize("limit", [99, 100, 130, 164, 165, 1000, 4321])
def test_the_largest_batch_is_the_one_that_trying_all_would_find(limit):
    """Memory that grows with the batch, almost on a line: 100 for one image, and a step where a buffer doubles."""

    def needed(batch):
        return 67 + 33 * batch + 20 * (batch // 3) + (50 if batch > 6 else 0)

    expected = max((batch for batch in range(200) if batch and needed(batch) <= limit), default=0)
    assert largest_batch(needed, limit) == (expected, needed(max(expected, 1)))


def test_running_times_are_eq_19(monkeypatch):
    """tau x training cost x D / B by hand: 20 epochs of 1,281,167 images, or P G candidates on E images."""
    monkeypatch.setattr(bptt_memory, "compiled_bptt", lambda network, timesteps, batch, checkpoint=False: batch)
    monkeypatch.setattr(bptt_memory, "compiled_search", lambda network, timesteps, batch: batch)
    monkeypatch.setattr(bptt_memory, "step_bytes", lambda batch: batch * 2**30)
    monkeypatch.setattr(bptt_memory, "batch_seconds", lambda network, timesteps, batch, repeats: (7.0, 2.0))
    config = Config(measure="full", memory=3.5, unrolled=(5,), side=32)
    (row,) = memory_rows(config, Console(quiet=True))["rows"]
    assert row["batch"] == 3 and row["bptt_bytes"] == 3 * 2**30
    assert row["bptt_hours"] == pytest.approx(7.0 * 20 * 1_281_167 / 3 / 3600)
    assert row["search_hours"] == pytest.approx(2.0 * 5000 * 20 * 6 / 3 / 3600)

    # from two images of the measured size to three of the real one: by images, steps and work
    config = Config(measure="small", memory=3.5, unrolled=(50,), side=32, measure_side=64)
    (row,) = memory_rows(config, Console(quiet=True))["rows"]
    sizes = [architecture("vgg15", classes=1000, input_shape=(n, n, 3)) for n in (32, 64)]
    work = [macs(network, fold=True, first=False, matrix_positions=MATRIX_POSITIONS) for network in sizes]
    assert row["measured"]["batch"] == 2 and row["measured"]["timesteps"] == 25
    assert row["bptt_batch_s"] == pytest.approx(7.0 * 3 / 2 * 50 / 25 * work[0] / work[1])


def test_memory_of_the_two_steps_is_what_they_hold():
    """A step of BPTT holds weights, Adam's two moments and more with every timestep; a simulation does not."""
    network = architecture("vgg5", width=0.125, classes=10, input_shape=(16, 16, 3))
    weights = 4 * sum(np.prod(shape) for shape in shapes_of(network).values())
    searches = [step_bytes(compiled_search(network, steps, 8)) for steps in (4, 12)]
    unrolled = [step_bytes(compiled_bptt(network, steps, 8)) for steps in (4, 12)]
    assert searches[0] > weights and unrolled[0] > 3 * weights
    neurons = sum(np.prod(shape) for shape in layer_shapes(network)[:-1])
    # membranes and spikes of each step at least
    assert unrolled[1] - unrolled[0] > 8 * 8 * 2 * 4 * neurons
    assert searches[1] - searches[0] < 8 * neurons


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("weights"))


def run_here(out, name, module, arguments):
    """``run_apart`` in this process."""
    work, kind = {"jaxsnn.optimize": (optimize, OptimizeConfig), "jaxsnn.finetune": (finetune, FinetuneConfig)}[
        module
    ]
    return work(tyro.cli(kind, args=[*arguments, "--out", str(out / name)])) | {"peak_rss": 1}


def test_figure_4_compares_on_the_same_images_and_counts_all_that_was_simulated(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(bptt_accuracy, "run_apart", run_here)
    config = Config(
        out=tmp_path,
        weights=tiny,
        test_images=20,
        test_timesteps=6,
        population=4,
        generations=1,
        epochs=1,
        batch=10,
        images=20,
        timesteps=5,
    )
    report = accuracy_rows(config)
    start, search, full, half, unrolled, short, after = report["rows"]
    results = {name: json.loads((tmp_path / name / "results.json").read_text()) for name in ("search", "bptt")}
    assert start["accuracy"] == results["search"]["baseline"]["accuracy"]
    assert start["accuracy"] == results["bptt"]["baseline"]["accuracy"]
    assert full["accuracy"] != start["accuracy"] and full["image_steps"] == 0
    assert half["image_steps"] == (8 * 80 + 4 * 300) * 14 + 8 * 1500
    # P (G + 1) = 8 candidates on 80 images, four finalists on 300, T = 34 less the delay of 2; the clipped ANN
    # sees each of 8 candidates on 1,500 images once
    assert search["image_evaluations"] == 8 * 80 + 4 * 300
    assert search["image_steps"] == (8 * 80 + 4 * 300) * 32 + 8 * 1500
    assert (unrolled["image_evaluations"], unrolled["image_steps"]) == (20, 20 * 3)
    assert short["image_steps"] == 20 * 8
    assert after["image_steps"] == search["image_steps"] + unrolled["image_steps"]
    assert after["seconds"] > unrolled["seconds"]
    assert unrolled["peak_bytes"] == results["bptt"]["peak_bytes"]

    train, test = data.load("embedded", "train"), data.load("embedded", "test", limit=20)
    assert search_after_once(config, tmp_path / "bptt", train, test)["accuracy"] == after["accuracy"]
    other = replace(config, generations=2)
    with pytest.raises(UserError, match=r"search-after\.json holds a search of other runs or settings"):
        search_after_once(other, tmp_path / "bptt", train, test)


def test_a_run_that_is_there_is_read_only_if_it_is_whole_and_the_same(tmp_path):
    """The process writes nothing: what is read stands there already."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text('{"stopped_early": false, "nfe": 3}')
    with pytest.raises(UserError, match="not made here"):
        run_apart(tmp_path, "run", "jaxsnn.optimize", [])
    (tmp_path / "run.process.json").write_text('{"command": ["jaxsnn.optimize"], "peak_rss": 5}')
    assert run_apart(tmp_path, "run", "jaxsnn.optimize", [])["peak_rss"] == 5
    with pytest.raises(UserError, match="other settings"):
        run_apart(tmp_path, "run", "jaxsnn.optimize", ["--seed", "1"])
    (tmp_path / "run" / "results.json").write_text('{"stopped_early": true}')
    with pytest.raises(UserError, match="stopped early"):
        run_apart(tmp_path, "run", "jaxsnn.optimize", [])


def test_bad_input_is_one_clear_sentence(tmp_path):
    """In a process of its own; ``test_commands`` tries more in this one."""
    given = ["--out", str(tmp_path / "out"), "--search", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "benchmarks.bptt", *given], capture_output=True, text=True)
    assert done.returncode == 2 and "results.json does not exist" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
