"""Settings made into a search: vector, engine and objective, the generations they run, the final selection."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import data
import evo
from jaxsnn.analysis.latency import latency
from jaxsnn.analysis.operations import neurons
from jaxsnn.conversion.calibration import Calibration, calibrate
from jaxsnn.conversion.channel_fit import Recipe
from jaxsnn.conversion.channels import fold_channels
from jaxsnn.conversion.few_timesteps import calibrate_for, work
from jaxsnn.conversion.start import Start
from jaxsnn.errors import UserError
from jaxsnn.networks.description import Network
from jaxsnn.networks.senders import has_gates
from jaxsnn.networks.spiking import SNN, check_genes
from jaxsnn.runtime.checks import named
from jaxsnn.search.around import Around, spread_out
from jaxsnn.search.checkpoint import Checkpoint
from jaxsnn.search.cost import OVER, PeakActivity, Term, UpperLimit
from jaxsnn.search.evolve import Candidate, Generation, Racing, evolve, select, subsets
from jaxsnn.search.measures import microjoules
from jaxsnn.search.objective import Objective
from jaxsnn.search.settings import SearchSettings
from jaxsnn.search.space import Codec
from jaxsnn.simulation.divergence import probabilities
from jaxsnn.simulation.observables import Observables
from jaxsnn.simulation.observe import observe
from jaxsnn.simulation.plan import Plan
from jaxsnn.training.distillation import Distillation, distil, teacher_logits

WITH_STRATEGIES = ("scipy", "evosax", "jax")
"""Engines that know DE's strategies, mutation and crossover."""


def make_codec(settings: SearchSettings, calibration: Calibration) -> Codec:
    """The search vector of these settings."""
    return Codec(
        calibration,
        settings.space,
        settings.percentile,
        settings.std,
        settings.low,
        settings.high,
        tuple(settings.search),
        settings.v0,
        settings.leak,
    )


def make_engine(settings: SearchSettings, codec: Codec | Around) -> evo.Engine:
    """The engine, its initial population N(mean, std^2) with the baseline as one of its members."""
    if settings.strategy and settings.engine not in WITH_STRATEGIES:
        raise UserError(
            f"{named(settings, 'strategy')} is for the engines scipy, evosax and jax; {settings.engine} has none"
        )
    options: dict[str, Any] = {"strategy": settings.strategy, "evaluations": settings.evaluations}
    if settings.engine in WITH_STRATEGIES:
        options |= {"mutation": settings.mutation, "crossover": settings.crossover}
    low, high, mean, std = (codec.spread(name) for name in ("low", "high", "mean", "std"))
    if settings.budgeted and isinstance(codec, Around):
        drawn = spread_out(codec, np.random.default_rng((settings.seed, 1)), settings.population)
        start: dict[str, Any] = {"init": drawn}
    else:
        start = {"mean": mean, "std": std}
    try:
        return evo.make_engine(
            settings.engine, low, high, settings.population, tol=settings.tol, **start, **options
        )
    except ValueError as error:
        raise UserError(str(error)) from error


