"""The converted network, its genes, and how its neurons behave."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.description import Arrays, Network


@dataclass(frozen=True, eq=False)
class SNN:
    """A converted network: a folded description and its float32 parameters. Equal only to itself."""

    network: Network
    params: Arrays


class Genes(NamedTuple):
    """What a candidate sets, per spiking layer; leading axis P (candidates), then L (layers).

    ``threshold`` is in the units of the ANN's activations, ``v0`` the initial membrane as a fraction of the
    threshold (None: 0), ``leak`` the factor on the membrane at each step (None: 1).
    """

    threshold: np.ndarray
    v0: np.ndarray | None = None
    leak: np.ndarray | None = None

    def map(self, function: Callable[[Any], Any]) -> "Genes":
        """The genes with ``function`` applied to each part that is set.

        >>> Genes(np.array([[1.0, 2.0]])).map(lambda part: 2 * part).threshold
        array([[2., 4.]])
        """
        v0, leak = (None if part is None else function(part) for part in (self.v0, self.leak))
        return Genes(function(self.threshold), v0, leak)

    def candidate(self, index: int) -> "Genes":
        """One candidate, still with a leading axis (of length 1)."""
        return self.map(lambda part: np.asarray(part)[index : index + 1])

    def to_record(self) -> dict[str, list[float] | None]:
        """The first candidate as in JSON: lists ``thresholds``, ``v0`` and ``leak``, None where not set."""
        parts = (None if part is None else np.asarray(part, np.float64)[0].tolist() for part in self)
        return dict(zip(RECORDED, parts))

    @classmethod
    def from_record(cls, record: Mapping[str, Any], prefix: str = "") -> "Genes":
        """One candidate from lists by name, such as those of thresholds.json; ``prefix`` is "" or "baseline_".

        Raises:
            ValueError: no list of thresholds.
        """
        parts = (record.get(f"{prefix}{name}") for name in RECORDED)
        threshold, v0, leak = (None if part is None else np.asarray(part, np.float64)[None] for part in parts)
        if threshold is None:
            raise ValueError(f"the record has no list {prefix}{RECORDED[0]}")
        return cls(threshold, v0, leak)

    @classmethod
    def stack(cls, first: "Genes", second: "Genes") -> "Genes":
        """Candidates of both, in that order; a gene that only one of them sets is as usual in the other."""
        joined = []
        for one, two, usual in zip(first, second, (None, 0.0, 1.0)):
            if one is None and two is None:
                joined.append(None)
            else:
                one = np.full_like(first.threshold, usual) if one is None else one
                two = np.full_like(second.threshold, usual) if two is None else two
                joined.append(np.concatenate([one, two]))
        return cls(*joined)


RECORDED = ("thresholds", "v0", "leak")
"""The parts of ``Genes`` by their names in JSON."""


MOST_SPIKES = 255
"""Of a neuron in one step: they wait as a byte while a network is calibrated."""


@dataclass(frozen=True)
class Dynamics:
    """What the neuron does.

    Attributes:
        comparison: it fires at a membrane ``>`` or ``>=`` its threshold.
        delay: "layer" (the paper's) or "none".
        most: spikes that it may send in one step: clip(floor(v / theta), 0, most) where that is more than one
            (``jaxsnn.simulation.cells.burst.Several``), which leaves nothing for ``comparison`` to say.
    """

    comparison: str = ">"
    delay: str = "layer"
    most: int = 1

    def __post_init__(self):
        if not 1 <= self.most <= MOST_SPIKES:
            raise UserError(f"a neuron sends {self.most} spikes in a step at most, expected 1 to {MOST_SPIKES}")
        if self.most > 1 and self.comparison == ">=":
            raise UserError("comparison is for neurons that send one spike in a step: leave it out")
        if self.comparison not in (">", ">="):
            raise UserError(f"comparison is {self.comparison!r}, expected '>' or '>='")
        if self.delay not in ("layer", "none"):
            raise UserError(f"delay is {self.delay!r}, expected 'layer' or 'none'")

    def silent_steps(self, network: Network) -> int:
        """Steps before the first input can reach the read-out."""
        return network.delay if self.delay == "layer" else 0


def check_single(dynamics: Dynamics, what: str) -> None:
    """Raise ``UserError`` for neurons that send several spikes in a step, which ``what`` does not know."""
    if dynamics.most > 1:
        raise UserError(f"{what} for neurons that send one spike in a step, and these send up to {dynamics.most}")


def caps(network: Network, most: int = 1) -> np.ndarray:
    """What no threshold should exceed, (L,), infinite where a layer has no cap: a neuron that may send ``most``
    spikes in a step reaches its activation's cap at so much less."""
    return np.array([np.inf if layer.cap is None else layer.cap for layer in network.spiking]) / most


def check_dynamics(dynamics: object) -> None:
    """Raise ``UserError`` for what is no ``Dynamics``, such as the name of a delay."""
    if not isinstance(dynamics, Dynamics):
        raise UserError(f'dynamics is {dynamics!r}, expected a Dynamics, such as jaxsnn.Dynamics(delay="none")')


SMALLEST, LARGEST = (float(bound) for bound in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))
"""Thresholds beyond them are 0 or infinite where they are used."""


def check_genes(network: Network, genes: Genes) -> None:
    """Raise ``UserError`` where genes do not fit the network or the neuron."""
    layers = len(network.spiking)
    for name, part in zip(Genes._fields, genes):
        if part is None:
            continue
        part = np.asarray(part)
        if part.ndim != 2 or part.shape[1] != layers:
            raise UserError(
                f"{name} has shape {part.shape}, expected (candidates, {layers}): one per spiking layer"
            )
        if name == "threshold":
            good, rule = (part >= SMALLEST) & (part <= LARGEST), "positive, also as float32"
        elif name == "leak":
            good, rule = (part > 0) & (part <= 1), "in (0, 1]"
        else:
            good, rule = (part >= 0) & (part < 1), "in [0, 1)"
        if not (good & np.isfinite(part)).all():
            row, layer = np.argwhere(~(good & np.isfinite(part)))[0]
            raise UserError(
                f"{name} of layer {network.layers[layer].name} is {part[row, layer]}, expected finite and {rule}"
            )
