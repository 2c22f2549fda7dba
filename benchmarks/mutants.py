"""Do the tests notice a fault? Small faults in the program's source, one at a time: python -m benchmarks.mutants

Each mutant has one fault (``benchmarks.mutation.sites``). The tests that run its line are tried on it until one
fails, the quickest first, in a process that was warm before (``benchmarks.mutation.worker``). A mutant on which no
test fails survives: a fault that would stay unseen, unless it changes nothing, which only a reader can tell;
these are listed with the reason in benchmarks/mutation/equivalent.json. The score is the share of the others in a
random sample that was caught.
"""

import os
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.table import Table
from rich.text import Text

from benchmarks.mutation.cover import Cover, measured
from benchmarks.mutation.sites import Mutant, mutant, sites
from benchmarks.mutation.workers import Workers, request
from jaxsnn.cli.command import TextConsole
from jaxsnn.errors import UserError
from jaxsnn.runtime.checks import at_least
from jaxsnn.runtime.files import read_json, write_json

ROOT = Path(__file__).parents[1]
EQUIVALENT = Path(__file__).with_name("mutation") / "equivalent.json"


@dataclass(frozen=True)
class MutantsConfig:
    """Run the tests on faulty copies of the program."""

    command_line: ClassVar[bool] = True

    modules: tuple[str, ...] = ("jaxsnn/simulation",)
    """Files or folders whose faults are tried, a sample of each."""
    tests: tuple[str, ...] = ("tests",)
    """Files and folders of tests that are to notice them; tests marked slow are left out."""
    slow: tuple[str, ...] = ("tests/simulation",)
    """Files and folders of which slow tests are tried, too."""
    sample: tuple[int, ...] = (30,)
    """Mutants of each of the modules, drawn at random; one number for all of them, or one for each."""
    seed: int = 0
    """Of that draw."""
    processes: int | None = None
    """Mutants that are tried at the same time; default: one for every two cores."""
    timeout: int = 300
    """Seconds after which the tests of a mutant are stopped; it then counts as not caught."""
    seconds: int | None = None
    """Stop after so many seconds with what there is; default: when all are done."""
    json: Path = Path("mutants.json")
    """What became of every mutant. What it holds is not tried again, but survivors of other tests are."""
    cover: Path = Path("mutants-cover.json")
    """Which tests run which lines; measured first unless the file holds it for these sources and tests."""
    debug: bool = False
    """Show where an error came from."""


def all_sites(module: str) -> list:
    """The faults that a file or all files of a folder of the program can have."""
    place = ROOT / module
    if not place.exists():
        raise UserError(f"--modules has {module}, expected files or folders of the program, such as jaxsnn/search")
    paths = [place] if place.is_file() else sorted(place.rglob("*.py"))
    return [one for path in paths for one in sites(str(path.relative_to(ROOT)), path.read_text())]


def chosen(config: MutantsConfig) -> dict[str, list[Mutant]]:
    """The sample of each module."""
    sizes = config.sample * len(config.modules) if len(config.sample) == 1 else config.sample
    if len(sizes) != len(config.modules):
        raise UserError(f"--sample has {len(sizes)} numbers, expected one or {len(config.modules)}, one a module")
    drawn = {}
    for module, size in zip(config.modules, sizes):
        found = all_sites(module)
        some = random.Random(config.seed).sample(found, min(size, len(found)))
        drawn[module] = [mutant((ROOT / site.path).read_text(), site) for site in some]
    return drawn


def equivalents() -> dict[tuple[str, str, str | None], str]:
    """Reasons why a fault changes nothing that a test could see, by path, statement, and its changed form.

    Without a changed form every change of the statement is meant.
    """
    listed = read_json(EQUIVALENT)["equivalent"]
    return {(one["path"], one["before"], one.get("after")): one["reason"] for one in listed}


