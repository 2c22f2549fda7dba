"""benchmarks.attacks: the gradient of Sharmin et al., rows that are kept, and tables that say who is ahead."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from benchmarks import attacks, attacks_report
from benchmarks.attacks import Config, normalised_levels, run
from benchmarks.few import percentile
from benchmarks.few.task import Converted, Task
from benchmarks.markdown import markdown
from benchmarks.rivals.victims import OWN_SEED, victim_of
from helpers.networks import save_tiny
from jaxsnn.analysis.adversarial import Attack, ann_victim, perturb
from jaxsnn.analysis.comparison import ann_right
from jaxsnn.conversion.channels import of_genes
from jaxsnn.conversion.loading import load_snn
from jaxsnn.networks.description import IMAGE, Dense, Edge, Layer, Network
from jaxsnn.networks.spiking import SNN, Genes
from jaxsnn.networks.spiking_input import largest_input
from jaxsnn.simulation.cells.leaky import Leaky
from jaxsnn.simulation.cells.poisson import Poisson
from jaxsnn.simulation.cells.unroll import keys_of
from jaxsnn.simulation.surrogate import spike

COUNT, STEPS, THETA, LEAK, SCALE = 6, 5, 0.8, 0.9, 0.3
LAYERS = (
    Layer("a", (Edge(IMAGE, (Dense("a", 7),)),)),
    Layer("b", (Edge(0, (Dense("b", 3),)),)),
)
NETWORK = Network("dense", (4, 4, 2), 3, LAYERS, (0.4, 0.6), (0.2, 0.3))
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(0)
    params = {
        "a.kernel": rng.normal(0, 0.3, (32, 7)).astype(np.float32),
        "b.kernel": rng.normal(0, 0.5, (7, 3)).astype(np.float32),
    }
    images = rng.integers(0, 256, (COUNT, 4, 4, 2), np.uint8)
    return Task(SNN(NETWORK, params), images, STEPS)


def gradient_at_the_first_layer(task, labels, keys, to_zero):
    """The loss's gradient by the first layer's currents, summed over time and sent back through its kernel:
    backpropagation through time by hand, float64, (N, 4, 4, 2) by pixels."""
    first, second = (task.snn.params[f"{name}.kernel"].astype(np.float64) for name in "ab")
    mean, std = (np.array(part, np.float32) for part in (NETWORK.mean, NETWORK.std))
    x, coding = (task.images / np.float32(255) - mean) / std, Poisson(largest_input(NETWORK))
    found = []
    for image, key, label in zip(x, keys, labels):
        v, spikes, before = np.zeros(7), [], []
        for t in range(STEPS):
            sent = np.asarray(coding(image, t, jax.random.fold_in(key, t)), np.float64)
            v = LEAK * v + sent.ravel() @ first
            before.append(v)
            spikes.append((v > THETA).astype(float))
            v = v * (1 - spikes[-1]) if to_zero else v - THETA * spikes[-1]
        scores = THETA * sum(spikes) @ second / STEPS
        chances = np.exp(scores - scores.max())
        by_scores = (chances / chances.sum() - np.eye(3)[label]) / STEPS
        by_after, total = np.zeros(7), np.zeros(7)
        for v, s in zip(reversed(before), reversed(spikes)):
            by_spike = THETA * second @ by_scores - by_after * (v if to_zero else THETA)
            slope = SCALE * np.maximum(0, 1 - np.abs(v / THETA - 1)) / THETA
            by_before = by_after * (1 - s if to_zero else 1) + by_spike * slope
            total += by_before
            by_after = LEAK * by_before
        found.append((first @ total).reshape(4, 4, 2) / std)
    return np.array(found)


@pytest.mark.parametrize("to_zero", [False, True])
def test_random_spikes_are_attacked_at_the_first_layer(task, to_zero):
    """Against the equations of Sharmin et al. in a loop: the gradient, and the image that FGSM makes of it."""
    labels = (np.arange(COUNT) % 3).astype(np.int32)
    fire = functools.partial(spike, kind="triangle", scale=SCALE)
    cell = Leaky(to_zero=to_zero, coding=Poisson(largest_input(NETWORK)), fire=fire)
    channels = of_genes(task.snn, Genes(np.array([[THETA]])))
    victim = victim_of(Converted(channels, cells=cell, leak=np.array([[LEAK]])), task)
    expected = gradient_at_the_first_layer(task, labels, keys_of(0, COUNT, OWN_SEED), to_zero)

    def loss(pixels):
        logs = jax.nn.log_softmax(victim.scores(victim.variables, pixels))
        return -logs[np.arange(COUNT), labels].sum()

    found = np.asarray(jax.grad(loss)(task.images / np.float32(255)))
    assert np.abs(expected).max() > 1e-3
    assert np.allclose(found, expected, atol=1e-6)
    moved = perturb(victim, Attack(), task.images, labels, batch=COUNT).astype(int)
    clear = np.abs(expected) > 1e-5
    by_hand = np.clip(task.images + 8 * np.sign(expected), 0, 255)
    assert clear.mean() > 0.5 and (moved == by_hand)[clear].all()


def test_what_has_no_gradient_is_not_attacked(task):
    channels = of_genes(task.snn, Genes(np.array([[THETA]])))
    with pytest.raises(ValueError, match="no gradient"):
        victim_of(Converted(channels, run=lambda *given: None), task)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacks")
    return Config(
        weights=save_tiny(folder),
        systems=("half-full",),
        attacks=("fgsm",),
        images=4,
        own_images=2,
        timesteps=2,
        calibration_images=10,
        json=folder / "attacks.json",
    )


@pytest.fixture(scope="module")
def report(settings):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attacks, "makers", made_up)
        return run(settings, QUIET)


def made_up(config):
    """Two systems that need no calibration to speak of."""
    return {"half-full": percentile.half_full_start, "ours": percentile.empty_start}


def test_rows_are_those_of_the_attack_and_are_kept(settings, report, monkeypatch):
    """The ANN's by hand; a second call runs nothing, a change of code everything."""
    images = settings.load("test", 4)
    snn, _ = load_snn(settings.weights)
    for levels, space in ((8, "pixels"), (2, "normalised")):
        moved = perturb(ann_victim(snn), Attack(epsilon=levels / 255), images.images, images.labels)
        expected = ann_right(snn.network, snn.params, moved, images.labels)
        key = ("as it is", "ann", space, f"FGSM at {levels}/255", "ann")
        assert (attacks_report.right(report, *key) == expected).all()
    counts = {name: [r["images"] for r in report["rows"] if r["system"] == name] for name in ("ann", "half-full")}
    assert counts == {"ann": [4, 4, 4], "half-full": [4, 4, 2, 4, 2]}
    assert json.loads(settings.json.read_text())["rows"] == report["rows"]
    monkeypatch.setattr(attacks, "makers", lambda config: dict.fromkeys(made_up(config)))
    assert run(settings, QUIET)["rows"] == report["rows"]
    monkeypatch.setattr(attacks, "code", lambda: "other")
    with pytest.raises(TypeError):
        run(settings, QUIET)


