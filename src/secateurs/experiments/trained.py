"""The network of a cell, blank, or back from the store when its ticket is finished."""

import math
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
from secateurs.networks.image_network import ImageNetwork
from secateurs.networks.init import prunable
from secateurs.networks.lenet import LeNet300100
from secateurs.networks.pixels import Normalise
from secateurs.networks.resnet import Stem

__all__ = ["PROBA", "blank", "probabilities", "trained"]

_STEMS: dict[str, Stem] = {"resnet18": "imagenet", "resnet18_cifar": "cifar"}

PROBA = "proba"
"""Name under which a ticket cell keeps what it predicts: "proba/test", "proba/validation"."""


def blank(
    network: NetworkName,
    inputs: Sequence[int],
    n_outputs: int,
    *,
    widths: Sequence[int],
    dropout: float = 0.0,
    skip: bool = False,
    raw: bool = False,
) -> nn.Module:
    """Return a network of a cell without memory, on the meta device: names and shapes.

    Args:
        network: which.
        inputs: shape of one row: (columns,), or (channels, height, width).
        n_outputs: number of classes.
        widths: sizes, as of a `TicketCell`.
        dropout: of the MLP.
        skip: of the MLP.
        raw: whether it normalises images itself, by statistics that are still to be filled in.

    >>> blank("lenet_300_100", (784,), 10, widths=(300, 100)).decoder
    Linear(in_features=100, out_features=10, bias=True)
    """
    n_inputs = math.prod(inputs)
    with torch.device("meta"):  # torch's own initialisation would move its global generator
        if network == "mlp":
            return MLP(n_inputs, n_outputs, widths=widths, dropout=dropout, skip=skip)
        if network == "lenet_300_100":
            normalise = Normalise([0.0] * inputs[0], [1.0] * inputs[0]) if raw else None
            return LeNet300100(n_inputs, n_outputs, widths=widths, normalise=normalise)
    channels, height, width = inputs
    described = ImageNetwork(
        kind="resnet18" if network.startswith("resnet18") else network,
        width=widths[0],
        shape=(channels, height, width),
        n_outputs=n_outputs,
        stem=_STEMS.get(network),
    )
    return described.blank()


def trained(store: Store, cell_key: str) -> tuple[nn.Module, Mask]:
    """Return the network of a finished ticket cell, in evaluation mode, and its mask.

    Raises:
        InputError: there is none, or it is damaged.
    """
    tensors, meta = store.tensors(cell_key)
    packed = {name: t for name, t in tensors.items() if not name.startswith(f"{PROBA}/")}
    # these came later
    told = {name: meta[name] for name in ("dropout", "skip", "raw") if name in meta}
    network = blank(
        meta.get("network", "mlp"),
        meta.get("inputs") or (meta["n_inputs"],),
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
