"""The network of a finished ticket, back from the store."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from secateurs.experiments.spec import NetworkName
from secateurs.experiments.store import Store
from secateurs.masks import Mask
from secateurs.model_directory import unpack
from secateurs.networks.dense import MLP
from secateurs.networks.init import prunable
from secateurs.networks.lenet import LeNet300100

__all__ = ["PROBA", "blank", "probabilities", "trained"]

PROBA = "proba"
"""Name under which a ticket cell keeps what it predicts: "proba/test", "proba/validation"."""


def blank(
    network: NetworkName,
    n_inputs: int,
    n_outputs: int,
    *,
    widths: Sequence[int],
    dropout: float = 0.0,
    skip: bool = False,
) -> nn.Module:
    """Return a network of a cell without memory, on the meta device: names and shapes.

    >>> blank("lenet_300_100", 784, 10, widths=(300, 100)).decoder
    Linear(in_features=100, out_features=10, bias=True)
    """
    with torch.device("meta"):  # torch's own initialisation would move its global generator
        if network == "lenet_300_100":
            return LeNet300100(n_inputs, n_outputs, widths=widths)
        return MLP(n_inputs, n_outputs, widths=widths, dropout=dropout, skip=skip)


def trained(store: Store, cell_key: str) -> tuple[nn.Module, Mask]:
    """Return the network of a finished ticket cell, in evaluation mode, and its mask.

    Raises:
        InputError: there is none, or it is damaged.
    """
    tensors, meta = store.tensors(cell_key)
    packed = {name: t for name, t in tensors.items() if not name.startswith(f"{PROBA}/")}
    told = {name: meta[name] for name in ("dropout", "skip") if name in meta}  # they came later
    network = blank(
        meta.get("network", "mlp"),
        meta["n_inputs"],
        meta["n_outputs"],
        widths=tuple(meta["widths"]),
        **told,
    )
    names = meta.get("prunable") or list(prunable(network, only="encoder.*"))
    members, kept = unpack(packed, network, [0], prunable=names)
    return members[0], kept[0]


def probabilities(store: Store, cell_key: str) -> dict[str, NDArray[np.float64]]:
    """Return the [rows, classes] probabilities of a finished ticket cell, by side."""
    tensors, _ = store.tensors(cell_key)
    return {
        name.removeprefix(f"{PROBA}/"): t.to(torch.float64).numpy()
        for name, t in tensors.items()
        if name.startswith(f"{PROBA}/")
    }
