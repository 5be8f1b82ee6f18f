"""Frozen dataclasses as JSON and back, checked by their own type annotations.

Defaults are written out, but for those of fields that came later (`descriptions.LATER`): a
description from before then still says the same. Unions of dataclasses carry their class name as
"kind", and functions are written by the names under which the literal dicts know them. Nothing is
imported or executed by what a file says.
"""

import difflib
import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import cache, partial
from typing import Any, Literal, TypeVar

from secateurs import criteria, objectives, schedules
from secateurs.descriptions import told_fields
from secateurs.errors import InputError
from secateurs.masks import Scores

__all__ = ["build", "canonical", "describe", "kind_of"]

_T = TypeVar("_T")

_FUNCTIONS: dict[Any, Mapping[str, Callable[..., Any]]] = {
    objectives.Loss: objectives.LOSSES,
    objectives.Contrastive: objectives.CONTRASTIVE,
    Callable[..., Scores]: criteria.CRITERIA,
    Callable[[float], schedules.Schedule]: schedules.SCHEDULES,
}
"""The names that a field of each function type takes."""


def canonical(value: Any) -> str:
    """Return JSON text that is equal for equal descriptions: sorted names, no spaces.

    >>> canonical({"b": 1, "a": 0.5})
    '{"a":0.5,"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def kind_of(cls: type) -> str:
    """Return the name that tells a dataclass from the others of its union."""
    return cls.__name__


def describe(value: Any) -> Any:
    """Return a description as plain JSON values, defaults included but for later ones.

    Raises:
        InputError: a function that no name stands for.

    >>> from secateurs.optimizers import AdamW
    >>> describe(AdamW())
    {'kind': 'AdamW', 'lr': 0.001, 'weight_decay': 0.01, 'schedule': 'restarts'}
    """
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: describe(getattr(value, f.name)) for f in told_fields(value)}
        for name in _numbers(type(value)) & parts.keys():  # 4 and 4.0 are one value
            parts[name] = None if parts[name] is None else float(parts[name])
        return {"kind": kind_of(type(value)), **parts}
    if isinstance(value, (list, tuple)):
        return [describe(part) for part in value]
    if isinstance(value, partial) and not value.args:
        taken = _settings(value.func)
        told = {name: _told(taken.get(name), given) for name, given in value.keywords.items()}
        return {"name": _name_of(value.func), **told}
    if callable(value):
        return _name_of(value)
    return value


@cache
def _numbers(cls: type) -> frozenset[str]:
    """Return the fields of a dataclass that are numbers, whole or not."""
    hints = typing.get_type_hints(cls)
    return frozenset(name for name, hint in hints.items() if hint in (float, float | None))


def _settings(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of the keyword-only parameters of a function."""
    return {
        name: parameter.annotation
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def _told(hint: Any, value: Any) -> Any:
    if hint is float:  # 4 and 4.0 are one value here, too
        return float(value)
    return [float(one) for one in value] if hint == tuple[float, ...] else describe(value)


def _name_of(function: Callable[..., Any]) -> str:
    for known in _FUNCTIONS.values():
        for name, one in known.items():
            if one is function:
                return name
    raise InputError(
        "an experiment can only name functions that secateurs has by name, got "
        f"{getattr(function, '__qualname__', function)!r}; see `secateurs list`"
    )


def build(hint: Any, value: Any, *, path: str = "", base: Any = None) -> Any:
    """Return what a type annotation says, from plain JSON values.

    Args:
        hint: a dataclass, a union, Literal, tuple[X, ...], a function type, or a plain type.
        value: as `describe` writes it; a dataclass may leave out fields that have a default.
        path: dotted name for messages.
        base: an instance whose fields stand for those left out (else the class's defaults).

    Raises:
        InputError: an unknown or missing name, or a value of the wrong type.

    >>> from secateurs.optimizers import SGD
    >>> build(SGD, {"lr": 0.1}).lr
    0.1
    >>> build(SGD, {"lr": "fast"}, path="optimizer")
    Traceback (most recent call last):
    ...
    secateurs.errors.InputError: optimizer.lr must be a number, got 'fast'
    """
    if hint in _FUNCTIONS:
        return _function(_FUNCTIONS[hint], value, path)
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _union(typing.get_args(hint), value, path, base)
    if origin is Literal:
        choices = typing.get_args(hint)
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            listed = ", ".join(map(repr, choices))
            raise InputError(f"{path} must be one of {listed}, got {value!r}")
        return value
    if origin is tuple:
        inner = typing.get_args(hint)[0]
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{path} must be a list, got {value!r}")
        return tuple(build(inner, one, path=f"{path}[{i}]") for i, one in enumerate(value))
    if is_dataclass(hint):
        return _dataclass(typing.cast("type[Any]", hint), value, path, base)
    return _plain(hint, value, path)


def _plain(hint: Any, value: Any, path: str) -> Any:
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if hint is type(None) and value is None:
        return None
    if hint is not float and type(value) is hint:
        return value
    noun = {float: "a number", int: "an integer", bool: "true or false", str: "a string"}
    raise InputError(f"{path} must be {noun.get(hint, 'null')}, got {value!r}")


def _union(options: tuple[Any, ...], value: Any, path: str, base: Any) -> Any:
    kinds = {kind_of(one): one for one in options if isinstance(one, type) and is_dataclass(one)}
    if kinds and isinstance(value, dict):
        # where nothing says which, it is the first: others came later
        kind = value.get("kind", kind_of(type(base)) if base is not None else next(iter(kinds)))
        if kind not in kinds:
            raise InputError(f"{path}.kind must be one of {', '.join(kinds)}, got {kind!r}")
        return _dataclass(kinds[kind], value, path, base)
    if value is None and type(None) in options:
        return None
    reasons = []
    for option in options:
        if option is type(None) or option in kinds.values():
            continue
        try:
            return build(option, value, path=path)
        except InputError as err:
            reasons.append(err)
    if reasons:
        raise reasons[0]
    raise InputError(f"{path} must be a table with a kind of {', '.join(kinds)}, got {value!r}")


def _function(known: Mapping[str, Callable[..., Any]], value: Any, path: str) -> Any:
    name, arguments = value, {}
    if isinstance(value, dict):
        name = value.get("name")
        arguments = {key: given for key, given in value.items() if key != "name"}
    if not isinstance(name, str) or name not in known:
        raise InputError(f"{path} must be one of {', '.join(known)}, got {value!r}")
    if not arguments:
        return known[name]
    taken = _settings(known[name])
    _refuse_unknown(arguments, taken, path)
    built = {
        key: build(taken[key], given, path=f"{path}.{key}") for key, given in arguments.items()
    }
    return partial(known[name], **built)


def _dataclass(cls: type[_T], value: Any, path: str, base: Any) -> _T:
    if not isinstance(value, dict):
        raise InputError(f"{path or 'an experiment'} must be a table of names, got {value!r}")
    if value.get("kind", kind_of(cls)) != kind_of(cls):
        raise InputError(f"{path}.kind must be {kind_of(cls)!r}, got {value['kind']!r}")
    hints = typing.get_type_hints(cls)
    given = {name: part for name, part in value.items() if name != "kind"}
    declared = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    _refuse_unknown(given, declared, path)
    dot = f"{path}." if path else ""
    base = base if type(base) is cls else None
    changes = {}
    for name, part in given.items():
        field, below = declared[name], None
        if base is not None:
            below = getattr(base, name)
        elif field.default is not MISSING:
            below = field.default
        elif field.default_factory is not MISSING:
            below = field.default_factory()
        changes[name] = build(hints[name], part, path=f"{dot}{name}", base=below)
    if base is not None:
        changed: _T = replace(base, **changes)
        return changed
    for name, field in declared.items():
        if name not in changes and field.default is MISSING and field.default_factory is MISSING:
            raise InputError(f"{dot}{name} must be given; it has no default")
    return cls(**changes)


def _refuse_unknown(given: Iterable[str], known: Iterable[str], path: str) -> None:
    names = list(known)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            where = f"{path} has" if path else "there are"
            raise InputError(f"unknown name {name!r}; {hint}{where} {', '.join(names) or 'none'}")
