"""Scalars of a run for TensorBoard, whose package is only needed where they are asked for."""

import importlib.util
import time
from pathlib import Path

from jaxsnn.errors import UserError


def check_installed() -> None:
    """Raise ``UserError`` where the package tensorboard is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs a package that is not installed: pip install tensorboard")


class Scalars:
    """Writes rows of history.jsonl as scalars into ``folder``, one step a generation; nothing where it is None."""

    def __init__(self, folder: Path | None):
        self._writer = None
        if folder is not None:
            writers = importlib.import_module("tensorboard.summary.writer.event_file_writer")
            self._writer = writers.EventFileWriter(str(folder))

    def write(self, row: dict) -> None:
        """Write the numbers of one row, and the parts of its cost."""
        if self._writer is None:
            return
        events, summaries = (
            importlib.import_module(f"tensorboard.compat.proto.{name}") for name in ("event_pb2", "summary_pb2")
        )
        numbers = {key: value for key, value in row.items() if type(value) in (int, float)}
        numbers |= {f"cost/{name}": value for name, value in row["parts"].items()}
        values = [summaries.Summary.Value(tag=tag, simple_value=value) for tag, value in numbers.items()]
        self._writer.add_event(
            events.Event(wall_time=time.time(), step=row["generation"], summary=summaries.Summary(value=values))
        )
        self._writer.flush()
