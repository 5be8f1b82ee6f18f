"""LeNet-300-100: the fully connected network of the lottery ticket experiments on MNIST."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.networks.pixels import Normalise

__all__ = ["LeNet300100", "lenet_300_100"]


class LeNet300100(nn.Module):
    """Two hidden layers with biases and ReLU, and a linear head (LeCun et al. 1998, sec. III.C.3).

    ReLU instead of the sigmoid, and Gaussian Glorot starts, are those of Frankle & Carbin (2019,
    sec. 2). There is no BatchNorm. The weights are `encoder.1`, `encoder.3` and `decoder`.

    Args:
        n_inputs: values of one input, [rows, ...]; 784 for MNIST.
        n_outputs: number of classes.
        widths: sizes of the two hidden layers.
        normalise: for images in 0..255; None expects normalised ones.

    Raises:
        InputError: a size below 1, or not two hidden layers.

    >>> network = LeNet300100(784, 10)
    >>> sum(weight.numel() for weight in network.parameters() if weight.ndim == 2)
    266200
    """

    initial: ClassVar[str] = "glorot"

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        widths: Sequence[int] = (300, 100),
        normalise: Normalise | None = None,
    ) -> None:
        super().__init__()
        if len(widths) != 2 or min(n_inputs, n_outputs, *widths) < 1:
            raise InputError(
                "LeNet-300-100 needs two hidden layers and sizes of at least 1, "
                f"got {n_inputs} -> {tuple(widths)} -> {n_outputs}; pass two widths"
            )
        first, second = widths
        self.encoder = nn.Sequential(
            nn.Flatten() if normalise is None else nn.Sequential(normalise, nn.Flatten()),
            nn.Linear(n_inputs, first),
            nn.ReLU(),
            nn.Linear(first, second),
            nn.ReLU(),
        )
        self.decoder = nn.Linear(second, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return [rows, n_outputs] for x [rows, ...] with n_inputs values a row."""
        logits: Tensor = self.decoder(self.encoder(x))
        return logits


def lenet_300_100(n_inputs: int, n_outputs: int) -> LeNet300100:
    """Return LeNet-300-100 with hidden layers of 300 and 100.

    >>> lenet_300_100(784, 10).decoder
    Linear(in_features=100, out_features=10, bias=True)
    """
    return LeNet300100(n_inputs, n_outputs)
