"""frontier.json: the points that a search of several objectives found, each a network that can be run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn.analysis.intervals import wilson
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import Genes
from jaxsnn.records.calibrated_network import name_for
from jaxsnn.records.thresholds_file import read_thresholds
from jaxsnn.runtime.entries import Entries
from jaxsnn.runtime.files import read_json

NAME = "frontier.json"


@dataclass(frozen=True, eq=False)
class Point:
    """One network of a frontier.

    Attributes:
        timesteps: T, in the run's convention; the network is the one calibrated for them.
        genes: one candidate, (1, L).
        start: whether it is that calibrated network as it was.
        training: the objectives on training images, by name.
        accuracy: on test images after T steps, in [0, 1].
        spikes, synops: an image, of each spiking layer.
        peak: spikes a neuron and step of the busiest layer.
        energy: microjoules an image by kind of arithmetic.
    """

    timesteps: int
    genes: Genes
    start: bool
    training: dict[str, float]
    accuracy: float
    spikes: tuple[float, ...]
    synops: tuple[float, ...]
    peak: float
    energy: dict[str, float]

    def to_json(self, number: int, images: int) -> dict[str, Any]:
        """The point as frontier.json holds it, with its number and the interval on so many test images."""
        return {
            "number": number,
            "timesteps": self.timesteps,
            "calibrated": name_for(self.timesteps),
            "start": self.start,
            **self.genes.to_record(),
            "training": self.training,
            "accuracy": self.accuracy,
            "accuracy_ci95": list(wilson(self.accuracy, images)),
            "spikes_per_image_by_layer": list(self.spikes),
            "synops_per_image_by_layer": list(self.synops),
            "peak": self.peak,
            "energy": self.energy,
        }

    @classmethod
    def from_json(cls, row: Entries) -> "Point":
        """The point of a frontier.json; raises ``UserError`` where it is not one."""
        thresholds = row.numbers("thresholds")
        record = {name: list(row.numbers(name, len(thresholds))) for name in ("v0", "leak") if row.known(name)}
        return cls(
            row.count("timesteps", 1),
            Genes.from_record(record | {"thresholds": list(thresholds)}),
            row.record.get("start") is True,
            _numbers(row.entries("training")),
            row.share("accuracy"),
            row.numbers("spikes_per_image_by_layer", len(thresholds)),
            row.numbers("synops_per_image_by_layer", len(thresholds)),
            row.number("peak"),
            _numbers(row.entries("energy")),
        )


@dataclass(frozen=True, eq=False)
class Frontier:
    """What frontier.json holds.

    Attributes:
        objectives: that were searched.
        energy_kind: of the energy among them.
        delay: the convention in which timesteps are counted.
        layers: names of the spiking layers.
        points: number 1 first, by timesteps and energy.
    """

    objectives: tuple[str, ...]
    energy_kind: str
    delay: str
    ann_accuracy: float
    test_images: int
    layers: tuple[str, ...]
    points: tuple[Point, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "objectives": list(self.objectives),
            "energy_kind": self.energy_kind,
            "delay": self.delay,
            "ann_accuracy": self.ann_accuracy,
            "test_images": self.test_images,
            "layers": list(self.layers),
            "points": [point.to_json(n, self.test_images) for n, point in enumerate(self.points, 1)],
        }


def read_frontier(folder: Path) -> Frontier:
    """The frontier of a run; raises ``UserError`` where there is none."""
    path = folder / NAME
    if not path.is_file():
        raise UserError(f"{folder} holds no frontier: only runs of jaxsnn.optimize --objectives have points")
    found = Entries(read_json(path), str(path))
    names = {}
    for name in ("objectives", "layers"):
        values = found.record.get(name)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise found.wrong(name, "a list of names")
        names[name] = tuple(values)
    points = tuple(Point.from_json(row) for row in found.list_of_entries("points"))
    if not points:
        raise found.wrong("points", "at least one")
    kind = found.text("energy_kind")
    if not all(kind in point.energy for point in points):
        raise found.wrong("energy_kind", "one that every point has the energy of")
    if any(len(point.spikes) != len(names["layers"]) for point in points):
        raise found.wrong("layers", "as many as points have thresholds")
    return Frontier(
        names["objectives"],
        kind,
        found.text("delay"),
        found.share("ann_accuracy"),
        found.count("test_images", 1),
        names["layers"],
        points,
    )


def thresholds_of(run: Path, point: int | None = None) -> dict:
    """thresholds.json of a run or a file like it, or the same of one ``point`` of a frontier, counted from 1.

    Raises:
        UserError: no such file, or no such point.
    """
    found = read_thresholds(run)
    if point is None:
        return found
    frontier = read_frontier(run if run.is_dir() else run.parent)
    if not 1 <= point <= len(frontier.points):
        raise UserError(f"--point is {point}, but {run} has points 1 to {len(frontier.points)}")
    one = frontier.points[point - 1]
    genes = {name: None if part is None else np.asarray(part) for name, part in one.genes.to_record().items()}
    return found | genes | {"calibrated": name_for(one.timesteps), "timesteps": one.timesteps}


def most_accurate(points: Sequence[Point]) -> int:
    """The place of the point with the fewest wrong answers on training images, else the least divergence."""
    measure = "accuracy" if "accuracy" in points[0].training else "divergence"
    return min(range(len(points)), key=lambda i: points[i].training.get(measure, 0.0))


def _numbers(entries: Entries) -> dict[str, float]:
    return {name: entries.number(name) for name in entries.record}
