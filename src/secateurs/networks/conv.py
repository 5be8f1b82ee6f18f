"""The paper's CNN of images and MLP_VIS, the fully connected network that contains it.

Both are those of appendix E.3.
"""

from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.networks.pixels import Normalise

__all__ = [
    "CNN",
    "KERNEL",
    "PADDING",
    "MLPVis",
    "cnn_layers",
    "cnn_shapes",
    "mlp_vis_widths",
]

KERNEL, PADDING = 3, 1
_MULTIPLES = ((1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2))
"""Channels, in units of alpha, and strides of the convolutions; a hidden layer of 64 alpha is last.

Alpha here is the paper's width, not that of the lazy-to-rich axis."""
_HIDDEN = 64


def cnn_layers(alpha: int) -> list[tuple[int, int]]:
    """Return (channels, stride) of each 3 x 3 convolution of `CNN(alpha)`.

    >>> cnn_layers(2)[:3]
    [(2, 1), (4, 2), (4, 1)]
    """
    return [(multiple * alpha, stride) for multiple, stride in _MULTIPLES]


def cnn_shapes(alpha: int, size: int) -> list[tuple[int, int, int]]:
    """Return (channels, height, width) of what each convolution of `CNN(alpha)` gives.

    >>> cnn_shapes(8, 32)[-1]
    (128, 2, 2)
    """
    shapes = []
    for channels, stride in cnn_layers(alpha):
        size = (size + 2 * PADDING - KERNEL) // stride + 1
        shapes.append((channels, size, size))
    return shapes


def mlp_vis_widths(alpha: int, size: int) -> tuple[int, ...]:
    """Return the hidden widths of `MLPVis(alpha)`: as many as the CNN's layers have outputs.

    The list printed in appendix E.3 is damaged; this one follows from the CNN.

    >>> mlp_vis_widths(8, 32)
    (8192, 4096, 4096, 2048, 2048, 1024, 1024, 512, 512)
    """
    flat = [channels * height * width for channels, height, width in cnn_shapes(alpha, size)]
    return (*flat, _HIDDEN * alpha)


def _checked(alpha: int, size: int, channels: int, n_outputs: int) -> None:
    if min(alpha, size, channels, n_outputs) < 1:
        raise InputError(
            "alpha, size, channels and n_outputs must be at least 1, got "
            f"{alpha}, {size}, {channels} and {n_outputs}"
        )


def _check_images(x: Tensor, channels: int, size: int) -> None:
    if x.shape[1:] != (channels, size, size):
        raise InputError(
            f"images must be [rows, {channels}, {size}, {size}], got shape {tuple(x.shape)}; "
            "resize them, or build the network for theirs"
        )


def _pixels(normalise: Normalise | None) -> nn.Module:
    return nn.Identity() if normalise is None else normalise


class CNN(nn.Module):
    """Eight 3 x 3 convolutions and a hidden layer, BatchNorm and ReLU after each; no pooling.

    The weights of the encoder are `encoder.1`, `encoder.4`, ...: a convolution, its BatchNorm and
    its ReLU are three places of a sequence that begins with the pixels' normalisation.

    Args:
        alpha: width: (alpha, 2 alpha, 2 alpha, 4 alpha, ...) channels, 64 alpha hidden units.
        size: height and width of the images.
        channels: of the images.
        n_outputs: number of classes.
        normalise: for images in 0..255; None expects normalised ones.

    Raises:
        InputError: a size below 1.

    >>> CNN(2).encoder[1]
    Conv2d(3, 2, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
    """

    def __init__(
        self,
        alpha: int,
        *,
        size: int = 32,
        channels: int = 3,
        n_outputs: int = 10,
        normalise: Normalise | None = None,
    ) -> None:
        super().__init__()
        _checked(alpha, size, channels, n_outputs)
        self.alpha, self.size, self.channels = alpha, size, channels
        layers: list[nn.Module] = [_pixels(normalise)]
        n_in = channels
        for n_out, stride in cnn_layers(alpha):
            layers += [
                nn.Conv2d(n_in, n_out, KERNEL, stride, PADDING, bias=False),
                nn.BatchNorm2d(n_out),
                nn.ReLU(),
            ]
            n_in = n_out
        *_, flat, hidden = mlp_vis_widths(alpha, size)
        layers += [nn.Flatten(), nn.Linear(flat, hidden, bias=False)]
        layers += [nn.BatchNorm1d(hidden), nn.ReLU()]
        self.encoder = nn.Sequential(*layers)
        self.decoder = nn.Linear(hidden, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return [rows, n_outputs] for x [rows, channels, size, size]."""
        _check_images(x, self.channels, self.size)
        logits: Tensor = self.decoder(self.encoder(x))
        return logits


class MLPVis(nn.Module):
    """The fully connected network that contains `CNN(alpha)`: MLP_VIS.

    Each hidden layer has as many units as the CNN's layer has outputs (`mlp_vis_widths`), so that
    the CNN's function is one of its own; `networks.toeplitz` writes it there. The weights of the
    encoder are `encoder.1`, `encoder.4`, ..., as those of the CNN but without its Flatten.

    Args:
        alpha: width of the CNN.
        size: height and width of the images.
        channels: of the images.
        n_outputs: number of classes.
        normalise: for images in 0..255; None expects normalised ones.

    Raises:
        InputError: a size below 1.

    >>> MLPVis(2).encoder[1]
    Linear(in_features=3072, out_features=2048, bias=False)
    """

    def __init__(
        self,
        alpha: int,
        *,
        size: int = 32,
        channels: int = 3,
        n_outputs: int = 10,
        normalise: Normalise | None = None,
    ) -> None:
        super().__init__()
        _checked(alpha, size, channels, n_outputs)
        self.alpha, self.size, self.channels = alpha, size, channels
        sizes = mlp_vis_widths(alpha, size)
        layers: list[nn.Module] = [nn.Sequential(_pixels(normalise), nn.Flatten())]
        for n_in, n_out in zip((channels * size * size, *sizes), sizes, strict=False):
            layers += [nn.Linear(n_in, n_out, bias=False), nn.BatchNorm1d(n_out), nn.ReLU()]
        self.encoder = nn.Sequential(*layers)
        self.decoder = nn.Linear(sizes[-1], n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return [rows, n_outputs] for x [rows, channels, size, size]."""
        _check_images(x, self.channels, self.size)
        logits: Tensor = self.decoder(self.encoder(x))
        return logits
