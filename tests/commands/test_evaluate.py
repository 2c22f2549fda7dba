"""evaluate, explain and attack find what a run was made with: its dataset, and files with relative paths."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.networks import save_tiny
from jaxsnn.errors import UserError
from jaxsnn.evaluate import EvaluateConfig, Source, evaluate, source_of
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.description import shapes_of
from jaxsnn.networks.weights import save_weights
from jaxsnn.records.finished_run import located_folder, located_network, located_weights


def run_of(folder, **config):
    """A folder with a config.json and thresholds."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "thresholds.json").write_text(json.dumps({"thresholds": [0.5, 0.5, 1.0]}))
    return folder


def test_the_images_are_those_of_the_run_unless_others_are_asked_for(tmp_path):
    (tmp_path / "images").mkdir()
    run = run_of(tmp_path / "runs" / "one", data="imagefolder", data_dir=str(tmp_path / "images"))
    config = EvaluateConfig(run)
    own = Source("imagefolder", tmp_path / "images")
    assert source_of(config) == own
    assert source_of(replace(config, run=run / "thresholds.json")) == own
    assert source_of(replace(config, data="imagefolder")) == own
    # the run's folder holds nothing of another dataset
    assert source_of(replace(config, data="cifar10")) == Source("cifar10", None)
    assert source_of(replace(config, data_dir=tmp_path)) == Source("imagefolder", tmp_path)
    alone = tmp_path / "mine.json"
    alone.write_text('{"thresholds": [1]}')
    assert source_of(EvaluateConfig(alone)) == Source("embedded", None)
    shutil.copy(alone, run / "mine.json")  # whose thresholds these are is not known
    assert source_of(EvaluateConfig(run / "mine.json")) == Source("embedded", None)
    with pytest.raises(UserError, match="data is 7, expected a string"):
        source_of(EvaluateConfig(run_of(tmp_path / "wrong", data=7)))


def test_relative_paths_are_found_from_any_folder(tmp_path, monkeypatch):
    run = run_of(tmp_path / "project" / "runs" / "one")
    weights = tmp_path / "project" / "weights" / "w.safetensors"
    weights.parent.mkdir()
    weights.touch()
    named = weights.relative_to(tmp_path / "project")
    for place in (tmp_path, run, tmp_path / "project"):
        monkeypatch.chdir(place)
        assert located_weights(named, run).samefile(weights)
    # the current folder goes first
    here = tmp_path / "here" / named
    here.parent.mkdir(parents=True)
    here.touch()
    monkeypatch.chdir(tmp_path / "here")
    assert located_weights(named, run).samefile(here)
    # what has moved together with the run is found in it, absolute or not
    moved = run / "v.safetensors"
    moved.touch()
    assert located_weights(tmp_path / "nowhere" / "v.safetensors", run).samefile(moved)
    with pytest.raises(
        UserError, match=r"made with the weights u\.pt, which are neither there nor beside the run: gi"
    ):
        located_weights(Path("u.pt"), run)
    assert located_weights(None, run) is None


def test_networks_and_datasets_are_found_like_weights(tmp_path, monkeypatch):
    run = run_of(tmp_path / "runs" / "one")
    (tmp_path / "net.json").touch()
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(run)
    assert located_network("vgg15", run) == "vgg15" and located_network(None, run) is None
    assert located_network("net.json", run) == str(tmp_path / "net.json")
    assert located_network("other.json", run) == "other.json"
    assert located_folder(Path("images"), run) == tmp_path / "images"
    assert located_folder(None, run) is None