def test_normalised_space_is_fewer_grey_levels():
    assert normalised_levels(8, dataclasses.replace(NETWORK, std=(0.247, 0.2435))) == 2
    assert normalised_levels(1, NETWORK) == 0
    plain = Config(attacks=("fgsm",), epsilon=1.0)
    assert [aim.space for aim in attacks.aims_of(plain, NETWORK, True)] == ["", "pixels", "pixels"]


def test_tables_have_each_space_apart_and_sentences_say_who_is_ahead(report):
    lead = np.packbits(np.ones(4, bool)).tobytes().hex()
    none = np.packbits(np.zeros(4, bool)).tobytes().hex()
    rows = [r | {"right": none if r["system"] == "ours" else lead} for r in report["rows"]]
    changed = report | {"rows": rows}
    for space, levels in (("pixels", "8/255"), ("normalised", "2/255")):
        table = attacks_report.table_of(changed, space)
        heads = [column.header for column in table.columns]
        assert heads[2:] == ["clean", f"FGSM at {levels}\non the ANN", f"FGSM at {levels}\non itself"]
        assert list(table.columns[2].cells) == ["100.0\n-100.0 (-100.0 to -100.0)"] * 2 + ["0.0"]
    said = attacks_report.sentences(changed)
    assert "in normalised space is 2.00, 2.00, 2.00 grey levels" in said[0]
    assert len(said) == 1 + 5 and "half full is ahead of ours by 100.0 points (100.0 to 100.0), surely" in said[1]
    assert len(attacks_report.sentences(report | {"rows": [r | {"right": lead} for r in rows]})) == 1
    assert attacks_report.paper_table().row_count == 8


def test_a_table_becomes_markdown():
    table = Table("", "a\nb", title="of\nall", caption="below")
    table.add_row("x\ny", "1")
    assert markdown(table) == "of all\n\n|  | a; b |\n| --- | --- |\n| x; y | 1 |\n\nbelow"
