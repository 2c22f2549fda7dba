"""What the search minimises: the cost of candidates on training images."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

import data
from jaxsnn.analysis.adversarial import AttackedImages, ann_victim
from jaxsnn.networks.description import Network, layer_shapes
from jaxsnn.networks.spiking import SNN, Genes
from jaxsnn.search import cost
from jaxsnn.search.settings import SearchSettings
from jaxsnn.simulation.clipped_ann import limit_correct
from jaxsnn.simulation.divergence import probabilities
from jaxsnn.simulation.observables import Observables
from jaxsnn.simulation.observe import observe
from jaxsnn.simulation.plan import Plan
from jaxsnn.training.distillation import teacher_logits

MEAN_OVER_TIME = 0.03
"""Weight of the divergence's mean over t beside the one at T. At 0 the early steps are free to be wrong; at 0.3
they, which diverge by nats where T does by hundredths, were most of the cost, and T lost by it."""


def cost_terms(settings: SearchSettings, network: Network) -> list[cost.Term]:
    """The terms that have a weight; eq. 11 where no other has."""
    neurons = tuple(int(np.prod(shape)) for shape in layer_shapes(network)[:-1])
    extra = [
        (settings.area, lambda weight: cost.Area(weight)),
        (settings.limit, lambda weight: cost.Limit(weight)),
        (settings.spike_weight, lambda weight: cost.Spikes(weight)),
        (settings.synop_weight, lambda weight: cost.SynapticOperations(weight)),
        (settings.energy_weight, lambda weight: cost.Energy(weight)),
        (settings.peak_weight, lambda weight: cost.PeakActivity(weight, neurons)),
        (settings.divergence, lambda weight: cost.Divergence(weight, MEAN_OVER_TIME * weight)),
    ]
    others = [make(weight) for weight, make in extra if weight]
    if others and not settings.paper_cost:
        return others
    return [cost.AccuracyLatency(settings.alpha, settings.beta, settings.gamma), *others]


def search_plan(settings: SearchSettings, plan: Plan) -> Plan:
    """The plan of a search: where the population shrinks, groups of one size keep the compiled shape."""
    return replace(plan, group=4 if settings.race is not None or settings.engine == "lshade" else plan.group)


class Objective:
    """What the search minimises: the cost of genes on training images.

    With an attack, ``attacked`` holds the attacked images, each crafted once on the ANN.
    """

    def __init__(
        self,
        settings: SearchSettings,
        snn: SNN,
        train: data.Dataset,
        *,
        plan: Plan = Plan(),
        terms: Sequence[cost.Term] | None = None,
        teacher: SNN | None = None,
        progress: Callable[[int], None] | None = None,
    ):
        """``teacher``: the network whose ANN the divergence is from; ``snn`` itself unless it was calibrated.

        ``terms`` of the cost: those of the settings, unless given; ``limit`` counts with the former alone.

        ``progress`` is called with the candidates x images that have just been simulated.
        """
        self.terms = cost_terms(settings, snn.network) if terms is None else list(terms)
        plan = search_plan(settings, plan)
        self._observe = functools.partial(
            observe, snn, timesteps=settings.timesteps, dynamics=settings.dynamics, plan=plan, progress=progress
        )
        self._timesteps, self._most = settings.timesteps, settings.spikes_per_step
        divergent = any(isinstance(term, cost.Divergence) for term in self.terms)
        self._teacher = (teacher or snn) if divergent else None
        self._taught: tuple[bytes, np.ndarray] = (b"", np.empty(0))
        self._snn = snn
        self._train = train
        # one compiled shape, however many candidates are new
        self._limit_plan = replace(plan, group=plan.group or settings.population)
        self._limit_known: dict[tuple[bool, bytes], int] = {}
        self.limit_passes = 0
        attack = settings.attack_used
        self._mix = settings.attack_mix
        self.attacked = (
            None if attack is None else AttackedImages(ann_victim(snn), attack, train.images, train.labels)
        )
        wanted = any(isinstance(term, cost.Limit) for term in self.terms)
        count = min(settings.limit_images, len(train)) if wanted else 0
        self._limit = data.balanced(train.labels, count, settings.seed, "the training split") if count else None

    @property
    def network(self) -> Network:
        """Of the network whose genes are searched."""
        return self._snn.network

    @property
    def gradient_passes(self) -> int:
        """Forward and backward passes of the ANN, times images, that attacks have taken so far."""
        return 0 if self.attacked is None else self.attacked.gradient_passes

    def memory(self) -> dict[str, np.ndarray]:
        """What later results or counts depend on from earlier calls, for a checkpoint."""
        batches = [] if self.attacked is None else self.attacked.batches
        keys = list(self._limit_known)
        return {
            "crafted": np.concatenate([np.empty(0, np.int64), *batches]),
            "crafted_sizes": np.array([len(batch) for batch in batches], np.int64),
            "limit_attacked": np.array([attacked for attacked, _ in keys], np.bool_),
            "limit_thresholds": np.array([np.frombuffer(theta) for _, theta in keys], np.float64).reshape(
                len(keys), len(self._snn.network.spiking)
            ),
            "limit_right": np.array(list(self._limit_known.values()), np.int64),
            "limit_passes": np.array(self.limit_passes, np.int64),
        }

    def remember(self, memory: dict[str, np.ndarray]) -> None:
        """Take over the ``memory`` of another objective of the same configuration; attacks are crafted again.

        Raises:
            ValueError: not such a memory.
        """

        def kinds(parts: dict[str, np.ndarray]) -> dict:
            return {name: (part.dtype, part.ndim, part.shape[1:]) for name, part in parts.items()}

        expected = kinds(self.memory())
        if kinds(memory) != expected:
            raise ValueError(f"the objective's memory is not {', '.join(expected)}")
        attacked, thresholds, right = (memory[f"limit_{name}"] for name in ("attacked", "thresholds", "right"))
        crafted, sizes = memory["crafted"], memory["crafted_sizes"]
        batches = np.split(crafted, np.cumsum(sizes)[:-1]) if len(sizes) else []
        if not len(attacked) == len(thresholds) == len(right) or [*map(len, batches)] != sizes.tolist():
            raise ValueError("the parts of the objective's memory have different lengths")
        if len(batches):
            attacked_images = self.attacked
            if attacked_images is None or not 0 <= crafted.min() <= crafted.max() < len(self._train):
                raise ValueError("the objective's memory holds attacks on images that do not exist")
            for batch in batches:
                attacked_images(batch)
        self._limit_known = {
            (bool(on), theta.tobytes()): int(count) for on, theta, count in zip(attacked, thresholds, right)
        }
        self.limit_passes = int(memory["limit_passes"])

    def __call__(self, genes: Genes, indices: np.ndarray) -> Observables:
        """Counts of P candidates on the training images ``indices``, clean, attacked, or what is made of both.

        Without indices, the counts are zero but for the limit's, which has images of its own.
        """
        if self.attacked is None:
            return self._view(genes, indices, self._train.images.__getitem__)
        attacked = self._view(genes, indices, self.attacked)
        if self._mix == "attacked":
            return attacked
        clean = self._view(genes, indices, self._train.images.__getitem__)
        return clean + attacked if self._mix == "both" else worse(self.terms, clean, attacked)

    def _view(
        self, genes: Genes, indices: np.ndarray, images_at: Callable[[np.ndarray], np.ndarray]
    ) -> Observables:
        """Counts on the images that ``images_at`` gives for ``indices``."""
        if len(indices):
            images, labels = images_at(indices), self._train.labels[indices]
            observed = self._observe(genes, images=images, labels=labels, teacher=self._classes(indices, images))
        else:
            candidates, layers = genes.threshold.shape
            spikes = np.zeros((candidates, layers), np.int64)
            nothing = np.zeros((candidates, self._timesteps), np.int64)
            divergence = None if self._teacher is None else nothing
            observed = Observables(nothing, 0, spikes, spikes, divergence=divergence)
        if self._limit is None:
            return observed
        right = self._limit_correct(genes, images_at, self._limit)
        return replace(observed, limit_correct=right, limit_images=len(self._limit))

    def _classes(self, indices: np.ndarray, images: np.ndarray) -> np.ndarray | None:
        """The ANN's class probabilities on the images, kept for as long as the subset stays the same."""
        if self._teacher is None:
            return None
        key = indices.tobytes()
        if key != self._taught[0]:
            self._taught = key, probabilities(teacher_logits(self._teacher, images))
        return self._taught[1]

    def _limit_correct(
        self, genes: Genes, images_at: Callable[[np.ndarray], np.ndarray], indices: np.ndarray
    ) -> np.ndarray:
        """Right answers (P,) as T goes to infinity: always on the same images, so each candidate counts once."""
        keys = [(images_at is self.attacked, theta.tobytes()) for theta in genes.threshold]
        new = [row for row, key in enumerate(keys) if key not in self._limit_known]
        if new:
            images, labels = images_at(indices), self._train.labels[indices]
            most = self._most * genes.threshold[new]  # what a neuron sends at most, a step
            right = limit_correct(self._snn, Genes(most), images, labels, self._limit_plan)
            self._limit_known |= {keys[row]: int(count) for row, count in zip(new, right)}
            self.limit_passes += len(new) * len(labels)
        return np.array([self._limit_known[key] for key in keys])


def worse(terms: Sequence[cost.Term], clean: Observables, attacked: Observables) -> Observables:
    """For each candidate the counts, of the two on equally many images, that cost it more."""
    first, second = (cost.total(cost.parts(terms, observed)) for observed in (clean, attacked))
    rows = second > first

    def pick(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
        if one is None or other is None:
            return one
        return np.where(rows.reshape(-1, *(1,) * (one.ndim - 1)), other, one)

    kinds = ("correct", "spikes", "synops", "limit_correct", "divergence")
    return replace(clean, **{name: pick(getattr(clean, name), getattr(attacked, name)) for name in kinds})
