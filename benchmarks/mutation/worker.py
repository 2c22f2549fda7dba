"""A warm process that runs tests on one mutant after the other: python -m benchmarks.mutation.worker

It works in a copy of the program, its current folder, and has imported what the tests need but nothing of the
program. For each line of JSON on its standard input it puts the fault into the file, forks, runs the tests in the
child, takes the fault out again and answers with a line of JSON.

Hypothesis draws the same examples for every mutant and keeps none. XLA's programs are kept, by their content.
"""

import contextlib
import ctypes
import importlib
import importlib.util
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import jax
import numba
import pytest
from hypothesis import HealthCheck, settings

from benchmarks.mutation.trace import FOLDER, Tracer

WARM = (
    "scipy.optimize",
    "scipy.stats",
    "flax.nnx",
    "optax",
    "tyro",
    "rich.progress",
    "matplotlib.pyplot",
    "PIL.Image",
    "safetensors.numpy",
    "evosax",
    "torch",
    "yaml",
    "tensorflow_datasets",
    "jax.experimental.pallas.triton",
)
"""Imported once for all mutants, where they are installed."""
MOST_MEMORY = 8 << 30
"""Bytes that the tests of one mutant may take."""
DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG: what a process gets where its parent dies."""
FIRST_SECONDS, TIMES = 30, 10
"""A test that takes so many seconds of processor time and so many times as long as without the fault hangs."""


class Watch:
    """Runs the tests that are wanted, fastest first, notes what becomes of them and ends those that hang."""

    def __init__(self, request: dict, tracer: Tracer | None):
        self.request, self.tracer = request, tracer
        self.wanted: list[str] | None = None
        self.failed, self.why = "", ""
        self.seconds: dict[str, float] = {}
        self.broken: set[str] = set()

    def pytest_collection_modifyitems(self, items: list) -> None:
        """Choose and order."""
        if self.wanted is not None:
            order = {name: place for place, name in enumerate(self.wanted)}
            items[:] = sorted((one for one in items if one.nodeid in order), key=lambda one: order[one.nodeid])

    def pytest_collection_finish(self) -> None:
        """After the tests' own settings, which keep no programs."""
        jax.config.update("jax_compilation_cache_dir", f"{os.getcwd()}/programs")
        jax.config.update("jax_enable_compilation_cache", True)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins."""
        usual = self.request["seconds"].get(nodeid, 60)
        Path("current").write_text(nodeid)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends the process whatever it does
        # processor time: a machine that is busy with other things would end tests that would have passed
        signal.setitimer(signal.ITIMER_PROF, FIRST_SECONDS + TIMES * usual)
        if self.tracer:
            self.tracer.begin(nodeid)
            self.tracer.start()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A part of a test has ended."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        if report.failed:
            self._note(report)

    def pytest_collectreport(self, report: Any) -> None:
        """A file of tests has been read."""
        if report.failed:
            self._note(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """What follows is no test's."""
        if self.tracer:
            self.tracer.begin("")

    def _note(self, report: Any) -> None:
        self.broken.add(report.nodeid)
        self.failed = report.nodeid
        lines = str(report.longrepr).strip().splitlines()
        marked = [line for line in lines if line.startswith("E ")]
        self.why = (marked or lines or [""])[0 if marked else -1][:300]


def run_tests(request: dict) -> dict:
    """In the child: run the tests, until one fails unless they are traced."""
    tracer = Tracer(os.getcwd()) if request["trace"] else None
    watch = Watch(request, tracer)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # for what was imported before
    options += [f"--basetemp={os.getcwd()}/tmp"] + ([] if tracer else ["-x"])
    if tracer:
        tracer.start()
    code = 0
    for file, watch.wanted, slow in request["files"]:
        code = int(pytest.main([file, *options, *([] if slow else ["-m", "not slow"])], plugins=[watch]))
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            break
        code = 0
    signal.setitimer(signal.ITIMER_PROF, 0)
    if tracer:
        tracer.write(os.environ[FOLDER], {"seconds": watch.seconds, "broken": sorted(watch.broken)})
    return {"code": code, "test": watch.failed, "why": watch.why}


def child(request: dict) -> None:
    """The forked process: never returns."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
        if request["trace"]:
            os.environ[FOLDER] = f"{os.getcwd()}/trace"
        if "numba" in (request.get("source") or ""):
            # a program that is not used again, and not the one of the file without the fault
            os.environ["NUMBA_CACHE_DIR"] = numba.config.CACHE_DIR = tempfile.mkdtemp(dir=os.getcwd())
        Path("result").write_text(json.dumps(run_tests(request)))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def attempt(request: dict) -> dict:
    """Fork, wait, and say what became of the tests."""
    for name in ("result", "current"):
        Path(name).unlink(missing_ok=True)
    begun, parent = time.monotonic(), os.getppid()
    process = os.fork()
    if process == 0:
        child(request)
    ended, status = 0, 0
    while not ended and time.monotonic() - begun < request["timeout"] and os.getppid() == parent:
        ended, status = os.waitpid(process, os.WNOHANG)
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):  # and with it the processes that the tests have started
        os.killpg(process, signal.SIGKILL)
    if not ended:
        os.waitpid(process, 0)
    seconds = round(time.monotonic() - begun, 2)
    current = Path("current").read_text() if Path("current").exists() else ""
    if Path("result").exists() and ended:
        return {**json.loads(Path("result").read_text()), "seconds": seconds}
    for path in Path("programs").iterdir():  # one of them may have been cut short
        if path.stat().st_mtime > time.time() - seconds - 1:
            path.unlink()
    why = "out of time" if not ended else f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "ended"
    return {"code": -1 if ended else 0, "test": current, "why": why, "seconds": seconds}


def with_fault(request: dict) -> dict:
    """``attempt`` while the file has the fault."""
    if not request.get("path"):
        return attempt(request)
    path = Path(request["path"])
    original, times = path.read_text(), path.stat()
    compiled = Path(importlib.util.cache_from_source(str(path)))
    try:
        compiled.unlink(missing_ok=True)
        path.write_text(request["source"])
        return attempt(request)
    finally:
        path.write_text(original)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # Numba's programs go by it
        compiled.unlink(missing_ok=True)
        for folder in Path.cwd().glob("tmp*"):
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Answer requests until there are no more."""
    settings.register_profile(
        "mutants", deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    settings.load_profile("mutants")
    for name in WARM:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        answers.write(json.dumps(with_fault(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
