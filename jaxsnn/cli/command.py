"""What every command does around its work: parse, report an error in one sentence, leave with the right code."""

import argparse
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from jaxsnn.cli.sentences import printable, sentence_of
from jaxsnn.errors import UserError
from jaxsnn.runtime import processes
from jaxsnn.runtime.compile_cache import keep_compiled
from jaxsnn.runtime.memory import few_addresses

T = TypeVar("T")
PAUSE = 0.05
"""Seconds after which a SIGTERM whose exception Python has ignored comes again."""


def main(
    config_type: type[T], work: Callable[[T], object], name: str, parse: Callable[[], T] | None = None
) -> None:
    """Parse the command line into ``config_type`` (with ``parse``, if given) and run ``work``.

    Exit code 2 and one sentence on bad input, no traceback unless ``--debug`` is given; 130 on a second Ctrl-C.
    """
    debug = False
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # while modules were imported, see jaxsnn/__init__.py
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        check_spaces(config_type, sys.argv[1:])
        check_values(config_type, sys.argv[1:])
        config = tyro.cli(config_type, prog=f"python -m {name}") if parse is None else parse()
        debug = getattr(config, "debug", False)
        keep_compiled()
        if limit := few_addresses():  # XLA's own threads end the program where they get no memory
            sentence = f"ulimit -v allows {limit / 1e9:.1f} GB: raise it if std::bad_alloc is all that is said"
            warn(TextConsole(stderr=True), sentence)
        work(config)
    except KeyboardInterrupt:
        processes.leave(130)
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None and not processes.several():
            raise
        if debug or sentence is None:
            traceback.print_exc()
        if sentence is None:  # an exit in the usual way would keep the other processes waiting
            processes.leave(1)
        said = Text.assemble(("error:", "bold red"), " ", sentence)
        TextConsole(stderr=True).print(said, soft_wrap=True)
        processes.leave(2)


class TextConsole(Console):
    """A console that prints a string as it is: brackets in a name or a path are no markup, and colons no emoji.

    What is to have a style is a ``Text`` or a table, whose cells are markup (``jaxsnn.reports.labels.for_table``).
    """

    def __init__(self, **options: Any):
        super().__init__(emoji=False, highlight=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """``Console.print``, in which strings are text, and what cannot be printed is escaped."""
        shown = (Text(printable(part, "\n\t")) if isinstance(part, str) else part for part in objects)
        super().print(*shown, **options)


def check_spaces(config_type: type, arguments: Sequence[str]) -> None:
    """Raise ``UserError`` where an option that takes numbers or choices is given one with a space in it."""
    hints, option = get_type_hints(config_type), ""
    for part in arguments:
        if part.startswith("--"):
            option, equals, part = part.partition("=")
            if not equals:
                continue
        kind = hints.get(option[2:].replace("-", "_"), str)
        spaced = len(part.split()) > 1 or part.strip() != part
        if spaced and kind is not bool and not _has(kind, str, Path):
            raise UserError(f"{option} is {part!r}: write it without spaces, several values as several words")
        if not _has(kind, tuple):
            option = ""


def check_values(config_type: type, arguments: Sequence[str]) -> None:
    """Raise ``UserError`` where an option that takes several values is given none, which would say nothing."""
    hints = get_type_hints(config_type)
    for part, after in zip(arguments, [*arguments[1:], "--"]):
        kind = hints.get(part[2:].replace("-", "_")) if part.startswith("--") else None
        if kind is not None and _has(kind, tuple) and after.startswith("--"):
            choices = ", ".join(map(str, _choices(kind)))
            raise UserError(f"{part} has no value: {f'give some of {choices}' if choices else 'give one'}")


def _choices(kind: Any) -> tuple:
    """The literals in a type."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return tuple(choice for part in get_args(kind) for choice in _choices(part))


def _has(kind: Any, *wanted: type) -> bool:
    """Whether a type is one of those ``wanted``, or has one among its parts."""
    if get_origin(kind) is Literal:
        return False
    return kind in wanted or get_origin(kind) in wanted or any(_has(part, *wanted) for part in get_args(kind))


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
        console.print(Text.assemble(("warning:", "yellow"), " ", sentence), soft_wrap=True)


def progress_bar(console: Console) -> Progress:
    """Bars with a note (the task's field ``note``), the time since the start and the time left."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[note]}", markup=False),
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
        self._said = self._leaving = False
        self._goodbye = goodbye

    def leave(self) -> None:
        """End the program with exit code 0 and the sentence that says how to continue."""
        self._leaving = True  # a second signal changes nothing
        if not self._said:
            self._said = True
            self._goodbye()
        raise SystemExit(0)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if not self.deferred and not self._leaving:
            self.leave()

    def was_ignored(self, unraisable: Any) -> bool:
        """Whether the exception that was to end the program could not be raised; the signal then comes again.

        Python ignores what is raised in a finaliser or a callback of the garbage collection, of which JAX has one.
        """
        ignored = self._leaving and unraisable.exc_type is SystemExit
        if ignored:
            again = threading.Timer(PAUSE, self._again)
            again.daemon = True
            again.start()
        return ignored

    def _again(self) -> None:
        if signal.getsignal(signal.SIGTERM) is self:  # the program has not left otherwise
            self._leaving = False
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


@contextmanager
def leave_on_termination(goodbye: Callable[[], None]) -> Iterator[Termination]:
    """SIGTERM ends the program with exit code 0 after ``goodbye()``, at once or where it is deferred to."""
    termination = Termination(goodbye)
    previous, usual = signal.signal(signal.SIGTERM, termination), sys.unraisablehook
    sys.unraisablehook = lambda unraisable: None if termination.was_ignored(unraisable) else usual(unraisable)
    try:
        yield termination
    finally:
        sys.unraisablehook = usual
        signal.signal(signal.SIGTERM, previous)
