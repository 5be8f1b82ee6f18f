"""Networks of images by name and size: what a model folder says, and what is built from that."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from secateurs.errors import InputError
from secateurs.networks.conv import CNN, MLPVis
from secateurs.networks.init import initialise_
from secateurs.networks.lenet import LeNet300100
from secateurs.networks.pixels import Normalise
from secateurs.networks.resnet import ResNet18, Stem
from secateurs.seeds import stream

__all__ = ["IMAGE_NETWORKS", "MOST_PARAMETERS", "ImageNetwork"]

IMAGE_NETWORKS: dict[str, int | None] = {
    "cnn": 8,
    "mlp_vis": 2,
    "resnet18": 64,
    "lenet_300_100": None,
}
"""Names, and the width of each where none is asked: alpha of the paper's CNN and of the MLP that
contains it, the channels behind the stem of a ResNet-18; LeNet-300-100 has one width."""

MOST_PARAMETERS = 10**9
"""A network of more is refused before it is built: training needs several copies of it."""

_WHOLE_STEM = 64  # from this side on a ResNet-18 begins with its 7 x 7 stem of stride 4


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageNetwork:
    """A network of images, described by names and sizes alone.

    Args:
        kind: one of `IMAGE_NETWORKS`.
        width: see there; None is the kind's own.
        shape: (channels, height, width) of the images; square ones for "cnn" and "mlp_vis".
        n_outputs: number of classes.
        stem: of a ResNet-18; None is "imagenet" from 64 pixels on, "cifar" below.

    Raises:
        InputError: an unknown kind, sizes that are no whole numbers of at least 1, or images that
            the kind cannot take.

    >>> found = ImageNetwork(kind="resnet18", shape=(1, 8, 8), n_outputs=10)
    >>> found.width, found.stem
    (64, 'cifar')
    """

    kind: str
    width: int | None = None
    shape: tuple[int, int, int]
    n_outputs: int
    stem: Stem | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in IMAGE_NETWORKS:
            raise InputError(
                f"network must be one of {', '.join(IMAGE_NETWORKS)}, got {self.kind!r}"
            )
        own = IMAGE_NETWORKS[self.kind]
        if self.width is None:
            object.__setattr__(self, "width", own)
        elif own is None:
            raise InputError(
                f"width must be None for network={self.kind!r}, which has one size, got "
                f"{self.width!r}; leave it out or choose another network"
            )
        if self.stem not in (None, *get_args(Stem)):
            raise InputError(f"stem must be None, 'imagenet' or 'cifar', got {self.stem!r}")
        sizes = [*self.shape, self.n_outputs, *([] if own is None else [self.width])]
        whole = all(type(n) is int and 0 < n < 2**31 for n in sizes)
        if len(self.shape) != 3 or not whole:
            raise InputError(
                "width, n_outputs and the images' shape must be whole numbers of at least 1, got "
                f"{self.width!r}, {self.n_outputs!r} and {tuple(self.shape)}"
            )
        _, height, across = self.shape
        if self.kind == "resnet18" and self.stem is None:
            small = min(height, across) < _WHOLE_STEM
            object.__setattr__(self, "stem", "cifar" if small else "imagenet")
        if self.kind in ("cnn", "mlp_vis") and height != across:
            raise InputError(
                f"network={self.kind!r} takes square images, got {height} x {across}; resize or "
                "crop them, or use network='resnet18'"
            )

    @property
    def title(self) -> str:
        """The name as people write it.

        >>> ImageNetwork(kind="mlp_vis", width=2, shape=(3, 32, 32), n_outputs=10).title
        'mlp_vis(2)'
        """
        return self.kind if self.width is None else f"{self.kind}({self.width})"

    def blank(self) -> nn.Module:
        """Return the network on the meta device: shapes without memory.

        Raises:
            InputError: more than `MOST_PARAMETERS`.

        >>> network = ImageNetwork(kind="lenet_300_100", shape=(1, 28, 28), n_outputs=10)
        >>> network.blank().encoder[1]
        Linear(in_features=784, out_features=300, bias=True)
        """
        try:
            with torch.device("meta"):
                network = self._network()
            n = sum(parameter.numel() for parameter in network.parameters())
        except (RuntimeError, TypeError, OverflowError):  # more elements than torch can count
            n = 2**63
        if n > MOST_PARAMETERS:
            raise InputError(
                f"a network may have {MOST_PARAMETERS:,} parameters, but {self.title} of "
                f"{' x '.join(map(str, self.shape))} images has {n:,}; choose a smaller width, "
                "smaller images or network='cnn'"
            )
        return network

    def start(self, mean: NDArray[np.float64], std: NDArray[np.float64], *, seed: int) -> nn.Module:
        """Return the network that a seed starts from, for uint8 images; no global generator moves.

        Args:
            mean: [channels], of `data.images.statistics`; likewise std.
            std: a channel that is constant, so that its deviation is 0, is divided by 1.
            seed: of the initial weights.

        >>> network = ImageNetwork(kind="cnn", width=1, shape=(1, 8, 8), n_outputs=2)
        >>> started = network.start(np.array([0.5]), np.array([0.25]), seed=0)
        >>> started(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([2, 2])
        """
        network = self.blank().to_empty(device="cpu")
        (pixels,) = (m for m in network.modules() if isinstance(m, Normalise))
        pixels.mean.copy_(torch.from_numpy(mean).view(-1, 1, 1))
        pixels.std.copy_(torch.from_numpy(np.where(std > 0, std, 1.0)).view(-1, 1, 1))
        initialise_(network, generator=stream(seed, "init"))
        return network

    def _network(self) -> nn.Module:
        channels, height, across = self.shape
        pixels = Normalise([0.0] * channels, [1.0] * channels)
        width = self.width or 0
        if self.kind == "lenet_300_100":
            return LeNet300100(channels * height * across, self.n_outputs, normalise=pixels)
        if self.kind == "resnet18":
            return ResNet18(
                n_outputs=self.n_outputs,
                channels=channels,
                width=width,
                stem=self.stem or "imagenet",
                normalise=pixels,
            )
        kind = CNN if self.kind == "cnn" else MLPVis
        return kind(
            width, size=height, channels=channels, n_outputs=self.n_outputs, normalise=pixels
        )

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON holds it.

        >>> ImageNetwork.from_json(
        ...     ImageNetwork(kind="cnn", shape=(3, 32, 32), n_outputs=10).to_json()
        ... ).title
        'cnn(8)'
        """
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> "ImageNetwork":
        """Undo `to_json`.

        Raises:
            InputError, KeyError, TypeError, ValueError: it describes none.
        """
        shape: Sequence[Any] = described["shape"]
        return cls(
            kind=described["kind"],
            width=described["width"],
            shape=tuple(shape),
            n_outputs=described["n_outputs"],
            stem=described.get("stem"),
        )
