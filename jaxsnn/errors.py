"""The one exception for what a user can get wrong."""


class UserError(ValueError):
    """Bad input: one sentence that says what was wrong, what was expected, and where."""
