"""Do thresholds follow what the paper says they follow? Rank correlations over layers, with a permutation test."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SURE = 0.05
"""A correlation counts as one when chance alone would give it less often than this."""


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks 1..n of (n,); equal values share the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[group]


def spearman(
    x: Sequence[float | None], y: Sequence[float | None], permutations: int = 20000, seed: int = 0
) -> dict[str, Any]:
    """Spearman's rank correlation of two (n,) and its two-sided permutation p-value.

    p is the share of random orders of ``y``, the given one counted in, whose correlation is at least as far from
    zero. Pairs in which either is None are left out.

    Returns:
        n, rho and p; rho and p are None where fewer than three pairs remain or one side does not vary.
    """
    pairs = [(a, b) for a, b in zip(x, y) if a is not None and b is not None]
    undefined = {"n": len(pairs), "rho": None, "p": None}
    if len(pairs) < 3:
        return undefined
    one, two = (ranks(np.array(side, np.float64)) for side in zip(*pairs))
    one, two = one - one.mean(), two - two.mean()
    scale = np.sqrt((one @ one) * (two @ two))
    if not scale > 0:
        return undefined
    rho = (one @ two) / scale
    rng = np.random.default_rng(seed)
    drawn = rng.permuted(np.tile(two, (permutations, 1)), axis=1) @ one / scale
    beyond = int((np.abs(drawn) >= abs(rho) - 1e-12).sum())
    return {"n": len(pairs), "rho": float(rho), "p": (1 + beyond) / (1 + permutations)}


def correlations(
    percentiles: Sequence[float],
    change: Sequence[float | None],
    sensitivity: Mapping[str, Sequence[float | None]],
) -> list[dict[str, Any]]:
    """The paper's two claims as rank correlations over layers, each with the sign that the paper sees by eye.

    Both explanations may do no more than follow depth, so the last row is the layer's number itself, of which
    nothing is claimed (sign 0), and each row holds ``rho_with_depth``, its own correlation with that number.

    Args:
        percentiles: (L,) of the optimised thresholds among the ANN's activations.
        change: (L,) of the number of principal components, in percent; None for the first layer.
        sensitivity: (L,) to noise, of the networks "ann", "baseline" and "optimized".
    """
    depth = range(1, len(percentiles) + 1)
    rows = [_row("change of principal components", 1, percentiles, change)]
    for name, label in (("ann", "ANN"), ("baseline", "baseline SNN"), ("optimized", "optimised SNN")):
        rows.append(_row(f"noise sensitivity of the {label}", -1, percentiles, sensitivity[name]))
    return [*rows, _row("depth of the layer", 0, percentiles, depth)]


def _row(
    explanation: str, sign: int, percentiles: Sequence[float], values: Sequence[float | None]
) -> dict[str, Any]:
    """How one explanation, claimed to go with the thresholds with this sign, does."""
    found = spearman(percentiles, values)
    return {
        "explanation": explanation,
        "claimed_sign": sign,
        **found,
        "holds": found["p"] is not None and found["p"] < SURE and sign * found["rho"] > 0,
        "rho_with_depth": spearman(range(1, len(values) + 1), values)["rho"],
    }


def verdict(row: Mapping[str, Any]) -> str:
    """A row of ``correlations`` in one sentence, with what the paper says."""
    name = row["explanation"].capitalize().replace(" ann", " ANN").replace(" snn", " SNN")
    if row["rho"] is None:
        return f"{name}: no rank correlation can be computed over {row['n']} layers."
    numbers = f"{row['rho']:+.2f} over {row['n']} layers, p = {row['p']:.2g}"
    found = f"{name}: rank correlation with the thresholds {numbers}."
    if not row["claimed_sign"]:
        return f"{found} No claim is made of it: an explanation that does no better may only follow depth."
    claim = "rise" if row["claimed_sign"] > 0 else "fall"
    depth = f" (Its own correlation with depth is {row['rho_with_depth']:+.2f}.)"
    if row["holds"]:
        return f"{found} The paper's claim, that thresholds {claim} with it, holds here.{depth}"
    what = "is the other way round" if row["p"] < SURE else "cannot be told from chance"
    return f"{found} The paper claims that thresholds {claim} with it: here it {what}.{depth}"
