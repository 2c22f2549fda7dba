"""Contenders in processes of their own that take turns, so that a machine's mood hits all alike."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TextIO


class Failed(Exception):
    """A contender could not run; the message says why."""


class Worker:
    """One contender in its process; runs when asked, waits otherwise."""

    def __init__(self, problem: Path, name: str, log: TextIO):
        self.name, self.waited = name, 0.0
        arguments = [sys.executable, "-m", "benchmarks.contenders.worker", str(problem), name]
        root = Path(__file__).parents[2]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
        self.process = subprocess.Popen(arguments, cwd=root, text=True, **pipes)
        assert self.process.stdin and self.process.stdout  # both are pipes
        self._requests, self._replies = self.process.stdin, self.process.stdout
        self.loaded: dict | None = None

    def wait_ready(self) -> None:
        """Wait until the contender has loaded its problem; ``Failed`` where it cannot."""
        if self.loaded is None:
            self.loaded = self._reply()["memory"]

    def ask(self, do: str, **options) -> dict:
        """The reply to one request.

        Raises:
            Failed: the contender cannot do it, or its process has ended.
        """
        self.wait_ready()
        self._requests.write(json.dumps({"do": do, "with": options}) + "\n")
        self._requests.flush()
        reply = self._reply()
        self.waited += reply["idle_cpu_seconds"]
        return reply

    def _reply(self) -> dict:
        line = self._replies.readline()
        reply = json.loads(line) if line else {"error": f"its process ended with code {self.process.wait()}"}
        if "error" in reply:
            raise Failed(reply["error"])
        return reply

    def close(self) -> None:
        """End the process."""
        self._requests.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._replies.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def take_turns(workers: list[Worker], requests: dict[str, dict], rounds: int, left_out: list[str]) -> dict:
    """Run every contender once, then in ``rounds`` turns, when all of them have loaded.

    Returns:
        by name: seconds of the first run and of each round, memory, the result, and the CPU time spent waiting. A
        contender that fails is named in ``left_out`` and missing here.
    """
    found: dict[str, dict] = {}
    going = list(workers)

    def attempt(worker: Worker, action: Callable[[], dict | None]) -> dict | None:
        try:
            return action()
        except Failed as error:
            going.remove(worker)
            found.pop(worker.name, None)
            left_out.append(f"{worker.name}: {error}")
            return None

    for worker in workers:
        attempt(worker, worker.wait_ready)
    for turn in range(rounds + 1):
        for worker in list(going):
            reply = attempt(worker, lambda worker=worker: worker.ask("run", **requests[worker.name]))
            if reply is None:
                continue
            if not turn:
                found[worker.name] = {"first": reply["seconds"], "seconds": []}
            else:
                found[worker.name]["seconds"].append(reply["seconds"])
            found[worker.name] |= {"memory": reply["memory"], "result": reply["result"]}
    for worker in going:
        found[worker.name] |= {"waiting_cpu_seconds": worker.waited, "loaded": worker.loaded}
    return found
