"""What a kind of neuron is to the simulator: where its state begins, and one step of it.

A user's own is a frozen dataclass on ``Cell`` with ``step``, and ``init`` where its state is more than a membrane:

    @dataclass(frozen=True)
    class Halving(Cell):
        def step(self, state, drive, theta, leak, t):
            v, spikes = if_step(state, drive, theta * 0.5**t, leak)
            return Fired(v, spikes, theta * 0.5**t)

``jaxsnn.observe(..., cell=Halving())`` simulates a converted network with it, or with one cell for each layer.
Only the dense back-end does; thresholds and initial membranes are genes as ever, and currents are in the units of
the ANN's activations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from jaxsnn.simulation.neuron import Fire

Coding = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""What the image sends at a step: normalised image (H, W, C), step counted from 0, random key -> (H, W, C)."""


class Fired(NamedTuple):
    """What one step of a layer gives.

    Attributes:
        state: for the next step.
        spikes: of each neuron, bool, or how many; below 0 those that take back.
        worth: what one spike is worth to the layers that it drives, broadcast to ``spikes``.
    """

    state: Any
    spikes: jax.Array
    worth: jax.Array | float


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A kind of neuron.

    Attributes:
        coding: how the image comes in; None is a constant current, computed once.
        fire: spikes of membranes at a threshold, 0.0 or 1.0, in place of ``>``, where a gradient is wanted.
    """

    coding: Coding | None = None
    fire: Fire | None = None

    def init(self, v: jax.Array, theta: jax.Array) -> Any:
        """The state before the first step: any pytree; here the membranes ``v`` (B, *shape) alone."""
        return v

    def step(self, state: Any, drive: jax.Array, theta: jax.Array, leak: jax.Array | None, t: jax.Array) -> Fired:
        """One step: ``drive`` (B, *shape), ``theta`` and ``leak`` (None is 1) numbers, ``t`` from 0 on."""
        raise NotImplementedError(f"{type(self).__name__} has no step")

    def bias(self, t: jax.Array) -> jax.Array | float:
        """Factor on the network's biases at step ``t``."""
        return 1.0
