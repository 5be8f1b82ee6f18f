"""Read a saved estimator back, trusting nothing in it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from secateurs import masks, model_directory, parameters
from secateurs.errors import InputError
from secateurs.estimator import TicketClassifier, TicketRegressor
from secateurs.image_classifier import ImageTicketClassifier
from secateurs.masks import Mask
from secateurs.measures.size import n_parameters_kept
from secateurs.networks.dense import MLP
from secateurs.networks.image_network import ImageNetwork
from secateurs.networks.pixels import Normalise
from secateurs.preparation import check, input_names, width

__all__ = ["Loaded", "load"]

Loaded = TicketClassifier | TicketRegressor | ImageTicketClassifier


def load(path: str | Path) -> Loaded:
    """Return the estimator that `save` wrote. Never unpickles.

    Raises:
        InputError: not a model folder, damaged, truncated, or of a newer format.
    """
    path = Path(path)
    description, history, members, member_masks = model_directory.read(path)
    try:
        return _restored(description, history, members, member_masks)
    except InputError as err:
        raise InputError(f"{path}: {err}") from err
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
        raise InputError(
            f"{path} must be a model folder written by secateurs, but its model.json is damaged "
            f"({type(err).__name__})"
        ) from err


def _restored(
    description: dict[str, Any],
    history: dict[str, list[Any]],
    members: list[Any],
    member_masks: list[Mask],
) -> Loaded:
    """Return a fitted estimator; raise one of many errors where the description is not one."""
    known: dict[str, type[Loaded]] = {
        "TicketClassifier": TicketClassifier,
        "TicketRegressor": TicketRegressor,
        "ImageTicketClassifier": ImageTicketClassifier,
    }
    given = parameters.from_json(description["parameters"])
    estimator = known[description["estimator"]](**given)
    if isinstance(estimator, ImageTicketClassifier):
        _restore_images(estimator, description["network"], members)
    else:
        _restore_table(estimator, description, members)
    summary = description["summary"]
    _must(type(summary) is dict and 1 <= summary["compression"] < math.inf, "no summary")
    estimator.summary_, estimator.compression_ = summary, float(summary["compression"])
    _must(all(type(column) is list for column in history.values()), "no history")
    estimator.history_ = pd.DataFrame(history)
    if isinstance(estimator, TicketRegressor):
        target = description["target"]
        mean, scale = float(target["mean"]), float(target["scale"])
        _must(math.isfinite(mean) and 0 < scale < math.inf, "no target")
        estimator.target_mean_, estimator.target_scale_ = mean, scale
        n_outputs = 1
    else:
        classes = description["classes"]
        dtype, values = np.dtype(str(classes["dtype"])), classes["values"]
        n_outputs = len(values)
        # before anything is allocated for them
        _must(n_outputs == members[0].decoder.out_features, "another number of classes")
        _must(dtype.kind in "biufUO" and dtype.itemsize < 2**16, "no type of labels")
        estimator.classes_ = np.array(values, dtype=dtype)
        _must(np.unique(estimator.classes_).tolist() == values, "no classes")
    _must(members[0].decoder.out_features == n_outputs, "another number of outputs")
    estimator.members_, estimator.masks_ = members, member_masks
    estimator.density_ = masks.density(member_masks[0])
    estimator.n_parameters_kept_ = sum(map(n_parameters_kept, members, member_masks))
    return estimator


def _restore_table(
    estimator: TicketClassifier | TicketRegressor,
    description: dict[str, Any],
    members: list[Any],
) -> None:
    """Set what a table's estimator knows of its columns."""
    _must(all(isinstance(member, MLP) for member in members), "networks of images")
    estimator.preparation_ = check(description["preparation"])
    names = input_names(estimator.preparation_)
    estimator.n_features_in_ = len(names)
    if description["feature_names_in"]:
        _must(description["feature_names_in"] == names, "other feature names")
        estimator.feature_names_in_ = np.array(names, dtype=object)
    n_inputs = members[0].encoder[0].in_features
    _must(n_inputs == width(estimator.preparation_), "another number of inputs")


def _restore_images(
    estimator: ImageTicketClassifier, described: dict[str, Any], members: list[Any]
) -> None:
    """Set what an estimator of images knows of them."""
    network = ImageNetwork.from_json(described)
    estimator.network_, estimator.image_shape_ = network, network.shape
    estimator.n_features_in_ = math.prod(network.shape)
    for member in members:
        (pixels,) = (module for module in member.modules() if isinstance(module, Normalise))
        _must(bool((pixels.std > 0).all()), "no deviations of pixels")


def _must(condition: bool, otherwise: str) -> None:  # noqa: FBT001
    if not condition:
        raise ValueError(otherwise)
