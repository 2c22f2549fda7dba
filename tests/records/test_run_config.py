"""config.json: the configuration comes back from its record, and other records are refused."""

import json

import pytest

from jaxsnn.errors import UserError
from jaxsnn.optimize import OptimizeConfig
from jaxsnn.records.run_config import from_record, to_record
from jaxsnn.records.run_folder import open_run
from jaxsnn.runtime.files import write_json


def test_the_configuration_comes_back_from_its_record(tiny):
    config = OptimizeConfig(
        weights=tiny, search=("threshold", "v0"), mutation=(0.5, 1), race=1.0, mesh=(4, 2), rows=7
    ).checked()
    record = json.loads(json.dumps(to_record(config)))
    assert from_record(record, "config.json", OptimizeConfig) == config
    for change in ({"population": 4.5}, {"search": "v0"}, {"mutation": [0.5]}, {"engine": None, "space": "log"}):
        with pytest.raises(UserError, match=r"config.json does not hold a run's configuration"):
            from_record(record | change, "config.json")


def test_a_run_that_an_older_version_began_is_refused_for_that(tmp_path):
    """What it lacks is no setting that the user could give otherwise."""
    write_json(tmp_path / "config.json", {"seed": 0})
    with pytest.raises(UserError, match=r"another version of this program began \(without spikes_per_step\)"):
        open_run(tmp_path, {"seed": 0, "spikes_per_step": 1})
    with pytest.raises(UserError, match=r"another configuration \(seed is 0 there, 1 here\)"):
        open_run(tmp_path, {"seed": 1})
