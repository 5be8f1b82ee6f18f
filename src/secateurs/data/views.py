"""Views: random transformations g of an input, drawn from the set S, under which the class stays.

A view is a callable (x, generator) -> x' on encoded batches [rows, width].
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.preparation import Preparation, decode, encode, feature_names

__all__ = ["ColumnViews", "View", "corruption", "of_columns"]

View = Callable[[Tensor, torch.Generator], Tensor]
ColumnViews = Callable[..., Any] | Mapping[str, Callable[..., Any]]


def corruption(reference: Tensor, groups: Sequence[tuple[int, int]], *, rate: float = 0.6) -> View:
    """Return SCARF's view: some original columns of each row, replaced by draws from training rows.

    Exactly floor(rate * M) of the M original columns of every row, chosen uniformly; each takes the
    value that a training row, drawn for this row and column alone, has there (the column's
    empirical marginal). A one-hot group is replaced as a whole. The training rows are referenced,
    never copied.

    Args:
        reference: [training rows, width] encoded training rows.
        groups: (start, stop) span of each original column in the width, in order.
        rate: c, the corrupted share of the columns, in [0, 1].

    Raises:
        InputError: rate out of range, or spans that do not tile the width.

    >>> view = corruption(torch.zeros(8, 3), [(0, 1), (1, 3)], rate=0.5)
    >>> changed = view(torch.ones(4, 3), torch.Generator().manual_seed(0)) == 0
    >>> set(map(tuple, changed.tolist())) <= {(True, False, False), (False, True, True)}
    True
    """
    if not 0 <= rate <= 1:
        raise InputError(f"corruption_rate must be in [0, 1], got {rate}")
    spans = [stop - start for start, stop in groups]
    stops = [0, *(stop for _, stop in groups)]
    if [start for start, _ in groups] != stops[:-1] or stops[-1] != reference.shape[1]:
        raise InputError(f"groups must tile the width {reference.shape[1]}, got {list(groups)}")
    n_columns, n_corrupted = len(groups), int(rate * len(groups) + 1e-9)
    device = reference.device
    column_of = torch.repeat_interleave(torch.arange(n_columns), torch.tensor(spans)).to(device)
    positions = torch.arange(reference.shape[1], device=device)
    one_to_one = n_columns == reference.shape[1]

    def view(x: Tensor, generator: torch.Generator) -> Tensor:
        shape = (len(x), n_columns)
        ranks = torch.rand(shape, generator=generator, device=device)
        chosen = ranks.topk(n_corrupted, dim=1, sorted=False).indices
        corrupt = torch.zeros(shape, dtype=torch.bool, device=device).scatter_(
            1, chosen, value=True
        )
        rows = torch.randint(len(reference), shape, generator=generator, device=device)
        if not one_to_one:
            corrupt, rows = corrupt[:, column_of], rows[:, column_of]
        return torch.where(corrupt, reference[rows, positions], x)

    return view


def of_columns(preparation: Preparation, views: ColumnViews) -> View:
    """Return the user's own invariances, stated on original columns, as a view of encoded batches.

    Args:
        preparation: how the columns were encoded.
        views: either a callable (columns, rng) -> columns for the whole batch, where columns is
            `dict[str, array]` in original units (numbers as float64, categories as strings, None
            for missing or unknown), or a dict of callables (values, rng) -> values, one a column.
            `rng` is a `numpy.random.Generator`; draw from it only. Missing numbers arrive as the
            training median.

    Raises:
        InputError: neither, or names that are no columns.

    >>> prepared = {"format": 1, "columns": [
    ...     {"name": "age", "kind": "numeric", "median": 0.0, "mean": 0.0, "scale": 2.0}]}
    >>> view = of_columns(prepared, {"age": lambda values, rng: values + 1})
    >>> view(torch.zeros(1, 1), torch.Generator())
    tensor([[0.5000]])
    """
    if not callable(views):
        names = feature_names(preparation)
        unknown = [name for name in views if name not in names]
        if unknown or not all(callable(one) for one in views.values()):
            raise InputError(
                "views must be a callable or a dict of callables by column; unknown columns: "
                f"{', '.join(map(repr, unknown)) or 'none'}; the columns are {', '.join(names)}"
            )

    def view(x: Tensor, generator: torch.Generator) -> Tensor:
        seed = torch.randint(2**62, (1,), generator=generator, device=generator.device)
        rng = np.random.default_rng(int(seed))
        columns = decode(preparation, x.cpu().numpy())
        if callable(views):
            columns = views(columns, rng)
        else:
            columns = columns | {name: one(columns[name], rng) for name, one in views.items()}
        return torch.from_numpy(encode(preparation, columns)).to(x.device)

    return view
