"""Several processes are one run: same result as one alone, one writer, and an end in words when one is lost."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.kills import outcome
from benchmarks.scaling import free_port
from jaxsnn.cli.options import HostOptions
from jaxsnn.errors import UserError
from jaxsnn.optimize import OptimizeConfig
from jaxsnn.runtime import processes

ROOT = Path(__file__).parents[2]


SEARCH = {
    "population": "5",
    "generations": "30",
    "images": "21",
    "final-images": "21",
    "finalists": "2",
    "limit": "10",
    "limit-images": "11",
    "calibration-images": "20",
    "timesteps": "6",
    "test-timesteps": "6",
    "test-images": "21",
    "precision": "int8",
    "tol": "0",
}


OPTIONS = [part for name, value in SEARCH.items() for part in (f"--{name}", value)]


PROGRAM = ("-m", "jaxsnn.optimize")


def processes_of(
    weights: Path, folder: Path, processes: int = 2, others: tuple[str, ...] = (), program=PROGRAM
) -> list[subprocess.Popen]:
    """Processes of one search, all of them but the first with the options ``others`` behind."""
    command = [sys.executable, *program, *OPTIONS, "--weights", str(weights), "--out", str(folder)]
    joined = ["--coordinator", f"localhost:{free_port()}", "--processes", str(processes), "--process-id"]
    return [
        subprocess.Popen(
            [*command, *(others if number else ()), *([*joined, str(number)] if processes > 1 else [])],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for number in range(processes)
    ]


def ended(children: list[subprocess.Popen]) -> list[tuple[int, str]]:
    return [(child.returncode, text) for child, text in [(c, c.communicate(timeout=120)[0]) for c in children]]


def until(folder: Path, generation: int, child: subprocess.Popen) -> None:
    while not (folder / "checkpoints" / f"{generation:06d}.checkpoint").exists():
        assert child.poll() is None, child.communicate()[0]
        time.sleep(0.02)


@pytest.fixture(scope="module")
def start(tiny):
    """Of a tiny network: its layers are calibrated, reconstructed and searched as any others, in seconds."""
    return partial(processes_of, tiny)


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("alone")
    assert [code for code, _ in ended(start(folder, processes=1))] == [0]
    return outcome(folder)


@pytest.mark.slow
def test_two_processes_end_as_one_and_only_the_first_writes_and_speaks(start, alone, tmp_path):
    (first, said), (second, silent) = ended(start(tmp_path / "run"))
    assert (first, second) == (0, 0), said + silent
    assert outcome(tmp_path / "run") == alone
    assert "generations" in said
    assert "generations" not in silent and "spiking layers" not in silent
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_sigterm_to_one_ends_both_with_a_checkpoint_from_which_one_goes_on_alone(start, alone, tmp_path):
    folder = tmp_path / "run"
    children = start(folder)
    until(folder, 2, children[0])
    children[1].send_signal(signal.SIGTERM)
    results = ended(children)
    assert [code for code, _ in results] == [0, 0]
    assert "stopped by SIGTERM" in results[0][1]
    resume = [sys.executable, "-m", "jaxsnn.optimize", "--resume", str(folder)]
    assert subprocess.run(resume, cwd=ROOT, capture_output=True).returncode == 0
    assert outcome(folder) == alone


@pytest.mark.slow
def test_one_process_that_is_killed_ends_the_other_with_a_sentence(start, tmp_path):
    folder = tmp_path / "run"
    children = start(folder)
    until(folder, 2, children[0])
    children[1].kill()
    (code, said), _ = ended(children)
    assert code == 2
    assert "another process of this run is gone" in said
    assert "Traceback" not in said


FAULT = """
import sys
from jaxsnn import optimize
from jaxsnn.cli import command

def fault(run, *arguments):
    raise AssertionError("a fault of the program")

if sys.argv[-1] == "1":
    optimize._find = fault
