"""What is told of a network while it trains: where to stop early, how features are learnt."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from secateurs import device as devices
from secateurs import training
from secateurs.experiments.rows import Prepared
from secateurs.experiments.spec import ImageRows, SearchCell, TicketCell
from secateurs.measures.dynamics import feature_dynamics
from secateurs.measures.regime import log_spaced
from secateurs.networks.init import scale_
from secateurs.regime.centring import Centred
from secateurs.seeds import stream
from secateurs.training import Watch

__all__ = ["CHECKPOINTS", "TILE", "dynamics", "follow", "followed"]

TILE = 1_000
"""Images of a forward pass."""

CHECKPOINTS = 20
"""Log-spaced steps at which feature learning is followed."""


def follow(cell: SearchCell | TicketCell, prepared: Prepared, device: torch.device) -> Watch | None:
    """Return what is told of a network on images while it trains: Frankle & Carbin 2019, sec. 2.

    Test accuracy is told, and costs, only where the validation loss is the lowest so far; of
    centred outputs never: the loss, in units of alpha, does not say where to stop.

    Args:
        cell: whose network it is.
        prepared: its rows.
        device: of the network.

    Returns:
        what `training.train` calls, or None for tables, for raw images (those experiments stop
        nowhere early, and it would cost more than their training) and without validation images.
    """
    if prepared.data.validation is None or not isinstance(cell.rows, ImageRows) or cell.rows.raw:
        return None
    sides = [(x.to(device), y.to(device)) for x, y in (prepared.data.validation, prepared.test)]
    seen: dict[nn.Module, Callable[[], Tensor]] = {}
    least = math.inf

    def quality(logits: Callable[[], Tensor], y: Tensor) -> tuple[float, float]:
        with devices.arithmetic("fp32", device):
            found = logits()
        loss = torch.nn.functional.cross_entropy(found, y)
        return float(loss), float((found.argmax(1) == y).double().mean())

    def tell(network: nn.Module, step: int) -> dict[str, Any]:
        nonlocal least
        if network not in seen:
            seen[network] = training.repeated(network, sides[0][0], tile=TILE)
        loss, accuracy = quality(seen[network], sides[0][1])
        told = {"validation_loss": loss, "validation_accuracy": accuracy, "test_accuracy": None}
        if loss < least and not isinstance(network, Centred):
            least = loss
            x, y = sides[1]
            told["test_accuracy"] = quality(training.repeated(network, x, tile=TILE), y)[1]
        return told

    return tell


def followed(curve: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a curve by column, and the step of its lowest validation loss: where to stop early.

    >>> row = {"validation_accuracy": 0.9, "test_accuracy": 0.8}
    >>> losses = {0: 2.0, 9: 1.0}
    >>> curve = [{"step": step, "validation_loss": x, **row} for step, x in losses.items()]
    >>> followed(curve)["early_stop"]["step"]
    9
    """
    if not curve:
        return {}
    best = min(curve, key=lambda row: row["validation_loss"])
    names = ("step", "validation_loss", "validation_accuracy")
    return {
        "curve": {name: [row[name] for row in curve] for name in names},
        "early_stop": {name: best[name] for name in (*names, "test_accuracy")},
    }


def dynamics(
    cell: SearchCell, network: nn.Module, prepared: Prepared, device: torch.device
) -> tuple[Watch, list[int]]:
    """Return what tells how a search learns its features, and the steps to tell it at.

    Args:
        cell: with probes.
        network: its unscaled start.
        prepared: its rows.
        device: of the training.
    """
    x, y = prepared.data.train
    rows = torch.randperm(len(x), generator=stream(cell.rows.split, "probes"))[: cell.n_probes]
    start = copy.deepcopy(network).to(device)
    scale_(start, cell.init_scale)
    tell = feature_dynamics(start, x[rows].to(device), y=y[rows].to(device))
    return tell, log_spaced(cell.search.n_steps(len(x)), CHECKPOINTS)
