"""What a finished ticket shows beside its accuracy: the mechanism that the paper claims.

Is a view seen less (invariance ratio, consistency; section 5.5), and is that the mask's doing or
the weights'? Are large weights the ones that matter (coupling; section 5.4)? Which layers moved,
and is their mask that of the start? What does a ticket forget ("selective forgetting", 3.2.1)?
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from secateurs import masks
from secateurs.data.batches import Data
from secateurs.data.image_views import IMAGE_VIEWS
from secateurs.data.views import View, corruption
from secateurs.errors import InputError
from secateurs.experiments import material, trained
from secateurs.experiments.image_structure import image_structure
from secateurs.experiments.rows import Prepared, prepare
from secateurs.experiments.spec import ImageRows, ProbeCell, TicketCell, key, title
from secateurs.experiments.store import Outcome, Store
from secateurs.masks import Mask
from secateurs.measures.coupling import coupling
from secateurs.measures.invariance import under_view
from secateurs.measures.regime import start_mask_overlap, weight_movement
from secateurs.networks.init import initialise_
from secateurs.preparation import groups
from secateurs.seeds import stream
from secateurs.tickets import Searched
from secateurs.training import reestimate_statistics_

__all__ = [
    "CORRUPTION_RATE",
    "COUPLING_ROWS",
    "FRESH",
    "IMAGE_VIEWS_EACH",
    "STATISTICS_ROWS",
    "TRANSFORMS",
    "VIEWS",
    "VIEW_ROWS",
    "probe",
    "rare_rows",
]

CORRUPTION_RATE = 0.6
"""c of the view for tickets that were trained without one."""

FRESH = 20
"""Fresh initial weights that a mask is measured with."""

VIEW_ROWS, VIEWS = 1_024, 5
"""Test rows that are viewed at most, and views of each."""

TRANSFORMS, IMAGE_VIEWS_EACH = ("crop", "flip", "colour", "grayscale"), 1
"""Views of images, each alone (tables 3 and 5), and how many of each image."""

STATISTICS_ROWS = 4_096
"""Training rows, at most, that BatchNorm statistics of untrained weights are estimated from."""

COUPLING_ROWS = 512
"""Training rows, at most, on which weights are removed."""


def rare_rows(
    train: Tensor, test: Tensor, *, share: float = 0.1, n_neighbours: int = 10
) -> NDArray[np.bool_]:
    """Return which test rows are the rarest: far from the training rows, on the mean.

    Those with the largest mean Euclidean distance to their nearest training rows, in the encoded
    columns; ties to the first rows.

    Args:
        train: [training rows, width] encoded rows.
        test: [rows, width] encoded rows.
        share: of the test rows, rounded; at least one row is rare.
        n_neighbours: nearest training rows that count, or all, if there are fewer.

    >>> train, test = torch.zeros(20, 1), torch.tensor([[0.0], [5.0], [1.0], [0.0]])
    >>> rare_rows(train, test, share=0.25)
    array([False,  True, False, False])
    """
    model = NearestNeighbors(n_neighbors=min(n_neighbours, len(train))).fit(train.numpy())
    distance = model.kneighbors(test.numpy())[0].mean(1)
    rare = np.zeros(len(test), dtype=bool)
    n_rare = max(1, int(share * len(test) + 0.5))
    rare[np.argsort(-distance, kind="stable")[:n_rare]] = True
    return rare


def _some(x: Tensor, most: int, seed: int, purpose: str) -> Tensor:
    """Return row positions in random order: tables are often sorted by class."""
    return torch.randperm(len(x), generator=stream(seed, "probe", purpose))[:most]


def _told(value: Any) -> Any:
    """Return the same with None for what is not a finite number."""
    if isinstance(value, Mapping):
        return {name: _told(part) for name, part in value.items()}
    if isinstance(value, list):  # maps: whole numbers
        return value
    return value if math.isfinite(value) else None


def _with_own_statistics(network: nn.Module, x: Tensor, batch_size: int) -> nn.Module:
    reestimate_statistics_(network, x, batch_size=batch_size)
    return network.eval()


def _masked(network: nn.Module, mask: Mask) -> nn.Module:
    found = copy.deepcopy(network)
    masks.apply_(found, mask)
    return found


def _views(
    cell: TicketCell, prepared: Prepared, device: torch.device
) -> tuple[dict[str, View], int]:
    """Return the views that a ticket is seen under, by name, and how many of each row."""
    if isinstance(cell.rows, ImageRows):
        return {name: IMAGE_VIEWS[name]() for name in TRANSFORMS}, IMAGE_VIEWS_EACH
    assert prepared.preparation is not None
    rate = cell.corruption_rate or CORRUPTION_RATE
    reference = prepared.data.train[0].to(device)
    return {"": corruption(reference, groups(prepared.preparation), rate=rate)}, VIEWS


def _invariance(
    cell: TicketCell,
    prepared: Prepared,
    networks: Mapping[str, nn.Module],
    mask: Mask,
    statistics: Tensor,
) -> dict[str, Any]:
    """Return the measures on test rows by view; all networks see the same views."""
    x = prepared.test[0]
    device = statistics.device
    x = x[_some(x, VIEW_ROWS, cell.seed, "test rows")].to(device)
    views, n_views = _views(cell, prepared, device)

    def seen(network: nn.Module) -> dict[str, dict[str, float]]:
        return {
            name: under_view(
                network,
                x,
                view,
                generator=stream(cell.seed, "probe", "view", *([name] if name else []),
                                 device=device),
                n_views=n_views,
            )
            for name, view in views.items()
        }  # fmt: skip

    fresh = []
    network = copy.deepcopy(networks["start"])
    for i in range(FRESH):
        initialise_(network, generator=stream(cell.seed, "probe", "fresh", i))
        masks.apply_(network, mask)
        fresh.append(seen(_with_own_statistics(network, statistics, cell.config.search.batch_size)))
    told = {name: seen(one) for name, one in networks.items()}
    found: dict[str, Any] = {
        view: {**{name: one[view] for name, one in told.items()},
               "fresh": _spread([one[view] for one in fresh])}
        for view in views
    }  # fmt: skip
    return found


def _spread(found: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return mean and standard deviation of each measure, over those that are numbers."""
    spread: dict[str, dict[str, float]] = {"mean": {}, "std": {}}
    for name in found[0]:
        values = np.array([one[name] for one in found])
        values = values[np.isfinite(values)]  # a mask may leave a network that says nothing
        spread["mean"][name] = float(values.mean()) if len(values) else math.nan
        spread["std"][name] = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return spread


