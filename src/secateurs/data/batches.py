"""Tensors to train on, and the order in which they come."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.errors import InputError

__all__ = ["Data", "batch_spans", "epoch_batches"]


@dataclass(frozen=True, kw_only=True)
class Data:
    """Inputs and targets as tensors; moved to the device once, before the first epoch.

    Args:
        train: (x, y), x [rows, ...], y [rows] class indices (int64) or [rows(, targets)] floats.
        validation: (x, y) watched during training, never trained on, or None.
        weight: [rows] class and sample weights of the training rows, multiplied, or None.

    Raises:
        InputError: fewer than 2 training rows, or lengths that differ.
    """

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor] | None = None
    weight: Tensor | None = None

    def __post_init__(self) -> None:
        x, y = self.train
        if len(x) < 2:
            raise InputError(
                f"training needs at least 2 rows (BatchNorm has no spread over one), got {len(x)}"
            )
        pairs = [("train", x, y)]
        if self.validation is not None:
            pairs.append(("validation", *self.validation))
        if self.weight is not None:
            pairs.append(("weight", x, self.weight))
        for name, rows, targets in pairs:
            if len(rows) != len(targets):
                raise InputError(
                    f"{name}: inputs and targets must have equal length, "
                    f"got {len(rows)} and {len(targets)}"
                )

    def to(self, device: torch.device) -> "Data":
        """Return the same data on `device`."""
        moved = self.validation and (self.validation[0].to(device), self.validation[1].to(device))
        return Data(
            train=(self.train[0].to(device), self.train[1].to(device)),
            validation=moved or None,
            weight=None if self.weight is None else self.weight.to(device),
        )


def batch_spans(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Return where the batches of n rows begin and end.

    A last batch of one row joins the batch before it: BatchNorm cannot train on a single row.

    >>> batch_spans(9, 4)
    [(0, 4), (4, 9)]
    """
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True))


def epoch_batches(
    n: int,
    batch_size: int,
    *,
    generator: torch.Generator,
    device: torch.device | None = None,
) -> Iterator[Tensor]:
    """Yield the row indices of one shuffled epoch in the batches of `batch_spans`; every row once.

    Args:
        n: number of rows.
        batch_size: see `batch_spans`.
        generator: of the order, drawn where it is.
        device: where the indices are to be; they are moved there together, once. None is the
            generator's.

    >>> [len(rows) for rows in epoch_batches(9, 4, generator=torch.Generator())]
    [4, 5]
    """
    order = torch.randperm(n, generator=generator, device=generator.device)
    order = order.to(device or generator.device)
    for begin, end in batch_spans(n, batch_size):
        yield order[begin:end]
