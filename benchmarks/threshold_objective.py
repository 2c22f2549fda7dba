"""The threshold search of the embedded network as an objective for `benchmarks.optimizers`.

The cost is that of `jaxsnn.optimize --preset demo`, in which the limit's term is an option. D = 10 thresholds
relative to the 99.7 percentile's, on one fixed, class-balanced subset of the embedded training images, so that the
same candidate costs the same for every optimiser and seed. A search that merely fits its subset is told from a
good one by the cost on other training images, which no optimiser sees. Test images are not touched.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import data
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.conversion.loading import load_snn
from jaxsnn.networks.spiking import SNN
from jaxsnn.optimize import OptimizeConfig
from jaxsnn.search.evolve import score, subsets
from jaxsnn.search.job import make_codec
from jaxsnn.search.objective import Objective
from jaxsnn.search.space import Codec


@dataclass(frozen=True)
class ThresholdSearch:
    """What a search of the embedded network's thresholds needs.

    Attributes:
        config: of the search; its engine is lshade for the plan alone: groups of one size keep one compiled shape,
            however many candidates an engine asks for.
        searched, fresh: training images (N, 32, 32, 3) that the search may see, and others.
        check_images: how many of the fresh ones a final cost is taken on.
    """

    config: OptimizeConfig
    snn: SNN
    codec: Codec
    searched: data.Dataset
    fresh: data.Dataset
    check_images: int

    def cost(self) -> Callable[[np.ndarray], np.ndarray]:
        """Costs (P,) of candidates (P, D) on the fixed subset."""
        return self._cost(self.config, self.searched)

    def fresh_cost(self) -> Callable[[np.ndarray], np.ndarray]:
        """Costs (P,) of candidates (P, D) on the fresh images, those of the limit among them."""
        count = self.check_images
        return self._cost(replace(self.config, images=count, limit_images=count), self.fresh)

    def _cost(self, config: OptimizeConfig, images: data.Dataset) -> Callable[[np.ndarray], np.ndarray]:
        objective = Objective(config, self.snn, images, plan=config.plan())
        indices = next(subsets(images.labels, config.images, "fixed", config.seed))

        def cost(points: np.ndarray) -> np.ndarray:
            genes = self.codec.decode(points)
            scored = score(points, genes, objective(genes, indices), objective.terms)
            return np.array([candidate.cost for candidate in scored])

        return cost


def threshold_search(images: int, timesteps: int, limit_images: int, check_images: int) -> ThresholdSearch:
    """The search of the embedded network's thresholds on ``images`` training images, T = ``timesteps``.

    ``limit_images`` are those of the accuracy as T grows, a term that 0 leaves out; ``check_images`` are those
    that no optimiser sees. In int8, so that a candidate costs the same in every batch.
    """
    terms: dict[str, Any] = {"limit_images": limit_images} if limit_images else {"limit": 0.0}
    config = OptimizeConfig(
        images=images, timesteps=timesteps, engine="lshade", precision="int8", **terms
    ).checked()
    snn, *_ = load_snn(None)
    train = data.load("embedded", "train")
    calibration = calibrate(snn.network, snn.params, train.images[data.balanced(train.labels, 500, 0, "train")])
    order = data.balanced(train.labels, len(train), 1, "train")
    fresh, searched = order[:check_images], order[check_images:]
    return ThresholdSearch(
        config,
        snn,
        make_codec(config, calibration),
        replace(train, images=train.images[searched], labels=train.labels[searched]),
        replace(train, images=train.images[fresh], labels=train.labels[fresh]),
        check_images,
    )
