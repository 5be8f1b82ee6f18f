"""The activations of a program, in NumPy."""

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["activate", "erf"]

_Number = TypeVar("_Number", np.float32, np.float64)


def erf(x: NDArray[Any]) -> NDArray[np.float64]:
    """Return the error function to 2e-7 (Abramowitz and Stegun 1964, 7.1.26).

    >>> np.round(erf(np.array([0.0, 1.0])), 6)
    array([0.      , 0.842701])
    """
    size = np.abs(np.asarray(x, np.float64))
    t = 1 / (1 + 0.3275911 * size)
    series = np.polyval([1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592, 0], t)
    found: NDArray[np.float64] = np.copysign(1 - series * np.exp(-size * size), x)
    return found


def activate(x: NDArray[_Number], name: str) -> NDArray[_Number]:
    """Return an activation of values, of their type; a softmax runs over the first axis.

    Args:
        x: [features, ...].
        name: one of `program.ACTIVATIONS`.

    >>> activate(np.array([-1.0, 2.0], np.float32), "relu")
    array([0., 2.], dtype=float32)
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        made: NDArray[Any] = x
        if name == "relu":
            made = np.maximum(x, 0)
        elif name == "sigmoid":
            made = 1 / (1 + np.exp(-x))
        elif name == "tanh":
            made = np.tanh(x)
        elif name == "gelu":
            made = x * ((1 + erf(x * math.sqrt(0.5))) / 2)
        elif name == "gelu_tanh":
            made = x * ((1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2)
        elif name == "softmax":
            raised = np.exp(x - x.max(axis=0))
            made = raised / raised.sum(axis=0)
        return made.astype(x.dtype, copy=False)
