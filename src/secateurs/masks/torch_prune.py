"""To and from `torch.nn.utils.prune`: networks with `weight_orig` and `weight_mask`."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils import prune

from secateurs.errors import InputError
from secateurs.masks.application import apply_
from secateurs.masks.matching import Mask, check, owners

__all__ = ["export_torch_prune_", "import_torch_prune_", "split_torch_prune"]


def _found(tensors: Mapping[str, Tensor], where: str) -> Mask:
    """Return the mask in names such as `0.weight_orig` and `0.weight_mask`."""
    mask: Mask = {}
    for name, original in tensors.items():
        stem = name.removesuffix("_orig")
        stored = tensors.get(f"{stem}_mask")
        if stem == name or stored is None:
            continue
        if stored.shape != original.shape or not bool(((stored == 0) | (stored == 1)).all()):
            raise InputError(
                f"{stem}_mask must be of 0 and 1 and shaped like {name} {tuple(original.shape)}, "
                f"got {tuple(stored.shape)} with {stored.unique()[:3].tolist()}; "
                "fold other factors into the weights first"
            )
        mask[stem] = stored != 0
    if not mask:
        raise InputError(
            f"{where} must be pruned by torch.nn.utils.prune, but no name_orig with a name_mask is "
            "in it; a plain network needs no import"
        )
    return mask


def import_torch_prune_(network: nn.Module) -> Mask:
    """Make a network pruned by `torch.nn.utils.prune` plain, in place, and return its mask.

    The pruned weights become exact zeros; what `weight_orig` held there is gone. The mask names
    whatever parameters were pruned, biases too, and no others: `masks.ones(weights) | mask` counts
    the layers that were left whole.

    Args:
        network: any module with `weight_orig` and `weight_mask`.

    Raises:
        InputError: nothing is pruned, or a mask is not of 0 and 1.

    >>> net = nn.Linear(2, 1)
    >>> _ = prune.l1_unstructured(net, "weight", amount=1)
    >>> mask = import_torch_prune_(net)
    >>> sorted(net.state_dict()), int(mask["weight"].sum())
    (['bias', 'weight'], 1)
    """
    pruned = {}
    for name, (module, attribute) in owners(network).items():
        stem = attribute.removesuffix("_orig")
        buffers = dict(module.named_buffers(recurse=False))
        if stem != attribute and f"{stem}_mask" in buffers:
            pruned[name.removesuffix("_orig")] = (module, stem)
    tensors = {
        f"{name}_{part}": getattr(module, f"{stem}_{part}")
        for name, (module, stem) in pruned.items()
        for part in ("orig", "mask")
    }
    mask = _found(tensors, "a network to import")
    for module, stem in pruned.values():
        prune.remove(module, stem)
    apply_(network, mask)
    return mask


def split_torch_prune(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Mask]:
    """Return the plain state and the mask of a checkpoint of a network pruned by torch.

    The plain state loads into the unpruned architecture with `strict=True`; pruned weights are
    exact zeros. Names and the mask are as for `import_torch_prune_`.

    Args:
        state: a `state_dict` with `weight_orig` and `weight_mask`; it is left as it is.

    Raises:
        InputError: nothing is pruned, or a mask is not of 0 and 1 or not shaped like its weight.

    >>> net = nn.Linear(2, 1)
    >>> _ = prune.l1_unstructured(net, "weight", amount=1)
    >>> plain, mask = split_torch_prune(net.state_dict())
    >>> sorted(plain), list(mask)
    (['bias', 'weight'], ['weight'])
    """
    mask = _found(state, "a state to split")
    plain: dict[str, Tensor] = {}
    for name, tensor in state.items():
        stem = name.removesuffix("_orig").removesuffix("_mask")
        if stem not in mask:
            plain[name] = tensor
        elif name.endswith("_orig"):
            plain[stem] = tensor.detach().masked_fill(~mask[stem], 0)
    return plain, mask


def export_torch_prune_(network: nn.Module, mask: Mapping[str, Tensor]) -> None:
    """Hand a mask to `torch.nn.utils.prune`, in place: `weight_orig`, `weight_mask` and its hooks.

    `import_torch_prune_` undoes it.

    Args:
        network: any module, plain or wrapped.
        mask: a mask of this network.

    Raises:
        InputError: a mask of another network; lists the names and shapes that differ.

    >>> import torch
    >>> net = nn.Linear(2, 1)
    >>> export_torch_prune_(net, {"weight": torch.tensor([[True, False]])})
    >>> sorted(net.state_dict())
    ['bias', 'weight_mask', 'weight_orig']
    """
    check(network, mask)
    found = owners(network)
    for name, kept in mask.items():
        module, attribute = found[name]
        prune.custom_from_mask(module, attribute, kept.to(getattr(module, attribute).device))
