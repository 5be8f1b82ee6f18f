"""Scores from the second derivative of the loss: GraSP, with its sign and without.

Networks are scored as in `saliency`; the batches are read twice and memory does not grow with their
number.
"""

import inspect
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from secateurs.criteria.scoring import (
    Batches,
    BatchLoss,
    Losses,
    differentiate,
    finite,
    undisturbed,
)
from secateurs.errors import InputError
from secateurs.masks import Scores
from secateurs.networks.init import Patterns, prunable
from secateurs.objectives import cross_entropy

__all__ = ["grasp", "grasp_abs"]

_NOT_TWICE = re.compile(r"derivative for (\S+)|double backward", re.IGNORECASE)
_ONCE = once_differentiable(lambda ctx: None).__code__


@contextmanager
def _differentiable_twice(output: Tensor) -> Iterator[None]:
    """Say which operation of the graph under `output` has no second derivative, if one has none."""
    marked = _once_differentiable(output)
    if marked:  # torch would leave their part out and say nothing
        raise InputError(_no_second_derivative(f"{', '.join(marked)} is marked to have none"))
    try:
        yield
    except RuntimeError as err:
        found = _NOT_TWICE.search(str(err))
        if not found:
            raise
        first_line = str(err).partition("\n")[0]
        reason = f"{found[1]} has none" if found[1] else f"torch says: {first_line}"
        raise InputError(_no_second_derivative(reason)) from err


def _no_second_derivative(reason: str) -> str:
    return (
        f"GraSP needs second derivatives of the loss, but {reason}; "
        "use another form of that operation, or SNIP"
    )


def _is_marked(backward: Any) -> bool:
    return getattr(backward, "__code__", None) is _ONCE


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
        if function is not None:
            backward = inspect.unwrap(function.backward, stop=_is_marked)
            if _is_marked(backward):
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
    if isinstance(batches, Iterator):
        raise InputError(
            "grasp reads its batches twice, and an iterator can be read once; "
            f"pass a list or a DataLoader, got {type(batches).__name__}"
        )
    chosen = prunable(network, only=only, except_=except_)
    losses = Losses(network, chosen, batches, loss, temperature)

    def hessian_product(value: Tensor) -> dict[str, Tensor | None]:
        with _differentiable_twice(value):
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