def test_thresholds_with_relative_weights_are_evaluated_from_another_folder(tmp_path, monkeypatch):
    network = vgg([[4], [4], [6]], name="tiny")
    rng = np.random.default_rng(0)
    params = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes_of(network).items()}
    save_weights(tmp_path / "project" / "tiny.safetensors", network, params)
    run = run_of(tmp_path / "project" / "one", data="embedded")
    thresholds = {"thresholds": [0.5, 0.5, 1.0], "weights": "tiny.safetensors"}
    thresholds |= {"baseline_thresholds": [1.0, 1.0, 1.0], "baseline_v0": [0.5, 0.5, 0.5]}
    (run / "thresholds.json").write_text(json.dumps(thresholds))
    monkeypatch.chdir(tmp_path)
    found = evaluate(EvaluateConfig(run, images=10, timesteps=8, out=tmp_path / "out"))
    assert found == json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["data"] == "embedded" and found["network"] == "tiny"
    assert found["baseline"]["v0"] == [0.5, 0.5, 0.5] and found["optimized"]["v0"] is None
    assert len(found["baseline"]["synops_per_image_by_layer"]) == 3
    (tmp_path / "project" / "tiny.safetensors").unlink()
    with pytest.raises(UserError, match="give the file as --weights"):
        evaluate(EvaluateConfig(run, images=10, timesteps=8))


def test_early_exit_writes_what_it_finds_and_refuses_what_cannot_be(tmp_path):
    weights = save_tiny(tmp_path)
    alone = tmp_path / "mine.json"
    alone.write_text(json.dumps({"thresholds": [0.5, 0.5], "v0": [0.5, 0.5], "delay": "none"}))
    usual = EvaluateConfig(alone, weights=weights, images=6, exit_images=10, early_exit=True, out=tmp_path / "out")
    found = evaluate(replace(usual, timesteps=4, backend="xla", block=1))
    held = json.loads((tmp_path / "out" / "early_exit.json").read_text())
    assert held == found
    assert (tmp_path / "out" / "figures" / "early_exit.png").stat().st_size > 0
    assert [rule["most_changed"] for rule in held["rules"][:3]] == [None, 0.0, 0.001]
    assert sum(held["chosen"]["exits"]) == held["test_images"] == 6
    assert held["speed"]["images_that_stop_at_another_step"] == 0
    for change, sentence in (
        ({"exit_change": 101.0}, "--exit-change is 101.0, expected in"),
        ({"exit_images": 0}, "--exit-images is 0, expected at least 1"),
        ({"delay": "layer", "timesteps": 2}, "--timesteps must be above the layer delay of 2 steps"),
    ):
        with pytest.raises(UserError, match=sentence):
            evaluate(replace(usual, **change))


def test_an_image_that_comes_in_as_spikes_is_counted_with_a_layer_more(tmp_path):
    """Each encoding from the command to its energies, and what goes with which."""
    weights, alone = save_tiny(tmp_path), tmp_path / "mine.json"
    alone.write_text(json.dumps({"thresholds": [0.5, 0.5], "baseline_thresholds": [1.0, 1.0], "delay": "none"}))
    usual = EvaluateConfig(alone, weights=weights, images=6, timesteps=3, backend="xla", block=1)
    found = {
        name: evaluate(replace(usual, encoding=name, backend="auto" if name == "poisson" else "xla"))
        for name in (None, "constant", "rate", "poisson")
    }
    assert [one["encoding"] for one in found.values()] == ["constant", "constant", "rate", "poisson"]
    assert found[None] == found["constant"]
    for name in ("rate", "poisson"):
        one = found[name]
        assert len(one["optimized"]["spikes_per_image_by_layer"]) == 3 and one["delay_steps"] == 3
        assert one["ann_accuracy"] == found[None]["ann_accuracy"]
        assert one["energy"]["totals"]["INT8"]["ann"] == found[None]["energy"]["totals"]["INT8"]["ann"]
        # one spike at most for each pixel's channel and step
        assert 0 < one["optimized"]["spikes_per_image_by_layer"][0] <= 3 * 32 * 32 * 3
    for change, sentence in (
        ({"precision": "int8"}, "random spikes are drawn by XLA, in float32"),
        ({"early_exit": True}, "--early-exit and --neurobench know no random spikes"),
        ({"backend": "events"}, "random spikes are drawn by XLA, in float32"),
    ):
        with pytest.raises(UserError, match=sentence):
            evaluate(replace(usual, encoding="poisson", **{"backend": "auto"} | change))


def test_a_run_that_is_not_there_is_asked_for_as_what_it_may_be(tmp_path):
    with pytest.raises(UserError, match="RUN does not exist: give the folder of a run, or a file of thresholds"):
        evaluate(EvaluateConfig(tmp_path / "RUN"))
