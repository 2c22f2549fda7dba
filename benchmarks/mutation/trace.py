"""Which lines of the program a test runs, in its process and in the Python processes that it starts.

Imports nothing but what Python has loaded anyhow: it also stands in the processes that tests start.
"""

import atexit
import json
import os
import sys
import threading
from types import FrameType
from typing import Any

FOLDER = "JAXSNN_MUTANTS_TRACE"
"""Variable of the environment that names the folder in which processes leave what they saw."""
PACKAGES = ("jaxsnn", "evo", "data")


class Tracer:
    """Lines by test; those that no test was running for (imports) are under the empty name."""

    def __init__(self, root: str):
        self.root = root
        self.prefixes = tuple(os.path.join(root, package) + os.sep for package in PACKAGES)
        self.lines: dict[str, set[tuple[str, int]]] = {}
        self.begin("")

    def begin(self, test: str) -> None:
        """What runs from now on is that test's."""
        self.seen = self.lines.setdefault(test, set())

    def start(self) -> None:
        """In every thread."""
        threading.settrace(self.call)
        sys.settrace(self.call)

    def call(self, frame: FrameType, event: str, argument: Any) -> Any:
        """What Python calls as a function begins."""
        if not frame.f_code.co_filename.startswith(self.prefixes):
            return None
        return self.line(frame, event, argument)

    def line(self, frame: FrameType, event: str, argument: Any) -> Any:
        """What Python calls at each line."""
        self.seen.add((frame.f_code.co_filename, frame.f_lineno))
        return self.line

    def write(self, folder: str, more: dict) -> None:
        """Leave it as JSON in a file of this process."""
        sys.settrace(None)
        found = {
            test: [[path[len(self.root) + 1 :], line] for path, line in sorted(seen)]
            for test, seen in self.lines.items()
        }
        with open(os.path.join(folder, f"{os.getpid()}.json"), "w") as file:
            json.dump({"lines": found, **more}, file)


def trace_process() -> None:
    """In a process that a test has started; what it runs is that test's."""
    folder = os.environ.get(FOLDER)
    if not folder or not (test := os.environ.get("PYTEST_CURRENT_TEST")):
        return
    tracer = Tracer(os.path.dirname(folder))
    tracer.begin(test.rpartition(" ")[0])
    atexit.register(tracer.write, folder, {})
    tracer.start()
