"""The population simulator: P candidates x B images x T timesteps, counted, in one compiled scan.

The contract (everything later stands on it): ``observe(snn, genes, images, labels, timesteps, ...)`` returns
``Observables``, counts that add up exactly over chunks of images. Where several processes run together
(``jaxsnn.hosts``), all call it alike, each simulates its share of the images, and all get the same answer.
"""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn import events, hosts, xla
from jaxsnn.errors import UserError
from jaxsnn.network import Network
from jaxsnn.plan import Plan
from jaxsnn.snn import SNN, Dynamics, Genes, check_genes, initial_state, neurons_of, snn_step, wire
from jaxsnn.synops import fan_out


@dataclass(frozen=True)
class Observables:
    """Counts over ``images`` images: add two of them for the union of their images.

    Attributes:
        correct: (P, T) images whose class is right when the scores are read after step t = 1..T.
        spikes: (P, L) spikes of each layer. With a layer delay those are left out that can no longer reach the
            read-out within T: they would cost energy on hardware that goes on, but change no result.
        synops: (P, L) synaptic operations that these spikes cause: a spike counts once for every weight that
            it drives (padding left out). The constant input current is not spikes and is not counted.
        limit_correct: (P,) of ``limit_images`` that are right as T goes to infinity (``jaxsnn.limit``), where
            that was asked for.
    """

    correct: np.ndarray
    images: int
    spikes: np.ndarray
    synops: np.ndarray
    limit_correct: np.ndarray | None = None
    limit_images: int = 0

    @property
    def accuracy(self) -> np.ndarray:
        """Acc(t) in [0, 1], (P, T)."""
        return self.correct / self.images

    def __add__(self, other: "Observables") -> "Observables":
        return Observables(
            self.correct + other.correct,
            self.images + other.images,
            self.spikes + other.spikes,
            self.synops + other.synops,
        )


def observe(
    snn: SNN,
    genes: Genes,
    images: np.ndarray,
    labels: np.ndarray,
    timesteps: int,
    dynamics: Dynamics = Dynamics(),
    plan: Plan = Plan(),
    progress: Callable[[int], None] | None = None,
) -> Observables:
    """Simulate every candidate on every image.

    Args:
        images: uint8 (B, H, W, C).
        labels: int (B,).
        timesteps: T, counted in the convention of ``dynamics.delay``.
        progress: called with the number of candidates x images that have just been finished.

    Raises:
        UserError: thresholds that are not positive, wrong shapes, no images or no timesteps.
    """
    return _run(snn, genes, images, labels, timesteps, dynamics, plan, progress, per_image=False)[0]


def observe_images(
    snn: SNN,
    genes: Genes,
    images: np.ndarray,
    labels: np.ndarray,
    timesteps: int,
    dynamics: Dynamics = Dynamics(),
    plan: Plan = Plan(),
    progress: Callable[[int], None] | None = None,
) -> tuple[Observables, np.ndarray]:
    """Like ``observe``, and whether each image is right at each step: bool (P, B, T)."""
    return _run(snn, genes, images, labels, timesteps, dynamics, plan, progress, per_image=True)


def resolve(plan: Plan, network: Network) -> Plan:
    """The plan with "auto" and the number of threads decided.

    Events pay below a density of about a half, where every converted network is; they cannot do bfloat16.

    Raises:
        UserError: the event-driven back-end was asked for and cannot be.
    """
    obstacle = _obstacle(plan, network)
    if plan.backend == "events" and obstacle:
        raise UserError(f"the event-driven back-end {obstacle}: use --backend xla or auto")
    on_cpu = jax.default_backend() == "cpu"
    chosen = (
        "events" if plan.backend == "events" or (plan.backend == "auto" and on_cpu and not obstacle) else "xla"
    )
    return replace(plan, backend=chosen, threads=plan.threads or len(os.sched_getaffinity(0)))


def describe(plan: Plan, network: Network) -> str:
    """The path that is taken, for people to read."""
    chosen = resolve(plan, network)
    if chosen.backend == "events":
        return f"event-driven in {chosen.precision}"
    slower = jax.default_backend() == "cpu" and plan.backend == "auto" and not events.available()
    return f"XLA in {chosen.precision}" + (" (event-driven is faster: install the extra cpu)" if slower else "")


