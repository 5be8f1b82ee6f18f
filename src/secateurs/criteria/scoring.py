"""What all criteria share: a network that is left as it was found, batches, scores that count."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.masks import Scores

__all__ = ["Batches", "Criterion", "differentiate", "finite", "pairs", "undisturbed"]

Criterion = Callable[..., Scores]
"""A function of a network that returns one number a weight; see `CRITERIA`."""

Batches = Iterable[tuple[Any, Any]]
"""Pairs (x, y) of rows and targets: a list of pairs, a DataLoader, or one pair in a list."""


@contextmanager
def undisturbed(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluate inside: dropout off, BatchNorm by its running statistics, no autocast.

    On leaving, the training flag of every module and the global random state are what they were.
    """
    flags = [(module, module.training) for module in network.modules()]
    devices, kind = ([], "cuda") if device.type == "cpu" else ([device], device.type)
    with (
        torch.random.fork_rng(devices, device_type=kind),
        torch.autocast(device.type, enabled=False),
        torch.enable_grad(),
    ):
        network.eval()
        try:
            yield
        finally:
            for module, training in flags:
                module.training = training


def pairs(batches: Batches, device: torch.device) -> Iterator[tuple[Any, Any, int]]:
    """Yield each batch's inputs and targets on `device`, and its number of rows.

    Raises:
        InputError: no batch, a batch that is not a pair, or one without rows.

    >>> [n for _, _, n in pairs([(torch.ones(2, 3), torch.ones(2))], torch.device("cpu"))]
    [2]
    """
    found = False
    for batch in batches:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise InputError(
                f"each batch must be a pair (x, y), got {type(batch).__name__}; "
                "pass a list of pairs or a DataLoader, and one batch as [(x, y)]"
            )
        x, y = (part.to(device) if isinstance(part, Tensor) else part for part in batch)
        if len(y) == 0:
            raise InputError("each batch must have rows, got one with none; leave it out")
        found = True
        yield x, y, len(y)
    if not found:
        raise InputError("batches must hold at least one pair (x, y), got none; was it used up?")


def differentiate(
    output: Tensor, weights: Mapping[str, Tensor], *, create_graph: bool = False
) -> dict[str, Tensor | None]:
    """Return d output / d weight by name, None where the output does not depend on a weight."""
    if not output.requires_grad:
        return dict.fromkeys(weights)
    found = torch.autograd.grad(
        output, list(weights.values()), create_graph=create_graph, allow_unused=True
    )
    return dict(zip(weights, found, strict=True))


def finite(scores: Scores) -> Scores:
    """Return the scores.

    Raises:
        InputError: a score that is NaN or infinite (names the layers).

    >>> finite({"w": torch.ones(1)})
    {'w': tensor([1.])}
    """
    bad = [name for name, score in scores.items() if not bool(score.isfinite().all())]
    if bad:
        raise InputError(
            f"scores must be finite numbers, got NaN or infinity in {', '.join(bad)}; "
            "look for such values in the weights, the inputs and the loss"
        )
    return scores
