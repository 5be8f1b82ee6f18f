"""The exact course of a singular mode of a deep linear network (Saxe et al. 2014, equation 12)."""

import math


def mode(t: float, *, s: float, start: float) -> float:
    """Return a(t) of tau da/dt = 2 a (s - a), tau = 1: two layers, balanced, whitened inputs."""
    grown = math.exp(2 * s * t)
    return s * grown / (grown - 1 + s / start)
