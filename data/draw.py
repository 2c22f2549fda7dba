"""Drawing a class-balanced part of a dataset."""

import numpy as np

from data.errors import DataError


def check(limit: int | None, seed: int) -> None:
    """Raise DataError unless `limit` is None or a positive integer, and `seed` an integer from 0 on."""
    if not _is_integer(seed) or seed < 0:
        raise DataError(f"seed must be an integer from 0 on, not {seed!r}")
    if limit is not None and (not _is_integer(limit) or limit < 1):
        raise DataError(f"limit must be a positive number of images, or None for all of them, not {limit!r}")


def _is_integer(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def balanced(labels: np.ndarray, limit: int | None, seed: int | tuple[int, ...], where: str) -> np.ndarray:
    """Choose `limit` of the N records, as evenly over their classes as these allow.

    Every class is shuffled; then rounds of one record of each class follow, in random order within a
    round. So the counts of two classes differ by at most one unless one of them has run out, the first
    k of a draw are themselves balanced, and a smaller draw with the same seed is the start of a larger.

    Args:
      labels: integers (N,).
      limit: how many to choose; None keeps all N in their order.
      seed: of the draw.
      where: what the labels belong to, for the error.

    Returns:
      Indices into `labels`, int64 (limit,).

    Raises:
      DataError: fewer than `limit` records exist.

    Example:
      >>> labels = np.array([0, 0, 0, 0, 1, 1, 2])
      >>> np.bincount(labels[balanced(labels, 5, seed=0, where="an example")]).tolist()
      [2, 2, 1]
    """
    if limit is None:
        return np.arange(len(labels))
    if limit > len(labels):
        raise DataError(f"{limit} images were asked for, but {where} has {len(labels)}")
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    rounds = np.arange(len(labels)) - np.repeat(starts, counts)
    return by_class[np.lexsort((rng.random(len(labels)), rounds))][:limit]
