"""Searches small enough for a test, and runs of them that were interrupted."""

import numpy as np
import pytest

from jaxsnn.networks.description import shapes_of
from jaxsnn.optimize import OptimizeConfig, optimize
from jaxsnn.records import run_folder
from jaxsnn.search import checkpoint


def random_params(network, seed=0):
    """Weights that keep the variance of what goes through them, with a bias towards firing."""
    rng = np.random.default_rng(seed)
    shapes = shapes_of(network)
    return {
        name: rng.normal(0.1 / np.prod(shape[:-1]), np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def config_of(tiny, folder, **changes):
    return OptimizeConfig(**(SETTINGS | {"weights": tiny, "out": folder} | changes))


def interrupted(monkeypatch, config, generation):
    """Start a run and kill it behind a generation."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        stop_behind(patch, generation)
        optimize(config)


SETTINGS = {
    "population": 4,
    "generations": 3,
    "images": 12,
    "calibration_images": 20,
    "timesteps": 8,
    "test_timesteps": 10,
    "test_images": 20,
    "low": 0.5,
    "tol": 0.0,
    "finalists": 3,
    "final_images": 20,
    "limit": 0.0,
    "limit_images": 20,
    "precision": "int8",
    "threads": 1,
}


OF_ANY_SEARCH = {*run_folder.FILES} - {"calibrated.safetensors", "frontier.json"}
"""Files of a finished run; the two others come from a calibrated start, and from several objectives."""


class Killed(BaseException):
    """Ends a run on the spot, as far as that goes in one process."""


def stop_behind(monkeypatch, generation):
    """Kill the run once the checkpoint of this generation is written."""

    def save(folder, saved):
        written = original(folder, saved)
        if saved.generation.number == generation:
            raise Killed
        return written

    original = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", save)
