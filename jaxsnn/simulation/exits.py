"""One candidate, image by image and step by step; an image whose read-out is sure may stop.

``trace`` records what each image does at each step: its scores, spikes and synaptic operations. With a rule an
image stops after the first step at which the rule is sure of it, and does nothing from there on. What is recorded
until then is the same as without a rule, on either back-end: an exit saves work and changes nothing else.

Event-driven, a stopped image costs nothing more: the last one of its task takes its place. With XLA the images
that are left are gathered into an array of half the size whenever they fit into one, between blocks of steps;
until then stopped ones are carried along, uncounted.
"""

import functools
import operator
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.networks.description import Arrays, Network
from jaxsnn.networks.fan_out import fan_out
from jaxsnn.networks.senders import Sender, senders
from jaxsnn.networks.spiking import SNN, Dynamics, Genes, check_genes
from jaxsnn.simulation import dense
from jaxsnn.simulation.backends import decided
from jaxsnn.simulation.divergence import log_softmax
from jaxsnn.simulation.events import run
from jaxsnn.simulation.integers import (
    integer_neurons,
    integer_pixels,
    quantize,
    readout_units,
    wire_integers,
)
from jaxsnn.simulation.plan import Plan
from jaxsnn.simulation.step import Neurons, State, Wiring, initial_state, neurons_of, snn_block, wire

KINDS = ("margin", "entropy")

IMAGES_A_TASK = 64
"""Images that a thread simulates together, step by step: of a few, a layer's weights would not stay in cache."""


def confidence(scores: np.ndarray, kind: str, first: int = 0) -> np.ndarray:
    """How sure a read-out is after steps first + 1, ...: (..., n) of scores (..., n, classes), summed over time.

    "margin": between the two highest scores a step; "entropy": of the class probabilities, in nats, negative.
    """
    mean = scores / np.arange(first + 1, first + scores.shape[-2] + 1)[:, None]
    if kind == "margin":
        second, first = np.moveaxis(np.partition(mean, -2, axis=-1)[..., -2:], -1, 0)
        return first - second
    logarithms = log_softmax(mean)
    return (np.exp(logarithms) * logarithms).sum(-1)


@dataclass(frozen=True)
class ExitRule:
    """An image stops after the first step whose confidence is at least that step's threshold.

    Attributes:
        kind: of ``confidence``.
        thresholds: of steps 1 to T, a layer delay not counted; none stops where the threshold is infinite.
    """

    kind: str
    thresholds: tuple[float, ...]

    def __post_init__(self):
        if self.kind not in KINDS:
            raise UserError(f"the exit rule is {self.kind!r}, expected one of {', '.join(KINDS)}")

    def sure(self, scores: np.ndarray, first: int = 0) -> np.ndarray:
        """Whether images may stop after steps first + 1, ...: bool (B, n) of scores (B, n, classes)."""
        limits = np.asarray(self.thresholds)[first : first + scores.shape[1]]
        return confidence(scores, self.kind, first) >= limits


@dataclass(frozen=True)
class Trace:
    """What each of B images did at each of T steps; a layer delay is not among them.

    Attributes:
        scores: (B, T, classes) in the units of the ANN's, summed over time.
        steps: (B,) after how many steps each image stopped; T for one that did not.
        spikes, synops: (B, T, L) of each spiking layer, and the weights that these spikes drove, int64.
        row_steps: images x steps that were computed, also of stopped images that were still carried along.

    What is later than an image's last step is 0.
    """

    scores: np.ndarray
    steps: np.ndarray
    spikes: np.ndarray
    synops: np.ndarray
    row_steps: int

    @property
    def answers(self) -> np.ndarray:
        """The class (B,) that each image is given when it stops."""
        return self.scores[np.arange(len(self.steps)), self.steps - 1].argmax(-1)


def trace(
    snn: SNN,
    genes: Genes,
    images: np.ndarray,
    timesteps: int,
    comparison: str = ">",
    plan: Plan = Plan(),
    rule: ExitRule | None = None,
    progress: Callable[[int], None] | None = None,
) -> Trace:
    """Simulate one candidate (1, L) on uint8 images (B, H, W, C) for ``timesteps`` steps, without layer delay.

    Args:
        rule: when an image may stop; None: never. It has one threshold a step.
        progress: called with the number of images that have just been finished.

    Raises:
        UserError: genes, images or a rule that do not fit, or a plan for several devices.
    """
    check_genes(snn.network, genes)
    if len(genes.threshold) != 1:
        raise UserError(f"a trace is of one candidate, not of {len(genes.threshold)}")
    if timesteps < 1 or not len(images) or images.shape[1:] != snn.network.input_shape:
        raise UserError(
            f"images have shape {images.shape} and timesteps is {timesteps}, expected at least one image "
            f"{snn.network.input_shape} and at least 1"
        )
    if rule is not None and len(rule.thresholds) != timesteps:
        raise UserError(
            f"the exit rule has {len(rule.thresholds)} thresholds, expected one for each of {timesteps}"
        )
    if plan.mesh not in (None, (1, 1)):
        raise UserError("images stop early on one device only: leave --mesh out")
    genes = genes.map(lambda part: np.asarray(part, np.float32))
    plan = decided(plan, snn.network)
    counts = (len(images), timesteps, len(snn.network.spiking))
    found = Trace(
        np.zeros((len(images), timesteps, snn.network.classes)),
        np.full(len(images), timesteps),
        np.zeros(counts, np.int64),
        np.zeros(counts, np.int64),
        0,
    )
    reaches = list(zip(senders(snn.network), (reach.reshape(-1) for reach in fan_out(snn.network))))
    pieces = _events if plan.backend == "events" else _dense
    computed = 0
    dynamics = Dynamics(comparison, "none")
    for piece in pieces(snn, genes, images, timesteps, dynamics, plan, rule):
        _note(found, piece, reaches)
        computed += piece.computed
        if progress is not None and piece.finished:
            progress(piece.finished)
    return Trace(found.scores, found.steps, found.spikes, found.synops, computed)


