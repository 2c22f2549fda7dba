"""Settings made into a search: engine, search vector, and the generations they run."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import evo
from jaxsnn.analysis.latency import latency
from jaxsnn.conversion.calibration import Calibration
from jaxsnn.errors import UserError
from jaxsnn.search.checkpoint import Checkpoint
from jaxsnn.search.evolve import Generation, Racing, evolve, subsets
from jaxsnn.search.objective import Objective
from jaxsnn.search.settings import OptimizeConfig, views
from jaxsnn.search.space import Codec


def evaluations_of(config: OptimizeConfig) -> int:
    """Evaluations that the search may spend: P (G + 1), also where the population shrinks on the way."""
    return config.population * (config.generations + 1)


def make_engine(config: OptimizeConfig, codec: Codec) -> evo.Engine:
    """The engine, its initial population N(mean, std^2) with the baseline as one of its members."""
    if config.strategy and config.engine not in ("scipy", "evosax", "jax"):
        raise UserError(f"--strategy is for the engines scipy, evosax and jax; {config.engine} has none")
    options = {"strategy": config.strategy}
    if config.engine in ("scipy", "evosax", "jax"):
        options |= {"mutation": config.mutation, "crossover": config.crossover}
    if config.engine == "lshade":
        options |= {"evaluations": evaluations_of(config)}
    low, high, mean, std = (codec.spread(name) for name in ("low", "high", "mean", "std"))
    try:
        return evo.make_engine(
            config.engine, low, high, config.population, mean=mean, std=std, tol=config.tol, **options
        )
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error


def history_row(generation: Generation, target: float) -> dict:
    """One line of history.jsonl: what the generation did; ``latency`` is of the best on its training images."""
    return {
        "generation": generation.number,
        "best_cost": generation.best.cost,
        "parts": generation.best.parts,
        "mean_cost": generation.mean if math.isfinite(generation.mean) else None,
        "std_cost": generation.spread if math.isfinite(generation.spread) else None,
        "accuracy": float(generation.best.accuracy[-1]),
        "latency": int(latency(generation.best.accuracy, target)) or None,
        "nfe": generation.evaluations,
        "image_evaluations": generation.image_evaluations,
        "seconds": generation.seconds,
        "best": generation.best.vector.tolist(),
    }


def generations(
    config: OptimizeConfig, codec: Codec, objective: Objective, labels: np.ndarray
) -> Iterator[Generation]:
    """Algorithm 1 with a resolved configuration, one generation a step; ``labels`` are the training set's."""
    engine = make_engine(config, codec)
    return (g for g, _ in search_steps(config, codec, objective, labels, engine, engine.init(config.seed)))


def search_steps(
    config: OptimizeConfig,
    codec: Codec,
    objective: Objective,
    labels: np.ndarray,
    engine: evo.Engine,
    state: Any,
    behind: Generation | None = None,
) -> Iterator[tuple[Generation, Any]]:
    """``generations`` with the engine's state behind each, from ``state`` on, which stands ``behind`` that one."""
    simulated = views(config)
    if behind is not None:
        behind = replace(behind, image_evaluations=behind.image_evaluations // simulated)
    first = 0 if behind is None else behind.number + 1
    subset = subsets(labels, config.images, config.subset, config.seed, first)
    steps = evolve(
        engine,
        state,
        codec,
        objective.terms,
        objective,
        subset,
        evaluations_of(config),
        resample=config.subset == "resample",
        racing=None if config.race is None else Racing(confidence=config.race),
        keep=config.finalists,
        behind=behind,
    )
    return (
        (replace(generation, image_evaluations=generation.image_evaluations * simulated), state)
        for generation, state in steps
    )


def restored(
    saved: Checkpoint, config: OptimizeConfig, codec: Codec, objective: Objective, engine: evo.Engine
) -> Any:
    """The engine's state in a checkpoint; the objective gets its memory back.

    Raises:
        UserError: what it holds does not fit this run.
    """
    low, high = codec.spread("low"), codec.spread("high")
    try:
        for leader in saved.generation.leaders:
            if leader.vector.shape != low.shape or not ((low <= leader.vector) & (leader.vector <= high)).all():
                raise ValueError("its leaders are not in the search's bounds")
            if leader.accuracy.shape != (config.timesteps,):
                raise ValueError(f"its leaders have {len(leader.accuracy)} timesteps, expected {config.timesteps}")
        objective.remember(saved.objective)
        return evo.state_from(engine, saved.engine)
    except ValueError as error:
        raise UserError(
            f"the checkpoint of generation {saved.generation.number} is not this run's: {error}"
        ) from error


def make_codec(config: OptimizeConfig, calibration: Calibration) -> Codec:
    """The search vector of this configuration."""
    return Codec(
        calibration,
        config.space,
        config.percentile,
        config.std,
        config.low,
        config.high,
        tuple(config.search),
        config.v0,
        config.leak,
    )
