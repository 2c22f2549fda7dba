"""The examples in the documentation run, and give what they say."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["evo.engines.device", "evo.differential_evolution"])
def test_examples(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0 and results.failed == 0
