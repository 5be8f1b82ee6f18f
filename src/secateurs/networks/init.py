"""Where weights start (Kaiming, PIS) and which of them are prunable."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from secateurs.errors import InputError

__all__ = ["LAYERS", "Patterns", "initialise_", "prunable", "scale_", "weights"]

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose `weight` can be pruned. Biases and BatchNorm never are (appendix E.4)."""

Patterns = str | Sequence[str] | None


def weights(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights of all Linear and Conv layers by parameter name.

    Raises:
        InputError: a weight that a mask by its name could not hold: not initialised yet, shared
            with another parameter, computed from other parameters, or no floating-point number.

    >>> list(weights(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))))
    ['0.weight', '2.weight']
    """
    return _checked(network, _layers(network))


def _layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that have a prunable weight, by its name."""
    for prefix, module in network.named_modules():
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():  # type: ignore[misc]
            raise InputError(
                f"every layer must have its weights, but {prefix or type(module).__name__} is lazy "
                "and gets them with its first input; run one batch first"
            )
    return {
        f"{prefix}.weight".lstrip("."): module
        for prefix, module in network.named_modules()
        if isinstance(module, LAYERS)
    }


def _checked(network: nn.Module, layers: dict[str, nn.Module]) -> dict[str, Tensor]:
    """Return the layers' weights, each a parameter of its own."""
    owners: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        owners.setdefault(_identity(parameter), []).append(name)
    found: dict[str, Tensor] = {}
    for name, module in layers.items():
        if "weight" not in module._parameters:
            raise InputError(
                f"each prunable weight must be a parameter, but {name} is computed from others; "
                + _remedy(module)
            )
        weight = module._parameters["weight"]
        assert weight is not None
        others = [other for other in owners[_identity(weight)] if other != name]
        if others:
            raise InputError(
                f"each prunable weight must belong to one layer, but {' and '.join(others)} and "
                f"{name} are the same tensor; untie them first, or leave all of them out"
            )
        if not weight.is_floating_point():
            raise InputError(
                f"each prunable weight must be a floating-point tensor, but {name} is "
                f"{weight.dtype}; prune before quantising, or leave it out"
            )
        found[name] = weight
    return found


def _identity(parameter: Tensor) -> int:
    """Return what two parameters share if they start at the same address."""
    return parameter.data_ptr() or id(parameter)


def _remedy(module: nn.Module) -> str:
    if "weight_orig" in module._parameters and "weight_mask" in module._buffers:
        return "import its mask first: secateurs.masks.import_torch_prune_(network)"
    if parametrize.is_parametrized(module, "weight"):
        return "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight') first"
    return "remove what computes it (torch.nn.utils.remove_weight_norm, remove_spectral_norm) first"


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
        InputError: nothing is left to prune (lists the names there are), or a chosen weight that
            `weights` refuses; those left out may be tied or computed.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> list(prunable(net, except_="2.*"))
    ['0.weight']
    """
    found = _layers(network)
    chosen = {
        name: layer
        for name, layer in found.items()
        if (only is None or _matches(name, only)) and not _matches(name, except_)
    }
    if not chosen:
        raise InputError(
            f"no Linear or Conv weight matches only={only!r}, except_={except_!r}; "
            f"this network has {', '.join(found) or 'none'}"
        )
    return _checked(network, chosen)


@torch.no_grad()
def initialise_(network: nn.Module, *, generator: torch.Generator) -> None:
    """Draw fresh start weights in place: Kaiming-normal, fan-in, ReLU gain; biases 0.

    A network whose class says `initial = "glorot"` gets Gaussian Glorot weights instead, of
    variance 2 / (fan_in + fan_out) (Glorot & Bengio 2010). The numbers are drawn on the
    generator's device, so that a seed means the same everywhere. BatchNorm is reset. Parameters
    of other modules are left alone.

    Args:
        network: any module.
        generator: of the draws.

    Raises:
        InputError: an `initial` that is neither "kaiming" nor "glorot".

    >>> layer = nn.Linear(2, 2)
    >>> initialise_(layer, generator=torch.Generator().manual_seed(0))
    >>> layer.bias.tolist()
    [0.0, 0.0]
    """
    initial = getattr(network, "initial", "kaiming")
    if initial not in ("kaiming", "glorot"):
        raise InputError(
            f"a network's initial must be 'kaiming' or 'glorot', got {initial!r}; name one of them"
        )
    for module in network.modules():
        if isinstance(module, LAYERS):
            drawn = torch.empty(module.weight.shape, device=generator.device)
            if initial == "glorot":
                nn.init.xavier_normal_(drawn, generator=generator)
            else:
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
