"""What the estimators' parameters may be: refused in one line before any row is read."""

import json
import math
import operator
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args

import numpy as np

from secateurs import criteria
from secateurs import device as devices
from secateurs.device import Precision
from secateurs.errors import InputError
from secateurs.masks import Scores

__all__ = ["check", "criterion", "from_json", "plain", "rule", "to_json", "widths"]

_TINY, _HUGE = math.ulp(0.0), sys.float_info.max
_RANGES: dict[str, tuple[float, float, type]] = {
    "compression": (1, _HUGE, Real),
    "init_scale": (_TINY, _HUGE, Real),
    "contrastive_weight": (0, _HUGE, Real),
    "corruption_rate": (0, 1, Real),
    "temperature": (_TINY, _HUGE, Real),
    "search_epochs": (0, _HUGE, Integral),
    "search_lr": (_TINY, _HUGE, Real),
    "finetune_epochs": (0, _HUGE, Integral),
    "finetune_lr": (_TINY, _HUGE, Real),
    "weight_decay": (0, _HUGE, Real),
    "batch_size": (2, _HUGE, Integral),
    "width": (1, _HUGE, Integral),
    "snapshots": (1, _HUGE, Integral),
    "n_tickets": (1, _HUGE, Integral),
    "val_fraction": (0, math.nextafter(1, 0), Real),
    "time_limit": (_TINY, math.inf, Real),
}
"""Least and greatest value, and the kind of number, of each numeric parameter."""

_OPEN = {"search_epochs", "search_lr", "finetune_epochs", "batch_size", "time_limit", "width"}
"""Those that may be None."""


def rule(name: str) -> str:
    """Return a numeric parameter's rule in words.

    >>> rule("search_lr"), rule("n_tickets")
    ('a positive number or None', 'an integer of at least 1')
    """
    least, most, kind = _RANGES[name]
    noun = "an integer" if kind is Integral else "a number"
    if least == _TINY:
        rule = "a positive number"
    elif most <= 1:
        rule = f"{noun} in [0, 1{']' if most == 1 else ')'}"
    else:
        rule = f"{noun} of at least {least}"
    if name == "compression":
        return f"{rule} (1 keeps everything) or 'auto'"
    return f"{rule} or None" if name in _OPEN else rule


def plain(value: Any) -> Any:
    """Return a NumPy scalar as Python's own, anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def widths(given: Any) -> tuple[int, ...]:
    """Return hidden layer sizes.

    Raises:
        InputError: not a sequence of at least one positive integer.

    >>> widths([512, 512])
    (512, 512)
    """
    try:
        sizes = tuple(operator.index(w) for w in given)
    except TypeError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise InputError(
            "widths must be the sizes of at least one hidden layer, such as (512, 512), "
            f"got {given!r}"
        )
    return sizes


def criterion(given: Any) -> Callable[..., Scores]:
    """Return a criterion by name, or the callable that was given.

    Raises:
        InputError: neither (lists the names).

    >>> criterion("magnitude").__name__
    'magnitude'
    """
    if callable(given):
        found: Callable[..., Scores] = given
        return found
    if not isinstance(given, str) or given not in criteria.CRITERIA:
        raise InputError(
            f"criterion must be a callable or one of {', '.join(criteria.CRITERIA)}, got {given!r}"
        )
    return criteria.CRITERIA[given]


def check(parameters: Mapping[str, Any]) -> None:
    """Refuse what cannot work.

    Args:
        parameters: an estimator's parameters by name; those it lacks are not looked at.

    Raises:
        InputError: the first parameter that breaks its rule.

    >>> check({"compression": 0.5})
    Traceback (most recent call last):
    secateurs.errors.InputError: compression must be ... (1 keeps everything) or 'auto', got 0.5
    """
    for name, (least, most, kind) in _RANGES.items():
        if name not in parameters:
            continue
        value = plain(parameters[name])
        if value is None and name in _OPEN:
            continue
        if name == "compression" and isinstance(value, str) and value == "auto":
            continue
        fits = isinstance(value, kind) and not isinstance(value, (bool, np.bool_))
        if not (fits and least <= value <= most):
            raise InputError(f"{name} must be {rule(name)}, got {value!r}")
    get = parameters.get
    regime = plain(get("regime"))
    number = isinstance(regime, (int, float)) and not isinstance(regime, bool)
    if not (regime is None or isinstance(regime, str) or (number and 0 < regime < math.inf)):
        raise InputError(
            "regime must be None, a name (rich, lazy, auto) or a positive number, the relative "
            f"movement that is wanted, got {regime!r}"
        )
    for name in ("preset", "rewind"):
        value = get(name, "")
        if not isinstance(value, str) and (value is not None or name == "rewind"):
            raise InputError(f"{name} must be a string, got {value!r}")
    views = get("views")
    if not (views is None or callable(views) or isinstance(views, Mapping)):
        raise InputError(f"views must be a callable or a dict of callables, got {views!r}")
    if get("widths") is not None:
        widths(get("widths"))
    criterion(get("criterion", "magnitude"))
    if get("precision", "fp32") not in get_args(Precision):
        raise InputError(f"precision must be 'fp32' or 'bf16', got {get('precision')!r}")
    folder, state = get("checkpoint_dir"), get("random_state")
    if not isinstance(folder, (str, Path, type(None))):
        raise InputError(f"checkpoint_dir must be a path or None, got {folder!r}")
    if folder is not None and not isinstance(state, (int, np.integer)):
        raise InputError(
            "checkpoint_dir needs an integer random_state, since a resumed fit must draw the "
            f"same numbers, got random_state={state!r}"
        )
    jobs = plain(get("n_jobs"))
    if jobs is not None and (not isinstance(jobs, int) or isinstance(jobs, bool) or not jobs):
        raise InputError(
            "n_jobs must be a positive integer, -1 for all cores (-2 for all but one, ...) or "
            f"None for 1, got {jobs!r}"
        )
    devices.pick(get("device"))


def to_json(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of the parameters JSON can hold; callables and random states are left out.

    >>> to_json({"widths": (16, 16), "class_weight": {0: 2.0}, "criterion": print})
    {'widths': [16, 16], 'class_weight': {'dict': [[0, 2.0]]}}
    """
    saved = {}
    for name, given in parameters.items():
        value = str(given) if isinstance(given, Path) else plain(given)
        if isinstance(value, dict):  # a list of pairs: keys of JSON objects are strings
            value = {"dict": [[plain(k), plain(v)] for k, v in value.items()]}
        elif isinstance(value, (list, tuple, np.ndarray)):
            value = list(map(plain, value))
        with suppress(TypeError):
            json.dumps(value)
            saved[name] = value
    return saved


def from_json(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `to_json`; lists come back as tuples.

    >>> from_json({"widths": [16, 16], "class_weight": {"dict": [[0, 2.0]]}})
    {'widths': (16, 16), 'class_weight': {0: 2.0}}
    """
    parameters: dict[str, Any] = {}
    for name, value in saved.items():
        parameters[name] = dict(map(tuple, value["dict"])) if isinstance(value, dict) else value
        if isinstance(value, list):
            parameters[name] = tuple(value)
    return parameters