def _obstacle(plan: Plan, network: Network) -> str | None:
    if plan.mesh is not None:
        return "runs on one device"
    if not events.available():
        return "needs Numba (install the extra cpu)"
    if plan.precision == "bfloat16":
        return "computes in float32 or int8, not in bfloat16"
    return events.obstacle(network)


def _run(
    snn, genes, images, labels, timesteps, dynamics, plan, progress, per_image
) -> tuple[Observables, np.ndarray | None]:
    """Observables and, if ``per_image``, right (P, B, T), of the images of all processes."""
    check_genes(snn.network, genes)
    if timesteps < 1:
        raise UserError(f"timesteps is {timesteps}, expected at least 1")
    if not len(images) or images.shape[1:] != snn.network.input_shape:
        raise UserError(f"images have shape {images.shape}, expected (N >= 1, *{snn.network.input_shape})")
    genes = Genes(*(None if part is None else np.asarray(part, np.float32) for part in genes))
    plan = resolve(plan, snn.network)
    chunks = xla.chunks if plan.backend == "xla" else _event_chunks
    candidates, layers = genes.threshold.shape
    mine = hosts.share(len(images))
    # a process whose share is empty still has something to add up
    none = np.zeros((candidates, layers), np.int64)
    parts = [Observables(np.zeros((candidates, timesteps), np.int64), 0, none, none)]
    answers = [np.zeros((candidates, 0, timesteps), bool)]

    def advance(count: int) -> None:
        if progress:  # the others are about as far
            progress(round(count * len(images) / len(labels[mine])))

    for correct, right, maps, count in chunks(
        snn, genes, images[mine], labels[mine], timesteps, dynamics, plan, advance, per_image
    ):
        parts.append(_count(snn.network, correct, maps, count))
        answers.append(right)
    sums = functools.reduce(Observables.__add__, parts)
    counted = hosts.total([sums.correct, sums.spikes, sums.synops])
    observed = Observables(counted[0], len(images), *counted[1:])
    return observed, hosts.gathered(np.concatenate(answers, 1)) if per_image else None


def _event_chunks(snn, genes, images, labels, timesteps, dynamics, plan, progress, per_image):
    silent = min(timesteps, dynamics.silent_steps(snn.network))
    size = events.images_at_once(snn.network, plan)
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        answers, maps = events.run(snn, genes, images[part], timesteps - silent, dynamics, plan, progress)
        right = answers == labels[part, None]
        # before anything reaches the read-out all scores are zero and the first class wins
        first = np.broadcast_to((labels[part, None] == 0), (*right.shape[:2], silent))
        right = np.concatenate([first, right], -1)
        yield right.sum(1), right, maps, len(images[part])


def _count(network: Network, correct: np.ndarray, maps: list[np.ndarray], images: int) -> Observables:
    """The counts of one chunk in int64, where they cannot overflow."""
    maps = [m.astype(np.int64) for m in maps]
    spikes = np.stack([m.sum((1, 2)) for m in maps], 1)
    synops = np.stack([(m * reach).sum((1, 2)) for m, reach in zip(maps, fan_out(network))], 1)
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
    genes = Genes(*(None if part is None else np.asarray(part, np.float32) for part in genes))
    states, spikes = _record(snn.network, dynamics, timesteps, snn.params, genes, images)
    membranes = [np.asarray(v) for v in states.membranes]
    return membranes, [np.asarray(s) > 0 for s in spikes], np.asarray(states.scores)


@functools.partial(jax.jit, static_argnames=("network", "dynamics", "timesteps"))
def _record(network, dynamics, timesteps, params, genes, images):
    wiring = wire(network, params, images, jnp.float32)

    def one(genes: Genes):
        neurons = neurons_of(network, genes)

        def step(state, _):
            state, spikes = snn_step(network, dynamics, wiring, neurons, state)
            return state, (state, spikes)

        return jax.lax.scan(step, initial_state(network, neurons, len(images)), length=timesteps)[1]

    return jax.vmap(one)(genes)
