"""Scores from the gradient of the loss: its size, and SNIP.

The loss is the mean over all rows of all batches, however they are cut into batches. Networks are
scored as they are, in evaluation mode: dropout is off and BatchNorm uses its running statistics, so
that a row's part does not depend on its company.
"""

from torch import nn

from secateurs.criteria.scoring import Batches, BatchLoss, Losses, finite, undisturbed
from secateurs.masks import Scores
from secateurs.networks.init import Patterns, prunable
from secateurs.objectives import cross_entropy

__all__ = ["gradient", "snip"]


def gradient(
    network: nn.Module,
    batches: Batches,
    *,
    loss: BatchLoss = cross_entropy,
    only: Patterns = None,
    except_: Patterns = None,
) -> Scores:
    """Score each weight by |dL/dw|: where RigL grows (Evci et al. 2020), pruned weights included.

    Args:
        network: any module with Linear or Conv layers.
        batches: pairs (x, y); moved to the weights' device one by one.
        loss: called as loss(outputs, y); a mean over rows.
        only: shell pattern(s) on parameter names that must match.
        except_: shell pattern(s) that must not match.

    Raises:
        InputError: nothing to prune, no batches, a loss that is not one number or that does not
            depend on a weight, or a score that is not finite.

    >>> import torch
    >>> net = nn.Linear(2, 1, bias=False)
    >>> batches = [(torch.tensor([[1.0, -3.0]]), torch.zeros(1))]
    >>> gradient(net, batches, loss=lambda outputs, y: outputs.mean())
    {'weight': tensor([[1., 3.]])}
    """
    chosen = prunable(network, only=only, except_=except_)
    losses = Losses(network, chosen, batches, loss)
    with undisturbed(network, losses.device):
        return finite({name: g.abs() for name, g in losses.gradient().items()})


def snip(
    network: nn.Module,
    batches: Batches,
    *,
    loss: BatchLoss = cross_entropy,
    only: Patterns = None,
    except_: Patterns = None,
) -> Scores:
    """Score each weight by |w * dL/dw| at the start (SNIP, Lee et al. 2019).

    The paper's division by the sum of all scores changes no ranking and is left out. The reference
    implementation takes one batch of 100 rows.

    Args:
        network: any module with Linear or Conv layers; score the weights that will be trained.
        batches: pairs (x, y); moved to the weights' device one by one.
        loss: called as loss(outputs, y); a mean over rows.
        only: shell pattern(s) on parameter names that must match.
        except_: shell pattern(s) that must not match.

    Raises:
        InputError: nothing to prune, no batches, a loss that is not one number or that does not
            depend on a weight, or a score that is not finite.

    >>> import torch
    >>> net = nn.Linear(2, 1, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[2.0, -1.0]]))
    >>> batches = [(torch.tensor([[1.0, -3.0]]), torch.zeros(1))]
    >>> snip(net, batches, loss=lambda outputs, y: outputs.mean())
    {'weight': tensor([[2., 3.]])}
    """
    chosen = prunable(network, only=only, except_=except_)
    losses = Losses(network, chosen, batches, loss)
    with undisturbed(network, losses.device):
        means = losses.gradient()
        return finite({n: (w.detach() * means[n]).abs() for n, w in chosen.items()})
