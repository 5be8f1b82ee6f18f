"""Frozen descriptions of runs: which of their fields are told.

What describes a run names its result and its checkpoints, so a field that came later must not
rename what was there before it.
"""

from dataclasses import Field, fields
from typing import Any

__all__ = ["LATER", "told_fields"]

LATER = {"later": True}
"""Metadata of a field that is left out at its default, so that descriptions stay what they were
before the field was there: `field(default=1, metadata=LATER)`."""


def told_fields(value: Any) -> list[Field[Any]]:
    """Return the fields of a dataclass instance that its description names.

    >>> from dataclasses import dataclass, field
    >>> @dataclass
    ... class Phase:
    ...     epochs: int = 105
    ...     mixup: float = field(default=0.0, metadata=LATER)
    >>> [f.name for f in told_fields(Phase())], [f.name for f in told_fields(Phase(mixup=0.2))]
    (['epochs'], ['epochs', 'mixup'])
    """
    return [
        f for f in fields(value) if "later" not in f.metadata or getattr(value, f.name) != f.default
    ]
