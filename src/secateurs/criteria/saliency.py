"""Scores from derivatives of the loss: gradient, SNIP and GraSP.

The loss is the mean over all rows of all batches, however they are cut into batches; memory does
not grow with their number. Networks are scored in evaluation mode, as they are: dropout is off and
BatchNorm uses its running statistics, so that a row's part does not depend on its company.
"""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from secateurs.criteria.scoring import Batches, differentiate, finite, pairs, undisturbed
from secateurs.errors import InputError
from secateurs.masks import Scores
from secateurs.networks.init import Patterns, prunable
from secateurs.objectives import cross_entropy

__all__ = ["BatchLoss", "gradient", "grasp", "grasp_abs", "snip"]

BatchLoss = Callable[[Tensor, Any], Tensor]
"""loss(outputs, y), a mean over rows: one of `objectives.LOSSES`, `F.cross_entropy`, ..."""


class _Losses:
    """The loss of each batch as a function of copies of the chosen weights.

    The network's own tensors take no part: their `grad` and `requires_grad` are never touched.
    """

    def __init__(
        self,
        network: nn.Module,
        chosen: dict[str, Tensor],
        batches: Batches,
        loss: BatchLoss,
        temperature: float = 1.0,
    ) -> None:
        self.network, self.batches, self.loss = network, batches, loss
        self.temperature = temperature
        self.device = next(iter(chosen.values())).device
        self.weights = {name: weight.detach().requires_grad_() for name, weight in chosen.items()}
        # forward passes may write to buffers
        self.rest = {name: buffer.clone() for name, buffer in network.named_buffers()}
        self.rest |= {
            name: p.detach() for name, p in network.named_parameters() if name not in chosen
        }

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        for x, y, n in pairs(self.batches, self.device):
            outputs = functional_call(self.network, self.rest | self.weights, (x,))
            value = self.loss(outputs / self.temperature if self.temperature != 1 else outputs, y)
            if not isinstance(value, Tensor) or value.numel() != 1:
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise InputError(
                    f"loss(outputs, y) must return one number as a tensor, got {got}; "
                    "take the mean over the rows and do not call .item()"
                )
            yield value.sum(), n

    def mean(self, derivative: Callable[[Tensor], dict[str, Tensor | None]]) -> Scores:
        """Return the mean over rows of a derivative of the loss; a weight without one is left out.

        Sums are signed: absolute values are taken of the whole, never of a batch.
        """
        means: Scores = {}
        seen = 0
        for value, n in self:
            seen += n
            for name, part in derivative(value).items():
                if part is not None and name not in means:
                    means[name] = torch.zeros_like(part)
                if name in means:
                    means[name].lerp_(
                        means[name].new_zeros(()) if part is None else part.detach(), n / seen
                    )
        return means

    def gradient(self) -> Scores:
        """Return dL/dw.

        Raises:
            InputError: the loss does not depend on a weight.
        """
        means = self.mean(lambda value: differentiate(value, self.weights))
        missing = [name for name in self.weights if name not in means]
        if missing:
            raise InputError(
                f"the loss must depend on every scored weight, but not on {', '.join(missing)}; "
                "leave them out with except_=, or mend the forward pass"
            )
        return means


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

    >>> net = nn.Linear(2, 1, bias=False)
    >>> batches = [(torch.tensor([[1.0, -3.0]]), torch.zeros(1))]
    >>> gradient(net, batches, loss=lambda outputs, y: outputs.mean())
    {'weight': tensor([[1., 3.]])}
    """
    chosen = prunable(network, only=only, except_=except_)
    losses = _Losses(network, chosen, batches, loss)
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

    >>> net = nn.Linear(2, 1, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[2.0, -1.0]]))
    >>> batches = [(torch.tensor([[1.0, -3.0]]), torch.zeros(1))]
    >>> snip(net, batches, loss=lambda outputs, y: outputs.mean())
    {'weight': tensor([[2., 3.]])}
    """
    chosen = prunable(network, only=only, except_=except_)
    losses = _Losses(network, chosen, batches, loss)
    with undisturbed(network, losses.device):
        means = losses.gradient()
        return finite({n: (w.detach() * means[n]).abs() for n, w in chosen.items()})


_NOT_TWICE = re.compile(r"derivative for (\S+)|differentiate twice|double backward", re.IGNORECASE)


