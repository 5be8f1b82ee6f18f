"""Scores from weights and what flows into them: Wanda."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from secateurs.criteria.scoring import Batches, finite, pairs, undisturbed
from secateurs.errors import InputError
from secateurs.masks import Scores
from secateurs.networks.init import Patterns, prunable

__all__ = ["wanda"]


def _squares(module: Any, x: Tensor) -> Tensor:
    """Return for each weight the sum of squares of the inputs that it multiplies.

    Shaped to broadcast against the weight, or for convolutions like the weight.
    """
    squares = x.detach().to(torch.promote_types(x.dtype, torch.float32)).square()
    if isinstance(module, nn.Linear):
        return squares.flatten(0, -2).sum(0).double() if x.dim() > 1 else squares.double()
    # The derivative of a convolution's summed outputs by a weight is the sum of what it multiplies,
    # whatever stride, padding and dilation are; one output channel a group stands for all of it.
    probe = squares.new_zeros(module.groups, *module.weight.shape[1:], requires_grad=True)
    with torch.enable_grad():
        total = module._conv_forward(squares, probe, None).sum()
    (sums,) = torch.autograd.grad(total, probe)
    return sums.double().repeat_interleave(module.out_channels // module.groups, 0)


@contextmanager
def _watched(network: nn.Module, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """Yield the sums of squares so far of the inputs of each layer, by the name of its weight."""
    sums: dict[str, Tensor] = {}

    def watching(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def add(module: nn.Module, args: Any, kwargs: Any) -> None:
            found = _squares(module, args[0] if args else kwargs["input"])
            sums[name] = sums[name] + found if name in sums else found

        return add

    with ExitStack() as hooks:
        for name in names:
            layer = network.get_submodule(name.rpartition(".")[0])
            hook = layer.register_forward_pre_hook(watching(name), with_kwargs=True)
            hooks.callback(hook.remove)
        yield sums


def wanda(
    network: nn.Module, batches: Batches, *, only: Patterns = None, except_: Patterns = None
) -> Scores:
    """Score each weight by |w| * ||x||_2, x the inputs that it multiplies (Wanda, Sun et al. 2023).

    The norm runs over all rows of all batches and over tokens or positions; for a convolution over
    the values that each kernel tap sees, zero padding included. A layer that is used several times
    sums over its uses. The network is in evaluation mode; half-precision weights score in float32.
    Sun et al. compare the weights of each output with each other, not those of the whole network.

    Args:
        network: any module with Linear or Conv layers.
        batches: pairs (x, y); moved to the weights' device one by one; y is not looked at.
        only: shell pattern(s) on parameter names that must match.
        except_: shell pattern(s) that must not match.

    Raises:
        InputError: nothing to prune, no batches, a layer that the forward pass never calls, or a
            score that is not finite.

    >>> net = nn.Linear(2, 1)
    >>> _ = net.weight.data.copy_(torch.tensor([[-1.0, 2.0]]))
    >>> wanda(net, [(torch.tensor([[3.0, 1.0], [4.0, 0.0]]), torch.zeros(2))])
    {'weight': tensor([[5., 2.]])}
    """
    chosen = prunable(network, only=only, except_=except_)
    device = next(iter(chosen.values())).device
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with (
        undisturbed(network, device),
        torch.no_grad(),
        _watched(network, list(chosen)) as sums,
    ):
        for x, _, _ in pairs(batches, device):
            functional_call(network, buffers, (x,))
    missing = [name for name in chosen if name not in sums]
    if missing:
        raise InputError(
            f"the forward pass must call every scored layer, but not that of {', '.join(missing)}; "
            "leave it out with except_=, or call the layer as a module"
        )
    return finite(
        {
            name: (weight.detach().abs() * sums[name].sqrt()).to(
                torch.promote_types(weight.dtype, torch.float32)
            )
            for name, weight in chosen.items()
        }
    )
