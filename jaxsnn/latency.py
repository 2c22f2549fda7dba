"""Latency at a target accuracy, its improvement, and how sure one can be of it."""

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

    The interval is a paired bootstrap: the test images are drawn again with replacement, and all three accuracies
    and the targets follow the draw.

    Args:
        baseline, optimized: (B, T) whether each image is right at each step.
        ann: (B,) whether the ANN is right.

    Returns:
        One row a target, in points below the ANN: target, target_name, baseline_timesteps, optimized_timesteps (None if not reached in
        T), improvement_percent, ci95 (None where an end of it is not reached in T).
    """
    rows = []
    weights = np.random.default_rng(seed).multinomial(len(ann), np.full(len(ann), 1 / len(ann)), size=samples)
    weights = weights.astype(np.float32) / np.float32(len(ann))
    draws = [weights @ right.astype(np.float32) for right in (baseline, optimized)]
    ann_draws = weights @ ann.astype(np.float32)
    for points in TARGETS:
        target = ann.mean() - points / 100
        steps = [int(latency(right.mean(0), target - 1e-9)) or None for right in (baseline, optimized)]
        drawn = [_latency_each(draw, ann_draws - points / 100) for draw in draws]
        rows.append(
            {
                "target": float(target),
                "target_name": f"ANN - {points:g}",
                "baseline_timesteps": steps[0],
                "optimized_timesteps": steps[1],
                "improvement_percent": None if None in steps else 100 * (1 - steps[1] / steps[0]),
                "ci95": _interval(*drawn) if None not in steps else None,
            }
        )
    return rows


def _latency_each(accuracy: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Latency of row r at ``targets[r]``; the slack covers float32 sums."""
    return latency(accuracy - targets[:, None], -1e-6)


def _interval(baseline: np.ndarray, optimized: np.ndarray) -> list[float] | None:
    """Percentile interval of the improvement; a baseline that is not reached counts as the largest improvement
    and an optimised network that is not reached as the smallest."""
    with np.errstate(divide="ignore", invalid="ignore"):
        improvement = 100 * (1 - optimized / baseline)
    improvement = np.where(baseline == 0, np.inf, improvement)
    improvement = np.where(optimized == 0, -np.inf, improvement)
    ends = np.quantile(improvement, [0.025, 0.975], method="nearest")
    return [float(end) for end in ends] if np.isfinite(ends).all() else None
