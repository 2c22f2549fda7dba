"""What a user names as a file and is none is refused: a FIFO would be waited for, even against Ctrl-C."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxsnn.analysis.energy import read_costs
from jaxsnn.conversion.import_network import import_network
from jaxsnn.conversion.loading import load_network
from jaxsnn.conversion.state_dicts import ForeignFile, read_foreign
from jaxsnn.errors import UserError
from jaxsnn.networks.weights import describes_network, load_weights
from jaxsnn.records.run_folder import is_locked
from jaxsnn.records.thresholds_file import read_thresholds
from jaxsnn.runtime.files import read_json
from jaxsnn.search import checkpoint

READERS: dict[str, Callable[[Path], object]] = {
    "weights.safetensors": load_network,
    "model.pt": load_network,
    "foreign.safetensors": read_foreign,
    "described.safetensors": load_weights,
    "network.json": lambda path: import_network(ForeignFile(path, (), ()), str(path)),
    "thresholds.json": read_thresholds,
    "config.json": read_json,
    "costs.toml": read_costs,
    "1.checkpoint": checkpoint.read,
}


@pytest.fixture(autouse=True)
def alarm():
    """What waits is interrupted after two seconds."""

    def ring(*_):
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(2)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", READERS)
def test_a_fifo_is_refused_by_every_reader(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=name):
        READERS[name](tmp_path / name)


def test_a_fifo_describes_no_network_and_locks_nothing(tmp_path):
    for name in (".lock", "x"):
        os.mkfifo(tmp_path / name)
    assert not describes_network(tmp_path / "x")
    assert not is_locked(tmp_path)
