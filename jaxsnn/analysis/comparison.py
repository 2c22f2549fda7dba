"""Baseline against optimised thresholds on test images: what a report says of a run."""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from jaxsnn.analysis.latency import compare
from jaxsnn.networks.description import Network, Params
from jaxsnn.networks.forward import ann_forward
from jaxsnn.networks.spiking import SNN, Dynamics, Genes
from jaxsnn.simulation.observables import Observables
from jaxsnn.simulation.observe import observe_images
from jaxsnn.simulation.plan import Plan


def ann_right(
    network: Network, params: Params, images: np.ndarray, labels: np.ndarray, batch: int = 250
) -> np.ndarray:
    """Which images the ANN classifies right, bool (B,); the network is folded."""
    starts = range(0, len(images), batch)
    return np.concatenate(
        [np.asarray(_classes(network, params, images[s : s + batch])) == labels[s : s + batch] for s in starts]
    )


@functools.partial(jax.jit, static_argnames="network")
def _classes(network, params, images):
    return ann_forward(network, params, images)[-1].argmax(-1)


def stack(first: Genes, second: Genes) -> Genes:
    """Candidates of both, in that order; a gene that only one of them sets has its usual value in the other."""
    joined = []
    for one, two, usual in zip(first, second, (None, 0.0, 1.0)):
        if one is None and two is None:
            joined.append(None)
        else:
            one = np.full_like(first.threshold, usual) if one is None else one
            two = np.full_like(second.threshold, usual) if two is None else two
            joined.append(np.concatenate([one, two]))
    return Genes(*joined)


def compare_on_test(
    snn: SNN,
    baseline: Genes,
    optimized: Genes,
    images: np.ndarray,
    labels: np.ndarray,
    timesteps: int,
    dynamics: Dynamics,
    plan: Plan = Plan(),
    progress: Callable[[int], None] | None = None,
) -> dict:
    """Both networks on all of ``images``, once; ``baseline`` and ``optimized`` hold one candidate each.

    Returns:
        the test part of results.json: ann_accuracy, test_images, timesteps, delay, delay_steps, baseline,
        optimized (accuracy[T], spikes_per_image, synops_per_image), latency, and latency_other_delay: the same
        rows in the other convention.
    """
    ann = ann_right(snn.network, snn.params, images, labels)
    genes = stack(baseline, optimized)
    observed, right = observe_images(snn, genes, images, labels, timesteps, dynamics, plan, progress)
    return comparison(snn.network, ann, [(observed, 0), (observed, 1)], right, labels, dynamics)


def comparison(
    network: Network,
    ann: np.ndarray,
    observed: Sequence[tuple[Observables, int]],
    right: np.ndarray,
    labels: np.ndarray,
    dynamics: Dynamics,
) -> dict:
    """What ``compare_on_test`` returns.

    Args:
        ann: (B,) whether the ANN is right.
        observed: of the baseline and of the optimised network, the counts and which candidate of theirs it is.
        right: (2, B, T) whether they are right.
    """
    steps = network.delay
    if dynamics.delay == "layer":
        other = right[:, :, steps:]
    else:
        silent = np.broadcast_to((labels == 0)[None, :, None], (2, len(labels), steps))
        other = np.concatenate([silent, right], -1)
    networks = [
        {
            "accuracy": counts.accuracy[i].tolist(),
            "spikes_per_image": float(counts.spikes[i].sum() / counts.images),
            "synops_per_image": float(counts.synops[i].sum() / counts.images),
        }
        for counts, i in observed
    ]
    return {
        "ann_accuracy": float(ann.mean()),
        "test_images": len(labels),
        "timesteps": right.shape[-1],
        "delay": dynamics.delay,
        "delay_steps": steps,
        "baseline": networks[0],
        "optimized": networks[1],
        "latency": compare(right[0], right[1], ann),
        "latency_other_delay": compare(other[0], other[1], ann) if other.shape[-1] else [],
    }
