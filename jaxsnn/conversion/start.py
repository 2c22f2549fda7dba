"""A network that is ready for few timesteps: what a search starts around, and what a Python user asks for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.conversion.channel_fit import LayerFit, Recipe
from jaxsnn.conversion.channels import fold_channels
from jaxsnn.conversion.few_timesteps import calibrate_for
from jaxsnn.networks.spiking import SNN, Genes


@dataclass(frozen=True, eq=False)
class Start:
    """A calibrated network.

    Attributes:
        snn: the network, its channels folded in.
        genes: (1, L), to run it with.
        ann: the network before, whose ANN is the measure.
        timesteps: that it is calibrated for, without layer delay.
        fits: how well each spiking layer follows the ANN.
        changed: what was done to weights beyond folding: "reconstructed", "distilled".
        most: spikes that a neuron may send in one step: observe it with ``Dynamics(delay="none", most=most)``.
    """

    snn: SNN
    genes: Genes
    ann: SNN
    timesteps: int
    fits: tuple[LayerFit, ...] = ()
    changed: tuple[str, ...] = ()
    most: int = 1


def calibrate(
    snn: SNN,
    images: np.ndarray,
    timesteps: int,
    *,
    reconstruct: bool = True,
    progress: Callable[[int], None] | None = None,
    **changes: Any,
) -> Start:
    """A network prepared for ``timesteps`` steps on uint8 training images (N, H, W, C), without labels.

    >>> import data, jaxsnn
    >>> train = data.load("embedded", "train", limit=16)
    >>> start = jaxsnn.calibrate(jaxsnn.load(), train.images, timesteps=2, sweeps=1, reconstruct=False)
    >>> dynamics = jaxsnn.Dynamics(delay="none")
    >>> seen = jaxsnn.observe(start.snn, start.genes, train.images, train.labels, timesteps=2, dynamics=dynamics)
    >>> len(start.fits), seen.accuracy.shape
    (7, (1, 2))

    Neurons that may send several spikes in a step need fewer steps, and about as many spikes in all:

    >>> start = jaxsnn.calibrate(jaxsnn.load(), train.images, timesteps=1, most=2, sweeps=1, reconstruct=False)
    >>> dynamics = jaxsnn.Dynamics(delay="none", most=start.most)
    >>> seen = jaxsnn.observe(start.snn, start.genes, train.images, train.labels, timesteps=1, dynamics=dynamics)
    >>> seen.accuracy.shape
    (1, 1)

    Args:
        timesteps: T, without layer delay.
        reconstruct: change weights, too (``jaxsnn.conversion.reconstruction``).
        progress: called with what has just been done of ``jaxsnn.conversion.few_timesteps.work``.
        changes: of ``jaxsnn.conversion.channel_fit.Recipe``, by name.

    Raises:
        UserError: images that do not fit, weights that are not finite, a layer that is never active, or max pools
            where neurons may send several spikes a step.
    """
    recipe = Recipe(timesteps, reconstruct=reconstruct, **changes)
    found = calibrate_for(snn, images, recipe, progress)
    folded, genes = fold_channels(found.snn, found.channels)
    changed = ("reconstructed",) if reconstruct else ()
    return Start(folded, genes, snn, timesteps, found.fits, changed, recipe.most)
