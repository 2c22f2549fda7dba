"""What a candidate costs: plain functions of the simulator's observables, added up.

A term maps ``Observables`` to a dict of named parts, each (P,); the cost is the sum of all parts. A user's own
term is any function of that form.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.simulation.divergence import UNIT
from jaxsnn.simulation.observables import Observables

Term = Callable[[Observables], dict[str, np.ndarray]]


class Bounds(NamedTuple):
    """Bounds (P, T) of the number of right answers once all images are simulated."""

    low: np.ndarray
    high: np.ndarray


@runtime_checkable
class Bounded(Protocol):
    """A term that racing can use: it knows a lower bound of its value before all images are simulated."""

    def __call__(self, observed: Observables) -> dict[str, np.ndarray]: ...

    def lower(self, observed: Observables, bounds: Bounds, images: int) -> np.ndarray:
        """The least (P,) that the term can come to over ``images`` images, given what was observed so far.

        That may be nothing yet: ``observed.images`` is then 0.
        """
        ...


PICOJOULE_PER_ADD = 0.9
"""One 32-bit floating-point addition in a 45 nm process (Horowitz, ISSCC 2014)."""


def accuracy_gradient(accuracy: np.ndarray) -> np.ndarray:
    """Acc' (P, T): second-order central differences in steps, one-sided at the ends (``numpy.gradient``)."""
    if accuracy.shape[-1] < 2:
        raise UserError("eq. 11 needs the gradient of the accuracy over time: at least 2 timesteps")
    return np.gradient(accuracy, axis=-1)


@dataclass(frozen=True)
class AccuracyLatency:
    """Eq. 11: alpha * J + beta * (1 - max Acc') + gamma * (1 - Acc[T]).

    J is the 1-based step at which the gradient Acc' of the accuracy, in [0, 1] per step, is largest (the first
    of equals).
    """

    alpha: float
    beta: float
    gamma: float

    def __call__(self, observed: Observables) -> dict[str, np.ndarray]:
        accuracy = observed.accuracy
        gradient = accuracy_gradient(accuracy)
        return {
            "latency": self.alpha * (gradient.argmax(-1) + 1.0),
            "slope": self.beta * (1 - gradient.max(-1)),
            "accuracy": self.gamma * (1 - accuracy[:, -1]),
        }

    def lower(self, observed: Observables, bounds: Bounds, images: int) -> np.ndarray:
        low, high = bounds.low / images, bounds.high / images
        steepest = (high[:, 2:] - low[:, :-2]).max(-1, initial=0) / 2
        ends = np.maximum(high[:, 1] - low[:, 0], high[:, -1] - low[:, -2])
        # a gradient cannot exceed 1 either, and J is at least 1
        slope = np.minimum(np.maximum(steepest, ends), 1)
        return self.alpha + self.beta * (1 - slope) + self.gamma * (1 - high[:, -1])


@dataclass(frozen=True)
class Area:
    """The area above the accuracy curve, weight * sum over t of (1 - Acc[t]), in steps.

    The mean number of steps an image is still classified wrong. Every image moves it at every step, where J of
    eq. 11 jumps by whole steps: a latency that a small subset can measure.
    """

    weight: float

    def __call__(self, observed: Observables) -> dict[str, np.ndarray]:
        return {"area": self.weight * (1 - observed.accuracy).sum(-1)}

    def lower(self, observed: Observables, bounds: Bounds, images: int) -> np.ndarray:
        return self.weight * (1 - bounds.high / images).sum(-1)


@dataclass(frozen=True)
class Limit:
    """weight * (1 - the accuracy as T goes to infinity), cheap on many images.

    ``jaxsnn.simulation.clipped_ann`` finds it.

    A candidate that is fast because its thresholds clip activations pays for it here.
    """

    weight: float

    def __call__(self, observed: Observables) -> dict[str, np.ndarray]:
        if observed.limit_correct is None:
            raise UserError("the limit's cost needs observables with limit_correct")
        return {"limit": self.weight * (1 - observed.limit_correct / observed.limit_images)}

    def lower(self, observed: Observables, bounds: Bounds, images: int) -> np.ndarray:
        return self(observed)["limit"]


