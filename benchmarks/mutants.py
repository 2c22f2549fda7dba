"""Do the tests notice a fault? Small faults in the program's source, one at a time: python -m benchmarks.mutants

Each mutant changes one comparison, sum, number or condition in a copy of the program, in which the fast tests are
run until one fails. A mutant that no test fails on survives: a fault that would stay unseen, unless the change
changes nothing (an equivalent mutant, which only a reader can tell). The score is the share of a sample that was
caught.
"""

import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.progress import Progress
from rich.table import Table

from jaxsnn.cli.command import TextConsole
from jaxsnn.errors import UserError
from jaxsnn.runtime.checks import at_least
from jaxsnn.runtime.files import write_json

ROOT = Path(__file__).parents[1]
COPIED = ("jaxsnn", "evo", "data", "benchmarks", "tests", "pyproject.toml")

COMPARISONS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
OPERATIONS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


@dataclass(frozen=True)
class MutantsConfig:
    """Run the tests on faulty copies of the program."""

    command_line: ClassVar[bool] = True

    module: str = "jaxsnn/simulation"
    """File or folder whose faults are tried."""
    tests: tuple[str, ...] = ("tests/simulation",)
    """Tests that are to notice them; those marked slow are left out."""
    sample: int = 30
    """Mutants, drawn at random."""
    seed: int = 0
    """Of that draw."""
    timeout: int = 600
    """Seconds after which the tests are stopped; such a mutant counts as caught."""
    json: Path | None = None
    """Also write every mutant and what became of it into this file."""
    debug: bool = False
    """Show where an error came from."""


@dataclass(frozen=True)
class Mutant:
    """One fault: ``source`` is the whole file with ``after`` in the place of ``before`` in one ``line``."""

    path: str
    line: int
    before: str
    after: str
    source: str


def mutants(path: str, text: str) -> Iterator[Mutant]:
    """Every mutant of a file's ``text``."""
    tree = ast.parse(text)
    skipped = {part for node in ast.walk(tree) for whole in _without_effect(node) for part in ast.walk(whole)}
    for number, node in enumerate(ast.walk(tree)):
        if node in skipped:
            continue
        for variant in range(_variants(node)):
            changed = copy.deepcopy(tree)
            target = next(one for place, one in enumerate(ast.walk(changed)) if place == number)
            before = ast.unparse(target)
            _mutate(target, variant)
            yield Mutant(path, getattr(node, "lineno", 0), before, ast.unparse(target), ast.unparse(changed))


def _without_effect(node: ast.AST) -> Iterator[ast.AST]:
    """Parts of a node that no test can see: docstrings, types, and the texts of errors."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield node
    if isinstance(node, ast.FunctionDef):
        annotations = (part.annotation for part in ast.walk(node.args) if isinstance(part, ast.arg))
        yield from (part for part in (node.returns, *annotations) if part is not None)
    if isinstance(node, ast.AnnAssign):
        yield node.annotation
    if isinstance(node, ast.Raise | ast.JoinedStr):
        yield node


def _variants(node: ast.AST) -> int:
    """How many mutants a node has."""
    match node:
        case ast.Compare():
            return len([op for op in node.ops if type(op) in COMPARISONS])
        case ast.BinOp() | ast.BoolOp():
            return int(type(node.op) in OPERATIONS)
        case ast.UnaryOp(op=ast.Not()):
            return 1
        case ast.Constant(value=bool()):
            return 1
        case ast.Constant(value=int() | float()):
            return 1
        case ast.If() | ast.IfExp():
            return 1
    return 0


def _mutate(node: Any, variant: int) -> None:
    """Change a node of a copied tree in place."""
    match node:
        case ast.Compare():
            places = [place for place, op in enumerate(node.ops) if type(op) in COMPARISONS]
            node.ops[places[variant]] = COMPARISONS[type(node.ops[places[variant]])]()
        case ast.BinOp() | ast.BoolOp():
            node.op = OPERATIONS[type(node.op)]()
        case ast.UnaryOp():  # a condition that is always the other way about
            node.operand = ast.UnaryOp(ast.Not(), node.operand)
        case ast.Constant(value=bool()):
            node.value = not node.value
        case ast.Constant(value=int() | float() as number):
            node.value = number + 1
        case ast.If() | ast.IfExp():
            node.test = ast.UnaryOp(ast.Not(), node.test)


def all_mutants(module: str) -> list[Mutant]:
    """Those of a file or of all files of a folder below the program's."""
    place = ROOT / module
    paths = [place] if place.is_file() else sorted(place.rglob("*.py"))
    return [one for path in paths for one in mutants(str(path.relative_to(ROOT)), path.read_text())]


def verdict(config: MutantsConfig, folder: Path, mutant: Mutant | None) -> str:
    """What became of a mutant ("caught", "survived", "timeout") in the copy in ``folder``; None is the program."""
    path = None if mutant is None else folder / mutant.path
    original = "" if path is None else path.read_text()
    # a faulty file may have size and second of the right one, and Python compares no more before it takes bytecode
    env = os.environ | {"NUMBA_CACHE_DIR": str(folder / "numba"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
    try:
        if path is not None and mutant is not None:
            path.write_text(mutant.source)
        run = subprocess.run(
            [*command, *config.tests], cwd=folder, env=env, capture_output=True, text=True, timeout=config.timeout
        )
    except subprocess.TimeoutExpired:
        return "timeout"
    finally:
        if path is not None:
            path.write_text(original)
    if run.returncode not in (0, 1, 2):  # 2: the module cannot even be imported
        raise UserError(f"the tests cannot be run: {(run.stdout + run.stderr)[-500:]}")
    return "survived" if run.returncode == 0 else "caught"


def main(config: MutantsConfig) -> None:
    """Try the sample and print the score and the survivors."""
    at_least(config, sample=1, timeout=1)
    if not (ROOT / config.module).exists():
        raise UserError(
            f"--module is {config.module}, expected a file or folder of the program, such as jaxsnn/search"
        )
    found = all_mutants(config.module)
    chosen = random.Random(config.seed).sample(found, min(config.sample, len(found)))
    console, rows = TextConsole(), []
    with tempfile.TemporaryDirectory() as scratch, Progress(console=console) as bar:
        folder = Path(scratch)
        for name in COPIED:
            copied = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copied(ROOT / name, folder / name)
        task = bar.add_task("mutants", total=len(chosen) + 1)
        if verdict(config, folder, None) != "survived":
            raise UserError("the tests fail on the program itself, so that they can tell nothing about mutants")
        for mutant in chosen:
            bar.update(task, advance=1)
            rows.append((mutant, what := verdict(config, folder, mutant)))
            bar.console.print(f"{what}: {mutant.path}:{mutant.line}, {mutant.before[:60]!r}", soft_wrap=True)
    survivors = [mutant for mutant, what in rows if what == "survived"]
    caught = len(rows) - len(survivors)
    table = Table("survivor", "before", "after")
    for mutant in survivors:
        table.add_row(f"{mutant.path}:{mutant.line}", mutant.before, mutant.after)
    console.print(table)
    console.print(
        f"{caught} of {len(rows)} mutants caught ({100 * caught / len(rows):.0f} %), of {len(found)} in all"
    )
    if config.json is not None:
        each = [
            {k: v for k, v in asdict(mutant).items() if k != "source"} | {"verdict": what} for mutant, what in rows
        ]
        write_json(config.json, {"mutants": len(found), "caught": caught, "sample": each})


if __name__ == "__main__":
    from benchmarks import command

    command.run(MutantsConfig, main, "mutants", __doc__)
