"""Objectives the tests of `evo` share: rows of candidates in, one cost a row out."""

import numpy as np


def sphere(points):
    return np.sum(points**2, axis=-1)


def rosenbrock(points):
    return np.sum(100.0 * (points[..., 1:] - points[..., :-1] ** 2) ** 2 + (1 - points[..., :-1]) ** 2, axis=-1)


def rastrigin(points):
    return np.sum(points**2 - 10 * np.cos(2 * np.pi * points) + 10, axis=-1)


def generations(engine, state, objective, count):
    """The states after each of `count` generations."""
    states = []
    for _ in range(count):
        candidates, state = engine.ask(state)
        state = engine.tell(state, candidates, objective(np.asarray(candidates)))
        states.append(state)
    return states
