"""The regime, lazy to rich: centred and scaled outputs, linearised networks, the dial's faces.

One dial has three faces: `alpha` scales the centred outputs, `init_scale` the start, and with
BatchNorm the encoder's learning rate is all that is left of both (method, section 5).
"""

from secateurs.regime.centring import Centred, centre
from secateurs.regime.dial import (
    crossover,
    encoder_lr,
    find_alpha,
    init_scale_to_alpha,
    lr_at,
    matched_lr,
    mean_field,
)
from secateurs.regime.linearised import Descent, Linearised, kernel_descent, linearise

__all__ = [
    "Centred",
    "Descent",
    "Linearised",
    "centre",
    "crossover",
    "encoder_lr",
    "find_alpha",
    "init_scale_to_alpha",
    "kernel_descent",
    "linearise",
    "lr_at",
    "matched_lr",
    "mean_field",
]
