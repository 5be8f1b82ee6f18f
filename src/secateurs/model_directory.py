"""A trained model as a folder: kept weights, bit-packed masks and JSON; read without unpickling.

    model.json            format version, estimator, parameters, classes, preparation, checksum
    weights.safetensors   kept weights, masks as bits, everything unprunable, of every member
    history.json          one column an entry

A folder appears whole or not at all, and an older one stays intact until then.
"""

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from secateurs import masks
from secateurs.errors import InputError
from secateurs.masks import Mask
from secateurs.networks.dense import MLP
from secateurs.networks.image_network import ImageNetwork
from secateurs.networks.init import prunable
from secateurs.networks.init import weights as layer_weights

_N = TypeVar("_N", bound=nn.Module)

__all__ = [
    "DESCRIPTION",
    "FORMAT",
    "HISTORY",
    "WEIGHTS",
    "check_replaceable",
    "described",
    "is_model",
    "pack",
    "read",
    "unpack",
    "write",
]

FORMAT = 1
DESCRIPTION, WEIGHTS, HISTORY = "model.json", "weights.safetensors", "history.json"


def pack(members: Sequence[nn.Module], member_masks: Sequence[Mask]) -> dict[str, Tensor]:
    """Return all that must be stored: members that share a mask store its bits once.

    A layer that keeps everything is stored as it is, without bits.
    """
    tensors: dict[str, Tensor] = {}
    seen: list[Mask] = []
    for i, (network, mask) in enumerate(zip(members, member_masks, strict=True)):
        pruned = {name: kept.cpu() for name, kept in mask.items() if not bool(kept.all())}
        if not any(mask is other for other in seen):
            bits = masks.pack(pruned)
            tensors |= {f"mask-{len(seen)}/{name}": packed for name, packed in bits.items()}
            seen.append(mask)
        for name, tensor in network.state_dict().items():
            value = tensor.detach().cpu()
            tensors[f"member-{i}/{name}"] = value[pruned[name]] if name in pruned else value
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _mask_indices(member_masks: Sequence[Mask]) -> list[int]:
    seen: list[Mask] = []
    for mask in member_masks:
        if not any(mask is other for other in seen):
            seen.append(mask)
    return [next(j for j, other in enumerate(seen) if other is mask) for mask in member_masks]


def is_model(path: Path) -> bool:
    """Return whether `path` looks like a folder that `write` made."""
    return all((path / name).is_file() for name in (DESCRIPTION, HISTORY, WEIGHTS))


