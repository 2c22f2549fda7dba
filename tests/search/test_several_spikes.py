"""Neurons that may send several spikes in one step: simulated, searched, kept in a run, and refused elsewhere."""

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

import data
from helpers.exported import run_torch, written
from helpers.networks import dyadic_images, dyadic_snn, dyadic_thresholds, random_snn, save_tiny
from helpers.runs import SETTINGS, interrupted
from jaxsnn.analysis.sensitivity import snn_sensitivity
from jaxsnn.attack import AttackConfig, attack
from jaxsnn.conversion.start import calibrate
from jaxsnn.errors import UserError
from jaxsnn.evaluate import EvaluateConfig, evaluate
from jaxsnn.explain import ExplainConfig, explain
from jaxsnn.export import ExportConfig, export
from jaxsnn.exports.converted import Converted
from jaxsnn.exports.integers import integer_files
from jaxsnn.exports.nir_graph import nir_graph
from jaxsnn.exports.torch_module import torch_files
from jaxsnn.finetune import FinetuneConfig, finetune
from jaxsnn.networks.spiking import Dynamics, Genes
from jaxsnn.optimize import OptimizeConfig, optimize
from jaxsnn.records.calibrated_network import load_start
from jaxsnn.records.finished_run import read_run
from jaxsnn.search import objective
from jaxsnn.search.around import Around
from jaxsnn.search.job import calibrated_on, make_job
from jaxsnn.search.run import evolve
from jaxsnn.search.settings import SearchSettings
from jaxsnn.simulation.cells.burst import Several
from jaxsnn.simulation.cells.unroll import per_layer, runs
from jaxsnn.simulation.observe import observe, observe_images, record
from jaxsnn.simulation.plan import Plan
from jaxsnn.simulation.plan_table import print_plan
from jaxsnn.simulation.surrogate import surrogate_scores

IMAGES = dyadic_images(12)
LABELS = np.arange(12, dtype=np.int32) % 3
THREE = Dynamics(delay="none", most=3)


@pytest.fixture
def few(tmp_path):
    """A small run around a calibrated network, not yet started."""
    changes = {"generations": 2, "timesteps": 2, "test_timesteps": 3, "final_images": 20, "reconstruct": False}
    kept = {key: SETTINGS[key] for key in ("population", "images", "calibration_images", "test_images")}
    neurons = {"spikes_per_step": 3, "precision": "float32"}
    where = {"weights": save_tiny(tmp_path), "out": tmp_path / "run"}
    return OptimizeConfig.of("few", **(kept | changes | neurons | where))


@pytest.mark.parametrize("delay", ["none", "layer"])
def test_dynamics_say_how_many_spikes_a_neuron_may_send(delay):
    """As the cell of that kind does; the tests of cells tie that to a loop in float64."""
    snn = dyadic_snn("residual")
    genes = Genes(dyadic_thresholds(len(snn.network.spiking), 2))
    one, right = observe_images(snn, genes, IMAGES, LABELS, timesteps=6, dynamics=replace(THREE, delay=delay))
    other, same = observe_images(
        snn, genes, IMAGES, LABELS, timesteps=6, dynamics=Dynamics(delay=delay), cell=Several(most=3)
    )
    assert np.array_equal(one.spikes, other.spikes) and np.array_equal(right, same)
    single = observe(snn, genes, IMAGES, LABELS, timesteps=6, dynamics=Dynamics(delay=delay))
    assert (one.spikes > single.spikes).any()
    with pytest.raises(UserError, match="leave most out of dynamics"):
        observe(snn, genes, IMAGES, LABELS, timesteps=6, dynamics=THREE, cell=Several())


@pytest.mark.parametrize("wrong", [{"most": 0}, {"most": 256}, {"most": 2, "comparison": ">="}])
def test_dynamics_that_no_neuron_has(wrong):
    with pytest.raises(UserError):
        Dynamics(**wrong)


def test_what_knows_single_spikes_alone_says_so():
    snn = dyadic_snn("bias")
    genes = Genes(np.ones((1, len(snn.network.spiking))))
    for refused in (
        lambda: record(snn, genes, IMAGES, 2, THREE),
        lambda: surrogate_scores(snn.network, snn.params, genes.map(lambda p: p[0]), IMAGES, 2, THREE),
        lambda: snn_sensitivity(snn, genes, IMAGES, IMAGES, 2, THREE),
        lambda: integer_files(Converted(snn, genes, THREE, 2)),
        lambda: print_plan(Console(quiet=True), snn, Plan(), THREE, 2, 1, 12),
    ):
        with pytest.raises(UserError, match="for neurons that send one spike in a step, and these send up to 3"):
            refused()


def test_the_pytorch_module_sends_them_too(tmp_path):
    """Bit for bit on a network whose sums are exact; NIR cannot say it."""
    snn = dyadic_snn("residual")
    one = Converted(snn, Genes(np.float32(dyadic_thresholds(len(snn.network.spiking)))), THREE, 6)
    pytest.importorskip("torch")
    found = run_torch(written(tmp_path, torch_files(one)), IMAGES)
    cells = per_layer(snn.network, Several(most=3))
    ((scores, _),) = runs(cells, snn, one.genes, IMAGES, 6)
    np.testing.assert_array_equal(found, scores[0])
    pytest.importorskip("nir")
    with pytest.raises(UserError, match="NIR, unlike --to torch, is for neurons that send one spike in a step"):
        nir_graph(one)


