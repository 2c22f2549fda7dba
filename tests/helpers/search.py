"""A search over a few layers, for tests."""

import numpy as np

import evo
from jaxsnn.conversion.calibration import BINS, Calibration

LAYERS = 4


def uniform_calibration():
    """Activations uniform in [0, 2 l + 2]: the percentile p of layer l is p / 100 * (2 l + 2)."""
    return Calibration(2.0 * np.arange(1, LAYERS + 1), np.tile(np.linspace(0, 1, BINS + 1), (LAYERS, 1)), 10)


def make_engine(name, codec, population=8, evaluations=200):
    spread = {key: codec.spread(key) for key in ("low", "high", "mean", "std")}
    options = {"evaluations": evaluations} if name == "lshade" else {}
    return evo.make_engine(name, population=population, tol=0, **spread, **options)
