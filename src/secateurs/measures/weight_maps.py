"""Where a network of images looks: weights along the paths from pixels to logits (figure 4)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateurs.errors import InputError
from secateurs.networks.conv import MLPVis
from secateurs.networks.init import LAYERS

__all__ = ["UnitMaps", "first_layer_maps", "logit_maps"]


class UnitMaps(NamedTuple):
    """First-layer units as images, those with most kept weight first.

    Args:
        maps: [units, channels, height, width] or [units, inputs] absolute weights.
        units: [units] their numbers in the layer.
    """

    maps: Tensor
    units: Tensor


@torch.no_grad()
def logit_maps(
    network: nn.Module,
    *,
    shape: tuple[int, int, int] | None = None,
    with_norm: bool = False,
) -> Tensor:
    """Return how much weight lies on all paths from each input to each logit.

    The matrix product |W_L| ... |W_1| of all Linear layers, the decoder's last: the sum over paths
    of the product of their absolute weights (figure 4 of the paper). Pruned weights must be zero
    in the network, as training leaves them. Residual connections are not counted.

    Args:
        network: of Linear layers in the order of its modules, such as MLP_VIS or LeNet-300-100.
        shape: channels, height and width of an input; None is that of an MLP_VIS, and for other
            networks leaves the inputs in a row.
        with_norm: whether each layer counts with its BatchNorm's factor |gamma| / sqrt(var + eps),
            which the paper leaves out.

    Returns:
        float64 [logits, channels, height, width], or [logits, inputs], on the CPU.

    Raises:
        InputError: a network with convolutions, without Linear layers, whose layers do not follow
            each other, or a shape of another number of inputs.

    >>> network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
    >>> network[0].weight.data = torch.tensor([[1.0, 0.0], [2.0, -3.0]])
    >>> network[2].weight.data = torch.tensor([[1.0, -1.0]])
    >>> logit_maps(network).tolist()
    [[3.0, 3.0]]
    """
    *before, last = _layers(network, with_norm=with_norm)
    paths = _sizes(last)
    for layer in reversed(before):
        if len(layer.weight) != paths.shape[1]:
            raise InputError(
                f"each Linear layer must read what the one before gives, got {len(layer.weight)} "
                f"outputs before {paths.shape[1]} inputs; pass a network without branches"
            )
        paths = paths @ _sizes(layer)
    return _as_images(paths, network, shape)


@torch.no_grad()
def first_layer_maps(
    network: nn.Module,
    *,
    shape: tuple[int, int, int] | None = None,
    top: int | None = None,
) -> UnitMaps:
    """Return |w| of first-layer units as images, the units with most kept weight first.

    Args:
        network: as of `logit_maps`.
        shape: likewise.
        top: how many units at most; None is all.

    Raises:
        InputError: as `logit_maps`, or a `top` below 1.

    >>> from secateurs.networks.lenet import LeNet300100
    >>> found = first_layer_maps(LeNet300100(784, 10), shape=(1, 28, 28), top=4)
    >>> tuple(found.maps.shape), len(found.units)
    ((4, 1, 28, 28), 4)
    """
    if top is not None and top < 1:
        raise InputError(f"top must be at least 1, got {top}; None is all units")
    first = _sizes(_layers(network, with_norm=False)[0])
    units = first.sum(1).argsort(descending=True, stable=True)[:top]
    return UnitMaps(maps=_as_images(first[units], network, shape), units=units)


class _Layer(NamedTuple):
    weight: Tensor
    scale: Tensor | None = None


def _sizes(layer: _Layer) -> Tensor:
    """Return |W| [outputs, inputs] in float64, with the scale of each output."""
    sizes = layer.weight.detach().cpu().double().abs()
    return sizes if layer.scale is None else sizes * layer.scale[:, None]


def _layers(network: nn.Module, *, with_norm: bool) -> list[_Layer]:
    """Return the Linear layers in order, with the factors of their BatchNorm if asked for."""
    found: list[_Layer] = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            found.append(_Layer(module.weight))
        elif isinstance(module, LAYERS):
            raise InputError(
                f"weight maps are of fully connected networks, but {name} is a "
                f"{type(module).__name__}; write a CNN into an MLP first: "
                "secateurs.networks.toeplitz.write_"
            )
        elif with_norm and isinstance(module, _BatchNorm):
            follows = bool(found) and len(found[-1].weight) == module.num_features
            if not follows or module.running_var is None:
                raise InputError(
                    f"a BatchNorm must follow its Linear layer and keep statistics, but {name} "
                    "does not; pass with_norm=False"
                )
            scale = (module.running_var.detach().cpu().double() + module.eps).rsqrt()
            if module.affine:
                scale = scale * module.weight.detach().cpu().double().abs()
            found[-1] = found[-1]._replace(scale=scale)
    if not found:
        raise InputError(
            f"weight maps need a Linear layer, but {type(network).__name__} has none; pass a "
            "fully connected network"
        )
    return found


def _as_images(rows: Tensor, network: nn.Module, shape: tuple[int, int, int] | None) -> Tensor:
    if shape is None and isinstance(network, MLPVis):
        shape = (network.channels, network.size, network.size)
    if shape is None:
        return rows
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) != rows.shape[1]:
        raise InputError(
            f"shape must be (channels, height, width) of the {rows.shape[1]} inputs, got "
            f"{tuple(shape)}; pass that of the network's images"
        )
    return rows.view(-1, *shape)
