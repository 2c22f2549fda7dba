"""What ends a command ends it in a sentence that says what to do, and no name or figure costs a result."""

import dataclasses
import errno
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import data
from helpers.networks import dyadic_images, dyadic_snn
from helpers.runs import config_of, random_params
from helpers.torch_files import save
from jaxsnn.cli import command
from jaxsnn.cli.sentences import sentence_of
from jaxsnn.conversion.state_dicts import read_foreign
from jaxsnn.errors import UserError
from jaxsnn.networks.architectures import vgg
from jaxsnn.networks.json_format import from_json, to_json
from jaxsnn.networks.spiking import Genes
from jaxsnn.networks.weights import save_weights
from jaxsnn.optimize import OptimizeConfig, optimize
from jaxsnn.records.listing import how_to_resume
from jaxsnn.reports import figures
from jaxsnn.simulation import observe as simulator
from jaxsnn.simulation.events import lowering

ROOT = Path(__file__).parents[2]
HOSTILE = "x[/bold] $\\frac{$ [b]/c :bomb:"
"""Rich would take it for markup that closes nothing, Matplotlib for a formula that does not end."""


SNN, GENES = dyadic_snn("bias"), Genes(np.ones((1, 4)))


def fails(error):
    def raising(*arguments, **options):
        raise error

    return raising


def test_memory_that_is_short_is_blamed_on_what_took_it(monkeypatch):
    monkeypatch.setattr(data.catalog.embedded_subset, "read", fails(MemoryError("Unable to allocate 9 GiB")))
    with pytest.raises(MemoryError) as short:
        data.load("embedded")
    assert sentence_of(short.value).startswith("out of memory while images are loaded: load fewer")
    for error in (MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")):
        monkeypatch.setattr(simulator, "check_genes", fails(error))
        with pytest.raises(type(error)) as short:
            simulator.observe(SNN, GENES, dyadic_images(1), np.zeros(1), timesteps=1)
        assert sentence_of(short.value).startswith("out of memory while simulating: lower --rows")
    assert sentence_of(MemoryError()).startswith("out of memory: use a machine with more")
    assert sentence_of(jax.errors.JaxRuntimeError("INTERNAL: a fault")) is None
    assert sentence_of(ValueError("a fault")) is None
    assert sentence_of(FileNotFoundError(errno.ENOENT, "No such file", "here")) == "No such file: here"


@dataclasses.dataclass
class Nothing:
    """A command without options."""


def test_too_few_addresses_are_said_before_a_library_ends_the_program(monkeypatch, capsys):
    """XLA's threads end it with std::bad_alloc and nothing else."""
    for limit, said in (
        (2 << 30, "warning: ulimit -v allows 2.1 GB"),
        (4 << 30, ""),
        (resource.RLIM_INFINITY, ""),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda which, limit=limit: (limit, limit))
        monkeypatch.setattr(sys, "argv", ["nothing"])
        command.main(Nothing, lambda config: None, "nothing")
        assert capsys.readouterr().err.startswith(said) and bool(said) == (limit == 2 << 30)


def test_a_limit_on_memory_is_no_missing_library(monkeypatch):
    """Under ulimit -v, llvmlite says that its library cannot be found, and only the cause tells why."""

    def importing(reason):
        def import_module(name):
            try:
                raise OSError(f"libllvmlite.so: {reason}")
            except OSError as error:
                raise OSError("Could not find/load shared object file 'libllvmlite.so'") from error

        monkeypatch.setattr(lowering.importlib, "import_module", import_module)
        lowering.available.cache_clear()
        return lowering.available()

    try:
        assert not importing("no such file")
        with pytest.raises(MemoryError) as short:
            importing("failed to map segment from shared object")
        assert "libllvmlite" not in sentence_of(short.value) and "out of memory" in sentence_of(short.value)
    finally:
        lowering.available.cache_clear()


@pytest.mark.parametrize("code", [None, 3])
def test_ctrl_c_while_modules_are_imported_ends_without_a_traceback(code, tmp_path):
    """A module that takes long stands for all of them; a signal that is ignored stays ignored."""
    waiting = "import signal, sys, time; print('importing', flush=True)\n"
    waiting += "time.sleep(60)" if code is None else "sys.exit(3 if signal.getsignal(2) == signal.SIG_IGN else 4)"
    (tmp_path / "jax.py").write_text(waiting)
    child = subprocess.Popen(
        [sys.executable, "-m", "jaxsnn.optimize"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL if code is None else signal.SIG_IGN),
    )
    assert child.stdout is not None and child.stdout.readline() == "importing\n"
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == (-signal.SIGINT if code is None else code)
    assert said == ""


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--timesteps", "8 0"], "--timesteps is '8 0': write it without spaces"),
        (["--timesteps", " 80"], "--timesteps is ' 80': write it without spaces"),
        (["--timesteps=8 0"], "--timesteps is '8 0': write it without spaces"),
        (["--mutation", "0.5", "1 0"], "--mutation is '1 0': write it without spaces, several values as several"),
        (["--search", "threshold v0"], "--search is 'threshold v0': write it without spaces, several values as"),
        (["--backend", "xla "], "--backend is 'xla ': write it without spaces"),
        (["--objectives"], "--objectives has no value: give some of accuracy, divergence, latency, energy"),
        (["--search", "--seed", "1"], "--search has no value: give some of threshold, v0, leak"),
        (["--front-timesteps", "--seed", "1"], "--front-timesteps has no value: give one"),
    ],
)
def test_a_value_with_a_space_or_none_where_there_should_be_some_is_refused_in_a_sentence(
    arguments, message, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["-m", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main(OptimizeConfig, fails(AssertionError("it was started")), "jaxsnn.optimize")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_names_and_paths_may_have_spaces_and_are_quoted_where_they_are_copied_from():
    arguments = ["--out", "my run", "--timesteps", "8", "--explain-plan", "a b", "--data", "tfds:a b"]
    command.check_spaces(OptimizeConfig, arguments)
    assert how_to_resume(Path("my run"), "jaxsnn.optimize") == "python -m jaxsnn.optimize --resume 'my run'"


def test_a_disk_that_is_full_when_results_are_written_is_named_and_the_run_goes_on_from_there(
    tiny, monkeypatch, tmp_path
):
    folder = tmp_path / "my run"

    def full(descriptor):
        if ".results.json" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError) as ended:
            optimize(config_of(tiny, folder, generations=1))
    said = f"{folder}/results.json cannot be written (No space left on device); once it can, python -m "
    assert str(ended.value) == f"{said}jaxsnn.optimize --resume '{folder}' continues the run"
    assert not (folder / "results.json").exists() and (folder / "checkpoints").is_dir()
    assert optimize(OptimizeConfig(resume=folder))["generations"] == 1


def test_no_name_and_no_figure_costs_a_result(monkeypatch, capsys, tmp_path):
    """Names that are markup and formulas go through table, figures and page; a figure that fails is a warning."""
    monkeypatch.setenv("COLUMNS", "500")
    network = vgg([[4], [6]], name=HOSTILE)
    layers = tuple(dataclasses.replace(layer, name=f"{layer.name}{HOSTILE}") for layer in network.layers)
    network = dataclasses.replace(network, layers=layers)
    weights, folder = tmp_path / "[b]w[/b].safetensors", tmp_path / "r[/x]y"
    save_weights(weights, network, random_params(network))
    monkeypatch.setattr(figures, "cost_history", fails(ValueError("\n$\\frac{$\n^ParseException")))
    results = optimize(config_of(weights, folder, generations=1))
    said = capsys.readouterr().out
    assert f"{HOSTILE} on embedded" in said and f"-> {folder}\n" in said
    assert f"warning: {folder}/figures/cost.png could not be made (ValueError: $\\frac{{$ ^ParseException)" in said
    assert json.loads((folder / "results.json").read_text()) == results
    assert (folder / "figures/thresholds.png").is_file() and (folder / "figures/accuracy.png").is_file()
    assert HOSTILE in (folder / "report.html").read_text()
    optimize(config_of(weights, folder=None, explain_plan=True))
    assert f"conv1{HOSTILE}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a\x1b]0;title\x07", "x" * 101, "a\nb"])
