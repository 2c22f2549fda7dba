"""The neurons of one layer, channel by channel, chosen on the currents that really arrive.

The start is the least-squared-error threshold of Li et al. (A free lunch from ANN: towards efficient, accurate
spiking neural networks calibration, ICML 2021) with half-full membranes, and their bias correction. Then come
threshold, bias and initial membrane of each channel, by coordinate descent on the squared error against the ANN's
activations.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import Dynamics
from jaxsnn.simulation.cells.burst import Several
from jaxsnn.simulation.neuron import if_step

MOST_TIMESTEPS = 1024
GRID = 1 - 0.01 * np.arange(95)
"""Thresholds that are tried, as fractions of the largest activation (Li et al.)."""
NARROW = 1e-3
"""Least threshold of a channel, relative to its layer's largest: below, it would blow up its row of weights."""
START = 0.5
"""Initial membrane at first: with it an even current's spikes are its rounded value."""
STARTS = (-1.0, 2.0)
"""Range of the initial membrane, in thresholds. Within [0, 1) errors were a little larger."""
SPREAD = {"threshold": 0.5, "bias": 0.4, "start": 0.4}
"""Half the width of what is tried at first: of the threshold's logarithm, and of the others in thresholds."""
SHRINK = 0.6
"""Factor on that width from sweep to sweep."""
AFTERWARDS = 2
"""Corrections of the mean error after the descent, which trades it for squared error."""
MEAN_WEIGHT = 16
"""Of a channel's squared mean error beside its mean squared error, where a correction is judged. In what the next
layer sums up single errors average out, but not those that all images share."""
UNROLLED = 32
"""Timesteps up to which XLA sees no loop: with more it compiles for minutes."""
POINTS = 11
"""Values that are tried for each number in a sweep."""


@dataclass(frozen=True)
class Recipe:
    """What is calibrated, for ``timesteps`` T without layer delay.

    Attributes:
        channels: a threshold for each channel; otherwise for each layer.
        correct: take the mean error of each channel back by its bias, after the descent and in the read-out; also
            before the descent where biases are no part of it.
        descend: what is chosen for each channel on its actual currents by coordinate descent, any of "threshold",
            "bias" and "start".
        amplitudes: let a spike be worth what fits best, rather than its threshold.
        reconstruct: change each layer's weights so that they fit the spikes that really arrive
            (``jaxsnn.conversion.reconstruction``).
        sweeps: of the descent.
        comparison: of the neuron, ">" or ">=".
        seed: draws the values that channels are fitted to where there are more than ``SAMPLE``.
        most: spikes that a neuron may send in one step, as in ``Dynamics``.
    """

    timesteps: int
    channels: bool = True
    correct: bool = True
    descend: tuple[str, ...] = ("threshold", "bias", "start")
    amplitudes: bool = True
    reconstruct: bool = False
    sweeps: int = 4
    comparison: str = ">"
    seed: int = 0
    most: int = 1

    def __post_init__(self):
        if not 1 <= self.timesteps <= MOST_TIMESTEPS:
            raise UserError(f"calibration is for {self.timesteps} timesteps, expected 1 to {MOST_TIMESTEPS}")
        _ = self.dynamics  # which checks comparison and most
        unknown = [name for name in self.descend if name not in SPREAD]
        if unknown:
            raise UserError(f"cannot calibrate {unknown[0]!r}: any of {', '.join(SPREAD)}")

    @property
    def dynamics(self) -> Dynamics:
        """How the neurons behave."""
        return Dynamics(self.comparison, "none", self.most)


@dataclass(frozen=True)
class LayerFit:
    """How well one layer's spikes, averaged over T steps, follow the ANN's activations, on the fitted values.

    Attributes:
        bias_error: root mean square over channels of the mean difference, relative to the root mean square
            activation.
        squared_error: mean squared difference relative to the mean square activation.
        before: the same two before the descent.
        seconds: that the layer took.
    """

    name: str
    bias_error: float
    squared_error: float
    before: tuple[float, float]
    seconds: float = 0.0


