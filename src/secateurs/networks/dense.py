"""Fully connected networks: encoder (Linear, BatchNorm, ReLU, ...) and decoder (one Linear)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from secateurs.errors import InputError

__all__ = ["MLP", "MLP_TAB", "Dropout", "drawing_from", "mlp_tab"]

MLP_TAB: tuple[int, ...] = (512,) * 9
"""Hidden widths of the paper's tabular network (appendix E.3)."""


class Dropout(nn.Dropout):
    """Dropout whose draws come from a generator of its own, where `drawing_from` gave it one.

    Elsewhere it is torch's, which draws from the global generator.
    """

    generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return x in evaluation; in training each value / (1 - p), or 0 with probability p."""
        if self.generator is None or not self.training or not self.p:
            dropped: Tensor = super().forward(x)
            return dropped
        # faster than bernoulli_, which is most of what torch's own dropout costs on a CPU
        kept = torch.rand(x.shape, generator=self.generator, device=x.device) >= self.p
        return x * kept.to(x.dtype).div_(1 - self.p)


@contextmanager
def drawing_from(network: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Let every `Dropout` of a network draw from `generator`, which is on the network's device.

    >>> network = MLP(4, 2, widths=(8,), dropout=0.5)
    >>> def drawn():
    ...     with drawing_from(network, torch.Generator().manual_seed(0)):
    ...         return network.encoder(torch.ones(2, 4))
    >>> bool((drawn() == drawn()).all())
    True
    """
    found = [module for module in network.modules() if isinstance(module, Dropout)]
    for module in found:
        module.generator = generator
    try:
        yield
    finally:
        for module in found:
            module.generator = None


class _Residual(nn.Sequential):
    """Linear, BatchNorm, activation, again and again, with the input of a layer added to its
    BatchNorm's output where both are hidden and of equal width: He et al. 2016, so that h is what
    a ReLU gives, as without.
    """

    def forward(self, x: Tensor) -> Tensor:
        layers = iter(self)
        for i, (linear, norm, activation) in enumerate(zip(layers, layers, layers, strict=True)):
            out = norm(linear(x))
            x = activation(out + x if i and out.shape == x.shape else out)
        return x


class MLP(nn.Module):
    """A multilayer perceptron with BatchNorm and ReLU after every hidden layer, and a linear head.

    The hidden Linear layers have no bias: BatchNorm would subtract it again.

    Args:
        n_inputs: width of the input, [rows, n_inputs].
        n_outputs: number of classes or targets.
        widths: hidden layer sizes, at least one.
        dropout: probability with which training sets a hidden value to 0, after each ReLU.
        skip: whether each hidden layer that is as wide as the hidden layer before it adds that
            one's output: ReLU(x + BatchNorm(W x)).

    Neither has parameters, and neither changes the names of the others'.

    Raises:
        InputError: a size below 1, no hidden layer, or a dropout outside of [0, 1).

    >>> MLP(4, 3, widths=(8, 8)).encoder[0]
    Linear(in_features=4, out_features=8, bias=False)
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        widths: Sequence[int],
        dropout: float = 0.0,
        skip: bool = False,
    ) -> None:
        super().__init__()
        if not widths or min(n_inputs, n_outputs, *widths) < 1:
            raise InputError(
                "an MLP needs at least one hidden layer and sizes of at least 1, "
                f"got {n_inputs} -> {tuple(widths)} -> {n_outputs}"
            )
        if not 0 <= dropout < 1:
            raise InputError(f"dropout must be in [0, 1), got {dropout}; 0 is none")
        layers: list[nn.Module] = []
        for n_in, n_out in zip((n_inputs, *widths), widths, strict=False):
            # one module after BatchNorm, so that the indices are those of the plain network
            relu = nn.Sequential(nn.ReLU(), Dropout(dropout)) if dropout else nn.ReLU()
            layers += [nn.Linear(n_in, n_out, bias=False), nn.BatchNorm1d(n_out), relu]
        self.encoder = _Residual(*layers) if skip else nn.Sequential(*layers)
        self.decoder = nn.Linear(widths[-1], n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return [rows, n_outputs]."""
        logits: Tensor = self.decoder(self.encoder(x))
        return logits


def mlp_tab(n_inputs: int, n_outputs: int) -> MLP:
    """Return MLP_TAB: 9 hidden layers of 512 with BatchNorm and ReLU (appendix E.3).

    >>> sum(isinstance(m, nn.Linear) for m in mlp_tab(10, 2).modules())
    10
    """
    return MLP(n_inputs, n_outputs, widths=MLP_TAB)
