"""A trained model as a folder: kept weights, bit-packed masks and JSON; read without unpickling.

    model.json            format version, estimator, parameters, classes, preparation, checksum
    weights.safetensors   kept weights, masks as bits, everything unprunable, of every member
    history.json          one column an entry

A folder appears whole or not at all, and an older one stays intact until then.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_bytes, save as save_bytes
from torch import Tensor

from secateurs import masks
from secateurs.errors import InputError
from secateurs.masks import Mask
from secateurs.networks.dense import MLP
from secateurs.networks.init import weights as layer_weights

__all__ = ["check_replaceable", "is_model", "pack", "read", "write"]

FORMAT = 1
DESCRIPTION, WEIGHTS, HISTORY = "model.json", "weights.safetensors", "history.json"


def pack(members: Sequence[MLP], member_masks: Sequence[Mask]) -> dict[str, Tensor]:
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
    return (path / DESCRIPTION).is_file()


def check_replaceable(path: Path) -> None:
    """Raise unless `path` is free or holds a model, before any work is put into filling it.

    Raises:
        InputError: the path is something else, or its folder cannot be written.
    """
    if path.exists() and not is_model(path) and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(
            f"{path} exists and is not a model folder, so it will not be replaced; "
            "choose another output folder"
        )
    probe = path.parent / f".{path.name}.{os.getpid()}.probe"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.mkdir()
        probe.rmdir()
    except OSError as err:
        raise InputError(
            f"cannot write into {path.parent}: {err.strerror}; choose a folder that is writable"
        ) from err


def write(
    path: Path,
    description: Mapping[str, Any],
    history: Mapping[str, Sequence[Any]],
    members: Sequence[MLP],
    member_masks: Sequence[Mask],
) -> None:
    """Write a model folder, replacing an older model at `path` in one step.

    Raises:
        InputError: `path` is not free for a model, not writable, or the disk is full.
    """
    check_replaceable(path)
    blob = save_bytes(pack(members, member_masks))
    first = members[0]
    whole = {
        "format": FORMAT,
        **description,
        "network": {
            "n_inputs": first.encoder[0].in_features,
            "n_outputs": first.decoder.out_features,
            "widths": [w.shape[0] for w in layer_weights(first.encoder).values()],
        },
        "members": _mask_indices(member_masks),
        "sha256": hashlib.sha256(blob).hexdigest(),
    }
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    old = path.parent / f".{path.name}.{os.getpid()}.old"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, content in (
            (DESCRIPTION, json.dumps(whole, indent=1).encode()),
            (HISTORY, json.dumps(history).encode()),
            (WEIGHTS, blob),
        ):
            with (temporary / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if path.exists():
            path.rename(old)
        try:
            temporary.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    except OSError as err:
        raise InputError(
            f"cannot write {path}: {err.strerror or err}; choose a folder that is writable and has "
            "room (an older model there is intact)"
        ) from err
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path} must be a model folder written by secateurs, but {what}")


def _widths(path: Path, described: Any) -> tuple[int, int, tuple[int, ...]]:
    sizes = [described.get("n_inputs"), described.get("n_outputs"), *described.get("widths", [])]
    if len(sizes) < 3 or not all(type(n) is int and 0 < n < 2**31 for n in sizes):
        raise _damaged(path, f"its {DESCRIPTION} describes no network")
    return sizes[0], sizes[1], tuple(sizes[2:])


def _unpack(
    path: Path,
    tensors: Mapping[str, Tensor],
    sizes: tuple[int, int, tuple[int, ...]],
    mask_indices: Sequence[int],
) -> tuple[list[MLP], list[Mask]]:
    n_inputs, n_outputs, widths = sizes
    with torch.device("meta"):  # names and shapes without memory: nothing is trusted yet
        shapes = {
            name: (tuple(t.shape), t.dtype)
            for name, t in MLP(n_inputs, n_outputs, widths=widths).state_dict().items()
        }
        prunable = [f"encoder.{name}" for name in layer_weights(MLP(n_inputs, n_outputs, widths=widths).encoder)]
    found: dict[int, Mask] = {}
    members, member_masks = [], []
    for i, j in enumerate(mask_indices):
        state: dict[str, Tensor] = {}
        if j not in found:
            bits = {n: tensors[f"mask-{j}/{n}"] for n in prunable if f"mask-{j}/{n}" in tensors}
            found[j] = masks.unpack(bits, {n: shapes[n][0] for n in bits})
        for name, (shape, dtype) in shapes.items():
            value = tensors.get(f"member-{i}/{name}")
            kept = found[j].get(name)
            expected = shape if kept is None else (int(kept.sum()),)
            if value is None or tuple(value.shape) != expected or value.dtype != dtype:
                raise _damaged(path, f"{name} of member {i} in its {WEIGHTS} has another shape")
            state[name] = value
            if kept is not None:
                state[name] = torch.zeros(shape, dtype=dtype).masked_scatter_(kept, value)
        network = MLP(n_inputs, n_outputs, widths=widths)
        network.load_state_dict(state)
        members.append(network.eval())
        for name in prunable:
            found[j].setdefault(name, torch.ones(shapes[name][0], dtype=torch.bool))
        member_masks.append(found[j])
    return members, member_masks


def read(path: Path) -> tuple[dict[str, Any], dict[str, list[Any]], list[MLP], list[Mask]]:
    """Return description, history, members and masks of a folder that `write` made.

    Raises:
        InputError: not a model folder, of a newer format, damaged or truncated.
    """
    try:
        description = json.loads((path / DESCRIPTION).read_bytes())
        history = json.loads((path / HISTORY).read_bytes())
        blob = (path / WEIGHTS).read_bytes()
    except OSError as err:
        raise _damaged(path, f"{Path(err.filename or path).name}: {err.strerror}") from err
    except ValueError as err:
        raise _damaged(path, "its JSON cannot be read: damaged or truncated") from err
    if not isinstance(description, dict) or not isinstance(history, dict):
        raise _damaged(path, f"its {DESCRIPTION} is not one of ours")
    if description.get("format") != FORMAT:
        raise _damaged(
            path, f"its format is {description.get('format')!r} and this version reads {FORMAT}"
        )
    if hashlib.sha256(blob).hexdigest() != description.get("sha256"):
        raise _damaged(path, f"its {WEIGHTS} does not match its checksum: damaged or truncated")
    indices = description.get("members")
    if not isinstance(indices, list) or not indices or not all(type(j) is int for j in indices):
        raise _damaged(path, f"its {DESCRIPTION} lists no members")
    try:
        sizes = _widths(path, description["network"])
        tensors = load_bytes(blob)
        members, member_masks = _unpack(path, tensors, sizes, indices)
    except InputError:
        raise
    except Exception as err:  # the reader's own error classes are not a closed set
        raise _damaged(path, f"its content is damaged ({type(err).__name__})") from err
    return description, history, members, member_masks
