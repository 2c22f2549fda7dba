"""Baseline against optimised thresholds on test images: what a report says of a run."""

import functools
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version

import jax
import numpy as np

from jaxsnn.convert import ann_forward
from jaxsnn.errors import UserError
from jaxsnn.latency import compare
from jaxsnn.network import Network
from jaxsnn.plan import Plan
from jaxsnn.simulate import Observables, observe_images
from jaxsnn.snn import SNN, Dynamics, Genes
from jaxsnn.weights import Params


def check_data(network: Network, images: np.ndarray, classes: int, name: str) -> None:
    """Raise ``UserError`` where a dataset does not fit the network."""
    if images.shape[1:] != network.input_shape or classes != network.classes:
        raise UserError(
            f"network {network.name} takes images {network.input_shape} of {network.classes} classes, but {name} "
            f"has {images.shape[1:]} of {classes}: choose other --weights or other --data"
        )


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


def describe_device() -> str:
    """The device that the simulation runs on, for people to read."""
    device = jax.local_devices()[0]
    kind = platform.processor() or platform.machine() if device.platform == "cpu" else device.device_kind
    return f"{jax.device_count()} x {device.platform} ({kind})"


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    names = ("jaxsnn-evo", "jax", "jaxlib", "flax", "numpy", "evosax")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except ImportError:
            found[name] = "not installed"
    return found


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
