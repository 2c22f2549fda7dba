"""What a method gets, what it gives, and what several of them do alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.few.layerwise import Neurons
from jaxsnn.conversion.channel_fit import LayerFit
from jaxsnn.conversion.channels import Channels, groups
from jaxsnn.networks.description import Network
from jaxsnn.networks.spiking import SNN
from jaxsnn.simulation.cells.cell import Cell
from jaxsnn.simulation.plan import Plan

LEAST = 1e-3
"""Least threshold of a channel, relative to its layer's largest: below, folding would blow up its weights."""


@dataclass(frozen=True, eq=False)
class Task:
    """Convert ``snn`` for ``timesteps`` steps without layer delay.

    Attributes:
        images: uint8 training images (N, H, W, C), without labels.
        pool: all training images, for what is trained.
        seed: of what a method draws.
        plan: how to simulate.
        ltb_batches: of 100 images, for LTB.
        ftbc_rounds: over all images, for FTBC.
        distillation: steps of gradient descent, for what is trained.
        reconstruct: whether weights that are trained are reconstructed first.
        distillation_batch: images of each.
        shared: what a method keeps for other numbers of timesteps, by its name.
    """

    snn: SNN
    images: np.ndarray
    timesteps: int
    seed: int = 0
    plan: Plan = field(default_factory=Plan)
    ltb_batches: int = 1000
    ftbc_rounds: int = 10
    distillation: int = 0
    reconstruct: bool = True
    distillation_batch: int = 128
    pool: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0, 0), np.uint8))
    shared: dict[str, Any] = field(default_factory=dict)

    @property
    def network(self) -> Network:
        return self.snn.network


@dataclass(frozen=True, eq=False)
class Converted:
    """A converted network.

    Attributes:
        channels: for ``fold_channels``.
        snn: the network that the channels are of, where its weights were changed.
        comparison: the neuron fires at a membrane ``comparison`` its threshold.
        neurons: in place of the channels', where these cannot say it; simulated by ``benchmarks.few.layerwise``.
        skip: first steps that the read-out leaves out.
        shared_seconds: of work that was done once for several numbers of timesteps.
        note: what a reader should know of this row.
        layers: how well each layer follows the ANN, where the method tells.
        cells: in place of the package's neurons, one or one for each spiking layer.
        leak: of the cells, (1, L).
        run: in place of any simulator: images, labels and timesteps -> what was seen.
        final: whether only the answer at the end is one.
    """

    channels: Channels
    comparison: str = ">"
    neurons: tuple[Neurons, ...] | None = None
    snn: SNN | None = None
    skip: int = 0
    shared_seconds: float = 0.0
    note: str = ""
    layers: tuple[LayerFit, ...] = ()
    cells: Cell | tuple[Cell, ...] | None = None
    leak: np.ndarray | None = None
    run: Callable[[np.ndarray, np.ndarray, int], "Seen"] | None = None
    final: bool = False

    @property
    def steady(self) -> bool:
        """Whether spikes are counted at each step, so that a longer simulation shows the shorter ones."""
        return (self.cells is not None or self.run is not None) and not self.final


@dataclass(frozen=True, eq=False)
class Seen:
    """What a converted network did on N images.

    Attributes:
        right: (N, T) whether an image is right when the scores are read after each step.
        spikes, synops: of an image on average until the end, by spiking layer (1, L), or until each step (T, L);
            the latter are the weights that these spikes drive.
        simulated: where.
    """

    right: np.ndarray
    spikes: np.ndarray
    synops: np.ndarray
    simulated: str

    def until(self, steps: int) -> "Seen":
        """The first ``steps``; raises ``ValueError`` where spikes were not counted at each step."""
        if steps == self.right.shape[1]:
            return self
        if len(self.spikes) < steps:
            raise ValueError("spikes were not counted at each step")
        return Seen(self.right[:, :steps], self.spikes[:steps], self.synops[:steps], self.simulated)


Method = Callable[[Task], Converted]


def alike(thresholds: Sequence[np.ndarray], biases: Sequence[np.ndarray], start: float, classes: int) -> Channels:
    """Channels whose spikes are worth their thresholds (C,) and which start alike; the read-out as it is."""
    thetas = tuple(np.asarray(theta, np.float64) for theta in thresholds)
    starts = tuple(np.full(len(theta), start) for theta in thetas)
    return Channels(thetas, thetas, (*biases, np.zeros(classes)), starts)


def half_full(task: Task, thresholds: Sequence[np.ndarray]) -> Converted:
    """Neurons with these thresholds (C,) that begin half full, and no bias."""
    biases = [np.zeros(len(theta)) for theta in thresholds]
    return Converted(alike(thresholds, biases, 0.5, task.network.classes))


def usable(theta: np.ndarray, top: np.ndarray) -> np.ndarray:
    """Thresholds (C,) that fold: a channel that is never active (``top`` 0) gets its layer's largest."""
    active = (top > 0) & np.isfinite(theta) & (theta > 0)
    largest = theta[active].max(initial=0) or 1.0
    return np.where(active, np.maximum(theta, LEAST * largest), largest)


def agree(network: Network, thresholds: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Thresholds (C,) of which layers that an edge without a kernel joins have the same up to a factor.

    Their common shape is the geometric mean of what each would like.
    """
    group, found = groups(network), []
    for index, theta in enumerate(thresholds):
        members = [m for m, first in enumerate(group) if first == group[index]]
        shapes = [np.log(thresholds[m]) - np.log(thresholds[m]).mean() for m in members]
        scale = np.log(theta).mean()
        found.append(theta if len(members) == 1 else np.exp(np.mean(shapes, 0) + scale))
    return found
