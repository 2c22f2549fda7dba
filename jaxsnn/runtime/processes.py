"""Several processes, on one machine or on many, as one run.

Every process runs the same program with the same seed. They divide the images of each simulation (``share``) and
add up the counts (``total``): integers, so that the result does not depend on how many processes there are. Only
process 0 touches the run's folder; the others work in a folder of their own, which starts as a copy of the
files to resume from and is removed afterwards (``workplace``). If one process fails, all stop (``together``).
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxsnn.errors import UserError
from jaxsnn.runtime.marks import Unrecorded

PATIENCE = 30
"""Seconds that a process which is done waits for the others."""


STAGE = 1 << 16
"""Messages are filled up to multiples of so many bytes, so that few shapes are compiled."""


class Lost(UserError):
    """Another process has ended without a word."""


class Agreed(UserError):
    """What ends all processes, and all of them know it."""


@dataclass(frozen=True, kw_only=True)
class HostOptions:
    """The options of a command that several processes can run together."""

    distributed: Unrecorded[bool] = False
    """Join the other processes of this job: Slurm, a TPU slice, Open MPI or Kubernetes say which they are."""
    coordinator: Unrecorded[str | None] = None
    """HOST:PORT of process 0, where nothing says so; with --processes and --process-id."""
    processes: Unrecorded[int | None] = None
    """How many processes there are."""
    process_id: Unrecorded[int | None] = None
    """Which of them this is, from 0."""


@contextmanager
def joined(options: HostOptions) -> Iterator[None]:
    """Be one of the processes that ``options`` name, for as long as the context lasts.

    Raises:
        UserError: options that contradict each other, or the others cannot be found.
    """
    explicit = (options.coordinator, options.processes, options.process_id)
    if any(part is None for part in explicit) and any(part is not None for part in explicit):
        raise UserError("--coordinator, --processes and --process-id belong together: give all three, or none")
    coordinator, count, number = explicit
    if coordinator is None or count is None or number is None:
        if not options.distributed:
            yield
            return
    else:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise UserError(f"--coordinator is {coordinator!r}, expected HOST:PORT")
        if count < 1 or not 0 <= number < count:
            raise UserError(f"--process-id is {number}, expected 0 to {count - 1} of --processes {count}")
    # JAX's own handler would swallow SIGTERM, which ends a command in its own way
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(*explicit, shutdown_timeout_seconds=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"cannot join the other processes ({str(error).splitlines()[0]}): check that all are started, or name "
            "them with --coordinator, --processes and --process-id"
        ) from error
    try:
        yield
    except (Agreed, SystemExit):
        jax.distributed.shutdown()
        raise
    jax.distributed.shutdown()


def leave(code: int) -> NoReturn:
    """End the program; at once, where other processes do not know: JAX would wait for them, and abort."""
    if several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def several() -> bool:
    """Whether this process has joined others that would wait for it."""
    return jax.distributed.is_initialized()


def alone() -> bool:
    """Whether this is the only process."""
    return jax.process_count() == 1


def first() -> bool:
    """Whether this is process 0, the one that writes and speaks."""
    return jax.process_index() == 0


def exchange(message: bytes) -> list[bytes]:
    """The messages of all processes, in their order; each must call it."""
    if alone():
        return [message]
    try:
        sizes = multihost_utils.process_allgather(np.array([len(message)], np.int32)).ravel()
        longest = -(-max(int(sizes.max()), 1) // STAGE) * STAGE
        # bytes, because int64 would be cut to int32 on its way through the devices
        sent = np.zeros(longest, np.uint8)
        sent[: len(message)] = np.frombuffer(message, np.uint8)
        received = np.asarray(multihost_utils.process_allgather(sent))
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # whichever it is depends on the collectives
        raise Lost(
            "another process of this run is gone: start all of them again, with --resume and the run's folder"
        ) from error
    return [row[:size].tobytes() for row, size in zip(received, sizes)]


@contextmanager
def together() -> Iterator[None]:
    """What one process fails at within the context ends all of them, with its sentence."""
    failed: Exception | None = None
    try:
        yield
    except Exception as error:
        failed = error
    if alone():
        if failed is not None:
            raise failed
        return
    told = exchange(("" if failed is None else str(failed) or type(failed).__name__).encode())
    for number, sentence in enumerate(told):
        if sentence:
            raise Agreed(f"process {number} stopped: {sentence.decode()}") from failed


def either(*flags: bool) -> tuple[bool, ...]:
    """Each flag, where any process has set it."""
    return tuple(bool(flag) for flag in np.any([list(sent) for sent in exchange(bytes(flags))], 0))


def check_same(record: dict) -> None:
    """Raise ``Agreed``, on every process, unless all have the same record."""
    records = [json.loads(sent) for sent in exchange(json.dumps(record).encode())]
    for number, other in enumerate(records):
        for key in sorted(records[0].keys() | other.keys()):
            if other.get(key) != records[0].get(key):
                raise Agreed(
                    f"process {number} differs from process 0 in {key} ({other.get(key)}, not "
                    f"{records[0].get(key)}): start all with the same options, files and program"
                )


@contextmanager
def workplace(folder: Path, files: Sequence[str]) -> Iterator[Path]:
    """``folder`` itself on process 0; elsewhere a folder for the time of the context, with copies of those files.

    Args:
        files: patterns of files directly in ``folder`` or one below.
    """
    if alone():
        yield folder
        return
    found = sorted({path for name in files for path in folder.glob(name) if path.is_file()}) if first() else []
    names = [path.relative_to(folder).as_posix() for path in found]
    contents = [path.read_bytes() for path in found]
    head = json.dumps([names, [len(content) for content in contents]]).encode()
    sent = exchange(head)[0], exchange(b"".join(contents))[0]
    if first():
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        start = 0
        for name, size in zip(*json.loads(sent[0])):
            path = Path(scratch) / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(sent[1][start : start + size])
            start += size
        yield Path(scratch)


def share(count: int) -> slice:
    """This process's part of ``count`` images: all but the last processes have equally many."""
    each = -(-count // jax.process_count())
    return slice(min(count, each * jax.process_index()), min(count, each * (jax.process_index() + 1)))


def total(counts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Arrays of integers summed over the processes; each has the same shapes and types."""
    message = b"".join(np.ascontiguousarray(part).tobytes() for part in counts)
    sums = [np.zeros_like(part) for part in counts]
    for sent in exchange(message):
        start = 0
        for held in sums:
            held += np.frombuffer(sent, held.dtype, held.size, start).reshape(held.shape)
            start += held.nbytes
    return sums


def gathered(part: np.ndarray) -> np.ndarray:
    """The processes' parts of an array of bool (P, B, T), joined along B."""
    shapes = [json.loads(sent) for sent in exchange(json.dumps(part.shape).encode())]
    parts = []
    for bits, shape in zip(exchange(np.packbits(part).tobytes()), shapes):
        flat = np.unpackbits(np.frombuffer(bits, np.uint8), count=int(np.prod(shape)))
        parts.append(flat.astype(bool).reshape(shape))
    return np.concatenate(parts, 1)
