"""The energy of a run as people read it."""

import pytest
from rich.console import Console

from helpers.networks import dyadic_snn
from jaxsnn.analysis.energy import Costs, energy_of
from jaxsnn.errors import UserError
from jaxsnn.reports.energy import energy_section, energy_table
from jaxsnn.runtime.entries import Entries

PER_LAYER = {"spikes_per_image_by_layer": [10.0, 5.0, 2.0], "synops_per_image_by_layer": [4e6, 1e6, 0.0]}
TESTED = {"timesteps": 11, "delay": "layer", "delay_steps": 3, "baseline": PER_LAYER, "optimized": PER_LAYER}


def record():
    return energy_of(dyadic_snn("pool_after").network, TESTED, {"<chip>": Costs(1.0, 2.0)})


def test_the_table_has_every_kind_and_its_share_of_the_ann():
    found = record()
    assert found["steps"] == {"baseline": 8, "optimized": 8}  # the layers act without the delay
    assert found["picojoules"]["<chip>"]["add"] == 2.0
    console = Console(width=80, record=True)
    console.print(energy_table(found))
    text = console.export_text()
    for kind in ("FP32", "FP16", "INT8", "<chip>", "with memory"):
        assert kind in text
    assert max(map(len, text.splitlines())) <= 80
    ours, ann = (found["totals"]["<chip>"][which] for which in ("optimized", "ann"))
    assert f"{ours:,.2f}" in text and f"{100 * ours / ann:.0f} %" in text


def test_the_page_has_each_layer_and_refuses_what_is_no_record():
    found = record()
    page = energy_section(Entries(found, "results.json: energy"))
    assert page.count("<details") == 5 and "conv1" in page and "&lt;chip&gt;" in page and "<chip>" not in page
    wrong = ({"layers": ["a"]}, {"layers": 3}, {"totals": {"FP32": {"ann": "much"}}}, {"totals": 1})
    for broken in ({}, *({**found, **part} for part in wrong)):
        with pytest.raises(UserError, match="energy"):
            energy_section(Entries(broken, "results.json: energy"))
