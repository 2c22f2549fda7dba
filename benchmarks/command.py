"""How every benchmark starts: its options, its page of help, one sentence and exit code 2 where input is bad."""

from collections.abc import Callable
from typing import TypeVar

import tyro

from jaxsnn.cli import command

T = TypeVar("T")


def run(options: type[T], work: Callable[[T], object], name: str, description: str | None) -> None:
    """Parse the command line into ``options`` and run ``work`` on them.

    Args:
        name: of the benchmark, as in ``python -m benchmarks.NAME``.
        description: what --help prints, the module's docstring.
    """
    program = f"benchmarks.{name}"

    def parse() -> T:
        return tyro.cli(options, prog=f"python -m {program}", description=description)

    command.main(options, work, program, parse)
