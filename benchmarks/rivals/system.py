"""What a system is to the harness: how it is prepared, where it comes from, and what was published of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from benchmarks.few.task import Converted, Task


class Labelled(NamedTuple):
    """Training images, uint8 (N, H, W, C), with their classes (N,)."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class Job(Task):
    """A task with what trained systems need beside it.

    Attributes:
        labelled: training images for the systems that are trained; the others see ``images``, without labels.
        epochs: in place of a system's own; None leaves them.
        batch: images of a training step.
        longest: the most timesteps that are asked for, of which a steady network shows the others.
    """

    labelled: Labelled
    epochs: int | None = None
    batch: int = 100
    longest: int = 0


class Published(NamedTuple):
    """A figure that a system's authors, or others of it, report.

    Attributes:
        network: and data set.
        ann, snn: accuracy in per cent; ``ann`` is None where it is not told.
        timesteps: in the convention of the source.
        where: who says so.
    """

    network: str
    ann: float | None
    snn: float
    timesteps: int
    where: str

    @property
    def drop(self) -> float | None:
        """Points below the ANN."""
        return None if self.ann is None else self.ann - self.snn


@dataclass(frozen=True)
class System:
    """A rival, or ours.

    Attributes:
        prepare: converts or trains the network of a job.
        source: authors, title, venue.
        deviates: in what this one differs from theirs; "" where in nothing known.
        published: figures of theirs.
        trained: whether it sees labels.
        lucky: whether it draws, so that several seeds tell something.
    """

    name: str
    title: str
    prepare: Callable[[Job], Converted]
    source: str
    deviates: str = ""
    published: tuple[Published, ...] = field(default=())
    trained: bool = False
    lucky: bool = False
