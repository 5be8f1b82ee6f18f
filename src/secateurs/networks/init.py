"""Where weights start (Kaiming, PIS) and which of them are prunable."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from secateurs.errors import InputError

__all__ = ["LAYERS", "Patterns", "initialise_", "prunable", "scale_", "weights"]

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose `weight` can be pruned. Biases and BatchNorm never are (appendix E.4)."""

Patterns = str | Sequence[str] | None


def weights(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights of all Linear and Conv layers by parameter name.

    Raises:
        InputError: two layers share one weight; a mask by name would be ambiguous.
    """
    found: dict[str, Tensor] = {}
    owner: dict[int, str] = {}
    for prefix, module in network.named_modules():
        if isinstance(module, LAYERS):
            name = f"{prefix}.weight" if prefix else "weight"
            if id(module.weight) in owner:
                raise InputError(
                    f"each prunable weight must belong to one layer, but {name} and "
                    f"{owner[id(module.weight)]} are the same tensor; untie them first"
                )
            owner[id(module.weight)] = name
            found[name] = module.weight
    return found


def _matches(name: str, patterns: Patterns) -> bool:
    listed = [patterns] if isinstance(patterns, str) else patterns or ()
    return any(fnmatchcase(name, pattern) for pattern in listed)


def prunable(
    network: nn.Module, *, only: Patterns = None, except_: Patterns = None
) -> dict[str, Tensor]:
    """Return the weights that scores and masks are about.

    Args:
        network: any module.
        only: shell pattern(s) on parameter names that must match, such as "encoder*".
        except_: shell pattern(s) that must not match.

    Raises:
        InputError: nothing is left to prune (lists the names there are), or tied weights.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> list(prunable(net, except_="2.*"))
    ['0.weight']
    """
    found = weights(network)
    chosen = {
        name: weight
        for name, weight in found.items()
        if (only is None or _matches(name, only)) and not _matches(name, except_)
    }
    if not chosen:
        raise InputError(
            f"no Linear or Conv weight matches only={only!r}, except_={except_!r}; "
            f"this network has {', '.join(found) or 'none'}"
        )
    return chosen


@torch.no_grad()
def initialise_(network: nn.Module, *, generator: torch.Generator) -> None:
    """Draw fresh start weights in place: Kaiming-normal, fan-in, ReLU gain; biases 0.

    The numbers are drawn on the generator's device, so that a seed means the same everywhere.
    BatchNorm is reset. Parameters of other modules are left alone.
    """
    for module in network.modules():
        if isinstance(module, LAYERS):
            drawn = torch.empty(module.weight.shape, device=generator.device)
            nn.init.kaiming_normal_(drawn, nonlinearity="relu", generator=generator)
            module.weight.copy_(drawn)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.modules.batchnorm._NormBase):
            module.reset_parameters()


@torch.no_grad()
def scale_(network: nn.Module, init_scale: float) -> None:
    """Multiply every Linear and Conv weight by `init_scale` (kappa), in place: PIS, sec. 3.2.2.

    Biases and BatchNorm stay. With BatchNorm after every layer the function hardly changes; the
    effective learning rate grows by 1 / init_scale**2.

    Raises:
        InputError: init_scale is not a positive number.
    """
    if not 0 < init_scale < float("inf"):
        raise InputError(f"init_scale must be a positive number, got {init_scale}")
    scaled: list[Tensor] = list(weights(network).values())
    for weight in scaled:
        weight.mul_(init_scale)
