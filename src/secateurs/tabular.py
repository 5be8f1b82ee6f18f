"""From an encoded table to tickets: one search, several compressions, the smallest that is good."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateurs import autopilot, model_directory
from secateurs.data.batches import Data
from secateurs.data.views import View
from secateurs.errors import InputError
from secateurs.masks import Mask
from secateurs.measures.regime import start_mask_overlap, weight_movement
from secateurs.measures.size import n_parameters, n_parameters_kept
from secateurs.networks.dense import MLP
from secateurs.networks.init import initialise_, prunable
from secateurs.seeds import stream
from secateurs.tickets import (
    Ticket,
    TicketConfig,
    density_for,
    not_searched,
    prune,
    search,
    searches,
)
from secateurs.training import Progress, outputs

__all__ = ["find_tickets", "row_errors", "sizes", "smallest_near_best", "start_network", "training"]


def start_network(
    n_inputs: int,
    n_outputs: int,
    widths: Sequence[int],
    *,
    seed: int,
    dropout: float = 0.0,
    skip: bool = False,
) -> MLP:
    """Return the MLP that a seed starts from; no global generator is moved.

    >>> start_network(4, 2, (8,), seed=0).decoder
    Linear(in_features=8, out_features=2, bias=True)
    """
    with torch.device("meta"):  # torch's own initialisation would move its global generator
        network = MLP(n_inputs, n_outputs, widths=widths, dropout=dropout, skip=skip)
    initialise_(network.to_empty(device="cpu"), generator=stream(seed, "init"))
    return network


def find_tickets(
    data: Data,
    n_outputs: int,
    widths: Sequence[int],
    config: TicketConfig,
    compressions: Sequence[float],
    *,
    seed: int,
    view: View | None,
    device: str | None,
    checkpoint_dir: Path | None,
    progress: Progress | None,
    time_limit: float | None,
) -> dict[float, Ticket]:
    """Return one ticket a compression, all pruned from one search of one MLP.

    Compressions that would leave a layer without weights are passed over, unless there is but one.
    A time limit is shared by the phases according to their cost.

    Raises:
        InputError: as `find_ticket`, or no compression is possible.
    """
    network = start_network(data.train[0].shape[1], n_outputs, widths, seed=seed)
    names = list(prunable(network, only="encoder.*"))
    configs = {}
    for compression in compressions:
        asked = replace(config, compression=compression)
        try:
            density_for(asked, network, names)
            configs[compression] = asked
        except InputError:
            if len(compressions) == 1:
                raise
    if not configs:
        raise InputError(
            f"compression='auto' tries {tuple(compressions)} and none leaves a weight in every "
            "layer; use a wider network or compression=1"
        )
    # a contrastive step costs two passes; the dense network is not searched
    searching = any(map(searches, configs.values()))
    passes = (2.0 if config.search.contrastive_weight else 1.0) * searching
    passes *= 1.0 if config.movement is None else autopilot.COST
    costs = [config.search.epochs * passes, *[float(config.finetune.epochs)] * len(configs)]
    shares = np.cumsum(costs) / (sum(costs) or 1.0)
    limit = math.inf if time_limit is None else time_limit
    deadlines = [time.monotonic() + (limit * share if share else 0.0) for share in shares.tolist()]
    common: dict[str, Any] = {
        "seed": seed,
        "view": view,
        "device": device,
        "checkpoint_dir": checkpoint_dir,
        "progress": progress,
    }
    if searching:  # a search of no epochs, too: it refuses a rewind to a later step
        first = next(iter(configs.values()))
        searched = search(network, data, first, deadline=deadlines[0], **common)
    else:
        searched = not_searched(network)
    return {
        compression: prune(network, data, searched, asked, deadline=deadline, **common)
        for (compression, asked), deadline in zip(configs.items(), deadlines[1:], strict=True)
    }


def row_errors(ticket: Ticket, data: Data) -> NDArray[np.float64]:
    """Return one error a validation row: 0 or 1 for classes, squared for numbers."""
    if data.validation is None:
        raise InputError("errors need validation rows, got data without")
    x, y = data.validation
    out = outputs(ticket.network.cpu(), x)
    if y.dtype == torch.int64:
        return (out.argmax(1) != y).double().numpy()
    return (out.flatten() - y).double().square().numpy()


def smallest_near_best(errors: Mapping[float, NDArray[np.float64]]) -> float:
    """Return the highest compression whose mean error is within one standard error of the best.

    The standard error is that of the best one's mean over its rows.

    >>> smallest_near_best({2: np.array([0.0, 1.0, 0.0]), 8: np.array([0.0, 1.0, 1.0])})
    8
    """
    best = min(errors.values(), key=lambda one: one.mean())
    spread = best.std(ddof=1) / math.sqrt(len(best)) if len(best) > 1 else 0.0
    return max(r for r, one in errors.items() if one.mean() <= best.mean() + spread)


def sizes(members: Sequence[MLP], member_masks: Sequence[Mask]) -> dict[str, Any]:
    """Return what the members cost together: parameters, those kept, stored bytes."""
    total = sum(map(n_parameters, members))
    kept = sum(map(n_parameters_kept, members, member_masks))
    packed = model_directory.pack(members, member_masks)
    return {
        "parameters": total,
        "parameters_kept": kept,
        "model_compression": total / kept,
        "members": len(members),
        "bytes": sum(t.numel() * t.element_size() for t in packed.values()),
    }


def training(tickets: Sequence[Ticket], init_scale: float) -> dict[str, Any]:
    """Return the first ticket's epochs and regime, and whether all ran to their end.

    `weight_movement` is relative to the scaled start of the search; `start_mask_overlap` is the
    IoU with the mask of the largest initial weights. Both are None without a search. For a target
    movement `search_lr` is the rate that was used; `pilots` are pairs of a rate and the movement
    that a pilot foretold for it, `searches` of a rate and the movement of a whole search, None
    where the loss was not finite.
    """
    first = tickets[0]
    searched, mask = first.searched, first.mask
    found: dict[str, Any] = {
        "search_epochs": len(searched.history),
        "finetune_epochs": len(first.history) - len(searched.history),
        "weight_movement": None,
        "start_mask_overlap": None,
        "complete": all(ticket.complete for ticket in tickets),
    }
    if first.density < 1:
        scaled = {name: init_scale * searched.start[name] for name in mask}
        found["weight_movement"] = weight_movement(scaled, searched.state, mask)
        found["start_mask_overlap"] = start_mask_overlap(searched.start, mask)
    if searched.steering is not None:
        steering = searched.steering
        found["movement_target"] = steering.target
        found["search_lr"] = steering.kept.rate
        for name, attempts in (("pilots", steering.pilots), ("searches", steering.searches)):
            found[name] = [
                [one.rate, None if one.movement == math.inf else one.movement] for one in attempts
            ]
    return found
