"""Scores without data: SynFlow."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from secateurs.criteria.scoring import differentiate, finite, undisturbed
from secateurs.errors import InputError
from secateurs.masks import Scores
from secateurs.networks.init import Patterns, prunable
from secateurs.networks.pixels import Normalise

__all__ = ["synflow"]


def _same(x: Any) -> Any:
    return x


@contextmanager
def _without_norms(network: nn.Module) -> Iterator[None]:
    """Let every BatchNorm, and what normalises pixels, return its input.

    Whatever their statistics are: a pixel of 1 is far below the mean, and would silence the net.
    """
    norms = (nn.modules.batchnorm._BatchNorm, Normalise)
    found = [module for module in network.modules() if isinstance(module, norms)]
    before = [module.__dict__.get("forward") for module in found]
    for module in found:
        module.__dict__["forward"] = _same
    try:
        yield
    finally:
        for module, forward in zip(found, before, strict=True):
            del module.__dict__["forward"]
            if forward is not None:
                module.__dict__["forward"] = forward


def _double(buffer: Tensor) -> Tensor:
    """Return a copy, since forward passes may write to buffers; float64 where it is floating."""
    dtype = torch.float64 if buffer.is_floating_point() else buffer.dtype
    return buffer.detach().to(dtype, copy=True)


def _positive(name: str, parameter: Tensor) -> Tensor:
    """Return a float64 copy: |parameter|, and zero for biases, which would break conservation."""
    if not parameter.is_floating_point():
        return parameter.detach()
    if name.rpartition(".")[2] == "bias":
        return torch.zeros_like(parameter, dtype=torch.float64)
    return parameter.detach().abs().double()


def synflow(
    network: nn.Module, example: Tensor, *, only: Patterns = None, except_: Patterns = None
) -> Scores:
    """Score each weight by |w * dR/dw|, R the sum of the outputs of the positive network (SynFlow).

    Tanaka et al. 2020: every parameter is replaced by its absolute value and the input is one row
    of ones. Here all biases are zero, BatchNorm and `networks.pixels.Normalise` are the identity
    while scoring, and all is float64: networks of forty layers overflow float32. Scores are
    float64. This is one scoring; prune in about 100 rounds, density ** (i / 100) in round i,
    scoring the masked network anew, since a single round removes whole layers.

    In a feed-forward ReLU network (pooling included) every layer then has the same sum of scores.
    LayerNorm, softmax, tanh, GELU and the like break that; what they score has no such guarantee.

    Args:
        network: any module with Linear or Conv layers that takes one floating-point tensor.
        example: a batch; only the shape of its rows counts.
        only: shell pattern(s) on parameter names that must match.
        except_: shell pattern(s) that must not match.

    Raises:
        InputError: nothing to prune, an example without rows, outputs that are not one tensor or do
            not depend on a weight, or a score that is not finite.

    >>> net = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1))
    >>> with torch.no_grad():
    ...     for weight, value in ((net[0].weight, [[-3.0, 1.0]]), (net[2].weight, [[2.0]])):
    ...         _ = weight.copy_(torch.tensor(value))
    >>> [score.tolist() for score in synflow(net, torch.zeros(5, 2)).values()]
    [[[6.0, 2.0]], [[8.0]]]
    """
    if not isinstance(example, Tensor) or example.dim() == 0:
        got = "a number" if isinstance(example, Tensor) else type(example).__name__
        raise InputError(f"example must be a batch of inputs as a tensor [rows, ...], got {got}")
    chosen = prunable(network, only=only, except_=except_)
    device = next(iter(chosen.values())).device
    state = {name: _double(buffer) for name, buffer in network.named_buffers()}
    state |= {name: _positive(name, p) for name, p in network.named_parameters()}
    weights = {name: state[name].requires_grad_() for name in chosen}
    x = torch.ones(1, *example.shape[1:], dtype=torch.float64, device=device)
    with undisturbed(network, device), _without_norms(network):
        outputs = functional_call(network, state, (x,))
        if not isinstance(outputs, Tensor):
            raise InputError(
                f"the network must return one tensor, got {type(outputs).__name__}; "
                "wrap it in a module that returns the outputs"
            )
        flows = differentiate(outputs.sum(), weights)
    scores: Scores = {}
    for name, flow in flows.items():
        if flow is None:
            raise InputError(
                f"the outputs must depend on every scored weight, but not on {name}; "
                "leave it out with except_=, or mend the forward pass"
            )
        scores[name] = flow.mul_(weights[name].detach()).abs_()
    return finite(scores)