class _Piece(NamedTuple):
    """What some images did at a few steps.

    Attributes:
        rows: (n,) which images; ``first``, the steps before these.
        scores: (n, count, classes); ``maps``, per sender spikes (n, count, positions).
        last: (n,) how many of these steps each image did before it stopped; ``count`` where it goes on.
        stopped: (n,) whether it stopped.
        computed: images x steps; ``finished``, images that will do no more.
    """

    rows: np.ndarray
    first: int
    scores: np.ndarray
    maps: list[np.ndarray]
    last: np.ndarray
    stopped: np.ndarray
    computed: int
    finished: int


def _piece(
    rows: np.ndarray,
    first: int,
    scores: np.ndarray,
    maps: list[np.ndarray],
    computed: int,
    timesteps: int,
    rule: ExitRule | None,
) -> _Piece:
    """With who of the images stops, and after which of these steps."""
    count = scores.shape[1]
    sure = np.zeros(scores.shape[:2], bool) if rule is None else rule.sure(scores, first)
    stopped = np.asarray(sure.any(1))
    last = np.where(stopped, sure.argmax(1) + 1, count)
    finished = len(rows) if first + count == timesteps else int(stopped.sum())
    return _Piece(rows, first, scores, maps, last, stopped, computed, finished)


def _note(found: Trace, piece: _Piece, reaches: list[tuple[Sender, np.ndarray]]) -> None:
    """Write a piece into the arrays of a trace."""
    count = piece.scores.shape[1]
    done = np.arange(count) < piece.last[:, None]
    span = slice(piece.first, piece.first + count)
    found.scores[piece.rows, span] = np.where(done[..., None], piece.scores, 0)
    found.steps[piece.rows[piece.stopped]] = piece.first + piece.last[piece.stopped]
    for spikes, (sender, reach) in zip(piece.maps, reaches):
        if sender.pool is None:
            found.spikes[piece.rows, span, sender.layer] = spikes.sum(-1, dtype=np.int64) * done
        found.synops[piece.rows, span, sender.layer] += (spikes @ reach) * done


