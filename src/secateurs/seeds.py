"""Randomness is an argument: named generator streams, all derived from one seed."""

import hashlib

import torch

__all__ = ["derive", "stream"]


def derive(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and on every name, and on nothing else.

    >>> derive(0, "search", "order") == derive(0, "search", "order")
    True
    >>> derive(0, "search", "order") == derive(0, "search", "view")
    False
    """
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for one named purpose.

    Purposes never share a stream, so that drawing views, say, cannot move the order of the data.

    >>> torch.rand(1, generator=stream(0, "a")) == torch.rand(1, generator=stream(0, "a"))
    tensor([True])
    """
    return torch.Generator(device=device).manual_seed(derive(seed, *names))
