"""Racing: a trial that can no longer beat its rival is not evaluated on the remaining images.

Images are simulated block by block. After each block, limits on the number of images that a candidate will have
right at each step turn into a lower bound of its cost; once that lies above the rival's, the candidate is out.

The accuracy as T goes to infinity (``cost.Limit``) has images of its own and is known before the first block, so
that a candidate which it alone puts out is not simulated at all.

With confidence 1 the limits are certain (the remaining images are all wrong, or all right), so the bound is true
and a search on a fixed subset with greedy selection takes exactly the same course. Below 1 the limits are those of
the normal approximation for a sample drawn without replacement, one-sided at this confidence for each step: a
candidate that would have won is lost with about the remaining probability.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np

from jaxsnn.networks.spiking import Genes
from jaxsnn.search.cost import Bounded, Bounds, Limit
from jaxsnn.simulation.observables import Observables


def bounds(observed: Observables, images: int, confidence: float) -> Bounds:
    """Lowest and highest number of right answers after all ``images``, from those counted so far, (P, T) each."""
    seen, right = observed.images, observed.correct
    rest = images - seen
    if confidence == 1 or not seen:
        return Bounds(right, right + rest)
    share = right / seen
    # an accuracy of 0 or 1 on a few images proves nothing: one more image on each side (Laplace)
    smooth = (right + 1) / (seen + 2)
    slack = NormalDist().inv_cdf(confidence) * images * np.sqrt(smooth * (1 - smooth) / seen * rest / images)
    expected = right + share * rest
    return Bounds(np.maximum(right, expected - slack), np.minimum(right + rest, expected + slack))


def race(
    evaluate: Callable[[Genes, np.ndarray], Observables],
    genes: Genes,
    indices: np.ndarray,
    rivals: np.ndarray,
    terms: Sequence[Bounded],
    blocks: int,
    confidence: float,
) -> tuple[Observables, np.ndarray, int]:
    """Evaluate candidates against the ``rivals``' costs (P,), in ``blocks`` equal parts of ``indices``.

    Where one of the terms is a ``Limit``, ``evaluate`` is first called without indices, to count what needs none.

    Returns:
        counts (P, ...), complete for the candidates that finished; which ones did, bool (P,); and how many
        candidates x images were simulated.
    """
    alive = np.arange(len(rivals))
    total: Observables | None = None
    used = 0
    parts = np.array_split(indices, min(blocks, len(indices)))
    if any(isinstance(term, Limit) for term in terms):
        parts = [indices[:0], *parts]
    for block in parts:
        part = evaluate(genes.map(lambda gene, rows=alive: gene[rows]), block)
        used += len(alive) * len(block)
        whole = _scatter(part, alive, len(rivals))
        total = whole if total is None else _add(total, whole)
        known = bounds(total, len(indices), confidence)
        bound = sum((term.lower(total, known, len(indices)) for term in terms), np.zeros(len(rivals)))
        # the bound adds up in another order than the cost: a rounding must not put out a candidate that ties
        alive = alive[bound[alive] * (1 - 1e-12) <= rivals[alive]]
        if not len(alive):
            break
    if total is None:
        raise ValueError("no images to race on")
    finished = np.zeros(len(rivals), bool)
    finished[alive] = True
    return total, finished, used


def _add(total: Observables, part: Observables) -> Observables:
    """Counts over the images of both; the limit's images are the same each time, and ``total`` counted them."""
    both = replace(total, limit_correct=None) + replace(part, limit_correct=None)
    return replace(both, limit_correct=total.limit_correct, limit_images=total.limit_images)


def _scatter(part: Observables, rows: np.ndarray, count: int) -> Observables:
    def full(values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        out = np.zeros((count, *values.shape[1:]), values.dtype)
        out[rows] = values
        return out

    return replace(
        part,
        correct=full(part.correct),
        spikes=full(part.spikes),
        synops=full(part.synops),
        limit_correct=full(part.limit_correct),
        divergence=full(part.divergence),
    )
