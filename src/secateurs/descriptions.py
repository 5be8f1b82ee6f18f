"""Frozen descriptions of runs: which of their fields are told, and a hash of what decides a run.

What describes a run names its result and its checkpoints, so a field that came later must not
rename what was there before it.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import Field, fields, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

__all__ = ["LATER", "fingerprint", "plain", "told_fields"]

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


def plain(value: Any) -> Any:
    """Return a description that JSON can hold and that is the same in every process.

    >>> plain((partial(sum, start=1), {"a": 2}))
    [['builtins.sum', [], {'start': 1}], {'a': 2}]
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in told_fields(value)}
    if isinstance(value, partial):
        return [plain(value.func), plain(list(value.args)), plain(value.keywords)]
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return value


def fingerprint(described: Any, tensors: Iterable[Tensor]) -> str:
    """Return a hash of descriptions and tensors that decide a run.

    >>> fingerprint({"lr": 0.1}, [torch.ones(2)]) == fingerprint({"lr": 0.1}, [torch.ones(3)])
    False
    """
    text = json.dumps(plain(described), sort_keys=True, default=repr)
    digest = hashlib.sha256(text.encode())
    for tensor in tensors:
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(
            tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()[:16]
