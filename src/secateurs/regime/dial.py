"""One dial, its faces and their exact conversions: alpha, init_scale, learning rate, readout.

For a bias-free network that is homogeneous of degree L (L weight layers, ReLU, no BatchNorm)
f(x; kappa w) = kappa^L f(x; w). Gradient descent from kappa w0 on the centred outputs, at learning
rate eta, is gradient descent from w0 at alpha = kappa^L and eta alpha^2 / kappa^2, weights times
kappa. With BatchNorm after every layer there is no alpha: there kappa is a learning rate, eta /
kappa^2 on the encoder's weights. A readout of 1 / width in place of 1 / sqrt(width) is alpha, too.
"""

import math
from collections.abc import Callable

from secateurs.errors import InputError

__all__ = [
    "crossover",
    "encoder_lr",
    "find_alpha",
    "init_scale_to_alpha",
    "lr_at",
    "matched_lr",
    "mean_field",
]


def _check(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise InputError(f"{name} must be a positive number, got {value}")


def init_scale_to_alpha(init_scale: float, n_layers: int) -> float:
    """Return alpha = kappa^L of a bias-free network of L weight layers without BatchNorm.

    >>> init_scale_to_alpha(0.25, 3)
    0.015625
    """
    _check(init_scale=init_scale, n_layers=n_layers)
    return init_scale**n_layers


def matched_lr(lr: float, init_scale: float, n_layers: int) -> float:
    """Return the rate at alpha = kappa^L that equals `lr` at kappa: eta alpha^2 / kappa^2.

    >>> matched_lr(0.1, 0.5, 2)
    0.025
    """
    alpha = init_scale_to_alpha(init_scale, n_layers)
    return lr * alpha**2 / init_scale**2


def encoder_lr(lr: float, init_scale: float) -> float:
    """Return the encoder's rate at kappa = 1 that equals `lr` at kappa under BatchNorm.

    >>> encoder_lr(0.01, 0.25)
    0.16
    """
    _check(lr=lr, init_scale=init_scale)
    return lr / init_scale**2


def mean_field(alpha: float, lr: float, width: int) -> tuple[float, float]:
    """Return alpha and rate under a readout of 1 / width that equal those under 1 / sqrt(width).

    F is the same function of the weights at alpha sqrt(width), and R(F) / alpha^2 is smaller by the
    width. At one mean-field alpha networks of all widths learn features alike.

    >>> mean_field(1.0, 0.1, 64)
    (8.0, 6.4)
    """
    _check(alpha=alpha, lr=lr, width=width)
    return alpha * math.sqrt(width), lr * width


def crossover(width: int) -> float:
    """Return alpha*, up to a factor of order one, where rich turns lazy: 1 / sqrt(width).

    Of a readout of 1 / sqrt(width); of the mean-field readout it is 1.

    >>> crossover(64)
    0.125
    """
    _check(width=width)
    return 1 / math.sqrt(width)


def lr_at(alpha: float, *, lr: float, alpha_star: float, n_layers: int) -> float:
    """Return the rate that suits an alpha: `lr` above alpha*, shrinking as alpha^(2 - 2/L) below.

    A fixed rate over a sweep of alpha makes small ones diverge. It is where a search of the rate
    begins, not its replacement.

    Args:
        alpha: of the objective R(F) / alpha^2.
        lr: rate of the lazy side, about 1 / largest eigenvalue of the tangent kernel.
        alpha_star: where the rule bends; see `crossover`.
        n_layers: L, the number of weight layers.

    >>> lr_at(0.05, lr=1.0, alpha_star=0.1, n_layers=2)
    0.5
    """
    _check(alpha=alpha, lr=lr, alpha_star=alpha_star, n_layers=n_layers)
    return float(lr * min(1.0, (alpha / alpha_star) ** (2 - 2 / n_layers)))


def find_alpha(
    measure: Callable[[float], float],
    target: float,
    *,
    between: tuple[float, float],
    within: float = 0.05,
    steps: int = 20,
) -> float:
    """Return the alpha at which a measure of feature learning comes to a target, by bisection.

    Args:
        measure: of a network trained at an alpha, falling in it: weight movement, kernel change.
        target: what it is to be.
        between: two alphas, ascending, with the target between their measures.
        within: relative error of the measure at which to stop.
        steps: trainings at most, beside the two ends.

    Raises:
        InputError: the target does not lie between the measures of both ends.

    >>> round(find_alpha(lambda alpha: 1 / alpha, 0.2, between=(0.1, 100.0)))
    5
    """
    low, high = between
    _check(low=low, high=high, target=target)
    above, below = measure(low), measure(high)
    if not (low < high and above >= target >= below):
        raise InputError(
            f"the measure must fall through {target:g} between alpha {low:g} and {high:g}, got "
            f"{above:g} and {below:g} there; widen `between`"
        )
    for _ in range(steps):
        middle = math.sqrt(low * high)
        found = measure(middle)
        if abs(found - target) <= within * target:
            return middle
        low, high = (middle, high) if found > target else (low, middle)
    return math.sqrt(low * high)
