"""What candidates are measured by where there is more than one cost: all of it smaller for a better one."""

import math

import numpy as np

from jaxsnn.analysis.energy import HOROWITZ, snn_energy
from jaxsnn.analysis.memory_energy import snn_with_memory
from jaxsnn.analysis.operations import Activity, neurons
from jaxsnn.networks.description import Network
from jaxsnn.simulation.divergence import UNIT
from jaxsnn.simulation.observables import Observables


def microjoules(network: Network, observed: Observables, steps: float, kind: str) -> np.ndarray:
    """Energy of an image, (P,), of candidates that act for ``steps`` steps.

    Args:
        kind: a format of ``jaxsnn.analysis.energy.HOROWITZ``, or "with memory".
    """
    found = []
    for spikes, synops in zip(observed.spikes / observed.images, observed.synops / observed.images):
        activity = Activity(steps, tuple(spikes.tolist()), tuple(synops.tolist()))
        if kind == "with memory":
            each = snn_with_memory(network, activity)
        else:
            each = snn_energy(network, activity, HOROWITZ[kind])
        found.append(math.fsum(each) * 1e-6)
    return np.array(found)


def measures(network: Network, observed: Observables, silent: int, kind: str) -> dict[str, np.ndarray]:
    """What can be an objective, of P candidates that were read after their last step, each (P,); less is better.

    accuracy: the share of wrong answers. latency: timesteps. energy: microjoules an image. synops: millions an
    image. peak: spikes a neuron and step of the busiest layer. divergence: nats an image, where it was counted.

    Args:
        silent: steps of a layer delay, in which nothing is done for the answer.
        kind: of the energy.
    """
    timesteps = observed.correct.shape[1]
    share = observed.spikes / (observed.images * timesteps * np.asarray(neurons(network)))
    found = {
        "accuracy": 1 - observed.accuracy[:, -1],
        "latency": np.full(len(share), float(timesteps)),
        "energy": microjoules(network, observed, timesteps - silent, kind),
        "synops": observed.synops.sum(-1) / observed.images / 1e6,
        "peak": share.max(-1),
    }
    if observed.divergence is not None:
        found["divergence"] = observed.divergence[:, -1] / (observed.images * UNIT)
    return found
