"""How far a spiking network's class probabilities are from its ANN's, summed exactly.

The Kullback-Leibler divergence KL(ANN || softmax(scores / t)) of each image after each step t. Scores come from
the simulator; everything after them is float64 on the host. Each image's value is rounded once, to a multiple of
2^-20, and added up as an integer, so that sums do not depend on chunks, devices or processes wherever the scores
do not: in int8 never, in float32 where a device rounds a convolution alike for every number of images.
"""

import numpy as np

from jaxsnn.errors import UserError

UNIT = 1 << 20
"""Units a nat: an image's rounding error is below a millionth, and 2^43 nats fit into int64."""
TOLERANCE = 1e-3
"""How far probabilities may be from a sum of 1: float32's rounding over a thousand classes, with room."""


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of class probabilities, float64, over the last axis."""
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Class probabilities of logits, float64."""
    return np.exp(log_softmax(logits))


def divergences(teacher: np.ndarray, scores: np.ndarray, silent: int = 0) -> np.ndarray:
    """Each image's divergence after each step, in units of 2^-20 nats, int64 (P, B, silent + steps).

    Args:
        teacher: the ANN's class probabilities (B, classes).
        scores: summed over time, (P, B, steps, classes), in the units of the ANN's.
        silent: steps before the first score, in which every class is as likely as any other.
    """
    teacher = np.asarray(teacher, np.float64)
    steps = np.arange(1, scores.shape[2] + 1)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = np.where(teacher > 0, teacher * np.log(teacher), 0).sum(-1)
    cross = (teacher[:, None] * log_softmax(scores / steps)).sum(-1)
    even = np.broadcast_to(-np.log(teacher.shape[-1]), (len(scores), len(teacher), silent))
    value = entropy[:, None] - np.concatenate([even, cross], -1)
    return np.rint(np.maximum(value, 0) * UNIT).astype(np.int64)


def check_teacher(teacher: np.ndarray, images: int, classes: int) -> None:
    """Raise ``UserError`` unless ``teacher`` holds class probabilities of so many images."""
    if np.shape(teacher) != (images, classes):
        raise UserError(f"the ANN's probabilities have shape {np.shape(teacher)}, expected ({images}, {classes})")
    if not (np.isfinite(teacher).all() and (teacher >= 0).all() and (abs(teacher.sum(-1) - 1) < TOLERANCE).all()):
        raise UserError("the ANN's probabilities must be at least 0 and add up to 1 for each image")
