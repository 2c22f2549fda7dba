"""Rank correlation with a permutation test."""

import numpy as np


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks 1..n of (n,); equal values share the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[group]


def spearman(x: np.ndarray, y: np.ndarray, permutations: int = 20000, seed: int = 0) -> dict:
    """Spearman's rank correlation of two (n,) and its two-sided permutation p-value.

    p is the share of random orders of ``y``, the given one counted in, whose correlation is at least as far from
    zero. Pairs in which either is None are left out.

    Returns:
        n, rho and p; rho and p are None where fewer than three pairs remain or one side does not vary.
    """
    pairs = [(a, b) for a, b in zip(x, y) if a is not None and b is not None]
    if len(pairs) < 3:
        return {"n": len(pairs), "rho": None, "p": None}
    one, two = (ranks(np.array(side, np.float64)) for side in zip(*pairs))
    one, two = one - one.mean(), two - two.mean()
    scale = np.sqrt((one @ one) * (two @ two))
    if not scale > 0:
        return {"n": len(pairs), "rho": None, "p": None}
    rho = (one @ two) / scale
    rng = np.random.default_rng(seed)
    drawn = rng.permuted(np.tile(two, (permutations, 1)), axis=1) @ one / scale
    beyond = int((np.abs(drawn) >= abs(rho) - 1e-12).sum())
    return {"n": len(pairs), "rho": float(rho), "p": (1 + beyond) / (1 + permutations)}
