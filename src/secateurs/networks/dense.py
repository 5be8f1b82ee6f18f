"""Fully connected networks: encoder (Linear, BatchNorm, ReLU, ...) and decoder (one Linear)."""

from collections.abc import Sequence

from torch import Tensor, nn

from secateurs.errors import InputError

__all__ = ["MLP", "MLP_TAB", "mlp_tab"]

MLP_TAB: tuple[int, ...] = (512,) * 9
"""Hidden widths of the paper's tabular network (appendix E.3)."""


class MLP(nn.Module):
    """A multilayer perceptron with BatchNorm and ReLU after every hidden layer, and a linear head.

    The hidden Linear layers have no bias: BatchNorm would subtract it again.

    Args:
        n_inputs: width of the input, [rows, n_inputs].
        n_outputs: number of classes or targets.
        widths: hidden layer sizes, at least one.

    Raises:
        InputError: a size below 1, or no hidden layer.

    >>> MLP(4, 3, widths=(8, 8)).encoder[0]
    Linear(in_features=4, out_features=8, bias=False)
    """

    def __init__(self, n_inputs: int, n_outputs: int, *, widths: Sequence[int]) -> None:
        super().__init__()
        if not widths or min(n_inputs, n_outputs, *widths) < 1:
            raise InputError(
                "an MLP needs at least one hidden layer and sizes of at least 1, "
                f"got {n_inputs} -> {tuple(widths)} -> {n_outputs}"
            )
        layers: list[nn.Module] = []
        for n_in, n_out in zip((n_inputs, *widths), widths, strict=False):
            layers += [nn.Linear(n_in, n_out, bias=False), nn.BatchNorm1d(n_out), nn.ReLU()]
        self.encoder = nn.Sequential(*layers)
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
