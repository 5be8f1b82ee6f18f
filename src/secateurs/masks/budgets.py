"""How many weights each layer keeps: densities, and whole counts that add up."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from torch import Tensor

from secateurs.errors import InputError

__all__ = [
    "Scope",
    "Shapes",
    "check_floor",
    "check_scope",
    "layer_counts",
    "layer_densities",
    "n_to_keep",
]

Scope = Literal["global", "layer", "output", "erk", "halved_last"]
Shapes = Mapping[str, Tensor] | Mapping[str, Sequence[int]]


def n_to_keep(density: float, n: int) -> int:
    """Return round(density * n), halves upwards: the exact number of weights kept out of n.

    Raises:
        InputError: density is not a number in (0, 1].

    >>> n_to_keep(0.5, 5)
    3
    """
    try:
        valid = not isinstance(density, bool | str) and 0 < float(density) <= 1
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise InputError(
            f"density must be in (0, 1], got {density!r}; pass a kept fraction, not a percentage"
        )
    return int(density * n + 0.5)


def check_scope(scope: str) -> None:
    """Refuse an unknown scope.

    Raises:
        InputError: lists the scopes.

    >>> check_scope("erk")
    """
    if scope not in get_args(Scope):
        known = ", ".join(repr(one) for one in get_args(Scope))
        raise InputError(f"scope must be one of {known}, got {scope!r}")


def _shapes(weights: Shapes) -> dict[str, tuple[int, ...]]:
    shapes = {
        name: tuple(one.shape if isinstance(one, Tensor) else one) for name, one in weights.items()
    }
    empty = [name for name, shape in shapes.items() if math.prod(shape) < 1]
    if empty or not shapes:
        raise InputError(
            f"each layer must have a weight to score, got none in {', '.join(empty) or 'all'}; "
            "leave out layers without weights"
        )
    return shapes


def _erk(shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, float]:
    n = {name: math.prod(shape) for name, shape in shapes.items()}
    raw = {name: sum(shape) / n[name] for name, shape in shapes.items()}
    full: set[str] = set()
    while True:  # what a full layer cannot take goes to the others, which may fill up in turn
        budget = density * sum(n.values()) - sum(n[name] for name in full)
        share = sum(raw[name] * n[name] for name in raw if name not in full)
        scale = budget / share if share else 0.0
        over = {name for name in raw if name not in full and scale * raw[name] >= 1}
        if not over:
            return {name: 1.0 if name in full else scale * raw[name] for name in raw}
        full |= over


def _halved_last(shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, float]:
    n = [math.prod(shape) for shape in shapes.values()]
    hidden, last = sum(n[:-1]), n[-1]
    low, high = 0.0, math.log(density) / math.log(0.9)  # at `high` even .9^t is small enough
    for _ in range(200):
        t = (low + high) / 2
        left = hidden * 0.8**t + last * 0.9**t
        low, high = (t, high) if left > density * (hidden + last) else (low, t)
    *others, output = shapes
    return {**dict.fromkeys(others, 0.8**high), output: 0.9**high}


def layer_densities(weights: Shapes, density: float, scope: Scope) -> dict[str, float]:
    """Return the kept fraction of each layer, so that the whole keeps `density`.

    "layer" and "output" are uniform. "erk" is Erdos-Renyi-Kernel (Evci et al. 2020): a layer's
    density is proportional to (sum of its dimensions) / (product of its dimensions), at most 1;
    what full layers leave goes to the others. "halved_last" is Frankle & Carbin (2019): the last of
    `weights` is pruned at half the rate of the others. After t rounds they keep .8^t and it keeps
    .9^t; t is the real number that gives `density`.

    Args:
        weights: weights, scores or shapes by name; for "halved_last" the output layer is the last.
        density: kept fraction of all weights together, in (0, 1].
        scope: any but "global", which has no densities before it has seen the scores.

    Raises:
        InputError: density out of range, an unknown scope, "global", or a layer without weights.

    >>> shapes = {"0.weight": (300, 784), "2.weight": (100, 300), "4.weight": (10, 100)}
    >>> {k: round(d, 3) for k, d in layer_densities(shapes, 0.1, "erk").items()}
    {'0.weight': 0.08, '2.weight': 0.23, '4.weight': 1.0}
    """
    check_scope(scope)
    n_to_keep(density, 1)
    shapes = _shapes(weights)
    if scope == "erk":
        return _erk(shapes, density)
    if scope == "halved_last":
        return _halved_last(shapes, density)
    if scope == "global":
        raise InputError(
            "layer densities need a scope that sets them, got 'global'; use 'layer', 'output', "
            "'erk' or 'halved_last'"
        )
    return dict.fromkeys(shapes, float(density))


def check_floor(needed: int, budget: int, min_per_layer: int, density: float) -> None:
    """Refuse floors that need more weights than the density leaves.

    Args:
        needed: the number of weights that the floors need.
        budget: the number of weights that the density leaves.
        min_per_layer: the floor, for the error.
        density: the density, for the error.

    Raises:
        InputError: needed is more than budget.

    >>> check_floor(2, 3, 1, 0.5)
    """
    if needed > budget:
        raise InputError(
            f"min_per_layer={min_per_layer} needs {needed} weights but density {density:g} "
            f"leaves {budget}; raise the density or lower min_per_layer"
        )


def _exact(targets: list[float], total: int, low: list[int], high: list[int]) -> list[int]:
    """Round to whole numbers that add up to `total`, each between its bounds.

    Largest remainder first, ties to the first layer. Where lower bounds took too much, the layers
    above theirs give it back in proportion.
    """
    counts = [
        min(max(int(t), least), most) for t, least, most in zip(targets, low, high, strict=True)
    ]
    layers = range(len(counts))
    while sum(counts) < total:
        counts[
            max((i for i in layers if counts[i] < high[i]), key=lambda i: targets[i] - counts[i])
        ] += 1
    while sum(counts) > total:
        counts[
            max((i for i in layers if counts[i] > low[i]), key=lambda i: counts[i] / targets[i])
        ] -= 1
    return counts


def layer_counts(
    weights: Shapes,
    density: float,
    scope: Scope,
    *,
    min_per_layer: int = 0,
    left: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Return how many weights each layer keeps.

    "layer" rounds in each layer, "output" in each output unit; "erk" and "halved_last" keep
    exactly round(density * n) together, by largest remainder.

    Args:
        weights: weights, scores or shapes by name.
        density: kept fraction of all weights together, in (0, 1].
        scope: as for `layer_densities`.
        min_per_layer: a floor for each layer (or all that it has left).
        left: how many weights each layer has left, or None for all.

    Raises:
        InputError: as `layer_densities`; floors above the budget; a layer with too few left.

    >>> layer_counts({"a": (4, 10), "b": (4, 2)}, 0.3, "erk")
    {'a': 10, 'b': 4}
    """
    densities, shapes = layer_densities(weights, density, scope), _shapes(weights)
    n = {name: math.prod(shape) for name, shape in shapes.items()}
    left = n if left is None else left
    floors = {name: min(min_per_layer, left[name]) for name in n}
    total = n_to_keep(density, sum(n.values()))
    uniform = scope in ("layer", "output")
    if uniform:
        rows = {
            name: shape[0] if scope == "output" and shape else 1 for name, shape in shapes.items()
        }
        counts = {name: rows[name] * n_to_keep(density, n[name] // rows[name]) for name in n}
        for name in n:
            check_floor(floors[name], counts[name], min_per_layer, density)
    else:
        counts = {name: int(densities[name] * n[name]) for name in n}
        check_floor(sum(floors.values()), total, min_per_layer, density)
    for name, k in counts.items():
        if k > left[name]:
            raise InputError(
                f"density {density:g} asks for {k} weights of {name} but only {left[name]} are "
                "left in `within`; pruned weights never return, so pass a lower density"
            )
    if uniform:
        return counts
    targets = [densities[name] * n[name] for name in n]
    exact = _exact(targets, total, list(floors.values()), [left[name] for name in n])
    return dict(zip(n, exact, strict=True))
