"""How much of a view a network sees: in its hidden representations, and in what it predicts.

A view g keeps what an input means, so that an invariant network represents x and g(x) alike
(method, section 2). Labels are easy to game: a network that always says the same is perfectly
consistent. So the agreement beyond chance stands beside consistency, and the invariance ratio,
which no constant representation can raise, beside both.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from secateurs import objectives
from secateurs.data.views import View
from secateurs.errors import InputError

__all__ = [
    "consistency",
    "contrastive_loss",
    "distances",
    "invariance_ratio",
    "represent",
    "under_view",
]

_ROWS = 1024  # of a forward pass: bounds the memory
_ROUNDINGS = 16  # steps of a float by which equal representations may differ


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode, and afterwards back in its own."""
    before = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@torch.no_grad()
def represent(network: nn.Module, x: Tensor, *, encoder: str = "encoder") -> tuple[Tensor, Tensor]:
    """Return hidden representations [rows, features] and outputs [rows, outputs], in eval mode.

    The hidden representation h is what the encoder gives: in the networks of this library that is
    after the last BatchNorm and ReLU.

    Args:
        network: any module; it is left as it was.
        x: [rows, ...] inputs.
        encoder: name of the submodule whose output is the hidden representation.

    Raises:
        InputError: no such submodule.

    >>> network = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2))
    >>> h, out = represent(network, torch.ones(5, 3), encoder="0")
    >>> h.shape, out.shape
    (torch.Size([5, 8]), torch.Size([5, 2]))
    """
    if encoder not in dict(network.named_modules()):
        children = ", ".join(child for child, _ in network.named_children()) or "none"
        raise InputError(
            f"the network must have a submodule {encoder!r} whose output is the hidden "
            f"representation; pass encoder='NAME' (its submodules: {children})"
        )
    hidden: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        hidden.append(output.flatten(1))

    handle = network.get_submodule(encoder).register_forward_hook(keep)
    try:
        with _evaluating(network):
            told = [network(part) for part in x.split(_ROWS)]
    finally:
        handle.remove()
    return torch.cat(hidden), torch.cat(told)


def _directions(h: Tensor) -> Tensor:
    """Return [rows, features + 1] unit vectors in float64, whose distance is 1 - cos.

    The cosine with a row of zeros, in which every neuron is silent, is undefined; such rows get a
    direction of their own, so that they are alike and at distance 1 from all others.
    """
    h = h.double()
    h = h / h.abs().amax(1, keepdim=True).clamp_min(torch.finfo(h.dtype).tiny)
    silent = (h == 0).all(1, keepdim=True).double()
    h = torch.cat([h, silent], dim=1)
    norms: Tensor = h.norm(dim=1, keepdim=True)
    return h / norms


