"""The divergence from the ANN is the sum that defines it, in whole units; teachers that are none are refused."""

import math

import numpy as np
import pytest

from jaxsnn.errors import UserError
from jaxsnn.simulation.divergence import check_teacher, divergences, log_softmax, probabilities

TEACHER = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])


def test_it_is_the_sum_over_classes_of_p_log_p_over_q_after_each_step():
    """Scores are means over the steps so far, a class that cannot be costs nothing, silence is even odds."""
    scores = np.random.default_rng(0).normal(0, 3, (2, 2, 4, 3))
    found = divergences(TEACHER, scores, silent=2)
    assert found.shape == (2, 2, 6) and found.dtype == np.int64
    for candidate, image, step in np.ndindex(found.shape):
        mean = [0.0] * 3 if step < 2 else [s / (step - 1) for s in scores[candidate, image, step - 2]]
        total = sum(math.exp(s) for s in mean)
        parts = [p * math.log(p * total / math.exp(s)) for p, s in zip(TEACHER[image], mean) if p]
        assert found[candidate, image, step] == round(sum(parts) * 2**20)


def test_equal_odds_are_no_divergence_and_large_scores_do_not_overflow():
    scores = np.log([[[[0.5, 0.25, 0.25]], [[1e-300, 1.0, 1e-300]]]])
    assert not divergences(TEACHER, scores + 5).any()
    assert np.allclose(probabilities([1e4, 1e4, -1e4]), [0.5, 0.5, 0], atol=1e-12)
    assert np.allclose(log_softmax([-1e4, 0.0]), [-1e4, 0.0])


@pytest.mark.parametrize(
    "teacher, message",
    [
        (TEACHER[:1], r"shape \(1, 3\), expected \(2, 3\)"),
        (TEACHER[:, :2], r"shape \(2, 2\), expected \(2, 3\)"),
        (TEACHER * [1, np.nan, 1], "at least 0 and add up to 1"),
        (np.array([[0.5, 0.5, 0], [1.25, -0.25, 0]]), "at least 0 and add up to 1"),
        (np.array([[0.5, 0.5, 0], [0.5, 0.5, 0.0015]]), "at least 0 and add up to 1"),
    ],
)
def test_what_is_no_probability_is_refused(teacher, message):
    check_teacher(np.array([[0.5, 0.5, 0.0005], [0, 0, 1]]), 2, 3)  # float32's rounding is allowed for
    with pytest.raises(UserError, match=message):
        check_teacher(teacher, 2, 3)
