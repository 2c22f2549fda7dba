"""The population simulator: P candidates x B images x T timesteps, counted, in one compiled scan.

The contract (everything later stands on it): ``observe(snn, genes, images, labels, timesteps, ...)`` returns
``Observables``, counts that add up exactly over chunks of images. Where several processes run together
(``jaxsnn.runtime.processes``), all call it alike, each simulates its share of the images, and all get
the same answer.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

import data
from jaxsnn.errors import UserError
from jaxsnn.networks.description import Arrays, Network
from jaxsnn.networks.fan_out import fan_out
from jaxsnn.networks.forward import check_images
from jaxsnn.networks.senders import own, senders
from jaxsnn.networks.spiking import SNN, Dynamics, Genes, check_dynamics, check_genes, check_single
from jaxsnn.runtime import processes
from jaxsnn.simulation import dense
from jaxsnn.simulation.backends import decided
from jaxsnn.simulation.cells import unroll
from jaxsnn.simulation.cells.burst import Several
from jaxsnn.simulation.cells.cell import Cell
from jaxsnn.simulation.divergence import check_teacher, divergences
from jaxsnn.simulation.events import run
from jaxsnn.simulation.observables import Observables
from jaxsnn.simulation.plan import Plan
from jaxsnn.simulation.step import State, initial_state, neurons_of, snn_step, wire


def observe(
    snn: SNN,
    genes: Genes,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    timesteps: int,
    dynamics: Dynamics = Dynamics(),
    plan: Plan = Plan(),
    progress: Callable[[int], None] | None = None,
    teacher: np.ndarray | None = None,
    cell: Cell | Sequence[Cell] | None = None,
) -> Observables:
    """Simulate every candidate on every image.

    Args:
        images: uint8 (B, H, W, C).
        labels: int (B,).
        timesteps: T, counted in the convention of ``dynamics.delay``.
        progress: called with the number of candidates x images that have just been finished.
        teacher: the ANN's class probabilities (B, classes), to count the divergence from.
        cell: neurons of another kind (``jaxsnn.simulation.cells``), or one for each spiking layer; dense only.

    Raises:
        UserError: thresholds that are not positive, wrong shapes, labels that are no classes, no images or no
            timesteps; cells that the plan cannot simulate.
    """
    return _run(snn, genes, images, labels, timesteps, dynamics, plan, progress, False, teacher, cell)[0]


def observe_images(
    snn: SNN,
    genes: Genes,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    timesteps: int,
    dynamics: Dynamics = Dynamics(),
    plan: Plan = Plan(),
    progress: Callable[[int], None] | None = None,
    cell: Cell | Sequence[Cell] | None = None,
) -> tuple[Observables, np.ndarray]:
    """Like ``observe``, and whether each image is right at each step: bool (P, B, T)."""
    observed, right = _run(snn, genes, images, labels, timesteps, dynamics, plan, progress, True, cell=cell)
    if right is None:
        raise ValueError("the answers of single images were not kept")
    return observed, right


def _run(
    snn: SNN,
    genes: Genes,
    images: np.ndarray,
    labels: np.ndarray,
    timesteps: int,
    dynamics: Dynamics,
    plan: Plan,
    progress: Callable[[int], None] | None,
    per_image: bool,
    teacher: np.ndarray | None = None,
    cell: Cell | Sequence[Cell] | None = None,
) -> tuple[Observables, np.ndarray | None]:
    """Observables and, if ``per_image``, right (P, B, T), of the images of all processes."""
    check_genes(snn.network, genes)
    check_dynamics(dynamics)
    if timesteps < 1:
        raise UserError(f"timesteps is {timesteps}, expected at least 1")
    check_images(snn.network, images)
    _check_labels(snn.network, labels, len(images))
    if teacher is not None:
        check_teacher(teacher, len(images), snn.network.classes)
    genes = genes.map(lambda part: np.asarray(part, np.float32))
    if dynamics.most > 1:
        if cell is not None:
            raise UserError("a cell says itself how many spikes it sends: leave most out of dynamics")
        cell = Several(most=dynamics.most)
    if cell is None:
        plan = decided(plan, snn.network)
        chunks = dense.chunks if plan.backend == "xla" else _event_chunks
    else:
        unroll.check(plan, dynamics)
        chunks = functools.partial(unroll.chunks, unroll.per_layer(snn.network, cell))
    candidates, layers = genes.threshold.shape
    mine = processes.share(len(images))
    # a process whose share is empty still has something to add up
    none = np.zeros((candidates, layers), np.int64)
    nothing = np.zeros((candidates, timesteps), np.int64)
    parts = [Observables(nothing, 0, none, none, divergence=None if teacher is None else nothing)]
    answers = [np.zeros((candidates, 0, timesteps), bool)]

    def advance(count: int) -> None:
        if progress:  # the others are about as far
            progress(round(count * len(images) / len(labels[mine])))

    seen, silent = mine.start, dynamics.silent_steps(snn.network)
    shared = data.part(images, mine)
    for correct, right, maps, count, scores in chunks(
        snn, genes, shared, labels[mine], timesteps, dynamics, plan, advance, per_image, teacher is not None
    ):
        counts = _count(snn.network, correct, maps, count)
        if teacher is not None:
            if scores is None:
                raise ValueError(f"back-end {plan.backend} gave no scores")
            each = divergences(teacher[seen : seen + count], scores, silent)
            counts = replace(counts, divergence=each.sum(1))
        seen += count
        parts.append(counts)
        answers.append(right)
    sums = functools.reduce(Observables.__add__, parts)
    counted = processes.total(
        [sums.correct, sums.spikes, sums.synops] + ([] if sums.divergence is None else [sums.divergence])
    )
    correct, spikes, synops, *rest = counted
    observed = Observables(correct, len(images), spikes, synops, divergence=rest[0] if rest else None)
    return observed, processes.gathered(np.concatenate(answers, 1)) if per_image else None


def _check_labels(network: Network, labels: np.ndarray, images: int) -> None:
    if len(labels) != images:
        raise UserError(f"there are {len(labels)} labels for {images} images, expected as many")
    wrong = np.flatnonzero((np.asarray(labels) < 0) | (np.asarray(labels) >= network.classes))
    if len(wrong):
        raise UserError(
            f"the label of image {wrong[0]} is {labels[wrong[0]]}, expected 0 to {network.classes - 1}: network "
            f"{network.name} knows {network.classes} classes"
        )


def _event_chunks(
    snn: SNN,
    genes: Genes,
    images: np.ndarray,
    labels: np.ndarray,
    timesteps: int,
    dynamics: Dynamics,
    plan: Plan,
    progress: Callable[[int], None],
    per_image: bool,
    scored: bool,
) -> Iterator[dense.Chunk]:
    """``dense.chunks`` with the event-driven back-end, which always knows each image's answer."""
    silent = min(timesteps, dynamics.silent_steps(snn.network))
    size = run.images_at_once(snn.network, plan)
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        answers, maps, scores = run.run(
            snn, genes, images[part], timesteps - silent, dynamics, plan, progress, scored
        )
        right = answers == labels[part, None]
        # before anything reaches the read-out all scores are zero and the first class wins
        first = np.broadcast_to((labels[part, None] == 0), (*right.shape[:2], silent))
        right = np.concatenate([first, right], -1)
        yield right.sum(1), right, maps, len(images[part]), scores


