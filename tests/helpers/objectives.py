"""Objectives the tests of `evo` share, for NumPy and JAX arrays: rows of candidates in, one cost a row out."""

import numpy as np


def sphere(points):
    return points.__array_namespace__().sum(points**2, axis=-1)


def rosenbrock(points):
    x, following = points[..., :-1], points[..., 1:]
    return points.__array_namespace__().sum(100.0 * (following - x**2) ** 2 + (1 - x) ** 2, axis=-1)


def rastrigin(points):
    xp = points.__array_namespace__()
    return xp.sum(points**2 - 10 * xp.cos(2 * np.pi * points) + 10, axis=-1)


def generations(engine, state, objective, count):
    """The states after each of `count` generations."""
    states = []
    for _ in range(count):
        candidates, state = engine.ask(state)
        state = engine.tell(state, candidates, objective(np.asarray(candidates)))
        states.append(state)
    return states
