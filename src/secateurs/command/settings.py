"""Parameters of an estimator as `--set NAME=JSON` says them; it checks the values itself."""

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from secateurs.errors import InputError

__all__ = ["check_names", "parse"]


def parse(texts: Iterable[str]) -> dict[str, Any]:
    """Return settings by name: JSON values, or the bare string where it is not JSON.

    Raises:
        InputError: no name, no "=", or a name that comes twice.

    >>> parse(["compression=16", "widths=[64, 64]", "criterion=random"])
    {'compression': 16, 'widths': [64, 64], 'criterion': 'random'}
    """
    given: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--set takes NAME=JSON, such as compression=16, got {text!r}")
        if name in given:
            raise InputError(f"--set takes every parameter once, got {name!r} twice")
        try:
            given[name] = json.loads(value)
        except ValueError:
            given[name] = value
    return given


def check_names(names: Iterable[str], kinds: Sequence[type]) -> None:
    """Refuse a name that is a parameter of none of the estimators.

    Raises:
        InputError: names the first such name, one like it, and all that there are.

    >>> from sklearn.dummy import DummyRegressor
    >>> check_names(["constant"], [DummyRegressor])
    >>> check_names(["constants"], [DummyRegressor])
    Traceback (most recent call last):
    ...
    secateurs.errors.InputError: unknown parameter 'constants'; did you mean 'constant'? Dummy...
    """
    known = sorted({name for kind in kinds for name in kind._get_param_names()})  # type: ignore[attr-defined]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            title = " and ".join(kind.__name__ for kind in kinds)
            takes = "takes" if len(kinds) == 1 else "take"
            raise InputError(
                f"unknown parameter {name!r}; {hint}{title} {takes} {', '.join(known)}"
            )