def _coupling(
    cell: TicketCell, data: Data, networks: Mapping[str, nn.Module], mask: Mask, device: Any
) -> dict[str, Any]:
    """Return the coupling of dense networks over all weights, of the ticket over those it keeps."""
    rows = _some(data.train[0], COUPLING_ROWS, cell.seed, "training rows")
    x, y = (part[rows].to(device) for part in data.train)
    weight = None if data.weight is None else data.weight[rows].to(device)
    found = {}
    for name in ("start", "searched", "trained"):
        if name in networks:
            found[name] = coupling(
                networks[name],
                x,
                y,
                mask if name == "trained" else masks.ones(mask),
                generator=stream(cell.seed, "probe", "weights"),
                weight=weight,
            )
    return found


def _regime(cell: TicketCell, searched: Searched, mask: Mask) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if cell.search_cell is not None:
        scaled = {name: cell.config.init_scale * searched.start[name] for name in mask}
        found["layer_movement"] = {
            name: weight_movement(scaled, searched.state, [name]) for name in mask
        }
    if masks.density(mask) < 1:
        found["layer_start_mask_overlap"] = {
            name: start_mask_overlap(searched.start, {name: kept}) for name, kept in mask.items()
        }
    return found


def _rare(prepared: Prepared, proba: NDArray[np.float64]) -> dict[str, float]:
    x, y = prepared.test
    rare = rare_rows(prepared.data.train[0], x)
    hit = proba.argmax(1) == y.numpy()
    return {
        "rows": int(rare.sum()),
        "accuracy": float(hit[rare].mean()),
        "rest_accuracy": float(hit[~rare].mean()) if not rare.all() else math.nan,
    }


