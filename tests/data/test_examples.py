"""The examples in the documentation run, and give what they say."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["data", "data.catalog", "data.dataset", "data.draw"])
def test_examples(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0 and results.failed == 0
