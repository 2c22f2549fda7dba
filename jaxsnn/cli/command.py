"""What every command does around its work: parse, report an error in one sentence, leave with the right code."""

import argparse
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import jax
import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from data import DataError
from jaxsnn.errors import UserError
from jaxsnn.runtime import processes
from jaxsnn.runtime.compile_cache import keep_compiled

T = TypeVar("T")


def main(
    config_type: type[T], work: Callable[[T], object], name: str, parse: Callable[[], T] | None = None
) -> None:
    """Parse the command line into ``config_type`` (with ``parse``, if given) and run ``work``.

    Exit code 2 and one sentence on bad input, no traceback unless ``--debug`` is given; 130 on a second Ctrl-C.
    """
    debug = False
    try:
        config = tyro.cli(config_type, prog=f"python -m {name}") if parse is None else parse()
        debug = getattr(config, "debug", False)
        keep_compiled()
        work(config)
    except KeyboardInterrupt:
        processes.leave(130)
    except (UserError, DataError, OSError, MemoryError, FloatingPointError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and not _out_of_memory(error):
            raise
        if debug:
            traceback.print_exc()
        sentence = (
            "out of memory: lower --rows, or --batch in training" if _out_of_memory(error) else _sentence(error)
        )
        Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {sentence}", soft_wrap=True)
        processes.leave(2)


def parse_with_preset(
    config_type: type[T],
    values: Callable[[str], dict[str, Any]],
    name: str,
    arguments: Sequence[str] | None = None,
    option: str = "preset",
    usual: str | None = None,
) -> T:
    """Parse a command line whose ``--preset`` sets the defaults of other options, so that --help shows them.

    Args:
        usual: the preset where none is given; None is that of ``config_type``.
        values: the defaults that the preset called so sets.
        option: another name for "preset".

    Raises:
        UserError: from ``values``, an unknown preset.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument(f"--{option}", default=usual or getattr(config_type(), option))
    try:
        chosen = getattr(first.parse_known_args(given)[0], option)
    except (argparse.ArgumentError, SystemExit):
        return tyro.cli(config_type, prog=f"python -m {name}", args=given)  # which says what is wrong
    defaults = config_type(**(values(chosen) | {option: chosen}))
    return tyro.cli(config_type, prog=f"python -m {name}", args=given, default=defaults)


@contextmanager
def stop_on_interrupt(console: Console, unit: str) -> Iterator[list]:
    """A list that gets an entry on the first Ctrl-C, to stop after this ``unit``; the second ends the program."""
    asked: list = []

    def handler(number: int, frame: FrameType | None) -> None:
        asked.append(True)
        console.print(f"stopping after this {unit}; press Ctrl-C again to end at once")
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, previous)


def warn(console: Console, *sentences: str) -> None:
    """Print warnings, a line each."""
    for sentence in sentences:
        console.print(f"[yellow]warning:[/] {escape(sentence)}", highlight=False, soft_wrap=True)


def progress_bar(console: Console) -> Progress:
    """Bars with a note (the task's field ``note``), the time since the start and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


class Termination:
    """What SIGTERM, a cloud's notice that it takes the machine away, does to a command.

    Attributes:
        deferred: there is something to save first: the command looks at ``asked`` and calls ``leave``.
        asked: it has come.
    """

    def __init__(self, goodbye: Callable[[], None]):
        self.deferred = self.asked = False
        self._goodbye = goodbye

    def leave(self) -> None:
        """End the program with exit code 0 and the sentence that says how to continue."""
        self.deferred = True  # a second signal changes nothing
        self._goodbye()
        raise SystemExit(0)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if not self.deferred:
            self.leave()


@contextmanager
def leave_on_termination(goodbye: Callable[[], None]) -> Iterator[Termination]:
    """SIGTERM ends the program with exit code 0 after ``goodbye()``, at once or where it is deferred to."""
    termination = Termination(goodbye)
    previous = signal.signal(signal.SIGTERM, termination)
    try:
        yield termination
    finally:
        signal.signal(signal.SIGTERM, previous)


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}".replace("[", "\\[")
    return str(error).replace("[", "\\[")
