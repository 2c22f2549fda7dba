"""Loops are compiled beside other work: those that the search will run, and never at the price of an error."""

import threading

import pytest

from helpers.runs import random_params
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.spiking import SNN
from jaxsnn.simulation.events import ahead
from jaxsnn.simulation.plan import Plan

NETWORK = vgg([[4], [6]], name="tiny")
SMALL = SNN(NETWORK, random_params(NETWORK))


@pytest.fixture
def runs(monkeypatch):
    """Calls of the event-driven back-end, with the thread they were made in."""
    calls = []

    def recorded(snn, genes, images, steps, dynamics, plan, progress):
        progress(1)
        calls.append((threading.current_thread().name, snn, images.shape, steps, plan.precision))

    monkeypatch.setattr(ahead, "run", recorded)
    return calls


def test_one_image_is_run_in_a_thread_for_as_long_as_the_context(runs):
    with ahead.compiling(SMALL, Plan(backend="events", precision="int8")):
        pass
    assert runs == [("compiling", SMALL, (1, *NETWORK.input_shape), 2, "int8")]


def test_other_back_ends_have_nothing_to_compile_ahead(runs):
    with ahead.compiling(SMALL, Plan(backend="xla")):
        pass
    assert runs == []


def test_an_error_in_the_thread_is_left_to_the_search(monkeypatch):
    monkeypatch.setattr(ahead, "run", lambda *arguments: 1 / 0)
    with ahead.compiling(SMALL, Plan(backend="events")):
        went_on = True
    assert went_on
