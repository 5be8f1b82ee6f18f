"""Masks held in a training loop of your own: gradients before, weights after every step."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from secateurs.errors import InputError
from secateurs.masks.application import check_held
from secateurs.masks.counting import ones
from secateurs.masks.matching import Mask, check, check_same

__all__ = ["Held", "hold"]

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of a gradient's number


class Held:
    """A mask in force; `hold` makes it. `mask` is what is held, `update` replaces it."""

    def __init__(self, weights: Mapping[str, Tensor], optimizers: Sequence[Optimizer]) -> None:
        """Begin with a mask that keeps everything; `hold` replaces it."""
        self._weights = list(weights.values())
        self._optimizers = optimizers
        self._mask = ones(weights)
        self._factors: list[Tensor] = []
        self._bits: dict[str, Tensor] = {}
        hooks: list[Any] = [one.register_step_post_hook(self._after_step) for one in optimizers]
        hooks += [
            weight.register_post_accumulate_grad_hook(self._mask_gradient(name))
            for name, weight in weights.items()
            if weight.requires_grad
        ]
        self._hooks = hooks

    @property
    def mask(self) -> Mask:
        """The mask that is held: a new dict of the tensors in use, to read."""
        return dict(self._mask)

    @torch.no_grad()
    def update(self, mask: Mapping[str, Tensor]) -> None:
        """Hold another mask of the same weights from now on: gradual pruning, SET, RigL.

        Newly pruned weights become zero and newly grown ones start at zero, as they have been kept
        there. What optimizers remember of either (momentum, second moments) is stale: zeroed.

        Args:
            mask: names and shapes of the present one.

        Raises:
            InputError: a mask of other weights or not bool.
        """
        weights = dict(zip(self._mask, self._weights, strict=True))
        check(weights, mask)
        check_same(self._mask, mask, words=("the mask held", "the new mask"))
        for name, weight in weights.items():
            kept = mask[name].to(weight.device, copy=True)
            changed = kept != self._mask[name].to(weight.device)
            self._mask[name] = kept
            weight.masked_fill_(~kept, 0)
            if weight.grad is not None:
                weight.grad.masked_fill_(~kept, 0)
            for optimizer in self._optimizers:
                for value in optimizer.state.get(weight, {}).values():
                    if isinstance(value, Tensor) and value.shape == weight.shape:
                        value.masked_fill_(changed, 0)
        self._factors, self._bits = [], {}

    def close(self) -> None:
        """Remove the hooks: nothing is held any more."""
        for hook in self._hooks:
            hook.remove()

    def _mask_gradient(self, name: str) -> Any:
        # After accumulation, not before: torch.autograd.grad, from which RigL takes the gradient of
        # pruned weights, stays as it is, and DistributedDataParallel sends masked gradients.
        @torch.no_grad()
        def hook(weight: Tensor) -> None:
            gradient, bits = weight.grad, self._bits.get(name)
            if gradient is None:
                return
            if bits is None or bits.device != gradient.device or bits.itemsize != gradient.itemsize:
                kind = _INTEGERS[gradient.itemsize]
                bits = self._bits[name] = -self._mask[name].to(gradient.device, kind)
            # In bits: inf * 0 would make a scaler skip a sound step, and masked_fill_ is slow.
            gradient.view(bits.dtype).bitwise_and_(bits)

        return hook

    @torch.no_grad()
    def _after_step(self, *_: Any) -> None:
        placed = [(f.device, f.dtype) for f in self._factors]
        if placed != [(w.device, w.dtype) for w in self._weights]:  # the network has been moved
            pairs = zip(self._mask.values(), self._weights, strict=True)
            self._factors = [kept.to(weight) for kept, weight in pairs]
        torch._foreach_mul_(self._weights, self._factors)


@contextmanager
def hold(
    network: nn.Module,
    mask: Mapping[str, Tensor],
    optimizer: Optimizer | Sequence[Optimizer],
) -> Iterator[Held]:
    """Keep the mask while you train: pruned weights are exactly zero after every step.

    On entry the mask is applied, and what the optimizer remembers of pruned weights is zeroed.
    Inside, a pruned weight has gradient zero (so that clipping by norm does not see it) and is zero
    after every `optimizer.step()`. On leaving the hooks are removed and the mask is asserted. The
    network keeps its class, the keys of its state and its copies.

    An averaged copy (EMA) made inside the block is masked as well; to one made before, call
    `apply_(copy, mask)`. After loading weights inside the block call `held.update(held.mask)`.

    Args:
        network: any module, plain or wrapped by `torch.compile` or data-parallel.
        mask: a mask of this network.
        optimizer: the optimizer, or all that step the masked weights.

    Yields:
        A handle: `held.mask` is the mask in force, `held.update(mask)` replaces it.

    Raises:
        InputError: a mask of another network, or masked weights that no optimizer holds.
        AssertionError: on leaving, a pruned weight is not zero.

    >>> net = nn.Linear(2, 1)
    >>> optimizer = torch.optim.AdamW(net.parameters())
    >>> with hold(net, {"weight": torch.tensor([[True, False]])}, optimizer):
    ...     net(torch.ones(1, 2)).sum().backward()
    ...     optimizer.step()
    >>> net.weight[0, 1].item()
    0.0
    """
    weights = check(network, mask)
    if not weights:
        raise InputError("a mask to hold must name at least one weight, got none; see masks.ones")
    optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
    stepped = {id(p) for one in optimizers for group in one.param_groups for p in group["params"]}
    missing = [name for name, weight in weights.items() if id(weight) not in stepped]
    if missing:
        raise InputError(
            f"an optimizer must hold every masked weight, but none holds {', '.join(missing)}; "
            "pass all optimizers of this network, made from its own parameters"
        )
    held = Held(weights, optimizers)
    try:
        held.update(mask)
        yield held
    finally:
        held.close()
    check_held(network, held.mask)  # by name: a parameter may have been replaced
