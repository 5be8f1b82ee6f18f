"""What the software raises when the caller, not the code, is at fault.

Every message is one line: the rule, the value received, the remedy.
"""

__all__ = ["CollapseWarning", "InputError", "SecateursError", "TimeLimitWarning"]


class SecateursError(Exception):
    """Base of everything that secateurs raises on purpose."""


class InputError(SecateursError, ValueError):
    """Bad input: a file, a table, a parameter or a saved model that cannot be used as it is."""


class CollapseWarning(UserWarning):
    """A fitted classifier predicts a single class."""


class TimeLimitWarning(UserWarning):
    """Training ended early because its time was up."""
