"""Thresholds per channel in closed form from two statistics: threshold iteration.

With sums in front of a channel's activation that are normal, N(mu, sigma^2), and half-full neurons under an even
current, the squared error E (theta/T clip(floor(T x/theta + 1/2), 0, T) - relu(x))^2 has one minimum, the fixed
point of theta <- k theta with c_i = (2 i - 1)/(2 T) theta, i = 1..T, and e_i = erfc((c_i - mu)/(sqrt(2) sigma)):

    k = [mu/theta mean(e_i) + sqrt(2/pi) sigma/theta mean(exp(-(c_i - mu)^2/(2 sigma^2)))] / sum (2 i - 1)/T^2 e_i

(the iteration of Huang et al., "Differential coding for training-free ANN-to-SNN conversion", ICML 2025, for
neurons with one threshold; written with erfc, which does not cancel). Published for neurons with several
thresholds, so there is no figure to compare with.
"""

import numpy as np
from scipy.special import erfc  # JAX itself needs SciPy

from benchmarks.few.layerwise import ann_sums
from benchmarks.few.task import Converted, Task, agree, half_full, usable
from jaxsnn.conversion.channels import positions
from jaxsnn.networks.description import layer_shapes

ITERATIONS = 100


def per_channel(task: Task) -> Converted:
    """Thresholds of each channel's mean and variance over images and positions."""
    shapes = layer_shapes(task.network)[:-1]
    total, squares, tops = ([np.zeros(shape[-1]) for shape in shapes] for _ in range(3))
    for sums in ann_sums(task.snn, task.images):
        for index, shape in enumerate(shapes):
            values = sums[index].reshape(-1, shape[-1]).astype(np.float64)
            total[index] += values.sum(0)
            squares[index] += (values * values).sum(0)
            tops[index] = np.maximum(tops[index], values.max(0))
    found = []
    for t, q, top, shape in zip(total, squares, tops, shapes):
        count = len(task.images) * positions(shape)
        mean = t / count
        spread = np.sqrt(np.maximum(q / count - mean**2, 0))
        found.append(usable(fixed_point(mean, spread, task.timesteps), top))
    return half_full(task, agree(task.network, found))


def fixed_point(mean: np.ndarray, spread: np.ndarray, timesteps: int) -> np.ndarray:
    """Thresholds (C,) of sums with this mean and standard deviation (C,)."""
    levels = 2 * np.arange(1, timesteps + 1)[:, None] - 1
    spread = np.maximum(spread, 1e-9 * np.abs(mean) + np.finfo(np.float64).tiny)
    theta = np.maximum(mean, 0) + 3 * spread
    for _ in range(ITERATIONS):
        away = (levels / (2 * timesteps) * theta - mean) / (np.sqrt(2) * spread)
        beyond = erfc(away)
        above = mean * beyond.mean(0) + np.sqrt(2 / np.pi) * spread * np.exp(-(away**2)).mean(0)
        weight = (levels * beyond).sum(0) / timesteps**2
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = above / weight
        theta = np.where(np.isfinite(moved) & (moved > 0), moved, theta)
    return theta
