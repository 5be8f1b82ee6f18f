"""What cells are made of: the start of a network, its training rows, the search it comes from."""

import dataclasses

import torch
from torch import nn

from secateurs import checkpoint, tickets
from secateurs.data.batches import Data
from secateurs.errors import InputError
from secateurs.experiments.rows import Prepared
from secateurs.experiments.spec import SearchCell, TicketCell, key, title
from secateurs.experiments.store import Store
from secateurs.experiments.trained import blank, trained
from secateurs.networks.init import initialise_
from secateurs.networks.pixels import Normalise
from secateurs.seeds import stream
from secateurs.tickets import Searched

__all__ = ["pruned_from", "searched", "start", "training_data"]


def training_data(cell: SearchCell | TicketCell, prepared: Prepared) -> Data:
    """Return the rows of a cell, with the weights that its `class_weight` asks for."""
    if cell.class_weight is None:
        return prepared.data
    y = prepared.data.train[1]
    counts = torch.bincount(y, minlength=len(prepared.classes)).double()
    weight = (len(y) / ((counts > 0).sum() * counts))[y]
    return dataclasses.replace(prepared.data, weight=(weight / weight.mean()).float())


def start(cell: SearchCell | TicketCell, prepared: Prepared) -> nn.Module:
    """Return the network that the cell's seed starts from, unscaled."""
    network = blank(
        cell.network,
        prepared.data.train[0].shape[1:],
        len(prepared.classes),
        widths=cell.widths,
        dropout=cell.dropout,
        skip=cell.skip,
        raw=prepared.pixels is not None,
    ).to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, Normalise):
            assert prepared.pixels is not None
            module.load_state_dict(Normalise(*prepared.pixels).state_dict())
    initialise_(network, generator=stream(cell.seed, "init"))
    return network


def _finished(cell: TicketCell, needed: SearchCell | TicketCell, store: Store) -> None:
    if not store.finished(key(needed)):
        raise InputError(
            f"{title(cell)} needs {title(needed)}, {key(needed)}, which is not finished; run it"
        )


def searched(cell: TicketCell, network: nn.Module, store: Store) -> Searched:
    """Return the search that a ticket comes from, or the start where there is none.

    Raises:
        InputError: the search is not finished, or what it left is damaged.
    """
    search = cell.search_cell
    if search is None:
        return tickets.not_searched(network)
    _finished(cell, search, store)
    tensors, _ = store.tensors(key(search))
    return Searched(
        start={k: t.detach().clone() for k, t in network.state_dict().items()},
        state=checkpoint.unnest(tensors, "state"),
        kept=checkpoint.unnest(tensors, "kept") or None,
        history=[],
        complete=True,
    )


def pruned_from(cell: TicketCell, network: nn.Module, store: Store) -> Searched:
    """Return what a ticket is pruned from: the round before, or in the first one the search.

    Raises:
        InputError: the search or that round is not finished, or what it left is damaged.
    """
    found, before = searched(cell, network, store), cell.round_before
    if before is None:
        return found
    _finished(cell, before, store)
    ticket, mask = trained(store, key(before))
    return dataclasses.replace(found, state=dict(ticket.state_dict()), mask=mask)
