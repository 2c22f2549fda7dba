"""The one error a user of `data` has to know."""


class DataError(ValueError):
    """A dataset is missing, damaged, or not what it is said to be.

    The message is one sentence or two: what was wrong, what was expected, where, and what to do.
    """
