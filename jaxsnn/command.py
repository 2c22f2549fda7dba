"""What every command does around its work: parse, report an error in one sentence, leave with the right code."""

import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

import tyro
from rich.console import Console

from data import DataError
from jaxsnn.errors import UserError

T = TypeVar("T")


def main(config_type: type[T], work: Callable[[T], None], name: str) -> None:
    """Parse the command line into ``config_type`` and run ``work``.

    Exit code 2 and one sentence on bad input, no traceback unless ``--debug`` is given; 130 on a second Ctrl-C.
    """
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    config = tyro.cli(config_type, prog=f"python -m {name}", args=[a for a in arguments if a != "--debug"])
    try:
        work(config)
    except KeyboardInterrupt:
        sys.exit(130)
    except (UserError, DataError, OSError) as error:
        if debug:
            traceback.print_exc()
        else:
            Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {_sentence(error)}", soft_wrap=True)
        sys.exit(2)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}".replace("[", "\\[")
    return str(error).replace("[", "\\[")
