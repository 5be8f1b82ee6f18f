"""Views: random transformations g of an input, drawn from the set S, under which the class stays.

A view is a callable (x, generator) -> x' on encoded batches [rows, width], or on batches of images
[rows, channels, height, width].
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from secateurs.errors import InputError
from secateurs.preparation import Preparation, decode, encode, feature_names

__all__ = [
    "ColumnViews",
    "View",
    "compose",
    "corruption",
    "of_columns",
    "pixel_corruption",
    "shift",
]

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
        rows = torch.randint(len(reference), shape, generator=generator, device=device)
        if one_to_one:  # several times faster on many columns than reading a row for each of them
            values = reference.take(rows.gather(1, chosen) * n_columns + chosen)
            return x.scatter(1, chosen, values.to(x.dtype))
        corrupt = torch.zeros(shape, dtype=torch.bool, device=device).scatter_(
            1, chosen, value=True
        )
        return torch.where(corrupt[:, column_of], reference[rows[:, column_of], positions], x)

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


def compose(*views: View) -> View:
    """Return the view that applies views one after the other, the first one first.

    >>> twice = compose(lambda x, generator: x + 1, lambda x, generator: x * 2)
    >>> twice(torch.tensor([1.0]), torch.Generator())
    tensor([4.])
    """

    def view(x: Tensor, generator: torch.Generator) -> Tensor:
        for one in views:
            x = one(x, generator)
        return x

    return view


def _check_images(x: Tensor) -> None:
    if x.ndim != 4:
        raise InputError(
            "a view of images needs [rows, channels, height, width], got shape"
            f" {tuple(x.shape)}; unflatten the batch"
        )


def shift(pixels: int, *, fill: float = 0.0) -> View:
    """Return the view that moves each image by its own number of rows and of columns.

    Both are uniform in -pixels..pixels: all (2 pixels + 1)^2 moves are equally likely.

    Args:
        pixels: the furthest move, 0 or more, and less than the height and the width.
        fill: what comes in at the borders: the background as the network sees it, which is
            (0 - mean) / std after `images.normalised`.

    Raises:
        InputError: pixels below 0 or not below the image's sides, or a batch that is not
            [rows, channels, height, width].

    >>> moved = shift(1)(torch.ones(2, 1, 3, 3), torch.Generator().manual_seed(0))
    >>> moved[0, 0]
    tensor([[1., 1., 0.],
            [1., 1., 0.],
            [0., 0., 0.]])
    """
    if pixels < 0:
        raise InputError(f"pixels must be 0 or more, got {pixels}; 0 moves nothing")

    def view(x: Tensor, generator: torch.Generator) -> Tensor:
        _check_images(x)
        height, width = x.shape[2:]
        if pixels >= min(height, width):
            raise InputError(
                f"pixels must be below the sides of the image, {height} x {width}, got {pixels};"
                " move it less far"
            )
        padded = F.pad(x, (pixels,) * 4, value=fill)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        top, left = torch.randint(2 * pixels + 1, (2, len(x)), generator=generator, device=x.device)
        return windows[torch.arange(len(x), device=x.device), :, top, left]

    return view


def pixel_corruption(reference: Tensor, *, rate: float) -> View:
    """Return `corruption` of pixels: some of each image, replaced by draws from training images.

    Exactly floor(rate * height * width) pixels of every image, chosen uniformly; each takes, in
    all its channels, what a training image, drawn for this image and pixel alone, has there.

    Args:
        reference: [training images, channels, height, width]; copied if it has several channels.
        rate: the corrupted share of the pixels, in [0, 1].

    Raises:
        InputError: rate out of range, or a batch that is not of images of the reference's shape.

    >>> view = pixel_corruption(torch.zeros(8, 1, 4, 4), rate=0.25)
    >>> int((view(torch.ones(1, 1, 4, 4), torch.Generator().manual_seed(0)) == 0).sum())
    4
    """
    _check_images(reference)
    shape = reference.shape[1:]
    spans = [(i * shape[0], (i + 1) * shape[0]) for i in range(shape[1] * shape[2])]
    corrupt = corruption(reference.movedim(1, -1).flatten(1), spans, rate=rate)

    def view(x: Tensor, generator: torch.Generator) -> Tensor:
        _check_images(x)
        if x.shape[1:] != shape:
            raise InputError(
                f"images must have the reference's shape {tuple(shape)}, got {tuple(x.shape[1:])};"
                " corrupt them with images of their own kind"
            )
        channels_last = x.movedim(1, -1)
        flat = corrupt(channels_last.flatten(1), generator)
        return flat.view(channels_last.shape).movedim(-1, 1)

    return view
