"""The examples in the documentation run, and give what they say."""

import doctest
import importlib

import pytest

NAMES = ("evo.engines.by_name", "evo.engines.device", "evo.differential_evolution", "evo.state")


@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0 and results.failed == 0
