"""Several objectives at once: candidates of several timesteps, each around the network calibrated for its own.

A search vector is a place among the timesteps, then a factor on each layer's threshold and a shift of its initial
membranes (``jaxsnn.search.around``). The calibrated networks themselves compete in generation 0, so that the
frontier is nowhere behind what calibration alone gives on the search's images.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import data
import evo
from evo import pareto
from jaxsnn.conversion.start import Start
from jaxsnn.errors import UserError
from jaxsnn.networks.spiking import Genes
from jaxsnn.search.around import Around, spread_out
from jaxsnn.search.checkpoint import Checkpoint
from jaxsnn.search.evolve import Candidate, Generation, subsets
from jaxsnn.search.measures import measures
from jaxsnn.search.settings import SearchSettings
from jaxsnn.simulation.divergence import probabilities
from jaxsnn.simulation.observe import observe
from jaxsnn.simulation.plan import Plan
from jaxsnn.training.distillation import teacher_logits

MARGIN = 1.1
"""The hypervolume counts up to so many times the worst that a calibrated network has of an objective."""


@dataclass(frozen=True, eq=False)
class Front:
    """The search, ready to run.

    Attributes:
        starts: by timesteps, ascending, the networks calibrated for them.
        engine: see ``evo.make_front_engine``.
    """

    settings: SearchSettings
    starts: Mapping[int, Start]
    ann: Any
    train: data.Dataset
    engine: evo.FrontEngine
    plan: Plan
    progress: Callable[[int], None] | None = None

    @property
    def timesteps(self) -> list[int]:
        return [*self.starts]

    def steps_of(self, vectors: np.ndarray) -> np.ndarray:
        """The timesteps (P,) of search vectors (P, D)."""
        places = np.floor(np.asarray(vectors)[:, 0]).astype(int).clip(0, len(self.starts) - 1)
        return np.array(self.timesteps)[places]

    def genes_of(self, vectors: np.ndarray, timesteps: int) -> Genes:
        """The genes of search vectors whose network is the one calibrated for ``timesteps``."""
        return Around.of(self.starts[timesteps]).decode(np.asarray(vectors)[:, 1:])

    def measure(self, vectors: np.ndarray, indices: np.ndarray) -> dict[str, np.ndarray]:
        """``measures`` of search vectors (P, D) on training images."""
        images, labels = self.train.images[indices], self.train.labels[indices]
        teacher = None
        if "divergence" in self.settings.objectives:
            teacher = probabilities(teacher_logits(self.ann, images))
        found: dict[str, np.ndarray] = {}
        own = self.steps_of(vectors)
        for steps, start in self.starts.items():
            rows = np.flatnonzero(own == steps)
            if not len(rows):
                continue
            observed = observe(
                start.snn,
                self.genes_of(vectors[rows], steps),
                images,
                labels,
                timesteps=steps,
                dynamics=self.settings.dynamics,
                plan=self.plan,
                progress=self.progress,
                teacher=teacher,
            )
            network = start.snn.network
            silent = self.settings.dynamics.silent_steps(network)
            for name, values in measures(network, observed, silent, self.settings.energy_kind).items():
                found.setdefault(name, np.full(len(vectors), np.nan))[rows] = values
        return found

    def costs(self, measured: Mapping[str, np.ndarray]) -> np.ndarray:
        """The objectives (P, M)."""
        return np.stack([measured[name] for name in self.settings.objectives], 1)

    def violations(self, measured: Mapping[str, np.ndarray]) -> np.ndarray:
        """How far each limit is exceeded, as a share of it, (P, K)."""
        limits = self.settings.limits
        over = [np.maximum(0, measured[name] / limit - 1) for name, limit in limits.items()]
        return np.stack(over, 1) if over else np.zeros((len(measured["latency"]), 0))

    def generations(
        self, state: Any, after: Generation | None = None, reference: Sequence[float] | None = None
    ) -> Iterator[tuple[Generation, Any, dict]]:
        """One generation a step: what it did, the engine's state after it, and its line of history.jsonl.

        Args:
            state, after: the engine's state that followed a generation; a new search starts from ``init``.
            reference: of the hypervolume, from a line of the search that is resumed.
        """
        settings = self.settings
        indices = next(subsets(self.train.labels, settings.images, "fixed", settings.seed))
        evaluations, images = (0, 0) if after is None else (after.evaluations, after.image_evaluations)
        for number in range(0 if after is None else after.number + 1, settings.generations + 1):
            began = time.perf_counter()
            candidates, state = self.engine.ask(state)
            measured = self.measure(np.asarray(candidates), indices)
            costs = self.costs(measured)
            if reference is None:
                reference = (MARGIN * costs[: len(self.starts)].max(0)).tolist()
            state = self.engine.tell(state, candidates, costs, self.violations(measured))
            evaluations, images = evaluations + len(costs), images + len(costs) * len(indices)
            generation = Generation(
                number,
                self._leaders(state),
                0.0,
                0.0,
                evaluations,
                0,
                images,
                time.perf_counter() - began,
                False,
                number == settings.generations,
            )
            yield generation, state, self._row(generation, state, np.array(reference))

    def _leaders(self, state: Any) -> tuple[Candidate, ...]:
        """The front, or where no candidate keeps the limits, the whole population."""
        points, costs = self.engine.front(state)
        if not len(points):
            points, costs = self.engine.parents(state), self.engine.costs(state)
        order = np.lexsort(costs.T[::-1])
        names = self.settings.objectives
        return tuple(
            Candidate(points[i], float(costs[i, 0]), dict(zip(names, costs[i].tolist())), costs[i]) for i in order
        )

    def _row(self, generation: Generation, state: Any, reference: np.ndarray) -> dict:
        _, costs = self.engine.front(state)
        lowest = np.min([list(one.parts.values()) for one in generation.leaders], 0)
        return {
            "generation": generation.number,
            "best_cost": generation.best.cost,
            "parts": dict(zip(self.settings.objectives, lowest.tolist())),
            "mean_cost": None,
            "std_cost": None,
            "accuracy": 0.0,
            "latency": None,
            "nfe": generation.evaluations,
            "image_evaluations": generation.image_evaluations,
            "seconds": generation.seconds,
            "points": len(costs),
            "hypervolume": volume(costs, reference),
            "reference": reference.tolist(),
        }

    def final(self, generation: Generation) -> tuple[np.ndarray, dict[str, np.ndarray], int]:
        """The frontier judged again on more training images, which tell luck from merit.

        Returns:
            search vectors that no other dominates and that keep the limits, what was measured of them, and the
            candidates x images that took.

        Raises:
            UserError: none keeps the limits.
        """
        vectors = np.stack([one.vector for one in generation.leaders])
        count = min(self.settings.final_images, len(self.train))
        measured = self.measure(vectors, next(subsets(self.train.labels, count, "fixed", self.settings.seed + 1)))
        rows = pareto.front_rows(self.costs(measured), self.violations(measured))
        if not len(rows):
            limits = ", ".join(f"{name} of at most {limit:g}" for name, limit in self.settings.limits.items())
            raise UserError(f"no candidate has {limits}: give more room, more --generations, or fewer timesteps")
        found = self.costs(measured)[rows]
        _, first = np.unique(found, axis=0, return_index=True)
        rows = rows[np.sort(first)]
        rows = rows[np.lexsort((measured["energy"][rows], measured["latency"][rows]))]
        return vectors[rows], {name: values[rows] for name, values in measured.items()}, len(vectors) * count

    def restored(self, saved: Checkpoint) -> tuple[Generation, Any]:
        """The generation and the engine's state in a checkpoint; ``UserError`` where it is not this run's."""
        try:
            return saved.generation, evo.state_from(self.engine, saved.engine)
        except ValueError as error:
            raise UserError(
                f"the checkpoint of generation {saved.generation.number} is not this run's: {error}"
            ) from error


def volume(costs: np.ndarray, reference: np.ndarray) -> float:
    """The hypervolume of points (N, M) as a share of the box between 0 and the reference."""
    return evo.hypervolume(costs / reference, np.ones(len(reference))) if len(costs) else 0.0


def make_front(
    settings: SearchSettings,
    starts: Mapping[int, Start],
    train: data.Dataset,
    plan: Plan = Plan(),
    progress: Callable[[int], None] | None = None,
) -> Front:
    """The search around networks that are calibrated for several timesteps.

    Raises:
        UserError: a population that is too small for the networks, or settings that the engine does not take.
    """
    around = Around.of(next(iter(starts.values())))
    low, high = (np.append([edge], around.spread(name)) for edge, name in ((0.0, "low"), (len(starts), "high")))
    if settings.population < len(starts):
        raise UserError(
            f"the population is {settings.population}, expected at least one candidate for each of the "
            f"{len(starts)} timesteps"
        )
    rng = np.random.default_rng((settings.seed, 1))
    rows = np.arange(settings.population)
    places, members = rows % len(starts) + 0.5, spread_out(around, rng, settings.population)
    members[: len(starts)] = around.baseline_vector()
    try:
        engine = evo.make_front_engine(
            low,
            high,
            settings.population,
            len(settings.objectives),
            constraints=len(settings.limits),
            init=np.column_stack([places, members]),
            strategy=settings.strategy,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    ann = next(iter(starts.values())).ann
    return Front(settings, dict(starts), ann, train, engine, plan, progress)
