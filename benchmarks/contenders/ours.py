"""Our simulator as a contender."""

import numpy as np

from benchmarks.problem import CHECK_STEPS, Problem
from jaxsnn.simulation.observables import Observables


class Ours:
    """``jaxsnn.simulation.observe.observe`` with one plan, whose fields are ``plan``."""

    def __init__(self, problem: Problem, plan: dict):
        from jaxsnn.networks.spiking import SNN
        from jaxsnn.networks.weights import to_device
        from jaxsnn.simulation.plan import Plan

        self.problem, self.plan = problem, Plan(**plan)
        self.snn = SNN(problem.network, to_device(problem.params))

    def run(self, images: int, timesteps: int, delay: str, candidates: int = 1, scale: float = 1.0) -> dict:
        """Simulate the first candidates on the first images; per layer spikes and synops of all of them."""
        observed = self._observe(images, timesteps, delay, candidates, scale, np.zeros(images, np.int64))
        return {"spikes": observed.spikes.sum(0).tolist(), "synops": observed.synops.sum(0).tolist()}

    def check(self, images: int) -> dict:
        """Predictions by asking how many images get the reference's class; the error is that of all spikes."""
        predicted = self.problem.check_scores[:images].argmax(-1)
        observed = self._observe(images, CHECK_STEPS, "none", 1, 1.0, predicted)
        expected = self.problem.check_spikes
        error = np.abs(observed.spikes[0] - expected).max() / expected.max()
        return {"differing": int(images - observed.correct[0, -1]), "error": float(error), "of": "spikes"}

    def _observe(
        self, images: int, timesteps: int, delay: str, candidates: int, scale: float, labels: np.ndarray
    ) -> Observables:
        from jaxsnn.networks.spiking import Dynamics, Genes
        from jaxsnn.simulation.observe import observe

        genes = Genes(self.problem.thresholds[:candidates] * np.float32(scale))
        dynamics = Dynamics(delay=delay)
        return observe(
            self.snn,
            genes,
            self.problem.images[:images],
            labels,
            timesteps=timesteps,
            dynamics=dynamics,
            plan=self.plan,
        )
