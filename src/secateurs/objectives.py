"""What is minimised: pure functions of logits, hidden representations and targets.

ILO, the invariance learning objective of IUNet (eq. 6-9), is
`cross_entropy(decoder(h), y) + contrastive_weight * nce(h, h', y)` with h = encoder(x) and
h' = encoder(g(x)); the training loop adds the two terms.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "CONTRASTIVE",
    "LOSSES",
    "Contrastive",
    "Loss",
    "cross_entropy",
    "hinge",
    "infonce",
    "mse",
    "nce",
    "supcon",
]

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Contrastive = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def _weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return values.mean()
    total = weight.sum()
    # a batch in which no row counts contributes nothing, rather than 0/0
    return (values * weight).sum() / torch.where(total > 0, total, torch.ones_like(total))


def cross_entropy(logits: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy; with weights, sum(weight * loss) / sum(weight).

    Args:
        logits: [rows, classes].
        y: [rows] class indices.
        weight: [rows] class and sample weights, multiplied, or None.

    >>> float(cross_entropy(torch.zeros(2, 4), torch.tensor([0, 1])).exp())
    4.0
    """
    return _weighted_mean(F.cross_entropy(logits, y, reduction="none"), weight)


def mse(outputs: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the (weighted) mean squared error of [rows] or [rows, targets] outputs.

    Of [rows, classes] outputs and [rows] class indices the targets are one-hot - 1/classes, whose
    mean over the classes is 0 as that of centred outputs.

    >>> float(mse(torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 1.0])))
    2.0
    >>> float(mse(torch.tensor([[0.5, -0.5]]), torch.tensor([0])))
    0.0
    """
    if y.dtype == torch.int64 and y.ndim == 1 and outputs.ndim == 2 and outputs.shape[1] > 1:
        classes = outputs.shape[1]
        y = F.one_hot(y, classes).to(outputs.dtype) - 1 / classes
    y = y.view(outputs.shape)
    return _weighted_mean((outputs - y).square().flatten(1).mean(1), weight)


def hinge(logits: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean of max(0, 1 - margin), margin = own logit - the largest other one.

    Unlike cross-entropy it ends: rows with a margin of 1 no longer move the weights, so that lazy
    training stays lazy (Crammer & Singer 2001; Geiger et al. 2020 train with margins, too).

    >>> float(hinge(torch.tensor([[3.0, 1.0], [0.5, 0.0]]), torch.tensor([0, 0])))
    0.25
    """
    own = logits.gather(1, y[:, None]).squeeze(1)
    others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return _weighted_mean(F.relu(1 - own + others), weight)


def _cosines(h: Tensor, h_view: Tensor) -> Tensor:
    """Return [rows, rows]: cos(h_i, h'_j)."""
    return F.normalize(h, dim=1) @ F.normalize(h_view, dim=1).T


def nce(h: Tensor, h_view: Tensor, y: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the contrastive term of ILO (eq. 9): be near your own view, far from other classes'.

    NCE_i = -cos(h_i, h'_i) + log sum_{j: y_j != y_i} exp cos(h_i, h'_j), mean over the anchors i.
    The positive is not in the denominator and rows of the same class are not negatives. An anchor
    without a row of another class in its batch contributes 0.

    Args:
        h: [rows, features] hidden representations of the inputs.
        h_view: [rows, features] of their views.
        y: [rows] class indices.
        temperature: divides the cosines; the paper has none, which is 1.

    >>> h = torch.eye(2)
    >>> float(nce(h, h, torch.tensor([0, 1])))
    -1.0
    """
    cos = _cosines(h, h_view) / temperature
    negative = y[:, None] != y[None, :]
    has_negative = negative.any(1)
    # anchors without negatives are summed over everything and then dropped: no log of 0, no NaN
    excluded = ~negative & has_negative[:, None]
    spread = cos.masked_fill(excluded, -torch.inf).logsumexp(1)
    return torch.where(has_negative, spread - cos.diagonal(), 0.0).mean()


def supcon(h: Tensor, h_view: Tensor, y: Tensor, temperature: float = 0.1) -> Tensor:
    """Return the supervised contrastive loss (Khosla et al. 2020, L_out) of inputs and views.

    Positives are all other rows of the same class in both views, the denominator is everything but
    oneself, and the mean over positives is taken outside of the logarithm.

    >>> h, y = torch.eye(2), torch.tensor([0, 1])
    >>> bool(supcon(h, h, y) < supcon(h, h.flip(0), y))
    True
    """
    both, labels = torch.cat([h, h_view]), torch.cat([y, y])
    cos = _cosines(both, both) / temperature
    oneself = torch.eye(len(both), dtype=torch.bool, device=h.device)
    log_prob = cos - cos.masked_fill(oneself, -torch.inf).logsumexp(1, keepdim=True)
    positive = (labels[:, None] == labels[None, :]) & ~oneself  # never empty: one's own view
    return -(log_prob * positive).sum(1).div(positive.sum(1)).mean()


def infonce(h: Tensor, h_view: Tensor, y: Tensor, temperature: float = 1.0) -> Tensor:
    """Return InfoNCE as in SCARF: find your own view among all views of the batch; labels unused.

    >>> h = torch.eye(2)
    >>> round(float(infonce(h, h, torch.tensor([0, 1]))), 4)
    0.3133
    """
    del y
    return F.cross_entropy(_cosines(h, h_view) / temperature, torch.arange(len(h), device=h.device))


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "mse": mse, "hinge": hinge}
CONTRASTIVE: dict[str, Contrastive] = {"nce": nce, "supcon": supcon, "infonce": infonce}
