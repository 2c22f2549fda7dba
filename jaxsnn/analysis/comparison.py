"""Baseline against optimised thresholds on test images."""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import jax
import numpy as np

from jaxsnn.analysis.latency import gain_intervals, latency_rows
from jaxsnn.analysis.results import NetworkResult, TestResult
from jaxsnn.errors import UserError
from jaxsnn.networks.description import Arrays, Network
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.spiking import SNN, Dynamics, Genes, check_dynamics, check_genes
from jaxsnn.simulation.cells.cell import Cell
from jaxsnn.simulation.observables import Observables
from jaxsnn.simulation.observe import observe_images
from jaxsnn.simulation.plan import Plan

TIMESTEPS = 100
"""Timesteps of a comparison, beside the layer delay, where the caller asks for none: the paper's."""


class LabeledImages(Protocol):
    """What ``compare`` needs of a dataset: uint8 images (B, H, W, C) and their classes (B,)."""

    @property
    def images(self) -> np.ndarray: ...

    @property
    def labels(self) -> np.ndarray: ...


def compare(
    snn: SNN,
    baseline: Genes,
    optimized: Genes | tuple[SNN, Genes],
    test: LabeledImages | tuple[np.ndarray, np.ndarray],
    timesteps: int | None = None,
    dynamics: Dynamics = Dynamics(),
    plan: Plan = Plan(),
) -> TestResult:
    """Two candidates on test images: timesteps to each target with their intervals, accuracies, spikes.

    >>> import data, jaxsnn
    >>> train, test = (data.load("embedded", split) for split in ("train", "test"))
    >>> snn = jaxsnn.load()
    >>> activations = jaxsnn.percentiles(snn, train.images[:50])
    >>> few = test.images[:40], test.labels[:40]
    >>> result = jaxsnn.compare(snn, activations.genes(99.7), activations.genes(99.7, v0=0.5), few, timesteps=30)
    >>> result.latency[-1].target_name, len(result.baseline.accuracy)
    ('ANN - 5', 30)

    ``print(result)`` shows a short table.

    Args:
        baseline, optimized: one candidate each, (1, L) or (L,); the latter with its network where that has weights
            of its own, as a calibrated one has.
        test: a dataset, or images, uint8 (B, H, W, C), and their classes (B,).
        timesteps: T; None for 100 after the layer delay.

    Raises:
        UserError: more than one candidate, or genes, images or timesteps that do not fit the network.
    """
    check_dynamics(dynamics)
    images, labels = test if isinstance(test, tuple) else (test.images, test.labels)
    if timesteps is None:
        timesteps = TIMESTEPS + dynamics.silent_steps(snn.network)
    network, genes = (snn, optimized) if isinstance(optimized, Genes) else optimized
    rivals = (snn, one_candidate(baseline, "baseline")), (network, one_candidate(genes, "optimized"))
    for rival in rivals:
        check_genes(rival[0].network, rival[1])
    return compare_networks(
        *rivals,
        np.asarray(images),
        np.asarray(labels),
        timesteps,
        dynamics,
        plan,
    )


def one_candidate(genes: Genes, name: str) -> Genes:
    """Genes (1, L) of one candidate, which may lack the leading axis; raises ``UserError`` where it is not one."""
    found = genes.map(np.atleast_2d)
    if len(found.threshold) != 1:
        raise UserError(f"{name} has {len(found.threshold)} candidates, expected one: take genes.candidate(index)")
    return found


def compare_networks(
    baseline: tuple[SNN, Genes],
    optimized: tuple[SNN, Genes],
    images: np.ndarray,
    labels: np.ndarray,
    timesteps: int,
    dynamics: Dynamics,
    plan: Plan = Plan(),
    progress: Callable[[int], None] | None = None,
    half_full: bool = False,
    cell: Sequence[Cell] | None = None,
) -> TestResult:
    """Two networks, which may have weights of their own, on all of ``images``, once; the ANN is the baseline's.

    Args:
        baseline, optimized: a network and one candidate (1, L) each.
        images: uint8 (B, H, W, C).
        labels: int (B,).
        progress: called with the number of candidates x images that have just been finished.
        half_full: compare the baseline with membranes that start half full, too.
        cell: neurons of another kind, one for each spiking layer of either network.
    """
    rivals = [baseline, *([(baseline[0], half_full_of(baseline[1]))] if half_full else []), optimized]
    pairs: list[tuple[Observables, int]] = []
    right: list[np.ndarray] = []
    for snn, group in itertools.groupby(rivals, key=lambda rival: rival[0]):
        genes = functools.reduce(Genes.stack, [genes for _, genes in group])
        observed, hits = observe_images(
            snn,
            genes,
            images,
            labels,
            timesteps=timesteps,
            dynamics=dynamics,
            plan=plan,
            progress=progress,
            cell=cell,
        )
        pairs += [(observed, candidate) for candidate in range(len(hits))]
        right += [*hits]
    snn = baseline[0]
    ann = ann_right(snn.network, snn.params, images, labels)
    ends = (0, len(rivals) - 1)
    found = comparison(
        snn.network, ann, [pairs[e] for e in ends], np.stack([right[e] for e in ends]), labels, dynamics
    )
    return replace(
        found,
        baseline=found.baseline.with_genes(baseline[1]),
        optimized=found.optimized.with_genes(optimized[1]),
        half_full=NetworkResult.of_counts(*pairs[1], rivals[1][1]) if half_full else None,
    )


def half_full_of(genes: Genes) -> Genes:
    """The same genes with membranes that start at half of their thresholds."""
    return genes._replace(v0=np.full_like(np.asarray(genes.threshold, np.float64), 0.5))


def comparison(
    network: Network,
    ann: np.ndarray,
    observed: Sequence[tuple[Observables, int]],
    right: np.ndarray,
    labels: np.ndarray,
    dynamics: Dynamics,
) -> TestResult:
    """What ``compare_networks`` finds, from networks that may have weights of their own; without their genes.

    Args:
        ann: (B,) whether the ANN is right.
        observed: of the baseline and of the optimised network, the counts and which candidate of theirs it is.
        right: (2, B, T) whether they are right.
    """
    steps = network.delay
    if dynamics.delay == "layer":
        other = right[:, :, steps:]
    else:
        # before anything reaches the read-out all scores are zero and the first class wins
        silent = np.broadcast_to((labels == 0)[None, :, None], (2, len(labels), steps))
        other = np.concatenate([silent, right], -1)
    baseline, optimized = (NetworkResult.of_counts(counts, candidate) for counts, candidate in observed)
    return TestResult(
        ann_accuracy=float(ann.mean()),
        test_images=len(labels),
        timesteps=right.shape[-1],
        delay=dynamics.delay,
        delay_steps=steps,
        baseline=baseline,
        optimized=optimized,
        latency=latency_rows(right[0], right[1], ann),
        latency_other_delay=latency_rows(other[0], other[1], ann) if other.shape[-1] else (),
        accuracy_gain_ci95=gain_intervals(right[0], right[1]),
    )


def ann_right(
    network: Network, params: Arrays, images: np.ndarray, labels: np.ndarray, batch: int = 250
) -> np.ndarray:
    """Which images the ANN classifies right, bool (B,); the network is folded."""
    starts = range(0, len(images), batch)
    return np.concatenate(
        [np.asarray(_classes(network, params, images[s : s + batch])) == labels[s : s + batch] for s in starts]
    )


@functools.partial(jax.jit, static_argnames="network")
@jax.default_matmul_precision("highest")  # a GPU would take TF32
def _classes(network, params, images):
    return ann_forward(network, params, images)[-1].argmax(-1)
