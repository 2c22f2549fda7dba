"""What the search minimises: the cost of candidates on training images."""

import functools
from dataclasses import replace

import numpy as np

import data
from jaxsnn import cost
from jaxsnn.limit import limit_correct
from jaxsnn.network import Network, layer_shapes
from jaxsnn.settings import OptimizeConfig
from jaxsnn.simulate import Observables, Plan, observe
from jaxsnn.snn import SNN, Dynamics, Genes


def cost_terms(config: OptimizeConfig, network: Network) -> list[cost.Term]:
    """Eq. 11 and the terms that have a weight."""
    neurons = tuple(int(np.prod(shape)) for shape in layer_shapes(network)[:-1])
    extra = [
        (config.area, lambda weight: cost.Area(weight)),
        (config.limit, lambda weight: cost.Limit(weight)),
        (config.spike_weight, lambda weight: cost.Spikes(weight)),
        (config.synop_weight, lambda weight: cost.SynapticOperations(weight)),
        (config.energy_weight, lambda weight: cost.Energy(weight)),
        (config.peak_weight, lambda weight: cost.PeakActivity(weight, neurons)),
    ]
    first = cost.AccuracyLatency(config.alpha, config.beta, config.gamma)
    return [first, *(make(weight) for weight, make in extra if weight)]


def plan_of(config: OptimizeConfig) -> Plan:
    """How to simulate; where the population shrinks, groups of one size keep the compiled shape."""
    return Plan(config.rows, group=4 if config.race is not None or config.engine == "lshade" else None)


class Objective:
    """What the search minimises: a configuration's cost of genes on training images."""

    def __init__(self, config: OptimizeConfig, snn: SNN, train: data.Dataset, progress=None):
        """``progress`` is called with the candidates x images that have just been simulated."""
        self.terms = cost_terms(config, snn.network)
        self._observe = functools.partial(
            observe,
            snn,
            timesteps=config.timesteps,
            dynamics=Dynamics(config.comparison, config.delay),
            plan=plan_of(config),
            progress=progress,
        )
        self._snn = snn
        self._train = train
        self._limit_plan = plan_of(config)
        self.limit_passes = 0
        count = min(config.limit_images, len(train)) if config.limit else 0
        self._limit = data.balanced(train.labels, count, config.seed, "the training split") if count else None

    def __call__(self, genes: Genes, indices: np.ndarray) -> Observables:
        """Counts of P candidates on the training images ``indices``."""
        train = self._train
        observed = self._observe(genes, images=train.images[indices], labels=train.labels[indices])
        if self._limit is None:
            return observed
        images, labels = train.images[self._limit], train.labels[self._limit]
        self.limit_passes += len(genes.threshold) * len(labels)
        right = limit_correct(self._snn, genes, images, labels, self._limit_plan)
        return replace(observed, limit_correct=right, limit_images=len(labels))