class Cells(tuple):
    """One layer's (threshold, amplitude, bias, start), (C,) each."""

    amplitude = property(lambda self: self[1])


def simulate(drive, theta, bias, start, timesteps: int, dynamics: Dynamics):
    """Spike counts (..., C) and spikes (T, ..., C) of neurons under a drive (T or 1, ..., C)."""

    def step(state, current):
        v, count = state
        received = (drive[0] if current is None else current) + bias
        if dynamics.most > 1:
            v, fired, _ = Several(most=dynamics.most).step(v, received, theta, None, jnp.int32(0))
        else:
            v, fired = if_step(v, received, theta, None, dynamics.comparison)
        return (v, count + fired), fired

    state = jnp.broadcast_to(start * theta, drive.shape[1:]), jnp.zeros(drive.shape[1:])
    currents = drive if len(drive) > 1 else None
    unroll = timesteps if timesteps <= UNROLLED else 1
    (_, count), spikes = jax.lax.scan(step, state, currents, timesteps, unroll=unroll)
    return count, spikes


def mmse_thresholds(activations: np.ndarray, timesteps: int, most: int = 1) -> np.ndarray:
    """Thresholds (C,) with the least squared error of half-full neurons under an even current, of a grid.

    Activations (S, C) are the ANN's. A channel that is never active gets the largest threshold of its layer, so
    that it stays silent, and none gets less than ``NARROW`` of that. With ``most`` spikes a step a neuron reaches
    its channel's largest activation at a threshold that is so much smaller.
    """
    top = activations.max(0) / most
    error = np.asarray(_mmse_errors(jnp.asarray(activations), jnp.asarray(top), timesteps, timesteps * most))
    theta = np.where(top > 0, top * GRID[error.argmin(0)], 0)
    return np.where(top > 0, np.maximum(theta, NARROW * theta.max()), theta.max()).astype(np.float64)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _mmse_errors(activations, top, timesteps, most):
    def one(fraction):
        unit = jnp.maximum(top * fraction, jnp.finfo(jnp.float32).tiny) / timesteps
        return ((unit * jnp.clip(jnp.floor(activations / unit + START), 0, most) - activations) ** 2).sum(0)

    return jax.lax.map(one, jnp.asarray(GRID, jnp.float32))


def fit_layer(
    currents: np.ndarray, targets: np.ndarray, recipe: Recipe, shape: np.ndarray | None = None, biased: bool = True
) -> tuple[Cells, tuple[float, float], tuple[float, float]]:
    """Neurons of one layer for currents (T or 1, S, C) that should bring out activations ``targets`` (S, C).

    Args:
        shape: what thresholds must be proportional to; None: nothing.
        biased: whether the layer can have a bias.

    Returns:
        the cells, and (bias_error, squared_error) of ``LayerFit`` before the descent and after.
    """
    channels = targets.shape[1]
    fixed = (jnp.asarray(currents), jnp.asarray(targets), recipe.timesteps, recipe.dynamics)
    free = recipe.amplitudes and shape is None
    if shape is None:
        theta = mmse_thresholds(targets, recipe.timesteps, recipe.most)
    else:
        scaled = np.asarray(targets / shape).reshape(-1, 1)  # one number for the whole layer
        theta = mmse_thresholds(scaled, recipe.timesteps, recipe.most)[0] * shape
    bias, start = np.zeros(channels), np.full(channels, START)
    names = [name for name in recipe.descend if biased or name != "bias"]
    correct = recipe.correct and biased
    # where biases are part of the descent, it ends in better places without a correction before it
    for _ in range(2 if correct and "bias" not in names else 0):
        bias = bias - np.asarray(_mean_errors(*_float(theta, bias, start), *fixed))
    before = _quality(theta, bias, start, fixed, False)
    first = np.asarray(_errors(*_float(theta, bias, start), *fixed, False)[0], np.float64)
    for sweep in range(recipe.sweeps):
        width = SHRINK**sweep
        for name in names:
            together = name == "threshold" and shape is not None
            theta, bias, start = _coordinate(theta, bias, start, name, width, fixed, free, together)
    if correct and names:
        bias = _corrected(theta, bias, start, fixed, free, first)
    amplitude = np.asarray(_errors(*_float(theta, bias, start), *fixed, free)[1], np.float64)
    amplitude = amplitude if free else theta
    return Cells((theta, amplitude, bias, start)), before, _quality(theta, bias, start, fixed, free)


