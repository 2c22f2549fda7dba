"""How sure one can be of a share of right answers."""

import math

Z = 1.959963984540054
"""Quantile of the normal distribution whose two tails leave 95 % between them."""


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of ``count`` independent trials, in [0, 1].

    (share + z^2 / 2n +- z sqrt(share (1 - share) / n + z^2 / 4n^2)) / (1 + z^2 / n), Wilson (1927). Unlike the
    normal approximation it does not shrink to a point where all trials or none succeeded.

        >>> [round(end, 3) for end in wilson(2 / 3, 3)]
        [0.208, 0.939]

    Raises:
        ValueError: no trials, or a share outside [0, 1].
    """
    if count < 1 or not 0 <= share <= 1:
        raise ValueError(f"no interval of a share of {share} in {count} trials")
    scale = 1 + Z**2 / count
    centre = (share + Z**2 / (2 * count)) / scale
    reach = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)) / scale
    # at the ends rounding may leave a last bit outside of the range
    return max(0.0, centre - reach), min(1.0, centre + reach)
