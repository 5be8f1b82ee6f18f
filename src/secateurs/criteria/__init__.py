"""Scores: one number for each prunable weight, higher = keep. Where to cut is `masks.keep_top`'s.

Every criterion returns `dict[str, Tensor]` keyed by parameter name, each tensor shaped like its
weight and on its device, and leaves the network exactly as it was. Global or per layer is a matter
of selection, not of scores.
"""

from secateurs.criteria.activation import wanda
from secateurs.criteria.control import random
from secateurs.criteria.curvature import grasp, grasp_abs
from secateurs.criteria.flow import synflow
from secateurs.criteria.magnitudes import lamp, magnitude, normalised_magnitude
from secateurs.criteria.saliency import gradient, snip
from secateurs.criteria.scoring import Batches, BatchLoss, Criterion

__all__ = [
    "CRITERIA",
    "BatchLoss",
    "Batches",
    "Criterion",
    "gradient",
    "grasp",
    "grasp_abs",
    "lamp",
    "magnitude",
    "normalised_magnitude",
    "random",
    "snip",
    "synflow",
    "wanda",
]

CRITERIA: dict[str, Criterion] = {
    "magnitude": magnitude,
    "normalised_magnitude": normalised_magnitude,
    "lamp": lamp,
    "random": random,
    "gradient": gradient,
    "snip": snip,
    "grasp": grasp,
    "grasp_abs": grasp_abs,
    "synflow": synflow,
    "wanda": wanda,
}
"""By name: the words that settings take."""
