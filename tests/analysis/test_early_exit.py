"""What a rule of exits saves and costs is what a slow loop over images and steps counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.networks import NETWORKS
from jaxsnn.analysis.early_exit import chosen_rule, evaluated, exit_steps
from jaxsnn.analysis.energy import HOROWITZ, snn_energy
from jaxsnn.analysis.operations import Activity
from jaxsnn.simulation.exits import KINDS, ExitRule, Trace, confidence

IMAGES, STEPS, CLASSES = 40, 5, 4


def scores_of(seed, images=IMAGES):
    rng = np.random.default_rng(seed)
    each = rng.normal(size=(images, 1, CLASSES)) + 2 * rng.normal(size=(images, STEPS, CLASSES))
    return each.cumsum(1)


def slow_steps(scores, rule):
    return [
        next(
            (t + 1 for t in range(STEPS - 1) if confidence(one[None], rule.kind)[0, t] >= rule.thresholds[t]),
            STEPS,
        )
        for one in scores
    ]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 999), st.sampled_from(KINDS), st.sampled_from([0.0, 0.05, 0.2, 1.0]))
def test_a_chosen_rule_keeps_its_wish_and_no_larger_wish_takes_longer(seed, kind, wish):
    scores = scores_of(seed)
    rule = chosen_rule(scores, kind, wish)
    steps = exit_steps(scores, rule)
    assert steps.tolist() == slow_steps(scores, rule)
    answers = scores[np.arange(IMAGES), steps - 1].argmax(-1)
    assert (answers != scores[:, -1].argmax(-1)).mean() <= wish
    more = exit_steps(scores, chosen_rule(scores, kind, min(1.0, 2 * wish + 0.01)))
    assert more.mean() <= steps.mean()
    order = np.random.default_rng(seed).permutation(IMAGES)
    assert chosen_rule(scores[order], kind, wish) == rule


def test_images_that_are_sure_at_once_stop_at_once():
    scores = np.zeros((IMAGES, STEPS, CLASSES))
    scores[:, :, 1] = np.arange(1, STEPS + 1)
    assert exit_steps(scores, chosen_rule(scores, "margin", 0.0)).tolist() == [1] * IMAGES


def test_equally_sure_images_stop_together_or_not_at_all():
    """Two images of the same margin, one of which changes its answer later: neither may stop."""
    scores = np.array([[[2.0, 1.0], [4.0, 2.0]], [[2.0, 1.0], [2.0, 3.0]]])
    assert exit_steps(scores, chosen_rule(scores, "margin", 0.0)).tolist() == [2, 2]
    assert exit_steps(scores, chosen_rule(scores, "margin", 0.5)).tolist() == [1, 1]


def test_a_result_counts_what_images_did_until_they_stopped():
    network, rng = NETWORKS["residual"], np.random.default_rng(0)
    layers = len(network.spiking)
    scores, labels = scores_of(3), rng.integers(0, CLASSES, IMAGES)
    spikes, synops = (rng.integers(0, 50, (IMAGES, STEPS, layers)) for _ in range(2))
    whole = Trace(scores, np.full(IMAGES, STEPS), spikes, synops, IMAGES * STEPS)
    rule = ExitRule("margin", (2.0, 1.5, 1.0, 0.5, np.inf))
    found = evaluated(network, whole, labels, rule, 0.1)
    steps = slow_steps(scores, rule)
    right = same = counted = sent = 0
    for i, n in enumerate(steps):
        answer = scores[i, n - 1].argmax()
        right += answer == labels[i]
        same += answer == scores[i, -1].argmax()
        for t in range(n):
            counted += synops[i, t] / IMAGES
            sent += spikes[i, t] / IMAGES
    assert found.mean_steps == pytest.approx(np.mean(steps))
    assert list(found.exits) == [steps.count(t + 1) for t in range(STEPS)]
    assert (found.accuracy, found.agreement) == pytest.approx((right / IMAGES, same / IMAGES))
    np.testing.assert_allclose(found.synops, counted)
    np.testing.assert_allclose(found.spikes, sent)
    usual = (scores[:, -1].argmax(-1) == labels).mean()
    assert found.gain == pytest.approx(100 * (found.accuracy - usual))
    assert found.gain_ci95[0] <= found.gain <= found.gain_ci95[1]
    activity = Activity(np.mean(steps), tuple(sent), tuple(counted))
    assert found.energy["FP32"] == pytest.approx(sum(snn_energy(network, activity, HOROWITZ["FP32"])) * 1e-6)
    assert found.steps_of_share(0.95) == sorted(steps)[int(np.ceil(0.95 * IMAGES)) - 1]
    record = found.to_json()
    assert record["thresholds"][-1] is None and record["longest"] == max(steps)


def test_without_a_rule_all_images_take_all_steps():
    network = NETWORKS["residual"]
    nothing = np.zeros((IMAGES, STEPS, len(network.spiking)), np.int64)
    whole = Trace(scores_of(1), np.full(IMAGES, STEPS), nothing, nothing, 0)
    found = evaluated(network, whole, np.zeros(IMAGES, int), None)
    assert (found.mean_steps, found.gain, found.agreement) == (STEPS, 0, 1)
    assert found.gain_ci95 == (0, 0)