def test_names_that_cannot_be_printed_are_refused(name, tmp_path):
    described = to_json(vgg([[4], [6]], name="n"))
    for held in ("n", "conv1"):
        changed = described.replace(f'"name": "{held}"', f'"name": {json.dumps(name)}')
        with pytest.raises(UserError, match=r"a name is .*expected printable text of at most 100"):
            from_json(changed)
    save(tmp_path / "w.pt", {f"{name}.weight": np.ones((2, 2), np.float32)})
    with pytest.raises(UserError, match="is no name: expected printable text of at most 100"):
        read_foreign(tmp_path / "w.pt")


def test_what_a_file_is_called_moves_no_cursor_and_breaks_no_line(capsys):
    """Names that models hold come into sentences, and folders' names onto the console."""
    hostile = "a\x1b]0;title\x07\nb\x9b2Jc"
    assert sentence_of(UserError(f"{hostile} is wrong")) == "a\\x1b]0;title\\x07\\nb\\x9b2Jc is wrong"
    command.TextConsole(width=80).print(hostile)
    assert capsys.readouterr().out == "a\\x1b]0;title\\x07\nb\\x9b2Jc\n"


def test_a_sigterm_whose_exception_python_ignores_ends_the_program_all_the_same(monkeypatch):
    """As in a callback of the garbage collection, of which JAX has one: what is raised there is lost."""
    said, ignored = [], []

    def callback(phase, information):
        if phase == "start" and not said:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    gc.callbacks.append(callback)
    try:
        with pytest.raises(SystemExit) as ended, command.leave_on_termination(lambda: said.append("goodbye")):
            gc.collect()
            assert said  # and yet the program is here
            time.sleep(5)
    finally:
        gc.callbacks.remove(callback)
    assert ended.value.code == 0 and said == ["goodbye"] and ignored == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