def _corrected(theta, bias, start, fixed, free: bool, most: np.ndarray) -> np.ndarray:
    """Biases that take the mean errors back, in the channels where that does not cost more than it is worth.

    Args:
        most: squared errors (C,) that no channel may exceed.
    """

    def judged(biases: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Squared errors, what they and the mean errors cost, and what would take the latter back."""
        found = _errors(*_float(theta, biases, start), *fixed, free)
        squared, amplitude, mean = (np.asarray(part, np.float64) for part in found)
        return squared, squared + MEAN_WEIGHT * len(fixed[1]) * mean**2, mean * theta / amplitude

    squared, cost, excess = judged(bias)
    least, changed = cost, bias
    for _ in range(AFTERWARDS):
        changed = changed - excess
        squared, cost, excess = judged(changed)
    return np.where((cost <= least) & (squared <= most), changed, bias)


def _float(*parts: np.ndarray) -> tuple:
    return tuple(np.asarray(part, np.float32) for part in parts)


def _coordinate(theta, bias, start, name: str, width: float, fixed, free: bool, together: bool) -> tuple:
    """The best of some values of one number for each channel, or of one factor for all ``together``."""
    steps = (np.linspace(-1, 1, POINTS) * width * SPREAD[name])[:, None]
    tried = [np.broadcast_to(part, (POINTS, len(part))) for part in (theta, bias, start)]
    if name == "threshold":
        tried[0] = theta * np.exp(steps)
    elif name == "bias":
        tried[1] = bias + steps * theta
    else:
        tried[2] = np.clip(start + steps, *STARTS)
    error = np.asarray(_try_all(*_float(*tried), *fixed, free), np.float64)
    if together:
        error = np.broadcast_to(error.sum(1, keepdims=True), error.shape)
    # of equals the one nearest to what was there, which is in the middle
    order = np.argsort(np.abs(steps[:, 0]), kind="stable")
    best = order[error[order].argmin(0)]
    return tuple(np.take_along_axis(part, best[None], 0)[0] for part in tried)


@functools.partial(jax.jit, static_argnums=(5, 6, 7))
def _try_all(theta, bias, start, currents, targets, timesteps, dynamics, free):
    """Squared errors (K, C) of K candidates (K, C)."""
    return jax.lax.map(
        lambda one: _errors(*one, currents, targets, timesteps, dynamics, free)[0], (theta, bias, start)
    )


@functools.partial(jax.jit, static_argnums=(5, 6, 7))
def _errors(theta, bias, start, currents, targets, timesteps, dynamics, free):
    """Per channel the squared error, the amplitude (the best where it is ``free``), and the mean error."""
    rate = simulate(currents, theta, bias, start, timesteps, dynamics)[0] / timesteps
    amplitude = theta
    if free:
        best = (rate * targets).sum(0) / jnp.maximum((rate * rate).sum(0), jnp.finfo(jnp.float32).tiny)
        amplitude = jnp.where(best > 0, best, theta)
    error = amplitude * rate - targets
    return (error * error).sum(0), amplitude, error.mean(0)


def _mean_errors(theta, bias, start, *fixed):
    return _errors(theta, bias, start, *fixed, False)[2]


def _quality(theta, bias, start, fixed, free: bool) -> tuple[float, float]:
    """Bias error and squared error, as in ``LayerFit``."""
    squared, _, mean = (
        np.asarray(part, np.float64) for part in _errors(*_float(theta, bias, start), *fixed, free)
    )
    targets = np.asarray(fixed[1], np.float64)
    power = (targets**2).mean()
    return float(np.sqrt((mean**2).mean() / power)), float(squared.sum() / targets.size / power)
