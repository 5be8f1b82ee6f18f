"""What the software raises when the caller, not the code, is at fault.

Every message is one line: the rule, the value received, the remedy.
"""

__all__ = [
    "CollapseWarning",
    "DivergedError",
    "FallbackWarning",
    "InputError",
    "RegimeWarning",
    "SecateursError",
    "TimeLimitWarning",
]


class SecateursError(Exception):
    """Base of everything that secateurs raises on purpose."""


class InputError(SecateursError, ValueError):
    """Bad input: a file, a table, a parameter or a saved model that cannot be used as it is."""


class DivergedError(InputError):
    """The loss stopped being finite: the learning rate is too high for the network and its rows."""


class CollapseWarning(UserWarning):
    """A fitted classifier predicts a single class."""


class FallbackWarning(UserWarning):
    """The runtime's compiled library is absent: what it runs is correct, and slower."""


class RegimeWarning(UserWarning):
    """A search stayed lazy: its weights hardly moved, so that its mask is that of the start."""


class TimeLimitWarning(UserWarning):
    """Training ended early because its time was up."""
