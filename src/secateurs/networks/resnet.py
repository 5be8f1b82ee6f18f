"""ResNet-18: residual pairs of 3 x 3 convolutions in four stages (He et al. 2016)."""

from collections import OrderedDict
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.networks.pixels import Normalise

__all__ = ["ResNet18", "Stem"]

Stem = Literal["imagenet", "cifar"]

_STAGES = 4
_BLOCKS = 2
"""Residual blocks of a stage; each stage but the first halves the side and doubles the width."""


class _ChannelsLast(nn.Module):
    """Lays images out as convolutions of many channels are fastest: x1.2 to 1.4 on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)


class _Block(nn.Module):
    """ReLU(shortcut(x) + residual(x)); where the shape changes, the shortcut is 1 x 1."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample = nn.Sequential()
        if stride > 1 or n_in != n_out:
            self.downsample.append(nn.Conv2d(n_in, n_out, 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu(self.downsample(x) + residual)
        return out


class ResNet18(nn.Module):
    """The standard ResNet-18; h is the mean over the image of what the last ReLU gives.

    Weights have the usual names, behind `encoder.`: `encoder.conv1.weight`,
    `encoder.layer1.0.conv1.weight`, ..., `encoder.layer4.0.downsample.0.weight`. Convolutions have
    no bias: BatchNorm would subtract it again.

    Args:
        n_outputs: number of classes.
        channels: of the images.
        width: channels of the first stage; the last has eight times as many.
        stem: "imagenet" is the paper's 7 x 7 convolution of stride 2 with 3 x 3 max-pooling,
            "cifar" a 3 x 3 one of stride 1 alone, which keeps the sides of small images.
        normalise: for images in 0..255; None expects normalised ones.

    Raises:
        InputError: a size below 1, or another stem.

    >>> sum(weight.numel() for weight in ResNet18(n_outputs=1000).parameters())
    11689512
    """

    def __init__(
        self,
        *,
        n_outputs: int = 10,
        channels: int = 3,
        width: int = 64,
        stem: Stem = "imagenet",
        normalise: Normalise | None = None,
    ) -> None:
        super().__init__()
        if min(n_outputs, channels, width) < 1:
            raise InputError(
                "n_outputs, channels and width must be at least 1, got "
                f"{n_outputs}, {channels} and {width}"
            )
        if stem not in get_args(Stem):
            raise InputError(f"stem must be 'imagenet' or 'cifar', got {stem!r}")
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            pixels=nn.Identity() if normalise is None else normalise,
            layout=_ChannelsLast(),
            conv1=nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False),
            bn1=nn.BatchNorm2d(width),
            relu=nn.ReLU(),
        )
        if stem == "imagenet":
            parts["maxpool"] = nn.MaxPool2d(3, stride=2, padding=1)
        n_in = width
        for stage in range(_STAGES):
            n_out = width * 2**stage
            blocks = [
                _Block(n_out if i else n_in, n_out, 2 if stage and not i else 1)
                for i in range(_BLOCKS)
            ]
            parts[f"layer{stage + 1}"] = nn.Sequential(*blocks)
            n_in = n_out
        parts |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
        self.encoder = nn.Sequential(parts)
        self.decoder = nn.Linear(n_in, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return [rows, n_outputs] for x [rows, channels, height, width]."""
        logits: Tensor = self.decoder(self.encoder(x))
        return logits
