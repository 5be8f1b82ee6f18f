"""Recipes: the values behind the estimators' open parameters, and what a table's size changes.

The defaults for tables were chosen on validation rows of five tuning sets (docs/design/0001 and
0002), the target movement of regime="auto" on those of four (0003).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from secateurs.errors import InputError
from secateurs.networks.dense import MLP_TAB

__all__ = [
    "AUTO_MOVEMENT",
    "IMAGES",
    "LAZY_MOVEMENT",
    "MIN_EPOCHS",
    "PRESETS",
    "REGIMES",
    "ROW_EPOCHS",
    "ImageRecipe",
    "Recipe",
    "regime_of",
    "resolve",
]

ROW_EPOCHS = 1_000_000
"""Above this many rows times epochs the default recipe trains for fewer epochs."""

MIN_EPOCHS = 14


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What the estimator leaves open when it is not told otherwise."""

    widths: tuple[int, ...]
    search_epochs: int
    search_lr: float
    finetune_epochs: int = 105
    batch_size: int = 128
    init_scale: float = 0.25
    adapts: bool = True
    """Whether large tables get larger batches and fewer epochs."""
    movement: float | None = None
    """Relative movement of the weights that the search is to reach; None keeps its rate."""


PRESETS: dict[str, Recipe] = {
    "default": Recipe(widths=(512,) * 2, search_epochs=35, search_lr=1e-2),
    "paper": Recipe(widths=MLP_TAB, search_epochs=105, search_lr=1e-3, adapts=False),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRecipe:
    """What the estimator of images leaves open when it is not told otherwise: SGD in both phases.

    The search keeps its learning rate; that of the finetuning falls to 0 along a cosine.
    """

    search_epochs: int
    search_lr: float
    finetune_epochs: int
    finetune_lr: float


IMAGES = ImageRecipe(search_epochs=30, search_lr=1e-2, finetune_epochs=30, finetune_lr=1e-1)
"""The rates were chosen on validation images of Fashion-MNIST and CIFAR-10, with few images and one
seed (benchmarks/tune_images.py)."""

REGIMES: dict[str, dict[str, float]] = {
    "rich": {"search_lr": 0.1, "init_scale": 0.25},
    "lazy": {"search_lr": 1e-3, "init_scale": 1.0},
}

AUTO_MOVEMENT = 0.4
"""Target of regime="auto": the best of .2, .4, .8, 1.6 on validation rows of four tuning sets."""

LAZY_MOVEMENT = 0.1
"""Below this relative movement a search is called lazy: nine tenths of its mask are the start's."""


def regime_of(movement: float) -> str:
    """Return the word for a search whose weights moved so far, relative to their size.

    >>> regime_of(0.05), regime_of(0.5)
    ('lazy', 'rich')
    """
    return "lazy" if movement < LAZY_MOVEMENT else "rich"


def _batch_size(n_rows: int) -> int:
    """Return 128 up to 8,192 rows, then twice that for every further doubling, up to 1,024.

    >>> [_batch_size(n) for n in (1_000, 8_192, 10_000, 30_000, 1_000_000)]
    [128, 128, 256, 512, 1024]
    """
    batch = 128
    while batch < 1024 and n_rows > 64 * batch:
        batch *= 2
    return batch


def _changes(regime: str | float) -> dict[str, float]:
    """Return what a regime sets of a recipe."""
    if isinstance(regime, str) and regime in REGIMES:
        return REGIMES[regime]
    if regime == "auto":
        return {"movement": AUTO_MOVEMENT}
    if isinstance(regime, (str, bool)) or not 0 < regime < math.inf:
        raise InputError(
            f"regime must be None or one of {', '.join(REGIMES)}, auto, or a positive number (the "
            f"movement that is wanted), got {regime!r}"
        )
    return {"movement": float(regime)}


def resolve(
    n_rows: int, *, preset: str | None, regime: str | float | None, given: Mapping[str, Any]
) -> Recipe:
    """Return the recipe for a table: what is given wins over the preset; a regime sets its own.

    Args:
        n_rows: training rows.
        preset: "paper", "default" or None for the default.
        regime: "rich", "lazy", "auto" or a number (a target movement), or None for what the preset
            says.
        given: values of `Recipe` fields; None means open.

    Raises:
        InputError: unknown names, or a regime beside the values that it stands for.

    >>> resolve(1_000, preset="paper", regime=None, given={}).search_lr
    0.001
    >>> resolve(100_000, preset=None, regime=None, given={"search_epochs": 30}).search_epochs
    30
    """
    recipe = PRESETS.get("default" if preset is None else preset)
    if recipe is None:
        raise InputError(f"preset must be None or one of {', '.join(PRESETS)}, got {preset!r}")
    if regime is not None:
        changes = _changes(regime)
        if given.get("search_lr") is not None or given.get("init_scale") not in (
            None,
            recipe.init_scale,
            changes.get("init_scale"),
        ):
            raise InputError(
                f"regime={regime!r} sets search_lr and init_scale itself; leave both at their "
                "defaults, or regime at None"
            )
        recipe = replace(recipe, **changes)  # type: ignore[arg-type]
        given = {k: v for k, v in given.items() if k != "init_scale"}
    if recipe.adapts:
        cap = max(MIN_EPOCHS, ROW_EPOCHS // max(n_rows, 1))
        recipe = replace(
            recipe,
            batch_size=max(recipe.batch_size, _batch_size(n_rows)),
            search_epochs=min(recipe.search_epochs, cap),
            finetune_epochs=min(recipe.finetune_epochs, cap),
        )
    return replace(recipe, **{k: v for k, v in given.items() if v is not None})
