"""Networks that the runtime is measured on: their masks, random or trained, and their inputs."""

import warnings
from pathlib import Path

import numpy as np
import torch
from runtime_engines import AbsentError
from torch import nn
from torch.fx.experimental.optimization import fuse

from secateurs import masks
from secateurs.loading import load
from secateurs.networks.conv import CNN
from secateurs.networks.dense import MLP
from secateurs.networks.init import initialise_, prunable
from secateurs.networks.lenet import lenet_300_100
from secateurs.networks.resnet import ResNet18
from secateurs.seeds import stream

COMPRESSIONS = (2, 4, 8, 16, 50)
TRAINED = {("9x512", "trained"): "nine", ("9x512", "layerwise"): "nine-layerwise"}
TRAINED |= {("lenet", "trained"): "lenet"}
"""Folder of the trained tickets among those of runtime_models.py."""


class _Layer(nn.Module):
    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(n_in, n_out), nn.ReLU())
        self.decoder = nn.Identity()


NETWORKS = {
    "9x512": (lambda: MLP(28, 2, widths=(512,) * 9), (28,)),
    "512": (lambda: _Layer(512, 512), (512,)),
    "2048": (lambda: _Layer(2048, 2048), (2048,)),
    "8192x3072": (lambda: _Layer(8192, 3072), (8192,)),
    "lenet": (lambda: lenet_300_100(784, 10), (784,)),
    "resnet18-cifar": (lambda: ResNet18(stem="cifar"), (3, 32, 32)),
    "resnet18-imagenet": (lambda: ResNet18(stem="imagenet"), (3, 32, 32)),
    "cnn2": (lambda: CNN(2), (3, 32, 32)),
}
"""Networks and the shape of one input."""


def _drawn(name: str, density: float) -> nn.Module:
    """Return a network with random weights, statistics and masks, its outputs of order 1."""
    network = NETWORKS[name][0]()
    generator = stream(0, "network")
    initialise_(network, generator=generator)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)
        names = list(prunable(network, only="encoder.*"))
        weights = {n: network.get_parameter(n).detach() for n in names}
        drawn = {n: torch.rand(w.shape, generator=generator) for n, w in weights.items()}
        mask = masks.keep_top(drawn, density, scope="layer")
        masks.apply_(network, mask)
        for weight in weights.values():
            weight.mul_(density**-0.5)
    return network


def _trained(name: str, density: float, masked: str, root: Path) -> nn.Module:
    folder = root / TRAINED[name, masked] / f"ticket-{1 / density:.4g}"
    if not folder.exists():
        part = TRAINED[name, masked]
        raise AbsentError(f"no {folder}; run benchmarks/runtime_models.py {part}")
    network = load(folder).members_[0]
    if name == "lenet":
        network.encoder[0] = nn.Flatten()  # inputs here are normalised pixels
    return network


def chain(network: nn.Module) -> nn.Module:
    """Return encoder and decoder as one module in evaluation mode, its BatchNorm folded."""
    whole = nn.Sequential(network.encoder, network.decoder).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = fuse(whole)
    return whole.requires_grad_(requires_grad=False).eval()


def folded(name: str, density: float, masked: str, root: Path) -> nn.Module:
    """Return a network ready for every engine."""
    if masked == "random":
        return chain(_drawn(name, density))
    return chain(_trained(name, density, masked, root))


def inputs(name: str, masked: str, network: nn.Module, batch: int) -> np.ndarray:
    """Return rows; trained networks take as many columns as their table has."""
    shape = NETWORKS[name][1]
    if masked != "random":
        first = next(m for m in network.modules() if isinstance(m, nn.Linear))
        shape = (first.in_features,)
    return np.random.default_rng(1).standard_normal((batch, *shape), dtype=np.float32)
