"""Which weights stay: functions over masks, `dict[str, BoolTensor]` keyed by parameter name.

Words (method, section 1): *density* is the kept fraction of the prunable weights; a *score* is one
number a weight, higher = keep.
"""

from secateurs.masks.application import applied, apply_, check_held
from secateurs.masks.budgets import Scope, layer_counts, layer_densities, n_to_keep
from secateurs.masks.controls import reverse, shuffle
from secateurs.masks.counting import count, density, iou, kept_per_layer, ones, report
from secateurs.masks.holding import Held, hold
from secateurs.masks.matching import Mask, Scores, check
from secateurs.masks.rewiring import rewire
from secateurs.masks.rounds import keep_in_rounds
from secateurs.masks.selection import keep_top, top_like
from secateurs.masks.storage import load, pack, save, unpack
from secateurs.masks.torch_prune import (
    export_torch_prune_,
    import_torch_prune_,
    split_torch_prune,
)

__all__ = [
    "Held",
    "Mask",
    "Scope",
    "Scores",
    "applied",
    "apply_",
    "check",
    "check_held",
    "count",
    "density",
    "export_torch_prune_",
    "hold",
    "import_torch_prune_",
    "iou",
    "keep_in_rounds",
    "keep_top",
    "kept_per_layer",
    "layer_counts",
    "layer_densities",
    "load",
    "n_to_keep",
    "ones",
    "pack",
    "report",
    "reverse",
    "rewire",
    "save",
    "shuffle",
    "split_torch_prune",
    "top_like",
    "unpack",
]
