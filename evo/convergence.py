"""When a population counts as converged: SciPy's rule on the spread of its energies."""

import numpy as np

EPS = float(np.finfo(np.float64).eps)


def converged(energies: np.ndarray, tol: float, atol: float) -> bool:
    """True if std <= atol + tol |mean| of `energies` (P,); False while any of them is infinite."""
    if np.isinf(energies).any():
        return False
    return bool(np.std(energies) <= atol + tol * np.abs(np.mean(energies)))


def spread(energies: np.ndarray) -> float:
    """std / |mean| of `energies` (P,), +inf while any is infinite."""
    if np.isinf(energies).any():
        return np.inf
    return np.std(energies) / (np.abs(np.mean(energies)) + EPS)