@pytest.mark.parametrize(
    "change",
    [
        {"distillation": 1, "start": "calibrated"},
        {"objectives": ("divergence", "latency"), "start": "calibrated"},
        {"less_energy": 10.0, "start": "calibrated"},
        {"max_peak": 1.0, "start": "calibrated"},
        {"comparison": ">="},
    ],
)
def test_settings_that_know_single_spikes_alone(change):
    with pytest.raises(UserError, match="is for neurons that send one spike in a step"):
        SearchSettings(spikes_per_step=2, **change).checked()


def test_arithmetic_that_is_not_there_is_refused_before_anything_begins(few):
    for change, sentence in (
        ({"precision": "int8"}, "use --precision float32"),
        ({"backend": "events"}, "use --backend xla or auto"),
        ({"encoding": "rate"}, "--encoding is for neurons that send one spike"),
        ({"spikes_per_step": 256}, "--spikes-per-step is 256, expected at most 255"),
    ):
        with pytest.raises(UserError, match=sentence):
            replace(few, **change).checked()
    assert not few.out.exists()


def test_caps_and_limits_count_all_spikes_of_a_step(monkeypatch):
    """A ReLU6's neuron that sends three spikes a step is full at a threshold of two."""
    snn = dyadic_snn("bias")
    layers = tuple(replace(layer, cap=6.0) for layer in snn.network.spiking)
    capped = replace(snn, network=replace(snn.network, layers=(*layers, snn.network.layers[-1])))
    start = calibrate(capped, IMAGES, 2, reconstruct=False)
    assert np.allclose(Around.of(replace(start, most=3)).caps, Around.of(start).caps / 3)
    train = data.Dataset(IMAGES, LABELS, ("a", "b", "c"), "drawn", "train", "a test")
    small = {"population": 4, "images": 12, "calibration_images": 12, "limit_images": 12, "finalists": 1}
    settings = SearchSettings(spikes_per_step=3, limit=1.0, **small)
    assert np.array_equal(calibrated_on(settings, capped, train).caps, [2.0] * len(layers))
    clips = []
    monkeypatch.setattr(objective, "limit_correct", lambda snn, genes, *rest: clips.append(genes) or np.zeros(1))
    usual = calibrated_on(settings, snn, train)
    make_job(settings, snn, train, usual).objective(usual.genes(50.0), np.arange(12))
    assert np.array_equal(clips[0].threshold, 3 * usual.genes(50.0).threshold)


def test_a_search_goes_on_around_such_a_network():
    snn = random_snn(dyadic_snn("bias").network, starts=False)
    start = calibrate(snn, IMAGES, 2, reconstruct=False, most=3)
    costs = [one.best.cost for one in evolve(start, (IMAGES, LABELS), population=4, generations=2, images=12)]
    assert costs == sorted(costs, reverse=True)
    with pytest.raises(UserError, match="up to 3 spikes in a step, but spikes per step is 1: choose one"):
        evolve(start, (IMAGES, LABELS), images=12, spikes_per_step=1)


def test_a_run_keeps_them_and_what_reads_it_knows(few, monkeypatch):
    """Interrupted and resumed; evaluated with the same answers; what cannot simulate them refuses the run."""
    interrupted(monkeypatch, few, 1)
    results = optimize(few)
    held = json.loads((few.out / "thresholds.json").read_text())
    assert held["spikes_per_step"] == 3
    run = read_run(few.out, limit=20)
    assert run.dynamics == THREE and load_start(few.out, run.snn).most == 3
    seen = observe(
        run.optimized_snn, run.optimized, run.dataset.images, run.dataset.labels, timesteps=3, dynamics=THREE
    )
    assert seen.accuracy[0].tolist() == results["optimized"]["accuracy"]
    again = evaluate(EvaluateConfig(run=few.out, images=20, timesteps=3))
    assert again["optimized"]["accuracy"] == results["optimized"]["accuracy"]
    attack(AttackConfig(run=few.out, images=10, transfer_images=0))
    for refused in (
        lambda: evaluate(EvaluateConfig(run=few.out, images=20, early_exit=True)),
        lambda: evaluate(EvaluateConfig(run=few.out, images=20, encoding="poisson")),
        lambda: attack(AttackConfig(run=few.out, images=10, transfer_images=5)),
        lambda: explain(ExplainConfig(run=few.out)),
        lambda: export(ExportConfig(run=few.out, to="npz")),
        lambda: finetune(FinetuneConfig(start=few.out)),
    ):
        with pytest.raises(UserError, match="for neurons that send one spike in a step, and these send up to 3"):
            refused()
    (few.out / "thresholds.json").write_text(json.dumps(held | {"spikes_per_step": "three"}))
    with pytest.raises(UserError, match="spikes_per_step is 'three', expected a whole number of at least 1"):
        evaluate(EvaluateConfig(run=few.out, images=20))
