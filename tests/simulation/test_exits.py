"""Images that stop early: what each did until then is what it would have done, on either back-end."""

import numpy as np
import pytest

from helpers import reference
from helpers.networks import BACKENDS, dyadic_images, dyadic_snn, dyadic_thresholds
from jaxsnn.errors import UserError
from jaxsnn.networks.fan_out import fan_out
from jaxsnn.networks.spiking import Genes
from jaxsnn.simulation.exits import ExitRule, confidence, trace
from jaxsnn.simulation.plan import Plan

STEPS, IMAGES = 6, 9


@pytest.fixture(scope="module")
def snn():
    return dyadic_snn("residual")


@pytest.fixture(scope="module")
def genes(snn):
    return Genes(dyadic_thresholds(len(snn.network.spiking)))


@pytest.fixture(scope="module")
def images():
    return dyadic_images(IMAGES)


@pytest.fixture(scope="module")
def slow(snn, genes, images):
    """Scores (B, T, classes), spikes and synops (B, T, L) of the independent simulator in NumPy."""
    _, spikes, scores = reference.simulate(
        snn, genes.threshold[0], images, STEPS, ">", "none", x=images.astype(float)
    )
    maps = [s.reshape(STEPS, IMAGES, -1, s.shape[-1]).sum(-1) for s in spikes]
    counts = np.stack([m.sum(-1) for m in maps], -1).swapaxes(0, 1)
    reaches = [reach.reshape(-1) for reach in fan_out(snn.network)]
    synops = np.stack([m @ reach for m, reach in zip(maps, reaches)], -1).swapaxes(0, 1)
    return scores.swapaxes(0, 1), counts, synops


def slow_confidence(scores, kind):
    """``scores`` (classes,) a step, one image at one step."""
    if kind == "margin":
        first, second = sorted(scores, reverse=True)[:2]
        return first - second
    p = np.exp(scores) / np.exp(scores).sum()
    return sum(q * np.log(q) for q in p)


def slow_exit(scores, rule):
    """An image's steps by a loop over them; ``scores`` (T, classes)."""
    for step, limit in enumerate(rule.thresholds):
        if slow_confidence(scores[step] / (step + 1), rule.kind) >= limit:
            return step + 1
    return len(rule.thresholds)


def plans():
    for backend in BACKENDS:
        name = backend if isinstance(backend, str) else backend.values[0]
        for size, block in ((None, 1), (4, 4)):
            marks = () if isinstance(backend, str) else backend.marks
            plan = Plan(backend=name, rows=size, block=block, threads=2)
            yield pytest.param(plan, marks=marks, id=f"{name}-{size}-{block}")


@pytest.mark.parametrize("plan", [*plans()])
@pytest.mark.parametrize("kind", [None, "margin", "entropy"])
def test_each_image_is_recorded_until_it_stops_and_not_beyond(snn, genes, images, slow, plan, kind):
    scores, spikes, synops = slow
    rule = None
    if kind is not None:  # about half of the images stop, at several steps
        limits = np.quantile(confidence(scores, kind), 0.8, axis=0)
        rule = ExitRule(kind, (np.inf, *limits[1:]))
    found = trace(snn, genes, images, STEPS, plan=plan, rule=rule)
    steps = np.array([STEPS if rule is None else slow_exit(one, rule) for one in scores])
    assert rule is None or len(set(steps)) > 2
    np.testing.assert_array_equal(found.steps, steps)
    done = np.arange(STEPS) < steps[:, None]
    np.testing.assert_array_equal(found.scores, np.where(done[..., None], scores, 0))
    np.testing.assert_array_equal(found.spikes, np.where(done[..., None], spikes, 0))
    np.testing.assert_array_equal(found.synops, np.where(done[..., None], synops, 0))
    np.testing.assert_array_equal(found.answers, [one[n - 1].argmax() for one, n in zip(scores, steps)])
    if plan.backend == "events":  # a stopped image costs nothing
        assert found.row_steps == steps.sum()
    else:
        assert steps.sum() <= found.row_steps


def test_stopped_images_leave_the_device_by_halves(snn, genes, images):
    """With XLA all but one stop after the first step: eight rows become one at once."""
    plan = Plan(backend="xla", rows=8, block=1)
    first = trace(snn, genes, images[:8], 1, plan=plan)
    margins = np.sort(confidence(first.scores, "margin")[:, 0])
    rule = ExitRule("margin", (margins[1], *[np.inf] * (STEPS - 1)))
    found = trace(snn, genes, images[:8], STEPS, plan=plan, rule=rule)
    assert (found.steps == 1).sum() == 7
    assert found.row_steps == 8 + (STEPS - 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_integers_stop_alike_on_both_back_ends(snn, genes, images, backend):
    full = trace(snn, genes, images, STEPS, plan=Plan(backend="xla", precision="int8", block=1))
    limit = np.quantile(confidence(full.scores, "margin"), 0.8)
    rule = ExitRule("margin", (np.inf, *[limit] * (STEPS - 1)))
    found = trace(snn, genes, images, STEPS, plan=Plan(backend=backend, precision="int8", block=1), rule=rule)
    assert 0 < (found.steps < STEPS).sum() < IMAGES
    done = (np.arange(STEPS) < found.steps[:, None])[..., None]
    np.testing.assert_array_equal(found.scores, np.where(done, full.scores, 0))
    np.testing.assert_array_equal(found.synops, np.where(done, full.synops, 0))


def test_progress_comes_to_all_images(snn, genes, images):
    seen = []
    rule = ExitRule("margin", (1.0,) * STEPS)
    trace(snn, genes, images, STEPS, plan=Plan(backend="xla", rows=4), rule=rule, progress=seen.append)
    assert sum(seen) == IMAGES


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rule": ExitRule("margin", (1.0,))}, "the exit rule has 1 thresholds, expected one for each of 6"),
        ({"plan": Plan(mesh=(1, 2))}, "on one device only"),
        ({"timesteps": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_is_said(snn, genes, images, change, sentence):
    with pytest.raises(UserError, match=sentence):
        trace(snn, genes, images, **({"timesteps": STEPS} | change))
    with pytest.raises(UserError, match="expected one of margin, entropy"):
        ExitRule("certainty", (1.0,))
