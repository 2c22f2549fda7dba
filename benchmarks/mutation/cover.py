"""Which tests run a line: measured once, file of tests by file, and kept as long as the tests stay the same.

A line of the program is known by its text, so that it may move; a new one counts as run by all that run its file.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.mutation.sites import Site
from benchmarks.mutation.trace import PACKAGES
from benchmarks.mutation.workers import Workers, plain, request
from jaxsnn.runtime.files import read_json, write_atomically


@dataclass(frozen=True)
class Cover:
    """What the tests of the program without a fault ran.

    Attributes:
        seconds: of each test that passed.
        lines: tests by path and line; ``files``: by path, those that ran a function of it; ``folders``: by folder.
        sources: the lines that each file had when that was measured.
        broken: tests that failed, and tell nothing.
        slow: files whose slow tests count.
        digest: of the tests.
    """

    seconds: dict[str, float]
    lines: dict[tuple[str, str], set[str]]
    files: dict[str, set[str]]
    folders: dict[str, set[str]]
    sources: dict[str, set[str]]
    broken: tuple[str, ...]
    digest: str
    slow: frozenset[str]

    def of(self, site: Site, text: str) -> set[str]:
        """Tests that run a fault in a file with this ``text``.

        A line that runs when its file is imported counts as run by every test that runs something of the file, or
        if that is none, of its folder; so does one in a file of which Numba compiles functions.
        """
        lines = {line for line in plain(text)[site.first - 1 : site.last] if any(map(str.isalnum, line))}
        found = set().union(*(self.lines.get((site.path, line), set()) for line in lines))
        known = lines <= self.sources.get(site.path, set()) and "numba.njit" not in text
        if site.inside and "" not in found and (found or known):
            return found
        wing = self.folders.get(site.path.rpartition("/")[0], set())
        return (self.files.get(site.path) or wing) | (found - {""})

    def plan(self, tests: Iterable[str], near: str) -> list[list]:
        """The order of ``tests``, by file: those in the folder ``near`` first, then the quickest.

        After them all, what else those files hold: a test may use what an earlier one has compiled.
        """
        by_file: dict[str, list[str]] = defaultdict(list)
        for test in tests:
            if test in self.seconds:
                by_file[_file(test)].append(test)
        cost = {file: sum(self.seconds[test] for test in own) for file, own in by_file.items()}
        files = sorted(by_file, key=lambda file: (not file.startswith(near), cost[file]))
        rest = {file: [t for t in self.seconds if _file(t) == file and t not in by_file[file]] for file in files}
        first = [(file, sorted(by_file[file], key=self.seconds.__getitem__)) for file in files]
        return [[file, own, file in self.slow] for file, own in (*first, *rest.items()) if own]


def _file(test: str) -> str:
    return test.partition("::")[0]


def measured(
    root: Path, path: Path, tests: tuple[Iterable[str], ...], workers: Workers, say: Callable[[str], None]
) -> Cover:
    """The cover of tests in files and folders; what ``path`` holds of it is not measured again.

    Args:
        tests: the files and folders, and those of them whose slow tests count, too.
    """
    held: dict = read_json(path) if path.exists() else {"files": {}, "sources": {}}
    known = held["files"]
    files, slow = (
        sorted({str(one.relative_to(root)) for name in names for one in _test_files(root / name)})
        for names in tests
    )
    digests = {file: f"{_digest(root / file)}{'slow' * (file in slow)}" for file in files}
    stale = [file for file in files if known.get(file, {}).get("digest") != digests[file]]
    stale.sort(key=lambda file: -(root / file).stat().st_size)  # the longest first, about

    def done(file: str, answer: dict) -> None:
        known[file] = {"digest": digests[file], **answer["trace"], "why": answer["why"], "slow": file in slow}
        say(f"{file}: {len(known[file]['seconds'])} tests, {answer['seconds']:.0f} s {answer['why']}")
        write_atomically(path, json.dumps(held).encode())

    if stale:
        for source in (one for package in PACKAGES for one in (root / package).rglob("*.py")):
            name = str(source.relative_to(root))
            held["sources"][name] = sorted({*held["sources"].get(name, ()), *plain(source.read_text())})
    workers.map(stale, lambda file: request([[file, None, file in slow]], trace=True, timeout=900), done)
    digest = hashlib.sha256("".join(digests.values()).encode()).hexdigest()[:16]
    sources = {name: set(lines) for name, lines in held["sources"].items()}
    return _cover({file: known[file] for file in files if file in known}, sources, digest)


def _cover(measured: dict[str, dict], sources: dict[str, set[str]], digest: str) -> Cover:
    parts, slow = measured.values(), [file for file, part in measured.items() if part["slow"]]
    broken = {test for part in parts for test in part["broken"]}
    seconds = {test: spent for part in parts for test, spent in part["seconds"].items() if test not in broken}
    lines: dict[tuple[str, str], set[str]] = defaultdict(set)
    files, folders = defaultdict(set), defaultdict(set)
    for part in parts:
        for path, found in part["lines"].items():
            for line, tests in found.items():
                lines[path, line] |= {part["tests"][test] for test in tests}
    for (path, _), tests in lines.items():
        mine = tests - {""}
        files[path] |= mine
        folders[path.rpartition("/")[0]] |= mine
    left_out = tuple(sorted(broken))
    return Cover(seconds, dict(lines), dict(files), dict(folders), sources, left_out, digest, frozenset(slow))


def _test_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("test_*.py"))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
