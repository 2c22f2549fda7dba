"""A search from Python: one call, on one's own images and with one's own cost if wished."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import data
from evo.names import unknown
from jaxsnn.conversion.calibration import Calibration
from jaxsnn.conversion.start import Start
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import SNN
from jaxsnn.search.evolve import Generation
from jaxsnn.search.job import calibrated_on, make_job
from jaxsnn.search.presets import FEW
from jaxsnn.search.settings import SearchSettings
from jaxsnn.simulation.observables import Observables
from jaxsnn.simulation.plan import Plan

Cost = Callable[[Observables], np.ndarray]
"""Counts of P candidates to their costs (P,); lower is better."""


def evolve(
    snn: SNN | Start,
    train: data.Dataset | tuple[np.ndarray, np.ndarray],
    *,
    cost: Cost | None = None,
    calibration: Calibration | None = None,
    plan: Plan = Plan(),
    progress: Callable[[int], None] | None = None,
    settings: SearchSettings | None = None,
    **changes: Any,
) -> Iterator[Generation]:
    """Search a converted network's genes by differential evolution (the paper's Algorithm 1).

    Nothing is printed, no signal is taken and no file is written: stop by leaving the loop.

    Args:
        snn: a converted network, whose thresholds are searched; or one of ``jaxsnn.calibrate``, around which the
            search goes on: its genes are those of ``start.snn``.
        train: training images and labels; a pair of arrays, uint8 (N, H, W, C) and int (N,), will do.
        cost: instead of eq. 11 and the other terms of ``settings``.
        calibration: percentiles of the activations; by default those on ``settings.calibration_images`` images.
        progress: called with the candidates x images that have just been simulated.
        settings: by default those of the preset "thresholds", or "few" around a calibrated network.
        changes: settings by name, such as ``population=12``.

    Yields:
        each generation; ``generation.best`` is the best candidate so far, with its ``genes`` and ``cost``.

    Raises:
        UserError: settings that contradict each other or do not fit the network or the images.

    >>> import data, jaxsnn
    >>> train = data.load("embedded", "train")
    >>> search = jaxsnn.evolve(jaxsnn.load(), train, population=4, generations=1, images=8, timesteps=14,
    ...                        calibration_images=20, cost=lambda seen: seen.spikes.sum(-1))
    >>> [generation.number for generation in search]
    [0, 1]
    """
    start = snn if isinstance(snn, Start) else None
    snn = snn.ann if isinstance(snn, Start) else snn
    if settings is None:
        settings = (
            SearchSettings()
            if start is None
            else replace(FEW, timesteps=start.timesteps, spikes_per_step=start.most)
        )
    if wrong := sorted(changes.keys() - vars(settings).keys()):
        raise UserError(unknown("setting of a search", wrong[0], vars(settings)))
    settings = replace(settings, **changes).checked()
    if start is None and settings.start == "calibrated":
        raise UserError('start is "calibrated": give what jaxsnn.calibrate returns instead of the network')
    images = as_dataset(*train, snn.network.classes) if isinstance(train, tuple) else train
    if not hasattr(images, "images"):
        raise UserError(f"train is a {type(train).__name__}, expected a dataset or a tuple (images, labels)")
    if images.images.shape[1:] != snn.network.input_shape:
        raise UserError(
            f"network {snn.network.name} takes images {snn.network.input_shape}, but these are "
            f"{images.images.shape[1:]}"
        )
    most = max(settings.images, settings.calibration_images if calibration is None and start is None else 0)
    if most > len(images):
        raise UserError(
            f"images is {settings.images} and calibration_images {settings.calibration_images}, but there are "
            f"only {len(images)} training images"
        )
    known = calibrated_on(settings, snn, images) if calibration is None and start is None else calibration
    terms = None if cost is None else [lambda observed: {"cost": np.asarray(cost(observed), np.float64)}]
    job = make_job(settings, snn, images, known, start=start, plan=plan, terms=terms, progress=progress)
    return (generation for generation, _ in job.generations(job.start()))


def as_dataset(images: np.ndarray, labels: np.ndarray, classes: int) -> data.Dataset:
    """Arrays as a data set; raises ``DataError`` where they are not one."""
    names = tuple(str(number) for number in range(classes))
    return data.Dataset(np.asarray(images), np.asarray(labels, np.int32), names, "own", "train", "arrays")
