"""What every command does around its work: parse, report an error in one sentence, leave with the right code."""

import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

import jax
import tyro
from rich.console import Console

from data import DataError
from jaxsnn.errors import UserError

T = TypeVar("T")


def main(config_type: type[T], work: Callable[[T], None], name: str) -> None:
    """Parse the command line into ``config_type`` and run ``work``.

    Exit code 2 and one sentence on bad input, no traceback unless ``--debug`` is given; 130 on a second Ctrl-C.
    """
    config = tyro.cli(config_type, prog=f"python -m {name}")
    try:
        work(config)
    except KeyboardInterrupt:
        sys.exit(130)
    except (UserError, DataError, OSError, MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and not _out_of_memory(error):
            raise
        if config.debug:
            traceback.print_exc()
        sentence = (
            "out of memory: lower --rows, or --batch in training" if _out_of_memory(error) else _sentence(error)
        )
        Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {sentence}", soft_wrap=True)
        sys.exit(2)


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}".replace("[", "\\[")
    return str(error).replace("[", "\\[")
