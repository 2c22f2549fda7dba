"""Latency at a target accuracy, its improvement, and how sure one can be of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from jaxsnn.runtime.entries import Entries

TARGETS = (0.5, 1.0, 2.0, 5.0)
"""Targets in points below the ANN's accuracy."""


@dataclass(frozen=True)
class LatencyRow:
    """Timesteps that two networks take to one target.

    Attributes:
        target: accuracy in [0, 1].
        target_name: how it was chosen, such as "ANN - 1": one point below the ANN's.
        baseline_timesteps, optimized_timesteps: first step from which the accuracy stays at or above the target;
            None where that is not so within T.
        improvement_percent: timesteps saved; negative where it takes more. None where one is not reached.
        ci95: 95 % interval of the improvement; None where one of its ends is not reached.
    """

    target: float
    target_name: str
    baseline_timesteps: int | None
    optimized_timesteps: int | None
    improvement_percent: float | None
    ci95: tuple[float, float] | None

    def saved_at_least(self, horizon: int) -> float | None:
        """Percent of timesteps saved at least, where only the optimised network is there in ``horizon`` steps."""
        if self.baseline_timesteps is not None or self.optimized_timesteps is None:
            return None
        return 100 * (1 - self.optimized_timesteps / (horizon + 1))

    def to_json(self) -> dict:
        """The row as results.json holds it."""
        return asdict(self) | {"ci95": None if self.ci95 is None else list(self.ci95)}

    @classmethod
    def from_json(cls, row: Entries) -> "LatencyRow":
        """The row of a results.json; raises ``UserError`` where it is not one."""
        ends = row.numbers("ci95", 2) if row.known("ci95") else None
        return cls(
            target=row.number("target"),
            target_name=row.text("target_name"),
            baseline_timesteps=row.count("baseline_timesteps", 1) if row.known("baseline_timesteps") else None,
            optimized_timesteps=row.count("optimized_timesteps", 1) if row.known("optimized_timesteps") else None,
            improvement_percent=row.number("improvement_percent") if row.known("improvement_percent") else None,
            ci95=None if ends is None else (ends[0], ends[1]),
        )


def latency(accuracy: np.ndarray, target: float) -> np.ndarray:
    """First step (1-based) from which Acc stays at or above ``target`` until T; 0 where it is not reached.

    Args:
        accuracy: (..., T).
    """
    timesteps = accuracy.shape[-1]
    misses = accuracy < target
    last_miss = np.where(misses.any(-1), timesteps - misses[..., ::-1].argmax(-1), 0)
    return np.where(last_miss == timesteps, 0, last_miss + 1)


def latency_rows(
    baseline: np.ndarray, optimized: np.ndarray, ann: np.ndarray, samples: int = 2000, seed: int = 0
) -> tuple[LatencyRow, ...]:
    """Latencies of both networks at every target, with a 95 % interval of the improvement.

    Args:
        baseline, optimized: (B, T) whether each image is right at each step.
        ann: (B,) whether the ANN is right.
        samples, seed: of the bootstrap that gives the interval.
    """
    drawn = bootstrap_latencies([baseline, optimized], ann, samples, seed)
    return tuple(_row(points, baseline, optimized, ann, draws) for points, draws in zip(TARGETS, drawn))


def _row(
    points: float, baseline: np.ndarray, optimized: np.ndarray, ann: np.ndarray, draws: np.ndarray
) -> LatencyRow:
    """The row of the target ``points`` below the ANN; ``draws`` are its bootstrap latencies (2, samples)."""
    target = ann.mean() - points / 100
    before, after = (int(latency(right.mean(0), target - 1e-9)) or None for right in (baseline, optimized))
    name = f"ANN - {points:g}"
    if before is None or after is None:
        return LatencyRow(float(target), name, before, after, None, None)
    ends = interval(improvement(*draws))
    ci95 = None if ends is None else (ends[0], ends[1])
    return LatencyRow(float(target), name, before, after, 100 * (1 - after / before), ci95)


def bootstrap_latencies(
    networks: Sequence[np.ndarray], ann: np.ndarray, samples: int = 2000, seed: int = 0
) -> np.ndarray:
    """Latencies of several networks on images drawn again, int (targets, networks, samples); 0 is not reached.

    A paired bootstrap: the test images are drawn with replacement, and all networks' accuracies and the targets,
    which are relative to the ANN's, follow the same draw.

    Args:
        networks: (B, T) each, whether each image is right at each step.
    """
    weights = drawn_again(len(ann), samples, seed)
    goal = weights @ ann.astype(np.float32)
    accuracies = [weights @ right.astype(np.float32) for right in networks]
    # the slack covers float32 sums
    return np.array([[latency(a - (goal - p / 100)[:, None], -1e-6) for a in accuracies] for p in TARGETS])


def drawn_again(images: int, samples: int, seed: int) -> np.ndarray:
    """Weights of the images in samples drawn with replacement, float32 (samples, images); rows add up to 1."""
    counts = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=samples)
    return counts.astype(np.float32) / np.float32(images)


def gain_intervals(
    baseline: np.ndarray, optimized: np.ndarray, samples: int = 2000, seed: int = 0
) -> tuple[tuple[float, float], ...]:
    """95 % interval of the optimised network's accuracy less the baseline's, in points, at each step.

    A paired bootstrap: both networks see the same images of a draw.

    Args:
        baseline, optimized: (B, T) whether each image is right at each step.
    """
    gain = 100 * (optimized.astype(np.float32) - baseline.astype(np.float32))
    drawn = drawn_again(len(gain), samples, seed) @ gain
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0, method="nearest")
    return tuple(zip(low.round(6).tolist(), high.round(6).tolist()))


def improvement(baseline: np.ndarray, optimized: np.ndarray) -> np.ndarray:
    """Percent of timesteps saved. A baseline that is not reached (0) gives +inf, an optimised one -inf."""
    saved = 100 * (1 - optimized / np.where(baseline == 0, 1, baseline))
    saved = np.where(baseline == 0, np.inf, saved)
    return np.where(optimized == 0, -np.inf, saved)


def interval(values: np.ndarray) -> list[float] | None:
    """Middle 95 % of bootstrap values, or None where one of its ends is infinite."""
    ends = np.quantile(values, [0.025, 0.975], method="nearest")
    return [float(end) for end in ends] if np.isfinite(ends).all() else None
