"""Where the weights of a ticket of images are: in neighbourhoods, in the CNN's fields, on paths."""

from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from secateurs.experiments.spec import TicketCell
from secateurs.masks import Mask
from secateurs.measures.locality import locality, matched_locality, reading_radius
from secateurs.measures.weight_maps import first_layer_maps, logit_maps
from secateurs.networks.conv import MLPVis
from secateurs.networks.toeplitz import receptive_field_mask
from secateurs.seeds import stream

__all__ = ["LEVELS", "TOP_UNITS", "image_structure"]

LEVELS = 255
"""Maps are kept as whole numbers, the largest of all this one."""

TOP_UNITS = 16
"""First-layer units that are kept as maps: those with most weights."""


def _levels(maps: Tensor) -> list[Any]:
    levels: list[Any] = (maps * (LEVELS / maps.max().clamp_min(1e-300))).round().int().tolist()
    return levels


def image_structure(
    cell: TicketCell, network: nn.Module, mask: Mask, shape: tuple[int, int, int]
) -> dict[str, Any]:
    """Return where the kept weights are; empty for networks that convolve.

    `radius`, of square images, is how far apart a first-layer unit's pixels lie
    (`measures.locality.reading_radius`), each kept weight counting as one (`count`) or by its size
    (`magnitude`); `maps.logits` and `maps.units` are those of `measures.weight_maps`, scaled to
    `LEVELS`. Of an MLP_VIS also `locality` and `matched_locality`: the share of kept weights inside
    the CNN's fields by layer.

    Args:
        cell: the ticket's.
        network: trained, on the CPU.
        mask: its mask, on the CPU.
        shape: channels, height and width of the images.
    """
    if cell.network not in ("mlp_vis", "lenet_300_100"):
        return {}
    channels, size, width = shape
    name = next(iter(mask))
    weight = dict(network.named_parameters())[name].detach()
    found: dict[str, Any] = {}
    if size == width:
        found["radius"] = {}
        for by in ("count", "magnitude"):
            told = reading_radius(
                weight if by == "magnitude" else mask[name], channels=channels, size=size, by=by
            )
            found["radius"][by] = {
                part: getattr(told, part) for part in ("radius", "uniform", "pooled")
            }
    found["maps"] = {
        "logits": _levels(logit_maps(network, shape=shape)),
        "units": _levels(first_layer_maps(network, shape=shape, top=TOP_UNITS).maps),
    }
    if isinstance(network, MLPVis):
        fields, draws = receptive_field_mask(network), stream(cell.seed, "locality")
        matched = matched_locality(
            mask, alpha=network.alpha, size=size, channels=channels, generator=draws
        )
        found["locality"] = {n: asdict(one) for n, one in locality(mask, fields).items()}
        found["matched_locality"] = {n: asdict(one) for n, one in matched.items()}
    return found