@contextmanager
def _named(output: Tensor) -> Iterator[None]:
    """Say which operation of the graph under `output` cannot be differentiated twice."""
    try:
        yield
    except RuntimeError as err:
        found = _NOT_TWICE.search(str(err))
        if not found:
            raise
        operation = found[1] or ", ".join(_once_differentiable(output)) or str(err).split("\n")[0]
        raise InputError(
            f"GraSP needs second derivatives of the loss, but {operation} has none; "
            "use another form of that operation, or SNIP"
        ) from err


def _once_differentiable(output: Tensor) -> list[str]:
    """Return the autograd functions under `output` that are marked @once_differentiable."""
    names: set[str] = set()
    seen: set[Any] = {None}
    pending: list[Any] = [output.grad_fn]
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        function = getattr(node, "_forward_cls", None)
        if function is not None and hasattr(function.backward, "__wrapped__"):
            names.add(function.__name__)
        pending += [parent for parent, _ in node.next_functions]
    return sorted(names)


def grasp(
    network: nn.Module,
    batches: Batches,
    *,
    loss: BatchLoss = cross_entropy,
    temperature: float = 200.0,
    only: Patterns = None,
    except_: Patterns = None,
) -> Scores:
    """Score each weight by w * (H g): keeping the highest keeps the gradient flow (GraSP).

    Wang et al. 2020 write S = -w * (H g) and remove the highest. g and H are gradient and Hessian
    of the loss of outputs / temperature with respect to the scored weights; g is taken over all
    rows before H g is, so the batches are read twice. The temperature changes the ranking.

    Args:
        network: any module with Linear or Conv layers; score the weights that will be trained.
        batches: pairs (x, y) that can be read twice, the same rows each time: a list or DataLoader.
        loss: called as loss(outputs / temperature, y); a mean over rows; differentiable twice.
        temperature: T, 200 in the authors' code.
        only: shell pattern(s) on parameter names that must match.
        except_: shell pattern(s) that must not match.

    Raises:
        InputError: nothing to prune, no batches or an iterator, a loss that is not one number or
            that does not depend on a weight, an operation without second derivative (names it),
            a temperature that is not positive, or a score that is not finite.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> _ = net.weight.data.fill_(3.0)
    >>> batches = [(torch.ones(1, 1), torch.zeros(1, 1))]  # L = w^2: g = 6, H = 2
    >>> grasp(net, batches, loss=nn.MSELoss(), temperature=1.0)
    {'weight': tensor([[36.]])}
    """
    if not 0 < temperature < math.inf:
        raise InputError(f"temperature must be a positive number, got {temperature}")
    if iter(batches) is batches:
        raise InputError(
            "grasp reads its batches twice, and an iterator can be read once; "
            f"pass a list or a DataLoader, got {type(batches).__name__}"
        )
    chosen = prunable(network, only=only, except_=except_)
    losses = _Losses(network, chosen, batches, loss, temperature)

    def hessian_product(value: Tensor) -> dict[str, Tensor | None]:
        with _named(value):
            first = differentiate(value, losses.weights, create_graph=True)
            along = [(g * means[name]).sum() for name, g in first.items() if g is not None]
            # a batch may reach no weight, and a loss that is linear in the weights has no Hessian
            return differentiate(sum(along, value.new_zeros(())), losses.weights)

    with undisturbed(network, losses.device):
        means = losses.gradient()
        products = losses.mean(hessian_product)
        return finite(
            {
                name: weight.detach() * products.get(name, torch.zeros_like(weight)).detach()
                for name, weight in chosen.items()
            }
        )


def grasp_abs(
    network: nn.Module,
    batches: Batches,
    *,
    loss: BatchLoss = cross_entropy,
    temperature: float = 200.0,
    only: Patterns = None,
    except_: Patterns = None,
) -> Scores:
    """Score each weight by |w * (H g)|: GraSP without its sign (Frankle et al. 2021).

    Args:
        network: any module with Linear or Conv layers; score the weights that will be trained.
        batches: pairs (x, y) that can be read twice, the same rows each time: a list or DataLoader.
        loss: called as loss(outputs / temperature, y); a mean over rows; differentiable twice.
        temperature: T, 200 in the authors' code.
        only: shell pattern(s) on parameter names that must match.
        except_: shell pattern(s) that must not match.

    Raises:
        InputError: as `grasp`.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> batches = [(torch.ones(1, 1), torch.zeros(1, 1))]
    >>> bool(grasp_abs(net, batches, loss=nn.MSELoss())["weight"] >= 0)
    True
    """
    scores = grasp(network, batches, loss=loss, temperature=temperature, only=only, except_=except_)
    return {name: score.abs() for name, score in scores.items()}
