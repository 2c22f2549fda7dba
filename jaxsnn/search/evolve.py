"""Algorithm 1: differential evolution over genes, each generation's population simulated at once.

As printed, the paper's algorithm starts from bestCost = 0, which nothing can improve, and leaves the selection
between parent and trial out; here it starts from +inf and selects greedily (eq. 7-9), in the engine.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import data
from evo import Engine
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import Genes
from jaxsnn.search.cost import Term, bounded, parts, total
from jaxsnn.search.racing import race
from jaxsnn.search.space import Decoder
from jaxsnn.simulation.observables import Observables

Evaluate = Callable[[Genes, np.ndarray], Observables]
"""Genes of P candidates and indices (B,) of training images to what the simulator counted."""


LEADERS = 8
"""Candidates that are kept for the final selection."""


@dataclass(frozen=True)
class Candidate:
    """A search vector (D,) with its ``cost``, the cost's ``parts`` and its ``accuracy`` (T,) on the subset.

    ``genes`` are what the vector stands for, one candidate; None in a checkpoint, which does not hold them.
    """

    vector: np.ndarray
    cost: float
    parts: dict[str, float]
    accuracy: np.ndarray
    genes: Genes | None = None


@dataclass(frozen=True)
class Racing:
    """Compare trials with their parents in ``blocks`` parts of the subset, at ``confidence`` (1: exact)."""

    blocks: int = 5
    confidence: float = 1.0

    @property
    def numbers(self) -> tuple[int, float]:
        """Both, as ``race`` takes them."""
        return self.blocks, self.confidence


@dataclass(frozen=True)
class Generation:
    """What one generation did; checkpoints hold it.

    Attributes:
        number: 0 is the initial population.
        leaders: some candidates of lowest cost, the best first: of all so far, or with a fresh subset
            each generation of those that were scored on this one's.
        mean, spread: mean and standard deviation of the population's costs.
        evaluations: candidates evaluated so far (nfe, eq. 10), parents that were scored again included.
        rescored: of these, parents that were scored again.
        image_evaluations: candidates x images so far (the numerator of eq. 17).
        seconds: since the start of this generation.
        converged: the engine has converged.
        last: no other generation follows, for that reason or because the evaluations are spent.
    """

    number: int
    leaders: tuple[Candidate, ...]
    mean: float
    spread: float
    evaluations: int
    rescored: int
    image_evaluations: int
    seconds: float
    converged: bool
    last: bool

    @property
    def best(self) -> Candidate:
        """The candidate of lowest cost."""
        return self.leaders[0]


def subsets(labels: np.ndarray, size: int, mode: str, seed: int, first: int = 0) -> Iterator[np.ndarray]:
    """Indices (size,) of each generation's mini-dataset, drawn from images with these ``labels``, none twice.

    Classes are balanced as far as they go, which takes a source of noise out of the accuracy.

    Args:
        mode: "fixed" draws once (Algorithm 1), "resample" again for every generation (the paper's text).
        first: the generation to begin with.

    Raises:
        UserError: fewer images than ``size``, or an unknown mode.
    """
    if size > len(labels):
        raise UserError(f"--images is {size}, but there are only {len(labels)} training images to draw from")
    if mode not in ("fixed", "resample"):
        raise UserError(f"the subset is {mode!r}, expected fixed or resample")
    for draw in itertools.count(first):
        yield data.balanced(labels, size, (seed, draw if mode == "resample" else 0), "the training split")


def score(
    vectors: np.ndarray,
    genes: Genes,
    observed: Observables,
    terms: Sequence[Term],
    finished: np.ndarray | None = None,
) -> tuple[Candidate, ...]:
    """Search vectors (P, D), and the genes they stand for, with their costs.

    NaN, and what has not ``finished`` (P,), costs +inf.
    """
    with np.errstate(invalid="ignore"):  # a race can end before the first image
        accuracy, named = observed.accuracy, parts(terms, observed)
    cost = np.nan_to_num(total(named), nan=np.inf, posinf=np.inf)
    if finished is not None:
        cost = np.where(finished, cost, np.inf)
    pieces = [{name: float(value[i]) for name, value in named.items()} for i in range(len(vectors))]
    each = [genes.candidate(i) for i in range(len(vectors))]
    return tuple(Candidate(*row) for row in zip(vectors, cost.tolist(), pieces, accuracy, each))


def select(
    leaders: Sequence[Candidate], codec: Decoder, terms: Sequence[Term], evaluate: Evaluate, indices: np.ndarray
) -> tuple[Candidate, ...]:
    """The leaders scored again on the (more) images ``indices``, the best first.

    The lowest of many noisy costs is lucky as well as good; more images tell which.
    """
    vectors = np.stack([leader.vector for leader in leaders])
    genes = codec.decode(vectors)
    return tuple(sorted(score(vectors, genes, evaluate(genes, indices), terms), key=lambda c: c.cost))


def _rivals(parents: np.ndarray, leaders: Sequence[Candidate] | None, keep: int) -> np.ndarray:
    """The costs (P,) that trials race against: their parents', or the last leader's where that is higher.

    A trial that its own parent beats can still be one of the ``keep`` leaders.
    """
    if leaders is None:
        return parents
    return np.maximum(parents, leaders[keep - 1].cost if len(leaders) >= keep else np.inf)


def evolve(
    engine: Engine,
    state: Any,
    codec: Decoder,
    terms: Sequence[Term],
    evaluate: Evaluate,
    subset: Iterator[np.ndarray],
    evaluations: int,
    resample: bool = False,
    racing: Racing | None = None,
    keep: int = LEADERS,
    after: Generation | None = None,
) -> Iterator[tuple[Generation, Any]]:
    """Run the search, one generation a step; the caller may stop after any.

    Args:
        state: the engine's, from ``engine.init``, or what was yielded with ``after``.
        evaluations: of trials, the initial population included. Generations follow while enough are left for one
            and the engine has not converged. Parents that are scored again are not counted.
        resample: score the parents again on the images their trials are scored on (common random numbers).
        racing: stop evaluating trials that are losing; needs an engine with greedy selection (differential
            evolution), which asks no more of a loser's cost than that it is higher.
        keep: number of leaders.
        after: resume after this generation, which an earlier call yielded; ``subset`` begins with the next one's.

    Yields:
        what the generation did, and the engine's state after it.
    """
    leaders: tuple[Candidate, ...] = ()
    raced = [] if racing is None else bounded(terms)
    asked = rescored = images = first = 0
    if after is not None:
        if after.last:
            return
        leaders, rescored, images = after.leaders, after.rescored, after.image_evaluations
        asked, first = after.evaluations - rescored, after.number + 1
    for number in itertools.count(first):
        started = time.perf_counter()
        indices = next(subset)
        candidates, state = engine.ask(state)
        candidates = np.array(candidates, np.float64)
        if number == 0:
            candidates[0] = codec.baseline_vector()  # the baseline competes, so that nothing worse is returned
        scored: tuple[Candidate, ...] = ()
        if resample and number:
            parents = np.asarray(engine.parents(state), np.float64)
            genes = codec.decode(parents)
            scored = score(parents, genes, evaluate(genes, indices), terms)
            state = engine.rescore(state, np.array([parent.cost for parent in scored]))
            rescored += len(parents)
            images += len(parents) * len(indices)
        genes = codec.decode(candidates)
        if racing is None or number == 0:
            trials = score(candidates, genes, evaluate(genes, indices), terms)
            images += len(candidates) * len(indices)
        else:
            rivals = _rivals(np.asarray(engine.costs(state), np.float64), None if resample else leaders, keep)
            observed, finished, used = race(evaluate, genes, indices, rivals, raced, *racing.numbers)
            trials = score(candidates, genes, observed, terms, finished)
            images += used
        asked += len(candidates)
        state = engine.tell(state, candidates, np.array([trial.cost for trial in trials]))
        leaders = tuple(sorted((scored if resample else leaders) + trials, key=lambda c: c.cost)[:keep])
        costs = np.asarray(engine.costs(state), np.float64)
        converged = bool(engine.converged(state))
        generation = Generation(
            number,
            leaders,
            float(costs.mean()),
            float(costs.std()) if np.isfinite(costs).all() else np.inf,
            asked + rescored,
            rescored,
            images,
            time.perf_counter() - started,
            converged,
            last=converged or evaluations - asked < len(costs),
        )
        yield generation, state
        if generation.last:
            return
