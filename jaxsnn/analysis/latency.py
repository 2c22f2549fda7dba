"""Latency at a target accuracy, its improvement, and how sure one can be of it."""

from collections.abc import Sequence

import numpy as np

TARGETS = (0.5, 1.0, 2.0, 5.0)
"""Targets in points below the ANN's accuracy."""


def latency(accuracy: np.ndarray, target: float) -> np.ndarray:
    """First step (1-based) from which Acc stays at or above ``target`` until T; 0 where it is not reached.

    Args:
        accuracy: (..., T).
    """
    timesteps = accuracy.shape[-1]
    misses = accuracy < target
    last_miss = np.where(misses.any(-1), timesteps - misses[..., ::-1].argmax(-1), 0)
    return np.where(last_miss == timesteps, 0, last_miss + 1)


def compare(
    baseline: np.ndarray, optimized: np.ndarray, ann: np.ndarray, samples: int = 2000, seed: int = 0
) -> list[dict]:
    """Latencies of both networks at every target, with a 95 % interval of the improvement.

    Args:
        baseline, optimized: (B, T) whether each image is right at each step.
        ann: (B,) whether the ANN is right.

    Returns:
        One row a target, in points below the ANN: target, target_name, baseline_timesteps, optimized_timesteps
        (None if not reached in T), improvement_percent, ci95 (None where an end of it is not reached in T).
    """
    rows = []
    drawn = bootstrap_latencies([baseline, optimized], ann, samples, seed)
    for points, draws in zip(TARGETS, drawn):
        target = ann.mean() - points / 100
        steps = [int(latency(right.mean(0), target - 1e-9)) or None for right in (baseline, optimized)]
        reached = None not in steps
        rows.append(
            {
                "target": float(target),
                "target_name": f"ANN - {points:g}",
                "baseline_timesteps": steps[0],
                "optimized_timesteps": steps[1],
                "improvement_percent": 100 * (1 - steps[1] / steps[0]) if reached else None,
                "ci95": interval(improvement(*draws)) if reached else None,
            }
        )
    return rows


def bootstrap_latencies(
    networks: Sequence[np.ndarray], ann: np.ndarray, samples: int = 2000, seed: int = 0
) -> np.ndarray:
    """Latencies of several networks on images drawn again, int (targets, networks, samples); 0 is not reached.

    A paired bootstrap: the test images are drawn with replacement, and all networks' accuracies and the targets,
    which are relative to the ANN's, follow the same draw.

    Args:
        networks: (B, T) each, whether each image is right at each step.
    """
    counts = np.random.default_rng(seed).multinomial(len(ann), np.full(len(ann), 1 / len(ann)), size=samples)
    weights = counts.astype(np.float32) / np.float32(len(ann))
    goal = weights @ ann.astype(np.float32)
    accuracies = [weights @ right.astype(np.float32) for right in networks]
    # the slack covers float32 sums
    return np.array([[latency(a - (goal - p / 100)[:, None], -1e-6) for a in accuracies] for p in TARGETS])


def improvement(baseline: np.ndarray, optimized: np.ndarray) -> np.ndarray:
    """Percent of timesteps saved. A baseline that is not reached (0) gives +inf, an optimised one -inf."""
    saved = 100 * (1 - optimized / np.where(baseline == 0, 1, baseline))
    saved = np.where(baseline == 0, np.inf, saved)
    return np.where(optimized == 0, -np.inf, saved)


def interval(values: np.ndarray) -> list[float] | None:
    """Middle 95 % of bootstrap values, or None where one of its ends is infinite."""
    ends = np.quantile(values, [0.025, 0.975], method="nearest")
    return [float(end) for end in ends] if np.isfinite(ends).all() else None
