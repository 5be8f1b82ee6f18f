"""The network of a finished ticket, back from the store."""

import numpy as np
import torch
from numpy.typing import NDArray

from secateurs.experiments.store import Store
from secateurs.masks import Mask
from secateurs.model_directory import unpack
from secateurs.networks.dense import MLP

__all__ = ["PROBA", "probabilities", "trained"]

PROBA = "proba"
"""Name under which a ticket cell keeps what it predicts: "proba/test", "proba/validation"."""


def trained(store: Store, cell_key: str) -> tuple[MLP, Mask]:
    """Return the network of a finished ticket cell, in evaluation mode, and its mask.

    Raises:
        InputError: there is none, or it is damaged.
    """
    tensors, meta = store.tensors(cell_key)
    packed = {name: t for name, t in tensors.items() if not name.startswith(f"{PROBA}/")}
    sizes = (meta["n_inputs"], meta["n_outputs"], tuple(meta["widths"]))
    told = {name: meta[name] for name in ("dropout", "skip") if name in meta}  # they came later
    members, kept = unpack(packed, sizes, [0], **told)
    return members[0], kept[0]


def probabilities(store: Store, cell_key: str) -> dict[str, NDArray[np.float64]]:
    """Return the [rows, classes] probabilities of a finished ticket cell, by side."""
    tensors, _ = store.tensors(cell_key)
    return {
        name.removeprefix(f"{PROBA}/"): t.to(torch.float64).numpy()
        for name, t in tensors.items()
        if name.startswith(f"{PROBA}/")
    }
