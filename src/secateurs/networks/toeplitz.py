"""CNN(alpha) inside MLP_VIS(alpha): its kernels as Toeplitz blocks, and which weights they need.

The MLP's units are numbered by channel, row and column, in the order that torch flattens.
"""

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.masks.matching import Mask
from secateurs.networks.conv import CNN, KERNEL, PADDING, MLPVis, cnn_layers
from secateurs.networks.pixels import Normalise

__all__ = ["position_fields", "receptive_field_mask", "write_"]


def _after(size: int, stride: int) -> int:
    return (size + 2 * PADDING - KERNEL) // stride + 1


def _taps(size: int, stride: int) -> list[tuple[Tensor, Tensor]]:
    """Return for each tap along one side the outputs that have it, and the inputs they read."""
    outputs = torch.arange(_after(size, stride))
    found = []
    for tap in range(KERNEL):
        inputs = outputs * stride + tap - PADDING
        inside = (inputs >= 0) & (inputs < size)  # a tap on the padding reads no pixel
        found.append((outputs[inside], inputs[inside]))
    return found


def position_fields(size: int, stride: int) -> Tensor:
    """Return which positions of its input each output position of a 3 x 3 convolution reads.

    Args:
        size: height and width of the input.
        stride: of the convolution, whose padding is 1.

    Returns:
        Bool [outputs, inputs], each side numbered row by row.

    >>> position_fields(4, 2).sum(1).tolist()  # the corner at the padding reads 2 x 2
    [4, 6, 6, 9]
    """
    side = torch.zeros(_after(size, stride), size, dtype=torch.bool)
    for outputs, inputs in _taps(size, stride):
        side[outputs, inputs] = True
    return torch.einsum("ai,bj->abij", side, side).reshape(len(side) ** 2, size**2)


def receptive_field_mask(network: MLPVis) -> Mask:
    """Return which weights of MLP_VIS(alpha) the CNN(alpha) inside it uses.

    The last hidden layer is dense in the CNN too, so all of its weights are used. A network on the
    meta device costs nothing and gives a mask on the CPU.

    Returns:
        Bool [units, inputs] for each weight of the encoder, by its name.

    >>> with torch.device("meta"):
    ...     network = MLPVis(2)
    >>> fields = receptive_field_mask(network)
    >>> [round(float(one.double().mean()), 4) for one in fields.values()][:4]
    [0.0084, 0.0084, 0.0323, 0.0323]
    """
    n_in, size = network.channels, network.size
    convolutions = iter(cnn_layers(network.alpha))
    fields = {}
    for name, layer in network.encoder.named_children():
        if not isinstance(layer, nn.Linear):
            continue
        weight = layer.weight
        device = torch.device("cpu") if weight.is_meta else weight.device
        kept = torch.ones(weight.shape, dtype=torch.bool, device=device)
        if convolution := next(convolutions, None):
            n_out, stride = convolution
            one = position_fields(size, stride).to(device)
            blocks = one[None, :, None, :].expand(n_out, -1, n_in, -1)
            kept = blocks.reshape(weight.shape)
            n_in, size = n_out, _after(size, stride)
        fields[f"encoder.{name}.weight"] = kept
    return fields


@torch.no_grad()
def write_(mlp: MLPVis, cnn: CNN) -> None:
    """Write a CNN into MLP_VIS: in evaluation mode both then give the same outputs.

    A kernel becomes a Toeplitz block for each pair of channels, each other weight 0. BatchNorm's
    parameters and statistics of a channel go to all of its units; the hidden layer, the decoder
    and the pixels' normalisation are copied. In training mode they differ, as the MLP's BatchNorm
    takes its statistics by unit.

    Args:
        mlp: is overwritten.
        cnn: of the same alpha, size, channels and outputs.

    Raises:
        InputError: networks that do not fit.

    >>> mlp, cnn = MLPVis(1, size=8).eval(), CNN(1, size=8).eval()
    >>> write_(mlp, cnn)
    >>> x = torch.rand(2, 3, 8, 8)
    >>> torch.allclose(mlp(x), cnn(x), atol=1e-5)
    True
    """
    _check_fit(mlp, cnn)
    _copy_pixels_(mlp, cnn)
    linears = [one for one in mlp.encoder if isinstance(one, nn.Linear)]
    layers = [one for one in cnn.encoder if isinstance(one, nn.Conv2d | nn.Linear)]
    size = cnn.size
    for linear, layer in zip(linears, layers, strict=True):
        if isinstance(layer, nn.Conv2d):
            size = _write_kernels_(linear.weight, layer.weight, size, layer.stride[0])
        else:
            linear.weight.copy_(layer.weight)
    norms = [one for one in mlp.encoder if isinstance(one, nn.BatchNorm1d)]
    channel_norms = [one for one in cnn.encoder if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm, channel_norm in zip(norms, channel_norms, strict=True):
        units = norm.num_features // channel_norm.num_features
        norm.eps = channel_norm.eps
        norm.load_state_dict(
            {
                name: value.repeat_interleave(units) if value.ndim else value
                for name, value in channel_norm.state_dict().items()
            }
        )
    mlp.decoder.load_state_dict(cnn.decoder.state_dict())


def _write_kernels_(weight: Tensor, kernels: Tensor, size: int, stride: int) -> int:
    """Write kernels [out, in, 3, 3] as Toeplitz blocks; return the size of the outputs."""
    n_out, n_in = kernels.shape[:2]
    after = _after(size, stride)
    weight.zero_()
    blocks = weight.view(n_out, after, after, n_in, size, size)
    taps = _taps(size, stride)
    for i, (rows, from_rows) in enumerate(taps):
        for j, (columns, from_columns) in enumerate(taps):
            # indices apart from each other put their axes in front: [rows, columns, out, in]
            blocks[:, rows[:, None], columns, :, from_rows[:, None], from_columns] = kernels[
                :, :, i, j
            ].to(weight)
    return after


def _check_fit(mlp: MLPVis, cnn: CNN) -> None:
    words = []
    for one in (mlp, cnn):
        sizes = f"alpha {one.alpha}, size {one.size}, {one.channels} channels"
        words.append(f"{sizes}, {one.decoder.out_features} outputs")
    if words[0] != words[1]:
        raise InputError(
            f"MLP_VIS holds the CNN of its own alpha, size, channels and outputs, got an MLP of "
            f"{words[0]} for a CNN of {words[1]}; build both alike"
        )


def _copy_pixels_(mlp: MLPVis, cnn: CNN) -> None:
    to, pixels = mlp.encoder[0][0], cnn.encoder[0]  # type: ignore[index]
    if isinstance(to, Normalise) != isinstance(pixels, Normalise):
        raise InputError(
            "both networks or neither must normalise pixels, got "
            f"{type(to).__name__} in the MLP and {type(pixels).__name__} in the CNN; "
            "pass normalise= to both"
        )
    to.load_state_dict(pixels.state_dict())