@dataclass(frozen=True)
class Divergence:
    """final * KL[T] + mean * the mean of KL[t] over t = 1..T, in nats an image (``jaxsnn.simulation.divergence``).

    How far the class probabilities are from the ANN's: smooth where right answers come in steps, and without
    labels.
    """

    final: float = 1.0
    mean: float = 0.0

    def __call__(self, observed: Observables) -> dict[str, np.ndarray]:
        if observed.divergence is None:
            raise UserError(
                "the divergence's cost needs observables that were counted with the ANN's probabilities"
            )
        each = observed.divergence / (observed.images * UNIT)
        return {"divergence": self.final * each[:, -1] + self.mean * each.mean(-1)}

    def lower(self, observed: Observables, bounds: Bounds, images: int) -> np.ndarray:
        return self(replace(observed, images=images))["divergence"]


@dataclass(frozen=True)
class Spikes:
    """weight * thousand spikes per image, all layers together."""

    weight: float

    def __call__(self, observed: Observables) -> dict[str, np.ndarray]:
        return {"spikes": self.weight * observed.spikes.sum(-1) / observed.images / 1e3}

    def lower(self, observed: Observables, bounds: Bounds, images: int) -> np.ndarray:
        return self(replace(observed, images=images))["spikes"]


@dataclass(frozen=True)
class SynapticOperations:
    """weight * million synaptic operations per image, all layers together."""

    weight: float

    def __call__(self, observed: Observables) -> dict[str, np.ndarray]:
        return {"synops": self.weight * observed.synops.sum(-1) / observed.images / 1e6}

    def lower(self, observed: Observables, bounds: Bounds, images: int) -> np.ndarray:
        return self(replace(observed, images=images))["synops"]


@dataclass(frozen=True)
class Energy:
    """weight * microjoule per image: synaptic operations at 0.9 pJ each. The constant input is not counted."""

    weight: float

    def __call__(self, observed: Observables) -> dict[str, np.ndarray]:
        return {"energy": self.weight * observed.synops.sum(-1) / observed.images * PICOJOULE_PER_ADD * 1e-6}

    def lower(self, observed: Observables, bounds: Bounds, images: int) -> np.ndarray:
        return self(replace(observed, images=images))["energy"]


@dataclass(frozen=True)
class PeakActivity:
    """weight * spikes per neuron and step of the busiest layer. ``neurons`` is the number in each layer, (L,)."""

    weight: float
    neurons: tuple[int, ...]

    def __call__(self, observed: Observables) -> dict[str, np.ndarray]:
        steps = observed.correct.shape[-1]
        share = observed.spikes / (observed.images * steps * np.asarray(self.neurons))
        return {"peak": self.weight * share.max(-1)}

    def lower(self, observed: Observables, bounds: Bounds, images: int) -> np.ndarray:
        return self(replace(observed, images=images))["peak"]


OVER = 1e4
"""Far above what any candidate within the limit costs, and within float64's reach of the smallest difference."""


@dataclass(frozen=True)
class UpperLimit:
    """0 up to ``limit``, beyond it more than any cost, and the more the farther beyond.

    So a candidate that keeps the limit beats every one that does not, and of two that do not the nearer one wins,
    as with Lampinen's rule for constraints (2002).

    Attributes:
        name: of what is limited.
        measured: it, (P,), of the counts of P candidates; no count that grows makes it less.
    """

    name: str
    measured: Callable[[Observables], np.ndarray]
    limit: float

    def __call__(self, observed: Observables) -> dict[str, np.ndarray]:
        excess = self.measured(observed) / self.limit - 1
        return {"over_limit": np.where(excess > 0, OVER * (1 + excess), 0.0)}

    def lower(self, observed: Observables, bounds: Bounds, images: int) -> np.ndarray:
        return self(replace(observed, images=images))["over_limit"]


def bounded(terms: Sequence[Term]) -> list[Bounded]:
    """The terms as racing needs them; raises ``UserError`` where one knows no lower bound."""
    found = [term for term in terms if isinstance(term, Bounded)]
    if len(found) < len(terms):
        raise UserError("racing needs a cost whose terms know a lower bound (a method lower): leave race out")
    return found


def parts(terms: Sequence[Term], observed: Observables) -> dict[str, np.ndarray]:
    """All parts by name, (P,) each."""
    named: dict[str, np.ndarray] = {}
    for term in terms:
        for name, value in term(observed).items():
            named[name] = named.get(name, 0) + np.asarray(value, np.float64)
    return named


def total(named: dict[str, np.ndarray]) -> np.ndarray:
    """The cost (P,): the sum of the parts."""
    return np.sum(list(named.values()), axis=0)
