"""The centred, scaled objective: F = alpha (f(x; w) - f(x; w0)), trained by R(F) / alpha^2.

Alpha is the dial from rich (small) to lazy (large): at the start F is 0 and its speed does not
depend on alpha, while the weights have to move by the alpha-th part to change F as much (Chizat,
Oyallon and Bach 2019). A ticket is centred at its own masked start, never at the dense network's,
which would be off by alpha times what pruning changed.
"""

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.regime.linearised import DROPOUT

__all__ = ["FLOAT32_UP_TO", "Centred", "centre", "check_alpha", "check_centrable", "widen_"]

FLOAT32_UP_TO = 1e3
"""Largest alpha at which F is computed in float32, to about a thousandth: beyond, the difference
of two outputs has lost too many digits."""


class Centred(nn.Module):
    """F(x) = alpha (network(x) - reference(x)); `network` is shared, `reference` is frozen."""

    def __init__(self, network: nn.Module, reference: nn.Module, alpha: float) -> None:
        super().__init__()
        self.network, self.reference, self.alpha = network, reference, alpha

    def forward(self, x: Tensor) -> Tensor:
        """Return F(x), [rows, outputs], in the network's precision."""
        x = x.to(next(self.network.parameters()).dtype) if x.is_floating_point() else x
        with torch.no_grad():
            at_start = self.reference(x)
        scaled: Tensor = self.alpha * (self.network(x) - at_start)
        return scaled


def centre(network: nn.Module, alpha: float, *, at: Mapping[str, Tensor] | None = None) -> Centred:
    """Return the centred, scaled outputs of a network as a module that shares its weights.

    Args:
        network: trained through the result, or beside it.
        alpha: the scale.
        at: the state that is subtracted; None is the present one. For a ticket its masked start.

    Raises:
        InputError: alpha is not a positive number, or the network has BatchNorm or dropout.

    >>> layer = nn.Linear(2, 1)
    >>> scaled = centre(layer, 3.0)
    >>> _ = layer.bias.data.add_(1.0)
    >>> round(scaled(torch.zeros(1, 2)).item(), 3)
    3.0
    """
    check_alpha(alpha)
    check_centrable(network)
    reference = copy.deepcopy(network)
    if at is not None:
        reference.load_state_dict(dict(at))
    return Centred(network, reference.eval().requires_grad_(requires_grad=False), alpha)


def check_alpha(alpha: float) -> None:
    """Raise unless alpha is a positive number.

    >>> check_alpha(0.0)
    Traceback (most recent call last):
    secateurs.errors.InputError: alpha must be a positive number or None for no centring, got 0.0
    """
    if not 0 < alpha < math.inf:
        raise InputError(f"alpha must be a positive number or None for no centring, got {alpha}")


def check_centrable(network: nn.Module) -> None:
    """Raise if there is no f(x; w0) to subtract: outputs that depend on the batch, or are drawn.

    >>> check_centrable(nn.BatchNorm1d(2))
    Traceback (most recent call last):
    secateurs.errors.InputError: alpha needs ... without BatchNorm and dropout, got BatchNorm1d; ...
    """
    for module in network.modules():
        drawn = isinstance(module, DROPOUT) and module.p > 0
        if drawn or isinstance(module, nn.modules.batchnorm._NormBase):
            raise InputError(
                "alpha needs a network without BatchNorm and dropout, got "
                f"{type(module).__name__}; there the dial is the learning rate of the encoder "
                "(init_scale, or SGD's encoder_lr)"
            )


def widen_(network: nn.Module, alpha: float | None) -> torch.dtype:
    """Convert a network to float64 in place where alpha needs it, and return its precision.

    >>> widen_(nn.Linear(2, 1), 1e6), widen_(nn.Linear(2, 1), 25.0)
    (torch.float64, torch.float32)
    """
    if alpha is not None and alpha > FLOAT32_UP_TO:
        network.double()
    return next((p.dtype for p in network.parameters()), torch.float32)