def _events(
    snn: SNN,
    genes: Genes,
    images: np.ndarray,
    timesteps: int,
    dynamics: Dynamics,
    plan: Plan,
    rule: ExitRule | None,
) -> Iterator[_Piece]:
    """Event-driven: a task's images step by step, those that go on in front."""
    size = run.images_at_once(snn.network, plan)
    for start in range(0, len(images), size):
        part = images[start : start + size]
        ready = run.prepared(snn, genes, np.asarray(part), timesteps, dynamics, plan)
        threads = run.threads_of(plan)
        each = max(1, min(IMAGES_A_TASK, -(-len(part) // threads)))
        tasks = [slice(first, min(first + each, len(part))) for first in range(0, len(part), each)]
        with ThreadPoolExecutor(threads) as pool:
            waiting = [pool.submit(_task, ready, mine, start, timesteps, rule) for mine in tasks]
            for done in as_completed(waiting):
                yield from done.result()


def _task(ready: run.Prepared, part: slice, start: int, timesteps: int, rule: ExitRule | None) -> list[_Piece]:
    layers = ready.layers
    last = layers[-1]
    cell, shared = ready.of(0, part)
    drives = [np.array(drive) if len(drive) > 1 else drive for drive in shared]  # rows of it will move
    left = part.stop - part.start
    state = run.begin(layers, drives, left)
    rows, pieces = np.arange(part.start, part.stop) + start, []
    for step in range(timesteps):
        going = jax.tree.map(operator.itemgetter(slice(left)), state)
        mine = [drive[:left] if len(drive) > 1 else drive for drive in drives]
        maps = [np.zeros(shape[0] * shape[1], np.int64) for shape in run.sent_shapes(layers)]
        curve, starts, _ = run.advance(layers, cell, mine, going, 1, maps, fresh=not step)
        scores = curve[..., : last.shape[-1]] * ready.units[0]
        spikes = [np.diff(each) for each in starts]
        piece = _piece(rows[:left].copy(), step, scores, spikes, left, timesteps, rule)
        pieces.append(piece)
        left = _gather([*jax.tree.leaves(state), rows, *(d for d in drives if len(d) > 1)], piece.stopped)
        if not left:
            break
    return pieces


def _gather(arrays: list[np.ndarray], stopped: np.ndarray) -> int:
    """Move rows that go on into the places of those that stopped, in every array; returns how many go on."""
    left = int((~stopped).sum())
    holes, movers = np.flatnonzero(stopped[:left]), left + np.flatnonzero(~stopped[left:])
    for array in arrays:
        array[holes] = array[movers]
    return left


def _dense(
    snn: SNN,
    genes: Genes,
    images: np.ndarray,
    timesteps: int,
    dynamics: Dynamics,
    plan: Plan,
    rule: ExitRule | None,
) -> Iterator[_Piece]:
    """XLA: a chunk of images block by block, gathered where half the rows suffice."""
    network, params, unit = snn.network, snn.params, 1.0
    integer = plan.precision == "int8"
    inputs = np.asarray
    if integer:
        integers = quantize(snn)
        network, params, unit = integers.network, integers.kernels, float(readout_units(integers, genes)[0])
        inputs = functools.partial(integer_pixels, integers)
        neurons = jax.tree.map(lambda v: v[0], integer_neurons(integers, genes, timesteps))
    else:
        neurons = neurons_of(network, jax.tree.map(lambda v: v[0], genes), params)
    size = min(len(images), dense.rows_at_once(snn, dynamics, timesteps, True, plan, 1))
    block = min(timesteps, plan.block or max(1, timesteps // 16))
    for start in range(0, len(images), size):
        rows = np.arange(start, min(start + size, len(images)))
        chunk = np.asarray(images[rows[0] : rows[-1] + 1])
        chunk = inputs(np.pad(chunk, ((0, size - len(rows)), (0, 0), (0, 0), (0, 0))))
        constants, state = _begin(network, plan.precision, params, neurons, chunk)
        places = np.arange(len(rows))  # of the images that go on, among the rows on the device
        for first in range(0, timesteps, block):
            count = min(block, timesteps - first)
            state, scores, spikes = _advance(
                network, dynamics, plan.precision, count, params, neurons, constants, state
            )
            held = len(state.scores)
            own = np.asarray(scores, np.float64).swapaxes(0, 1)[places] * unit
            maps = [np.asarray(each).swapaxes(0, 1)[places].astype(np.int64) for each in spikes]
            piece = _piece(rows, first, own, maps, held * count, timesteps, rule)
            yield piece
            rows, places = rows[~piece.stopped], places[~piece.stopped]
            if not len(rows):
                break
            smaller = held
            while len(rows) <= smaller // 2:
                smaller //= 2
            if smaller < held:
                keep = np.concatenate([places, np.full(smaller - len(places), places[0])])
                constants, state, places = *_kept((constants, state), keep, held), np.arange(len(rows))


@functools.partial(jax.jit, static_argnames=("network", "precision"))
def _begin(
    network: Network, precision: str, params: Arrays, neurons: Neurons, images: jax.Array
) -> tuple[list[jax.Array], State]:
    """The constant drives of a chunk of images, and its state before the first step."""
    kind = jnp.int32 if precision == "int8" else jnp.float32
    constants = _wired(network, precision, params, images).constant
    return constants, initial_state(network, neurons, len(images), kind)


def _wired(network: Network, precision: str, params: Arrays, images: jax.Array) -> Wiring:
    if precision == "int8":
        return wire_integers(network, params, images)
    return wire(network, params, images, precision)


@functools.partial(jax.jit, static_argnames=("network", "dynamics", "precision", "count"))
def _advance(
    network: Network,
    dynamics: Dynamics,
    precision: str,
    count: int,
    params: Arrays,
    neurons: Neurons,
    constants: list[jax.Array],
    state: State,
) -> tuple[State, jax.Array, list[jax.Array]]:
    """``count`` steps: the new state, scores (count, B, classes), and per sender spikes (count, B, positions)."""
    blank = jnp.zeros((1, *network.input_shape), jnp.float32)
    wiring = (
        wire_integers(network, params, blank) if precision == "int8" else wire(network, params, blank, precision)
    )
    state, spikes, scores = snn_block(
        network, dynamics, wiring._replace(constant=constants), neurons, state, count
    )
    maps = [s.reshape(*s.shape[:2], -1, s.shape[-1]).sum(-1).astype(jnp.int32) for s in spikes]
    return state, scores, maps


def _kept(parts, keep: np.ndarray, held: int):
    """The rows ``keep`` of every array that has a row for each of the ``held`` images."""
    return jax.tree.map(lambda v: v[keep] if v.ndim and len(v) == held else v, parts)
