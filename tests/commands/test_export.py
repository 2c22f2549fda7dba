"""jaxsnn.export: what it reads of a run, what it writes, and one sentence where it cannot."""

import json
import sys

import numpy as np
import pytest

from helpers.networks import random_snn, save_tiny
from jaxsnn.cli import command
from jaxsnn.conversion.start import Start
from jaxsnn.errors import UserError
from jaxsnn.export import ExportConfig, export
from jaxsnn.import_nir import ImportNirConfig, import_nir
from jaxsnn.networks.spiking import Genes
from jaxsnn.networks.weights import load_weights
from jaxsnn.records.calibrated_network import save_start
from jaxsnn.records.exported_run import read_converted


@pytest.fixture
def run(tmp_path):
    """A folder with thresholds around a calibrated network, whose channels start at membranes of their own."""
    weights = save_tiny(tmp_path)
    snn = random_snn(load_weights(weights)[0])
    save_start(tmp_path, Start(snn, Genes(np.ones((1, 2)), np.full((1, 2), 0.5)), snn, 4))
    record = {"weights": str(weights), "thresholds": [0.5, 0.75], "v0": [0.25, 0.5], "baseline_thresholds": [1, 2]}
    record |= {"comparison": ">=", "delay": "none", "calibrated": "calibrated.safetensors"}
    (tmp_path / "thresholds.json").write_text(json.dumps(record))
    return tmp_path


def test_a_calibrated_run_is_exported_with_its_own_network_and_conventions(run):
    found = read_converted(run, timesteps=6)
    np.testing.assert_array_equal(found.thresholds(), np.float32([0.5, 0.75]))
    assert (found.dynamics.comparison, found.silent, found.steps) == (">=", 0, 6)
    start = np.asarray(found.snn.params["conv1.start"])
    np.testing.assert_allclose(found.starts()[0], (0.25 + start) * 0.5, rtol=1e-6)
    baseline = read_converted(run, baseline=True, timesteps=6)
    assert "conv1.start" not in baseline.snn.params and baseline.thresholds().tolist() == [1, 2]
    assert not np.any(baseline.starts()[0])


def test_every_format_is_written_into_a_folder(run, capsys):
    for to, names in (("torch", {"network.py", "network.safetensors"}), ("npz", {"network.npz", "network.json"})):
        paths = export(ExportConfig(run=run, to=to, timesteps=6))
        assert names <= {path.name for path in paths} and all(
            path.parent == run / f"export-{to}" for path in paths
        )
    assert "6 steps, >=, reset by subtraction" in capsys.readouterr().out


def test_nir_says_what_its_reader_does_differently(run, capsys):
    pytest.importorskip("nir")
    paths = export(ExportConfig(run=run, to="nir", target="norse", out=run / "there", timesteps=6))
    assert [path.name for path in paths] == ["network.nir", "run_norse.py"]
    assert "Norse resets to 0 instead of subtracting" in capsys.readouterr().out


def test_bad_input_ends_in_one_sentence(run, tmp_path, monkeypatch, capsys):
    wrong = tmp_path / "other.json"
    wrong.write_text(json.dumps({"thresholds": [1.0, 1.0], "weights": str(tmp_path / "tiny.safetensors")}))
    for arguments, words in (
        ([str(tmp_path / "nowhere")], "does not exist"),
        ([str(run), "--timesteps", "0"], "--timesteps is 0, expected at least 1"),
        ([str(wrong), "--baseline"], "has no baseline"),
        ([str(wrong), "--timesteps", "2"], "timesteps is 2, expected more than the layer delay of 2 steps"),
    ):
        monkeypatch.setattr(sys, "argv", ["-m", *arguments, "--to", "torch"])
        with pytest.raises(SystemExit) as ended:
            command.main(ExportConfig, export, "jaxsnn.export")
        error = capsys.readouterr().err.strip()
        assert ended.value.code == 2 and words in error and len(error.splitlines()) == 1
    (run / "calibrated.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no calibrated\.safetensors"):
        read_converted(run)


def test_a_nir_file_comes_back_and_can_be_exported_again(run, tmp_path, capsys):
    pytest.importorskip("nir")
    export(ExportConfig(run=run, to="nir", out=tmp_path / "there", timesteps=6))
    out = tmp_path / "back.safetensors"
    found = import_nir(ImportNirConfig(file=tmp_path / "there/network.nir", out=out))
    assert found.timesteps == 6 and "no layer delay" in capsys.readouterr().out
    again = read_converted(tmp_path / "back-thresholds.json", timesteps=6)
    assert (again.dynamics.comparison, again.silent) == (">=", 0)
    first = read_converted(run, timesteps=6)
    for one, other, theta in zip(first.starts(), again.starts(), first.thresholds()):
        np.testing.assert_allclose(other, one / theta, rtol=1e-5)
    with pytest.raises(UserError, match=r"ends in \.safetensors"):
        import_nir(ImportNirConfig(file=tmp_path / "there/network.nir", out=tmp_path / "back.pt"))
