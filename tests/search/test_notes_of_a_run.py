"""What a search says of a useless objective, and what it writes for TensorBoard."""

import json

import numpy as np
import pytest

from helpers.runs import SETTINGS, config_of
from jaxsnn.errors import UserError
from jaxsnn.optimize import OptimizeConfig, optimize
from jaxsnn.reports import figures
from jaxsnn.search.objective import Objective


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Drawing takes longer than all the rest here."""
    for name in ("accuracy_curves", "threshold_bars", "cost_history"):
        monkeypatch.setattr(figures, name, lambda *arguments: None)


def test_an_objective_that_cannot_tell_candidates_apart_is_noticed(tiny, monkeypatch, capsys, tmp_path):
    flat = {"alpha": 0.0, "beta": 0.0, "gamma": 0.0, "area": 0.0}
    optimize(config_of(tiny, tmp_path / "flat", **flat))
    assert "all candidates cost the same, 0, so the search is stuck" in capsys.readouterr().out.replace("\n", " ")

    def broken(weight):
        return lambda observed: {"area": np.full(len(observed.correct), np.nan)}

    monkeypatch.setattr(Objective.__init__.__globals__["cost"], "Area", broken)
    with pytest.raises(UserError, match="no candidate of generation 0 has a finite cost"):
        optimize(config_of(tiny, tmp_path / "nan", area=1.0))


def test_scalars_are_written_for_tensorboard_where_asked_for(tiny, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "run"
    optimize(OptimizeConfig(weights=tiny, out=folder, tensorboard=True, **SETTINGS))
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [(event.step, event.value) for event in events.Scalars("best_cost")] == [
        (row["generation"], pytest.approx(row["best_cost"])) for row in rows
    ]
    assert {"accuracy", "seconds", "cost/alpha J"} & set(events.Tags()["scalars"])


def test_tensorboard_that_is_not_there_is_said_before_anything_is_written(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        optimize(OptimizeConfig(weights=tiny, out=tmp_path / "run", tensorboard=True, **SETTINGS))
    assert not (tmp_path / "run").exists()
