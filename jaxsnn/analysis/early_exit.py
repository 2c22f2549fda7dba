"""What it saves to stop an image when its read-out is sure, and what that costs in accuracy.

Thresholds are chosen on training images and need no labels: the answer at an exit is compared with the one that
the same image is given after all T steps. Each step has a threshold of its own, because scores averaged over few
steps are coarse: the same margin means less there. On VGG15 calibrated for eight steps that saves 8 % more than
one threshold for all steps at the same agreement, and margins save more than entropies (``python -m
benchmarks.early_exit``, judged on training images that thresholds were not chosen on).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.analysis.energy import Costs, energy_record
from jaxsnn.analysis.intervals import wilson
from jaxsnn.analysis.latency import gain_intervals
from jaxsnn.analysis.operations import Activity
from jaxsnn.networks.description import Network
from jaxsnn.simulation.exits import ExitRule, Trace, confidence

WISHES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
"""Shares of changed answers on training images for which a report shows what exits save."""


RATES = np.geomspace(1e-5, 0.5, 200)
"""Shares of changed answers that a step is allowed, from which the largest that keeps the wish is taken."""


def exit_steps(scores: np.ndarray, rule: ExitRule) -> np.ndarray:
    """After how many steps each image stops, (B,) of scores (B, T, classes): T where it is never sure."""
    return stops(confidence(scores, rule.kind), rule.thresholds)


def stops(sure: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """After how many steps images whose confidence is ``sure`` (B, T) stop, (B,)."""
    reached = sure >= np.asarray(thresholds)
    reached[:, -1] = True
    return reached.argmax(1) + 1


def chosen_rule(scores: np.ndarray, kind: str, most_changed: float) -> ExitRule:
    """The rule of a kind that stops images soonest while it changes few answers.

    Each step's threshold is the lowest above which at most a share r of the images answer otherwise than after
    all steps; of all r, the one with the fewest steps on average at which at most ``most_changed`` of the images
    change their answers in the end.

    Args:
        scores: of training images, (B, T, classes), summed over time.
        most_changed: share in [0, 1].
    """
    sure = confidence(scores, kind)
    same = scores.argmax(-1) == scores[:, -1:].argmax(-1)
    rows = np.arange(len(scores))
    best, fewest = ExitRule(kind, (np.inf,) * scores.shape[1]), float(scores.shape[1])
    ranked = [_ranked(values, right) for values, right in zip(sure.T[:-1], same.T[:-1])]
    for rate in RATES:
        thresholds = (*(_threshold(*each, rate) for each in ranked), np.inf)
        steps = stops(sure, thresholds)
        if 1 - same[rows, steps - 1].mean() <= most_changed + 1e-12 and steps.mean() < fewest:
            best, fewest = ExitRule(kind, thresholds), float(steps.mean())
    return best


def _ranked(values: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidences (B,) of a step from the highest down, and which share of those up to each is not ``right``."""
    order = np.argsort(-values, kind="stable")
    wrong = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    # images that are equally sure stop together: a threshold is judged after the last of them
    whole = np.append(values[order][:-1] != values[order][1:], True)
    return values[order][whole], wrong[whole]


def _threshold(values: np.ndarray, wrong: np.ndarray, rate: float) -> float:
    """The lowest confidence above which at most a share ``rate`` is wrong."""
    good = np.flatnonzero(wrong <= rate)
    return float(values[good[-1]]) if len(good) else np.inf


@dataclass(frozen=True)
class ExitResult:
    """A rule on images with labels, or no rule.

    Attributes:
        changed: the share of training images whose answer the rule was allowed to change; None without a rule.
        rule: None runs all steps.
        exits: (T,) how many images stop after each step.
        accuracy, ci95: in [0, 1].
        gain, gain_ci95: what the accuracy is above that after all steps, in points, with its paired interval.
        agreement: share of images with the answer that they have after all steps.
        spikes, synops: an image, of each spiking layer.
        energy: microjoules an image by kind of arithmetic.
    """

    changed: float | None
    rule: ExitRule | None
    exits: tuple[int, ...]
    accuracy: float
    ci95: tuple[float, float]
    gain: float
    gain_ci95: tuple[float, float]
    agreement: float
    spikes: tuple[float, ...]
    synops: tuple[float, ...]
    energy: dict[str, float]

    @property
    def mean_steps(self) -> float:
        return float(np.dot(self.exits, np.arange(1, len(self.exits) + 1)) / sum(self.exits))

    def steps_of_share(self, share: float) -> int:
        """After how many steps at least this share of the images has stopped."""
        return int(np.searchsorted(np.cumsum(self.exits), share * sum(self.exits) - 1e-9)) + 1

    def to_json(self) -> dict[str, Any]:
        """The rule and what it does, as early_exit.json holds it; an infinite threshold is null."""
        finite = None if self.rule is None else [x if np.isfinite(x) else None for x in self.rule.thresholds]
        return {
            "most_changed": self.changed,
            "kind": None if self.rule is None else self.rule.kind,
            "thresholds": finite,
            "mean_timesteps": self.mean_steps,
            "longest": max(step for step, count in enumerate(self.exits, 1) if count),
            "timesteps_of_95_percent": self.steps_of_share(0.95),
            "exits": list(self.exits),
            "accuracy": self.accuracy,
            "accuracy_ci95": list(self.ci95),
            "accuracy_gain": self.gain,
            "accuracy_gain_ci95": list(self.gain_ci95),
            "agreement": self.agreement,
            "spikes_per_image_by_layer": list(self.spikes),
            "synops_per_image_by_layer": list(self.synops),
            "energy": self.energy,
        }


def evaluated(
    network: Network,
    whole: Trace,
    labels: np.ndarray,
    rule: ExitRule | None,
    changed: float | None = None,
    costs: Mapping[str, Costs] | None = None,
) -> ExitResult:
    """What a rule does to images whose ``whole`` trace is known, exactly: nothing is simulated again."""
    timesteps = whole.scores.shape[1]
    steps = np.full(len(labels), timesteps) if rule is None else exit_steps(whole.scores, rule)
    answers = whole.scores[np.arange(len(labels)), steps - 1].argmax(-1)
    finals = whole.scores[:, -1].argmax(-1)
    right, usual = answers == labels, finals == labels
    done = np.arange(timesteps) < steps[:, None]
    spikes, synops = ((c * done[..., None]).sum((0, 1)) / len(labels) for c in (whole.spikes, whole.synops))
    activity = Activity(float(steps.mean()), tuple(spikes.tolist()), tuple(synops.tolist()))
    energy = energy_record(network, {"network": activity}, costs)["totals"]
    return ExitResult(
        changed,
        rule,
        tuple(np.bincount(steps, minlength=timesteps + 1)[1:].tolist()),
        float(right.mean()),
        wilson(float(right.mean()), len(right)),
        100 * float(right.mean() - usual.mean()),
        gain_intervals(usual[:, None], right[:, None])[0],
        float((answers == finals).mean()),
        activity.spikes,
        activity.synops,
        {kind: total["network"] for kind, total in energy.items()},
    )
