"""Costs equal NumPy's on random curves, and every term counts what it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxsnn.errors import UserError
from jaxsnn.search.cost import (
    AccuracyLatency,
    Area,
    Energy,
    PeakActivity,
    Spikes,
    SynapticOperations,
    accuracy_gradient,
    parts,
    total,
)
from jaxsnn.simulation.observables import Observables

counts = st.tuples(st.integers(1, 4), st.integers(2, 30)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(0, 50))
)


def observables(correct, images=50):
    candidates = len(correct)
    spikes = np.arange(candidates * 3).reshape(candidates, 3) * 1000
    return Observables(correct, images, spikes, spikes * 100)


@given(counts, st.floats(0, 3), st.floats(0, 100), st.floats(0, 500))
def test_eq_11_equals_a_loop_over_candidates(correct, alpha, beta, gamma):
    cost = total(parts([AccuracyLatency(alpha, beta, gamma)], observables(correct)))
    for row, value in zip(correct, cost):
        accuracy = row / 50
        gradient = np.empty(len(accuracy))
        gradient[0], gradient[-1] = accuracy[1] - accuracy[0], accuracy[-1] - accuracy[-2]
        gradient[1:-1] = (accuracy[2:] - accuracy[:-2]) / 2
        j = min(t for t in range(len(gradient)) if gradient[t] == gradient.max()) + 1
        assert value == pytest.approx(
            alpha * j + beta * (1 - gradient.max()) + gamma * (1 - accuracy[-1]), abs=1e-9
        )


def test_a_steeper_and_earlier_rise_costs_less():
    early = np.array([[0, 40, 45, 45, 45, 45]])
    late = np.array([[0, 0, 0, 20, 40, 45]])
    cost = AccuracyLatency(1, 10, 500)
    assert total(parts([cost], observables(early))) < total(parts([cost], observables(late)))
    assert total(parts([Area(1)], observables(early))) < total(parts([Area(1)], observables(late)))


def test_terms_count_what_they_say():
    observed = observables(np.array([[10, 20], [30, 50]]))
    np.testing.assert_allclose(Area(2)(observed)["area"], 2 * np.array([0.8 + 0.6, 0.4 + 0.0]))
    np.testing.assert_allclose(Spikes(1)(observed)["spikes"], [3000 / 50 / 1e3, 12000 / 50 / 1e3])
    np.testing.assert_allclose(SynapticOperations(1)(observed)["synops"], [300000 / 50 / 1e6, 1200000 / 50 / 1e6])
    np.testing.assert_allclose(Energy(1)(observed)["energy"], 0.9 * np.array([300000, 1200000]) / 50 * 1e-6)
    peak = PeakActivity(1, (100, 100, 1000))(observed)["peak"]
    np.testing.assert_allclose(peak, [1000 / (50 * 2 * 100), 4000 / (50 * 2 * 100)])


def test_a_users_own_function_is_a_term():
    def late(observed):
        return {"late": 1.0 - observed.accuracy[:, 0]}

    observed = observables(np.array([[10, 20], [30, 50]]))
    named = parts([AccuracyLatency(1, 1, 1), late], observed)
    np.testing.assert_allclose(
        total(named), total({k: v for k, v in named.items() if k != "late"}) + np.array([0.8, 0.4])
    )


def test_one_timestep_has_no_gradient():
    with pytest.raises(UserError, match="at least 2 timesteps"):
        accuracy_gradient(np.ones((3, 1)))
