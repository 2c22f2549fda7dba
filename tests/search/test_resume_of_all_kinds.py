"""Searches of every kind that are interrupted twice and gone on with end as if nothing had happened."""

import json

import pytest

from benchmarks import kills
from helpers.runs import OF_ANY_SEARCH, config_of, interrupted
from jaxsnn.optimize import OptimizeConfig, optimize
from jaxsnn.reports import figures

VARIANTS = {
    "scipy, resampled": {"subset": "resample"},
    "scipy, racing beside a limit": {"limit": 100.0, "race": 1.0},
    "scipy, three genes, float32": {"search": ("threshold", "v0", "leak"), "precision": "float32"},
    "jax, resampled, xla, float32": {
        "engine": "jax",
        "subset": "resample",
        "backend": "xla",
        "precision": "float32",
        "finalists": 1,
    },
    "lshade": {"engine": "lshade", "population": 6},
    "lshade, racing": {"engine": "lshade", "population": 6, "race": 1.0},
    "evosax": {"engine": "evosax"},
    "attacked": {"attack": "fgsm", "attack_mix": "both", "images": 20},
}


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Drawing takes longer than all the rest here."""
    for name in ("accuracy_curves", "threshold_bars", "cost_history"):
        monkeypatch.setattr(figures, name, lambda *arguments: None)


@pytest.mark.slow
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_run_that_is_gone_on_with_ends_as_if_nothing_had_happened(changes, tiny, monkeypatch, tmp_path):
    """Thresholds, curves, history, costs and counters, with a different generator, cache or population in each."""
    optimize(config_of(tiny, tmp_path / "whole", **changes))
    whole = kills.outcome(tmp_path / "whole")
    last = json.loads(whole["history.jsonl"][-1])["generation"]
    interrupted(monkeypatch, config_of(tiny, tmp_path / "parts", **changes), 1)
    interrupted(monkeypatch, OptimizeConfig(resume=tmp_path / "parts"), last)
    assert not (tmp_path / "parts" / "results.json").exists()
    optimize(OptimizeConfig(resume=tmp_path / "parts"))
    assert kills.outcome(tmp_path / "parts") == whole
    names = {path.name for path in (tmp_path / "parts").iterdir()}
    assert names == OF_ANY_SEARCH