def probe(cell: ProbeCell, store: Store, device: torch.device | str = "cpu") -> Outcome:
    """Return the measures of a finished ticket; what has no meaning for it is None or absent.

    `invariance`: `measures.invariance.under_view` on test rows under SCARF's corruption with the
    cell's rate, or `CORRUPTION_RATE`, or under each of `TRANSFORMS` of images, for the networks

    - `start`: dense, untrained;
    - `searched`: dense, as the search left it; absent without a search;
    - `untrained`: the mask on the start, whatever the ticket was rewound to; absent without a mask;
    - `trained`: the ticket;
    - `fresh.mean`, `fresh.std`: the mask on `FRESH` fresh initial weights ("Is it the architecture
      or the ticket?"), over those that give a number.

    Untrained weights get BatchNorm statistics of their own. `regime`: movement of the search,
    relative to its scaled start, and IoU with the mask of the start, by layer. Of tables only:
    `coupling`, `measures.coupling` on training rows, of `start` and `searched` over all prunable
    weights, which is what magnitude pruning ranks, and of `trained` over the kept ones; `rare`,
    accuracy on the test rows of `rare_rows`, and on the rest. Of images, what `image_structure`
    tells of the trained ticket.

    Args:
        cell: its ticket and the ticket's search must be finished.
        store: where they are.
        device: where the networks are evaluated.

    Raises:
        InputError: an ensemble, or something that it needs is not finished.
    """
    ticket = cell.ticket
    if isinstance(ticket.rows, ImageRows) and not ticket.rows.raw:
        raise InputError(
            f"a probe looks into tickets of tables or raw images, got {title(ticket)}; set "
            "rows.raw to true"
        )
    if ticket.members:
        raise InputError(
            f"a probe looks into one network, got {title(ticket)}; probe the members of the "
            "ensemble, which are tickets themselves"
        )
    prepared = prepare(ticket.rows)
    data = material.training_data(ticket, prepared)
    start = material.start(ticket, prepared)
    searched = material.searched(ticket, start, store)
    network, mask = trained.trained(store, key(ticket))

    x = data.train[0]
    x = x[_some(x, STATISTICS_ROWS, ticket.seed, "training rows")].to(device)
    start, mask = start.to(device), {name: kept.to(device) for name, kept in mask.items()}
    batch_size = ticket.config.search.batch_size
    networks = {"start": _with_own_statistics(copy.deepcopy(start), x, batch_size)}
    if ticket.search_cell is not None:
        networks["searched"] = copy.deepcopy(start)
        networks["searched"].load_state_dict(searched.state)
    if masks.density(mask) < 1:
        networks["untrained"] = _with_own_statistics(_masked(start, mask), x, batch_size)
    networks["trained"] = network.to(device)
    invariance = _invariance(ticket, prepared, networks, mask, x)
    kept = {name: part.cpu() for name, part in mask.items()}
    regime = _regime(ticket, searched, kept)
    if isinstance(ticket.rows, ImageRows):
        channels, height, width = data.train[0].shape[1:]
        structure = image_structure(
            ticket, networks["trained"].cpu(), kept, (channels, height, width)
        )
        return Outcome(result=_told({"invariance": invariance, "regime": regime, **structure}))
    result = {
        "corruption_rate": ticket.corruption_rate or CORRUPTION_RATE,
        "invariance": invariance[""],
        "coupling": _coupling(ticket, data, networks, mask, device),
        "regime": regime,
        "rare": _rare(prepared, trained.probabilities(store, key(ticket))["test"]),
    }
    return Outcome(result=_told(result))