@dataclass(frozen=True)
class Job:
    """A search that is ready to run, on the training images of ``labels``."""

    settings: SearchSettings
    codec: Codec | Around
    engine: evo.Engine
    objective: Objective
    labels: np.ndarray

    def start(self) -> Any:
        """The engine's state before the first generation."""
        return self.engine.init(self.settings.seed)

    def generations(self, state: Any, after: Generation | None = None) -> Iterator[tuple[Generation, Any]]:
        """Algorithm 1, one generation a step, with the engine's state after each.

        The search starts from ``state``, which followed generation ``after`` (None: a new search).
        """
        settings, views = self.settings, self.settings.views
        if after is not None:
            after = replace(after, image_evaluations=after.image_evaluations // views)
        first = 0 if after is None else after.number + 1
        steps = evolve(
            self.engine,
            state,
            self.codec,
            self.objective.terms,
            self.objective,
            subsets(self.labels, settings.images, settings.subset, settings.seed, first),
            settings.evaluations,
            resample=settings.subset == "resample",
            racing=None if settings.race is None else Racing(confidence=settings.race),
            keep=settings.finalists,
            after=after,
        )
        for generation, state in steps:
            yield replace(generation, image_evaluations=generation.image_evaluations * views), state

    def last(self) -> Generation:
        """The last generation of a new search."""
        *_, (generation, _) = self.generations(self.start())
        return generation

    @property
    def final_images(self) -> int:
        """Training images on which the finalists are compared."""
        return min(self.settings.final_images, len(self.labels))

    def final(self, generation: Generation) -> tuple[tuple[Candidate, ...], int]:
        """The finalists after the last generation, the best first, and the candidates x images that took."""
        leaders = generation.leaders[: self.settings.finalists]
        if len(leaders) < 2:
            return leaders, 0
        indices = next(subsets(self.labels, self.final_images, "fixed", self.settings.seed + 1))
        leaders = select(leaders, self.codec, self.objective.terms, self.objective, indices)
        return leaders, len(leaders) * self.final_images * self.settings.views

    def restored(self, saved: Checkpoint) -> tuple[Generation, Any]:
        """The generation and the engine's state in a checkpoint; the objective gets its memory back.

        Raises:
            UserError: what it holds does not fit this search.
        """
        low, high = self.codec.spread("low"), self.codec.spread("high")
        steps, generation = self.settings.timesteps, saved.generation
        try:
            for leader in generation.leaders:
                if (
                    leader.vector.shape != low.shape
                    or not ((low <= leader.vector) & (leader.vector <= high)).all()
                ):
                    raise ValueError("its leaders are not in the search's bounds")
                if leader.accuracy.shape != (steps,):
                    raise ValueError(f"its leaders have {len(leader.accuracy)} timesteps, expected {steps}")
            self.objective.remember(saved.objective)
            state = evo.state_from(self.engine, saved.engine)
        except ValueError as error:
            raise UserError(
                f"the checkpoint of generation {generation.number} is not this run's: {error}"
            ) from error
        leaders = (replace(one, genes=self.codec.decode(one.vector[None])) for one in generation.leaders)
        return replace(generation, leaders=tuple(leaders)), state


def make_job(
    settings: SearchSettings,
    snn: SNN,
    train: data.Dataset,
    calibration: Calibration | None,
    *,
    start: Start | None = None,
    plan: Plan = Plan(),
    terms: Sequence[Term] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Job:
    """The search of a converted network's genes on the images of ``train``.

    Args:
        calibration: percentiles of the activations; None with a ``start``, around which they are not needed.
        start: the calibrated network to search around, instead of ``snn``, whose ANN remains the measure.
        terms: of the cost, instead of those that the settings give a weight.
        progress: called with the candidates x images that have just been simulated.

    Raises:
        UserError: settings that contradict each other or do not fit the network or the images.
    """
    if settings.spikes_per_step > 1 and has_gates(snn.network):
        raise UserError(f"max pools choose among single spikes: leave {named(settings, 'spikes_per_step')} out")
    if start is not None:
        if start.most != settings.spikes_per_step:
            raise UserError(
                f"the network is calibrated for neurons that send up to {start.most} spikes in a step, but "
                f"{named(settings, 'spikes_per_step')} is {settings.spikes_per_step}: choose one"
            )
        codec = Around.of(start)
    elif calibration is not None:
        codec = make_codec(settings, calibration)
    else:
        raise ValueError("a search from percentiles needs a calibration")
    searched = snn if start is None else start.snn
    check_genes(searched.network, codec.baseline())
    objective = Objective(settings, searched, train, plan=plan, terms=terms, teacher=snn, progress=progress)
    if settings.budgeted and start is not None:
        objective.terms.extend(_limits(settings, objective, codec, train))
    return Job(settings, codec, make_engine(settings, codec), objective, train.labels)


def _limits(
    settings: SearchSettings, objective: Objective, codec: Codec | Around, train: data.Dataset
) -> list[UpperLimit]:
    """What the settings limit beside the cost."""
    found = []
    if settings.max_energy is not None or settings.less_energy is not None:
        found.append(_energy_limit(settings, objective, codec, train))
    if settings.max_peak is not None:
        busiest = PeakActivity(1.0, neurons(objective.network))
        found.append(UpperLimit("peak", lambda observed: busiest(observed)["peak"], settings.max_peak))
    return found


def _energy_limit(
    settings: SearchSettings, objective: Objective, codec: Codec | Around, train: data.Dataset
) -> UpperLimit:
    """The limit of the settings, or a share of what the baseline takes on the search's images.

    Raises:
        UserError: a limit that no spiking network can keep.
    """
    network, silent = objective.network, settings.dynamics.silent_steps(objective.network)
    energy = functools.partial(
        microjoules, network, steps=max(0, settings.timesteps - silent), kind=settings.energy_kind
    )
    if settings.max_energy is not None:
        limit = settings.max_energy
    else:
        indices = next(subsets(train.labels, settings.images, "fixed", settings.seed))
        limit = float(energy(objective(codec.baseline(), indices))[0]) * (1 - (settings.less_energy or 0) / 100)
    nothing = np.zeros((1, len(network.spiking)), np.int64)
    silence = float(energy(Observables(np.zeros((1, settings.timesteps), np.int64), 1, nothing, nothing))[0])
    if limit <= silence:
        raise UserError(
            f"the limit is {limit:.4g} microjoules an image, but without a single spike an image takes "
            f"{silence:.4g}: save less, or choose another {named(settings, 'energy_kind')}"
        )
    return UpperLimit("energy", energy, limit)


def history_row(generation: Generation, target: float) -> dict:
    """One line of history.jsonl: what the generation did; ``latency`` is of the best on its training images.

    Mean and spread say nothing, and are left out, while candidates are beyond a limit of the energy.
    """
    beyond = "over_limit" in generation.best.parts and max(generation.mean, generation.spread) > OVER / 100
    mean, spread = (
        value if math.isfinite(value) and not beyond else None for value in (generation.mean, generation.spread)
    )
    return {
        "generation": generation.number,
        "best_cost": generation.best.cost,
        "parts": generation.best.parts,
        "mean_cost": mean,
        "std_cost": spread,
        "accuracy": float(generation.best.accuracy[-1]),
        "latency": int(latency(generation.best.accuracy, target)) or None,
        "nfe": generation.evaluations,
        "image_evaluations": generation.image_evaluations,
        "seconds": generation.seconds,
        "best": generation.best.vector.tolist(),
    }


def calibrated_on(settings: SearchSettings, snn: SNN, train: data.Dataset) -> Calibration:
    """The percentiles of the network's activations on the settings' calibration images."""
    subset = next(subsets(train.labels, settings.calibration_images, "fixed", 0))
    return calibrate(snn.network, snn.params, train.images[subset], most=settings.spikes_per_step)


def calibrated_start(
    settings: SearchSettings,
    snn: SNN,
    train: data.Dataset,
    progress: Callable[[int], None] | None = None,
) -> Start:
    """The network calibrated for the settings' timesteps on their calibration images, without labels.

    ``progress`` is called with what has been done of ``calibration_work``.
    """
    # not the draw of the search or of the finalists, which would see what was fitted to them
    images = train.images[next(subsets(train.labels, settings.calibration_images, "fixed", settings.seed + 2))]
    steps = settings.timesteps - settings.dynamics.silent_steps(snn.network)
    recipe = Recipe(
        steps,
        reconstruct=settings.reconstruct,
        comparison=settings.comparison,
        seed=settings.seed,
        most=settings.spikes_per_step,
    )
    found = calibrate_for(snn, images, recipe, progress)
    changed = ("reconstructed",) if settings.reconstruct else ()
    start = Start(*fold_channels(found.snn, found.channels), snn, steps, found.fits, changed, recipe.most)
    if not settings.distillation:
        return start
    how = distillation_of(settings, snn.network)
    layers = len(snn.network.layers)

    def advance(count: int, loss: float) -> None:
        if progress is not None:
            progress(count * layers)

    count = min(how.steps * how.batch, len(train))  # each image once, as far as they go
    distilled = train.images[next(subsets(train.labels, count, "fixed", settings.seed + 3))]
    trained, channels = distil(found.snn, found.channels, snn, distilled, how, advance)
    if how.weights:
        changed = (*changed, "distilled")
    rival = Start(*fold_channels(trained, channels), snn, steps, found.fits, changed)
    # it helps where there is much to repair, and harms elsewhere: the search's own images decide
    judged = train.images[next(subsets(train.labels, settings.images, "fixed", settings.seed))]
    return min((start, rival), key=lambda one: divergence_at(one, judged, settings))


def distillation_of(settings: SearchSettings, network: Network) -> Distillation:
    """How the settings distil, for the steps that are left of their timesteps after the layer delay."""
    return Distillation(
        settings.timesteps - settings.dynamics.silent_steps(network),
        steps=settings.distillation,
        batch=settings.distillation_batch,
        weights=settings.distilled == "weights",
        comparison=settings.comparison,
        seed=settings.seed,
    )


def divergence_at(start: Start, images: np.ndarray, settings: SearchSettings) -> int:
    """Summed divergence of a network from its ANN at T, in units of 2^-20 nats."""
    logits = teacher_logits(start.ann, images)
    observed = observe(
        start.snn,
        start.genes,
        images,
        logits.argmax(-1),
        timesteps=settings.timesteps,
        dynamics=settings.dynamics,
        teacher=probabilities(logits),
    )
    if observed.divergence is None:
        raise ValueError("no divergence was counted")
    return int(observed.divergence[0, -1])


def calibration_work(settings: SearchSettings, network: Network) -> int:
    """Layers x images of ``calibrated_start``, for a progress bar."""
    trained = settings.distillation * settings.distillation_batch * len(network.layers)
    return work(network, settings.calibration_images, settings.reconstruct) + trained