def reason(fault: Mutant, known: dict[tuple[str, str, str | None], str]) -> str | None:
    """Why a mutant is equivalent; None where nobody has said so."""
    place = fault.site.path, fault.before
    return known.get((*place, fault.after), known.get((*place, None)))


def ask(fault: Mutant, cover: Cover, timeout: float) -> dict:
    """The request to try a mutant."""
    text = (ROOT / fault.site.path).read_text()
    tests = cover.of(fault.site, text)
    wing = fault.site.path.removeprefix("jaxsnn/").partition("/")[0]
    files = cover.plan(tests, f"tests/{wing}/")
    seconds = {test: cover.seconds[test] for _, own, _ in files for test in own}
    return request(files, timeout=timeout, seconds=seconds, path=fault.site.path, source=fault.source)


def row(fault: Mutant, answer: dict) -> dict:
    """What the file keeps of a mutant."""
    site = fault.site
    verdict = "caught" if answer["code"] else "survived"
    return {
        "path": site.path,
        "line": site.first,
        "before": fault.before,
        "after": fault.after,
        "verdict": verdict,
        **{name: answer[name] for name in ("test", "why", "seconds")},
    }


def main(config: MutantsConfig) -> None:
    """Try the sample and print the score and the survivors."""
    at_least(config, sample=1, timeout=1)
    begun, console = time.monotonic(), TextConsole()
    samples, known = chosen(config), equivalents()
    faults = {one.key: one for own in samples.values() for one in own}
    rows: dict[str, dict] = read_json(config.json) if config.json.exists() else {}
    processes = config.processes or max(1, len(os.sched_getaffinity(0)) // 2)
    until = begun + (config.seconds or 1e9)
    with tempfile.TemporaryDirectory() as scratch, Workers(ROOT, Path(scratch), processes, until) as workers:
        cover = measured(ROOT, config.cover, (config.tests, config.slow), workers, console.print)
        for test in cover.broken:
            console.print(f"left out, since it fails without a fault: {test}")
        state = cover.digest
        todo = [
            fault
            for key, fault in faults.items()
            if reason(fault, known) is None
            and not (key in rows and (rows[key]["verdict"] == "caught" or rows[key]["state"] == state))
        ]

        random.Random(config.seed).shuffle(todo)  # where time runs out, every module has had its share

        def done(fault: Mutant, answer: dict) -> None:
            rows[fault.key] = {**row(fault, answer), "state": state}
            write_json(config.json, rows)
            console.print(
                f"{rows[fault.key]['verdict']}, {answer['seconds']:.0f} s: {fault.site.path}:{fault.site.first}, "
                f"{fault.after.splitlines()[0][:70]!r}",
                soft_wrap=True,
            )

        workers.map(todo, lambda fault: ask(fault, cover, config.timeout), done)
    report(console, samples, rows, known)


def report(console: TextConsole, samples: dict, rows: dict[str, dict], known: dict) -> None:
    """The survivors and the score of each module."""
    table = Table("survivor", "before", "after", "why")
    scores = Table("module", "mutants in all", "tried", "equivalent", "caught", "score")
    for module, own in samples.items():
        same = [fault for fault in own if reason(fault, known) is not None]
        tried = [(fault, rows[fault.key]) for fault in own if fault.key in rows and fault not in same]
        caught = [one for _, one in tried if one["verdict"] == "caught"]
        for fault, one in tried:
            if one["verdict"] != "caught":
                where = f"{fault.site.path}:{fault.site.first}"
                table.add_row(*(Text(part) for part in (where, fault.before, fault.after, one["why"])))
        score = f"{100 * len(caught) / len(tried):.1f} %" if tried else "-"
        scores.add_row(module, *map(str, (len(all_sites(module)), len(tried), len(same), len(caught))), score)
    console.print(table)
    console.print(scores)


if __name__ == "__main__":
    from benchmarks import command

    command.run(MutantsConfig, main, "mutants", __doc__)
