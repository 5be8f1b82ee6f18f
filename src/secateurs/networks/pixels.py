"""The front of a network of images: 0..255 pixels in, normalised channels out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from secateurs.errors import InputError

__all__ = ["Normalise"]


class Normalise(nn.Module):
    """(x / 255 - mean) / std of each channel, for uint8 images or views of them in 0..255.

    Inside the network, so that images stay uint8 on the device and views see real colours.

    Args:
        mean: of x / 255 over the training images, by channel; see `data.images.statistics`.
        std: likewise, positive.

    Raises:
        InputError: lengths that differ, or a deviation that is not positive.

    >>> Normalise([0.5], [0.25])(torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2))
    tensor([[[[-2.,  2.]]]])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        means, stds = (torch.as_tensor(v, dtype=torch.float32).view(-1, 1, 1) for v in (mean, std))
        meta = stds.is_meta
        if means.shape != stds.shape or not (meta or bool((stds > 0).all())):
            raise InputError(
                "normalising needs a mean and a positive deviation for each channel, got "
                f"{list(mean)} and {list(std)}; leave out channels that are constant"
            )
        self.register_buffer("mean", means)
        self.register_buffer("std", stds)

    def forward(self, x: Tensor) -> Tensor:
        """Return float [rows, channels, height, width] for the same shape in 0..255."""
        if x.ndim != 4 or x.shape[1] != len(self.mean):
            raise InputError(
                f"images must be [rows, {len(self.mean)}, height, width] in 0..255, got shape "
                f"{tuple(x.shape)}; convert them, or build the network for theirs"
            )
        return (x.to(self.mean.dtype) / 255 - self.mean) / self.std