command.main(optimize.OptimizeConfig, optimize.optimize, "jaxsnn.optimize", optimize.parse)
"""


@pytest.mark.slow
def test_a_fault_in_one_process_does_not_let_the_others_wait(start, tmp_path):
    """It shows its traceback and is gone at once; the other says so, long before its patience ends."""
    children = start(tmp_path / "run", program=("-c", FAULT))
    assert children[1].stdout is not None
    while "AssertionError: a fault of the program" not in (line := children[1].stdout.readline()):
        assert line, children[1].wait()
    shown = time.monotonic()
    (code, said), (faulty, _) = ended(children)
    assert time.monotonic() - shown < processes.PATIENCE
    assert (code, faulty) == (2, 1)
    assert "another process of this run is gone" in said and "Traceback" not in said


@pytest.mark.slow
def test_processes_that_differ_or_fail_end_together(start, tmp_path):
    results = ended(start(tmp_path / "run", others=("--seed", "7")))
    assert [code for code, _ in results] == [2, 2]
    for _, said in results:
        assert "process 1 differs from process 0 in seed (7, not 0)" in said
    assert not (tmp_path / "run").exists()  # so that the corrected start is not refused
    (tmp_path / "file").write_text("mine")
    results = ended(start(tmp_path / "file"))
    assert [code for code, _ in results] == [2, 2]
    assert "exists and is not a run folder" in results[0][1]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"coordinator": "here:1"}, "belong together"),
        ({"processes": 2, "process_id": 0}, "belong together"),
        ({"coordinator": "here", "processes": 2, "process_id": 0}, "expected HOST:PORT"),
        ({"coordinator": "here:0", "processes": 2, "process_id": 0}, "expected HOST:PORT"),
        ({"coordinator": "here:1", "processes": 2, "process_id": 2}, "expected 0 to 1"),
    ],
)
def test_options_that_cannot_be_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence), processes.joined(HostOptions(**options)):
        pass


def test_a_mesh_is_given_by_name():
    assert tyro.cli(OptimizeConfig, args=["--mesh", "pop=4,data=2"]).mesh == (4, 2)
    assert tyro.cli(OptimizeConfig, args=[]).mesh is None
    for wrong in ("4", "4,2", "pop=4", "data=2,pop=4", "pop=4,data=x"):
        with pytest.raises(SystemExit):
            tyro.cli(OptimizeConfig, args=["--mesh", wrong])


@given(st.integers(0, 50), st.integers(1, 9))
def test_shares_are_all_images_once_in_order(count, several):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "process_count", lambda: several)
        shares = []
        for number in range(several):
            patch.setattr(jax, "process_index", lambda number=number: number)
            shares.append(range(count)[processes.share(count)])
    assert list(itertools.chain(*shares)) == list(range(count))
    assert max(map(len, shares)) == len(shares[0])


@given(st.lists(st.lists(st.integers(-(2**61), 2**61), min_size=3, max_size=3), min_size=1, max_size=4))
def test_totals_are_exact_beyond_32_bits(parts):
    """JAX itself would cut int64 to int32 on the way through its devices."""
    arrays = [np.array(part, np.int64) for part in parts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "exchange", lambda message: [part.tobytes() for part in arrays])
        (total,) = processes.total([arrays[0]])
    assert total.tolist() == np.sum(arrays, 0).tolist()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(1, 3), st.integers(1, 5), st.randoms())
def test_answers_are_put_behind_each_other(sizes, candidates, timesteps, random):
    parts = [np.array([[[random.random() < 0.5] * timesteps] * n] * candidates, bool) for n in sizes]
    parts = [part.reshape(candidates, n, timesteps) for part, n in zip(parts, sizes)]
    messages = [
        [json.dumps(part.shape).encode() for part in parts],
        [np.packbits(part).tobytes() for part in parts],
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "exchange", lambda message: messages.pop(0))
        assert np.array_equal(processes.gathered(parts[0]), np.concatenate(parts, 1))
