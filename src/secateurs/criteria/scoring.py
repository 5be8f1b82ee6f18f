"""What all criteria share: a network that is left as it was found, batches, scores that count."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from secateurs.errors import InputError
from secateurs.masks import Scores

__all__ = [
    "BatchLoss",
    "Batches",
    "Criterion",
    "Losses",
    "differentiate",
    "finite",
    "pairs",
    "undisturbed",
]

Criterion = Callable[..., Scores]
"""A function of a network that returns one number a weight; see `CRITERIA`."""

Batches = Iterable[tuple[Any, Any]]
"""Pairs (x, y) of rows and targets: a list of pairs, a DataLoader, or one pair in a list."""

BatchLoss = Callable[[Tensor, Any], Tensor]
"""loss(outputs, y), a mean over rows: one of `objectives.LOSSES`, `F.cross_entropy`, ..."""


@contextmanager
def undisturbed(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluate inside: dropout off, BatchNorm by its running statistics, no autocast.

    On leaving, the training flag of every module and the global random state are what they were.
    """
    flags = [(module, module.training) for module in network.modules()]
    devices, kind = ([], "cuda") if device.type == "cpu" else ([device], device.type)
    with (
        torch.random.fork_rng(devices, device_type=kind),
        torch.autocast(device.type, enabled=False),
        torch.enable_grad(),
    ):
        network.eval()
        try:
            yield
        finally:
            for module, training in flags:
                module.training = training


def pairs(batches: Batches, device: torch.device) -> Iterator[tuple[Any, Any, int]]:
    """Yield each batch's inputs and targets on `device`, and its number of rows.

    Raises:
        InputError: no batch, a batch that is not a pair, or one without rows.

    >>> [n for _, _, n in pairs([(torch.ones(2, 3), torch.ones(2))], torch.device("cpu"))]
    [2]
    """
    found = False
    for batch in batches:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise InputError(
                f"each batch must be a pair (x, y), got {type(batch).__name__}; "
                "pass a list of pairs or a DataLoader, and one batch as [(x, y)]"
            )
        x, y = (part.to(device) if isinstance(part, Tensor) else part for part in batch)
        if len(y) == 0:
            raise InputError("each batch must have rows, got one with none; leave it out")
        found = True
        yield x, y, len(y)
    if not found:
        raise InputError("batches must hold at least one pair (x, y), got none; was it used up?")


def differentiate(
    output: Tensor, weights: Mapping[str, Tensor], *, create_graph: bool = False
) -> dict[str, Tensor | None]:
    """Return d output / d weight by name, None where the output does not depend on a weight."""
    if not output.requires_grad:
        return dict.fromkeys(weights)
    found = torch.autograd.grad(
        output, list(weights.values()), create_graph=create_graph, allow_unused=True
    )
    return dict(zip(weights, found, strict=True))


class Losses:
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


def finite(scores: Scores) -> Scores:
    """Return the scores.

    Raises:
        InputError: a score that is NaN or infinite (names the layers).

    >>> finite({"w": torch.ones(1)})
    {'w': tensor([1.])}
    """
    # a finite sum has finite terms, and costs a tenth
    doubtful = {name: score for name, score in scores.items() if not score.sum().isfinite()}
    bad = [name for name, score in doubtful.items() if not score.isfinite().all()]
    if bad:
        raise InputError(
            f"scores must be finite numbers, got NaN or infinity in {', '.join(bad)}; "
            "look for such values in the weights, the inputs and the loss"
        )
    return scores