def check_replaceable(path: Path) -> None:
    """Raise unless `path` is free or holds a model, before any work is put into filling it.

    Raises:
        InputError: the path is something else, or its folder cannot be written.
    """
    probe = path.parent / f".{path.name}.{os.getpid()}.probe"
    try:
        if path.exists() and not is_model(path) and not (path.is_dir() and not any(path.iterdir())):
            raise InputError(
                f"{path} exists and is not a model folder, so it will not be replaced; "
                "choose another output folder"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.mkdir()
        probe.rmdir()
    except OSError as err:
        raise InputError(
            f"cannot write into {path.parent}: {err.strerror}; choose a folder that is writable"
        ) from err


def _checksum(description: Mapping[str, Any], history: bytes, blob: bytes) -> str:
    """Return the SHA-256 of everything in a folder but itself."""
    rest = {key: value for key, value in description.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    digest.update(history)
    digest.update(blob)
    return digest.hexdigest()


def _replace(path: Path, new: Path) -> None:
    """Give a folder the name `path`; what was there goes only once the new one is in its place."""
    if not path.exists():
        new.rename(path)
        return
    old = path.parent / f".{path.name}.{os.getpid()}.old"
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def described(network: MLP | ImageNetwork) -> dict[str, Any]:
    """Return what `read` builds a network from, as JSON holds it.

    >>> described(MLP(4, 3, widths=(8, 8)))
    {'n_inputs': 4, 'n_outputs': 3, 'widths': [8, 8]}
    """
    if isinstance(network, ImageNetwork):
        return network.to_json()
    return {
        "n_inputs": network.encoder[0].in_features,
        "n_outputs": network.decoder.out_features,
        "widths": [w.shape[0] for w in layer_weights(network.encoder).values()],
    }


def write(
    path: Path,
    description: Mapping[str, Any],
    history: Mapping[str, Sequence[Any]],
    members: Sequence[nn.Module],
    member_masks: Sequence[Mask],
    *,
    network: MLP | ImageNetwork,
) -> None:
    """Write a model folder, replacing an older model at `path` in one step.

    Args:
        path: the folder.
        description: what model.json says besides the network.
        history: one column an entry.
        members: networks of one kind and size.
        member_masks: one a member.
        network: what all members are: one of them, or its description.

    Raises:
        InputError: `path` is not free for a model, not writable, or the disk is full.
    """
    path = path.resolve()  # a link is followed, not replaced
    check_replaceable(path)
    blob = save_bytes(pack(members, member_masks))
    columns = json.dumps(history).encode()
    whole = {
        "format": FORMAT,
        **description,
        "network": described(network),
        "members": _mask_indices(member_masks),
    }
    whole = json.loads(json.dumps(whole))  # as a reader will see it
    whole["sha256"] = _checksum(whole, columns, blob)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, content in (
            (DESCRIPTION, json.dumps(whole, indent=1).encode()),
            (HISTORY, columns),
            (WEIGHTS, blob),
        ):
            with (temporary / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _replace(path, temporary)
    except OSError as err:
        raise InputError(
            f"cannot write {path}: {err.strerror or err}; choose a folder that is writable and has "
            "room (an older model there is intact)"
        ) from err
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path} must be a model folder written by secateurs, but {what}")


def _sizes(described: Any) -> tuple[int, int, tuple[int, ...]]:
    """Return inputs, outputs and widths of the network; raise ValueError unless it is one."""
    sizes = [described["n_inputs"], described["n_outputs"], *described["widths"]]
    if len(sizes) < 3 or not all(type(n) is int and 0 < n < 2**31 for n in sizes):
        raise ValueError("no network")
    return sizes[0], sizes[1], tuple(sizes[2:])


def _mask_of_each(indices: Any) -> list[int]:
    """Return which mask each member has; masks are numbered as they come."""
    if not isinstance(indices, list) or not indices:
        raise ValueError("no members")
    known = 0
    for j in indices:
        if type(j) is not int or not 0 <= j <= known:
            raise ValueError("no such mask")
        known = max(known, j + 1)
    return indices


def unpack(
    tensors: dict[str, Tensor], blank: _N, mask_indices: list[int], *, prunable: Sequence[str]
) -> tuple[list[_N], list[Mask]]:
    """Undo `pack`.

    Args:
        tensors: as packed.
        blank: the network of every member, on the meta device: nothing is trusted yet.
        mask_indices: which of the masks each member has.
        prunable: names of the weights that the masks are about.

    Raises:
        ValueError, KeyError: the tensors are not those of the networks.
    """
    shapes = {name: (tuple(t.shape), t.dtype) for name, t in blank.state_dict().items()}
    left = dict(tensors)
    found: dict[int, Mask] = {}
    members: list[_N] = []
    member_masks: list[Mask] = []
    for i, j in enumerate(mask_indices):
        if j not in found:
            bits = {n: left.pop(f"mask-{j}/{n}") for n in prunable if f"mask-{j}/{n}" in left}
            found[j] = masks.unpack(bits, {n: shapes[n][0] for n in bits})
        state: dict[str, Tensor] = {}
        for name, (shape, dtype) in shapes.items():
            value = left.pop(f"member-{i}/{name}").clone()
            kept = found[j].get(name)
            expected = shape if kept is None else (int(kept.sum()),)
            if tuple(value.shape) != expected or value.dtype != dtype:
                raise ValueError(f"{name} of member {i} has another shape")
            state[name] = value
            if kept is not None:
                state[name] = torch.zeros(shape, dtype=dtype).masked_scatter_(kept, value)
        network = copy.deepcopy(blank)
        network.load_state_dict(state, assign=True)
        members.append(network.eval().requires_grad_(requires_grad=False))
        member_masks.append(found[j])
    if left:
        raise ValueError("more tensors than described")
    for mask in found.values():
        for name in prunable:  # layers without bits keep everything
            mask.setdefault(name, torch.ones(shapes[name][0], dtype=torch.bool))
    return members, member_masks


def _blank(described: Any, tensors: Mapping[str, Tensor]) -> MLP | nn.Module:
    """Return the network of a description on the meta device: nothing is allocated for it.

    Raises:
        Exception: it describes none.
    """
    if "kind" in described:  # before there were networks of images, all were MLPs
        return ImageNetwork.from_json(described).blank()
    n_inputs, n_outputs, widths = _sizes(described)
    if f"member-0/encoder.{3 * len(widths) - 3}.weight" not in tensors:
        raise ValueError("fewer layers than described")  # before that many are made
    with torch.device("meta"):
        return MLP(n_inputs, n_outputs, widths=widths)


def read(
    path: Path,
) -> tuple[dict[str, Any], dict[str, list[Any]], list[nn.Module], list[Mask]]:
    """Return description, history, members and masks of a folder that `write` made.

    Raises:
        InputError: not a model folder, of a newer format, damaged or truncated.
    """
    try:
        description = json.loads((path / DESCRIPTION).read_bytes())
        columns = (path / HISTORY).read_bytes()
        history = json.loads(columns)
        blob = (path / WEIGHTS).read_bytes()
    except OSError as err:
        raise _damaged(path, f"{Path(err.filename or path).name}: {err.strerror}") from err
    except (ValueError, RecursionError) as err:
        raise _damaged(path, "its JSON cannot be read: damaged or truncated") from err
    if not isinstance(description, dict) or not isinstance(history, dict):
        raise _damaged(path, f"its {DESCRIPTION} is not one of ours")
    if description.get("format") != FORMAT:
        raise _damaged(
            path, f"its format is {description.get('format')!r} and this version reads {FORMAT}"
        )
    if _checksum(description, columns, blob) != description.get("sha256"):
        raise _damaged(path, "its files do not match their checksum: damaged or truncated")
    try:
        mask_indices = _mask_of_each(description["members"])
        tensors = load_bytes(blob)
        blank = _blank(description["network"], tensors)
        names = list(prunable(blank, only="encoder.*"))
        members, member_masks = unpack(tensors, blank, mask_indices, prunable=names)
    except Exception as err:  # the reader's own error classes are not a closed set
        raise _damaged(path, f"its content is damaged ({type(err).__name__})") from err
    return description, history, members, member_masks
