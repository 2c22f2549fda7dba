"""Several warm processes, each with a copy of the program, that work on requests side by side."""

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.mutation.trace import FOLDER
from jaxsnn.errors import UserError

T = TypeVar("T")

SITE = "from benchmarks.mutation.trace import trace_process\n\ntrace_process()\n"
"""What a Python process that a test starts imports first."""


def request(files: list[list], trace: bool = False, timeout: float = 300, **more: Any) -> dict:
    """What a worker is asked: to run ``files`` of [path, tests or None for all, whether slow ones count]."""
    return {"files": files, "trace": trace, "timeout": timeout, "seconds": {}, **more}


class Workers:
    """Processes of ``benchmarks.mutation.worker`` with folders below ``scratch``.

    Args:
        root: the program that is copied.
        count: of processes; they share the cores equally.
        until: time (``time.monotonic``) after which nothing new is begun.
    """

    def __init__(self, root: Path, scratch: Path, count: int, until: float):
        self.until, self.scratch = until, scratch
        self.programs = scratch / "programs"
        self.programs.mkdir()
        cores = sorted(os.sched_getaffinity(0))
        share = max(1, len(cores) // count)
        self.free: queue.Queue = queue.Queue()
        self.processes = []
        for number in range(count):
            folder = scratch / f"w{number}"
            shutil.copytree(root, folder, ignore=shutil.ignore_patterns(".git", "__pycache__", ".hypothesis"))
            (folder / "sitecustomize.py").write_text(SITE)
            (folder / "trace").mkdir()
            (folder / "programs").mkdir()
            mine = [cores[(number * share + k) % len(cores)] for k in range(share)]
            self.free.put((folder, self._start(folder, mine)))

    def _start(self, folder: Path, cores: list[int]) -> subprocess.Popen:
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "PYTHONPATH": path, "NUMBA_CACHE_DIR": str(folder / "numba"), "OMP_NUM_THREADS": "1"}
        env.pop(FOLDER, None)
        command = [sys.executable, "-m", "benchmarks.mutation.worker"]
        with open(folder / "worker.log", "w") as log:
            process = subprocess.Popen(
                command, cwd=folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        os.sched_setaffinity(process.pid, cores)
        self.processes.append(process)
        return process

    def map(self, items: Iterable[T], ask: Callable[[T], dict], done: Callable[[T, dict], None]) -> None:
        """Call ``done`` with each item and the answer to ``ask(item)``, as they come, in this thread."""
        with ThreadPoolExecutor(len(self.processes)) as threads:
            waiting = {threads.submit(self._answer, ask, item): item for item in items}
            for future in as_completed(waiting):
                if (answer := future.result()) is not None:
                    done(waiting[future], answer)

    def _answer(self, ask: Callable[[T], dict], item: T) -> dict | None:
        if time.monotonic() > self.until:
            return None
        folder, process = worker = self.free.get()
        try:
            asked = ask(item)
            if not asked["files"]:
                return {"code": 0, "test": "", "why": "no test runs it", "seconds": 0}
            self._fetch(folder / "programs")
            asked["timeout"] = min(asked["timeout"], max(1.0, self.until - time.monotonic()))
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise UserError(f"a worker ended: {(folder / 'worker.log').read_text()[-500:]}")
            answer = json.loads(line)
            self._share(folder / "programs")
            if answer["why"] == "ended":
                raise UserError(f"the tests cannot be run: {(folder / 'log').read_text()[-800:]}")
            if asked["trace"]:
                answer["trace"] = joined(folder)
            elif answer["why"] == "out of time" and time.monotonic() >= self.until:
                return None
            return answer
        finally:
            self.free.put(worker)

    def _fetch(self, own: Path) -> None:
        """Programs that other workers have compiled: whole files, which are in nobody's way."""
        _link(self.programs, own)

    def _share(self, own: Path) -> None:
        """For the other workers what this one has compiled, when its tests have ended."""
        _link(own, self.programs)

    def close(self) -> None:
        """End them."""
        for process in self.processes:
            process.stdin.close()
        for process in self.processes:
            process.stdout.close()
            process.wait()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _link(source: Path, target: Path) -> None:
    for name in {path.name for path in source.glob("*-cache")} - {path.name for path in target.iterdir()}:
        with contextlib.suppress(FileExistsError):
            os.link(source / name, target / name)


def plain(text: str) -> list[str]:
    """The lines of a source without the space around them."""
    return [line.strip() for line in text.splitlines()]


def joined(folder: Path) -> dict:
    """What the processes of one file's tests left in a worker's folder: by path and line, numbers of tests."""
    seconds, broken, tests = {}, [], {"": 0}
    lines: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    texts: dict[str, list[str]] = {}
    for path in sorted((folder / "trace").glob("*.json")):
        part = json.loads(path.read_text())
        seconds.update(part.get("seconds", {}))
        broken += part.get("broken", [])
        for test, found in part["lines"].items():
            number = tests.setdefault(test, len(tests))
            for source, line in found:
                if source not in texts:
                    texts[source] = plain((folder / source).read_text())
                lines[source][texts[source][line - 1]].add(number)
        path.unlink()
    found = {path: {line: sorted(tests) for line, tests in own.items()} for path, own in lines.items()}
    return {"seconds": seconds, "broken": broken, "tests": list(tests), "lines": found}
