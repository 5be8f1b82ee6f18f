"""Networks whose weights are pruned, and where their weights start."""

from collections.abc import Callable

from torch import nn

from secateurs.networks import conv, dense, lenet, resnet

__all__ = ["NETWORKS"]

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "mlp_tab": dense.mlp_tab,
    "lenet_300_100": lenet.lenet_300_100,
    "mlp_vis": conv.MLPVis,
    "cnn": conv.CNN,
    "resnet18": resnet.ResNet18,
}