def _count(network: Network, correct: np.ndarray, maps: list[np.ndarray], images: int) -> Observables:
    """The counts of one chunk in int64, where they cannot overflow."""
    maps = [m.astype(np.int64) for m in maps]
    spikes = np.stack([maps[number].sum((1, 2)) for number in own(network)], 1)
    synops = np.zeros_like(spikes)
    for sender, fired, reach in zip(senders(network), maps, fan_out(network), strict=True):
        synops[:, sender.layer] += (fired * reach).sum((1, 2))
    return Observables(correct.astype(np.int64), images, spikes, synops)


def record(
    snn: SNN, genes: Genes, images: np.ndarray, timesteps: int, dynamics: Dynamics = Dynamics(delay="none")
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Everything that happens, for explanation and tests; memory grows with T.

    Delay-free steps: with a delay of one step per layer, layer l (1-based on the longest path) does the same l
    steps later.

    Returns:
        per spiking layer the membranes after the reset (P, T, B, *shape) float32 and the spikes (P, T, B, *shape)
        bool; and the scores (P, T, B, classes).
    """
    check_genes(snn.network, genes)
    check_single(dynamics, "a record is")
    genes = genes.map(lambda part: np.asarray(part, np.float32))
    states, spikes = _record(snn.network, dynamics, timesteps, snn.params, genes, images)
    membranes = [np.asarray(v) for v in states.membranes]
    fired = [np.asarray(spikes[number]) > 0 for number in own(snn.network)]
    return membranes, fired, np.asarray(states.scores)


@functools.partial(jax.jit, static_argnames=("network", "dynamics", "timesteps"))
def _record(
    network: Network, dynamics: Dynamics, timesteps: int, params: Arrays, genes: Genes, images: jax.Array
) -> tuple[State, list[jax.Array]]:
    wiring = wire(network, params, images, jnp.float32)

    def one(genes: Genes):
        neurons = neurons_of(network, genes, params)

        def step(state, _):
            state, spikes = snn_step(network, dynamics, wiring, neurons, state)
            return state, (state, spikes)

        return jax.lax.scan(step, initial_state(network, neurons, len(images)), length=timesteps)[1]

    return jax.vmap(one)(genes)
