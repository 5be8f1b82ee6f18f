"""Masks as bits, eight weights a byte, in memory and in a file."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateurs import checkpoint
from secateurs.errors import InputError
from secateurs.masks.matching import Mask, check_boolean

__all__ = ["load", "pack", "save", "unpack"]


def pack(mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return each mask as bits, eight weights a byte (uint8, little-endian bit order).

    >>> pack({"w": torch.tensor([True, False, True])})
    {'w': tensor([5], dtype=torch.uint8)}
    """
    return {
        name: torch.from_numpy(np.packbits(kept.cpu().numpy().ravel(), bitorder="little"))
        for name, kept in mask.items()
    }


def unpack(packed: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> Mask:
    """Undo `pack`.

    Raises:
        InputError: a shape that is none, or the bits of a layer do not fit its shape.

    >>> unpack({"w": torch.tensor([5], dtype=torch.uint8)}, {"w": (3,)})
    {'w': tensor([ True, False,  True])}
    """
    mask = {}
    for name, shape in shapes.items():
        # Two negative sizes have a positive product, and a bool is an int.
        if not all(type(size) is int and size > 0 for size in shape):
            raise InputError(
                f"the shape of {name} must be positive whole numbers, got {list(shape)}; "
                "the mask is damaged or foreign, make it anew"
            )
        n = math.prod(shape)
        bits = packed[name]
        if bits.dtype != torch.uint8 or bits.shape != ((n + 7) // 8,):
            raise InputError(
                f"the packed mask of {name} must be {(n + 7) // 8} bytes for shape "
                f"{tuple(shape)}, got {tuple(bits.shape)} of {bits.dtype}"
            )
        kept = np.unpackbits(bits.numpy(), count=n, bitorder="little").astype(bool)
        mask[name] = torch.from_numpy(kept).view(tuple(shape))
    return mask


def save(path: str | Path, mask: Mapping[str, Tensor]) -> None:
    """Write a mask to one safetensors file: a bit for each weight, the shapes in the metadata.

    Args:
        path: the file; an older one is replaced only by a whole new one.
        mask: the mask, bool.

    Raises:
        InputError: a mask that is not bool, or the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/mask.safetensors", {"w": torch.tensor([True, False])})
    ...     load(f"{folder}/mask.safetensors")
    {'w': tensor([ True, False])}
    """
    check_boolean(mask)
    shapes = {name: list(kept.shape) for name, kept in mask.items()}
    checkpoint.save(Path(path), pack(mask), {"mask": shapes})


def load(path: str | Path) -> Mask:
    """Return the mask that `save` wrote. Nothing is unpickled or allocated on the file's word.

    Args:
        path: the file.

    Raises:
        InputError: missing, damaged, truncated, or not a mask.

    >>> load("nowhere.safetensors")
    Traceback (most recent call last):
    secateurs.errors.InputError: nowhere.safetensors must be ...
    """
    packed, metadata = checkpoint.load(Path(path))
    shapes: Any = metadata.get("mask")
    listed = isinstance(shapes, dict) and all(isinstance(shape, list) for shape in shapes.values())
    if not listed or not shapes or set(shapes) != set(packed):
        raise InputError(
            f"{path} must be a mask written by masks.save, but its tensors and shapes do not "
            "match; it is damaged or foreign"
        )
    try:
        return unpack(packed, shapes)
    except InputError as err:
        raise InputError(f"{path}: {err}") from err