def distances(h: Tensor, h_view: Tensor) -> tuple[float, float]:
    """Return the mean distance 1 - cos over all pairs of different inputs, and to one's own view.

    What rounding alone gives counts as 0.

    Args:
        h: [rows, features] hidden representations, of at least 2 inputs.
        h_view: [rows, features] those of their views; or those of several views of every input,
            one after another: [views * rows, features].

    Raises:
        InputError: fewer than 2 inputs, or shapes that do not fit.

    >>> distances(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
    (1.0, 0.0)
    """
    if len(h) < 2 or not len(h_view) or len(h_view) % len(h) or h.shape[1:] != h_view.shape[1:]:
        raise InputError(
            "representations must be [rows, features] of at least 2 inputs, and of as many views "
            f"or a multiple, got {tuple(h.shape)} and {tuple(h_view.shape)}"
        )
    u, v = _directions(h), _directions(h_view)
    # For unit vectors 1 - cos is half the squared distance, which unlike 1 - cos is exactly 0 for
    # equal ones; over all pairs its mean is the variance.
    different = float(u.var(0).sum())
    own = float((v - u.repeat(len(v) // len(u), 1)).square().sum(1).mean() / 2)
    rounding = (_ROUNDINGS * torch.finfo(h.dtype).eps) ** 2
    return different * (different > rounding), own * (own > rounding)


def invariance_ratio(h: Tensor, h_view: Tensor) -> float:
    """Return the invariance ratio (eq. 4 and 10): how much farther others are than one's own view.

    The mean distance between different inputs over the mean distance between an input and its view
    (a ratio of means), with distance 1 - cos. About 1 if the view leaves nothing of the input, inf
    if it changes nothing, NaN if all representations are the same: then there is nothing to keep.

    Args:
        h: [rows, features] hidden representations, of at least 2 inputs.
        h_view: [rows, features] those of their views; or [views * rows, features].

    Raises:
        InputError: fewer than 2 inputs, or shapes that do not fit.

    >>> h = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> round(invariance_ratio(h, torch.tensor([[3.0, 4.0], [0.0, 1.0]])), 6)
    5.0
    """
    return _ratio(*distances(h, h_view))


def _ratio(different: float, own: float) -> float:
    if own == 0:
        return float("inf") if different > 0 else float("nan")
    return different / own


def consistency(predicted: Tensor, predicted_view: Tensor) -> dict[str, float]:
    """Return how often the predicted label stays under a view (section 5.5), and what chance gives.

    `consistency` is the share of rows whose label does *not* change. A constant prediction has 1,
    so beside it stand `majority_share`, the share of the inputs' most frequent label, and `kappa`,
    Cohen's: the agreement beyond chance over what could be had beyond chance. Kappa is 0 wherever
    either prediction is constant; where both are, with the same label, it would be 0 / 0 and is 0
    too, since nothing agrees beyond chance.

    Args:
        predicted: [rows] labels of the inputs, as class codes.
        predicted_view: [rows] labels of their views.

    Raises:
        InputError: no rows, or lengths that differ.

    >>> consistency(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 0]))
    {'consistency': 0.75, 'majority_share': 0.5, 'kappa': 0.5}
    >>> consistency(torch.zeros(3).long(), torch.zeros(3).long())
    {'consistency': 1.0, 'majority_share': 1.0, 'kappa': 0.0}
    """
    if predicted.ndim != 1 or predicted.shape != predicted_view.shape or not len(predicted):
        raise InputError(
            "labels must be [rows] and as many for the views, at least one, got "
            f"{tuple(predicted.shape)} and {tuple(predicted_view.shape)}"
        )
    n = len(predicted)
    _, codes = torch.cat([predicted, predicted_view]).unique(return_inverse=True)
    counts = [part.bincount(minlength=int(codes.max()) + 1) for part in codes.split(n)]
    agreed = int((predicted == predicted_view).sum())
    by_chance = int((counts[0] * counts[1]).sum())  # of n * n pairs: whole numbers keep it exact
    left = n * n - by_chance
    return {
        "consistency": agreed / n,
        "majority_share": int(counts[0].max()) / n,
        "kappa": (agreed * n - by_chance) / left if left else 0.0,
    }


def under_view(
    network: nn.Module,
    x: Tensor,
    view: View,
    *,
    generator: torch.Generator,
    encoder: str = "encoder",
    n_views: int = 1,
) -> dict[str, float]:
    """Return all measures of this module for a classifier and a view, as found in eval mode.

    `ratio` is the `invariance_ratio`, `different` and `own` are the distances that it divides;
    `consistency`, `majority_share` and `kappa` are those of `consistency`. Networks are compared on
    the same views: give each a generator in the same state.

    Args:
        network: outputs [rows, classes]; it is left as it was.
        x: [rows, ...] inputs, at least 2.
        view: g(x), called as view(x, generator), such as `secateurs.data.views.corruption`.
        generator: of the views, on the device of `x` if the view asks for that.
        encoder: name of the submodule whose output is the hidden representation.
        n_views: views drawn of every row.

    Raises:
        InputError: no such submodule, no classes, or too few rows or views.

    >>> from secateurs.networks.dense import MLP
    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(50, 4, generator=generator)
    >>> found = under_view(MLP(4, 2, widths=(16,)), x, lambda x, _: 2 * x, generator=generator)
    >>> list(found)
    ['ratio', 'different', 'own', 'consistency', 'majority_share', 'kappa']
    """
    if n_views < 1:
        raise InputError(f"n_views must be at least 1, got {n_views}")
    h, outputs = represent(network, x, encoder=encoder)
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise InputError(
            "consistency is about labels, so the network must give [rows, classes] of at least 2 "
            f"classes, got {tuple(outputs.shape)}; invariance_ratio works without"
        )
    seen = [represent(network, view(x, generator), encoder=encoder) for _ in range(n_views)]
    different, own = distances(h, torch.cat([h_view for h_view, _ in seen]))
    labels = torch.cat([outputs_view.argmax(1) for _, outputs_view in seen])
    return {
        "ratio": _ratio(different, own),
        "different": different,
        "own": own,
        **consistency(outputs.argmax(1).repeat(n_views), labels),
    }


@torch.no_grad()
def contrastive_loss(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    view: View,
    *,
    generator: torch.Generator,
    contrastive: objectives.Contrastive = objectives.nce,
    temperature: float = 1.0,
    batch_size: int = 128,
    encoder: str = "encoder",
) -> float:
    """Return the contrastive term of rows in evaluation mode, as the mean over batches (eq. 9).

    Of training and of validation rows it tells whether the term is overfitted, as the paper says
    that contrastive learning is (sec. 3.2.1). Its negatives are those of a batch: compare losses of
    equal batch sizes only, on rows in random order. A last batch that is not full is left out.

    Args:
        network: any module; it is left as it was.
        x: [rows, ...] inputs.
        y: [rows] class indices.
        view: g(x), called as view(x, generator).
        generator: of the views.
        contrastive: the term, such as `objectives.nce`.
        temperature: of the term.
        batch_size: rows of a batch.
        encoder: name of the submodule whose output is the hidden representation.

    Raises:
        InputError: fewer rows than a batch, or no such submodule.

    >>> network = nn.Sequential(nn.Linear(2, 3))
    >>> x, y = torch.eye(2), torch.tensor([0, 1])
    >>> draws = torch.Generator()
    >>> told = contrastive_loss(
    ...     network, x, y, lambda x, _: x, generator=draws, batch_size=2, encoder="0"
    ... )
    >>> told < 0.1
    True
    """
    if len(x) < batch_size:
        raise InputError(
            f"a contrastive loss needs at least one batch of {batch_size} rows, got {len(x)}; "
            "pass more rows or a smaller batch_size"
        )
    h, _ = represent(network, x, encoder=encoder)
    h_view, _ = represent(network, view(x, generator), encoder=encoder)
    whole = [slice(i, i + batch_size) for i in range(0, len(x) - batch_size + 1, batch_size)]
    losses = [contrastive(h[rows], h_view[rows], y[rows], temperature) for rows in whole]
    return float(torch.stack(losses).mean())
