"""Latency is the first step from which the accuracy stays, null where it does not, and its interval is honest."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxsnn.analysis.latency import latency, latency_rows


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0, 1))
def test_latency_equals_its_definition(curve, target):
    expected = 0
    for t in range(len(curve), 0, -1):
        if curve[t - 1] < target:
            break
        expected = t
    assert latency(np.array(curve), target) == expected


def test_a_dip_below_the_target_counts():
    assert latency(np.array([0.5, 0.9, 0.8, 0.9, 0.9]), 0.85) == 4


def curves(starts, timesteps):
    return np.arange(1, timesteps + 1) >= np.asarray(starts)[:, None]


def test_a_known_improvement_lies_in_its_interval():
    rng = np.random.default_rng(0)
    slow = rng.integers(20, 60, 500)
    right = rng.random(500) < 0.9
    baseline, optimized = curves(slow, 80) & right[:, None], curves(slow // 2, 80) & right[:, None]
    for row in latency_rows(baseline, optimized, right):
        assert row.baseline_timesteps is not None and row.ci95 is not None
        assert abs(row.improvement_percent - 50) < 2
        assert row.ci95[0] <= row.improvement_percent <= row.ci95[1]
        assert row.ci95[0] > 40


def test_the_same_network_twice_does_not_improve():
    right = np.random.default_rng(1).random(300) < 0.8
    curve = curves(np.arange(300) % 40, 60) & right[:, None]
    for row in latency_rows(curve, curve, right):
        assert row.improvement_percent == 0 and row.ci95 == (0, 0)


def test_what_is_not_reached_is_null_and_never_a_number():
    right = np.ones(50, bool)
    reached, never = np.ones((50, 10), bool), np.zeros((50, 10), bool)
    for row in latency_rows(never, reached, right):
        assert row.baseline_timesteps is None and row.optimized_timesteps == 1
        assert row.improvement_percent is None and row.ci95 is None
