"""Read a saved estimator back, trusting nothing in it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from secateurs import masks, model_directory, parameters
from secateurs.errors import InputError
from secateurs.estimator import TicketClassifier, TicketRegressor
from secateurs.masks import Mask
from secateurs.measures.size import n_parameters_kept
from secateurs.networks.dense import MLP
from secateurs.preparation import check, input_names, width

__all__ = ["load"]


def load(path: str | Path) -> TicketClassifier | TicketRegressor:
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
    members: list[MLP],
    member_masks: list[Mask],
) -> TicketClassifier | TicketRegressor:
    """Return a fitted estimator; raise one of many errors where the description is not one."""
    known: dict[str, type[TicketClassifier | TicketRegressor]] = {
        "TicketClassifier": TicketClassifier,
        "TicketRegressor": TicketRegressor,
    }
    given = parameters.from_json(description["parameters"])
    estimator = known[description["estimator"]](**given)
    estimator.preparation_ = check(description["preparation"])
    names = input_names(estimator.preparation_)
    estimator.n_features_in_ = len(names)
    if description["feature_names_in"]:
        _must(description["feature_names_in"] == names, "other feature names")
        estimator.feature_names_in_ = np.array(names, dtype=object)
    summary = description["summary"]
    _must(type(summary) is dict and 1 <= summary["compression"] < math.inf, "no summary")
    estimator.summary_, estimator.compression_ = summary, float(summary["compression"])
    _must(all(type(column) is list for column in history.values()), "no history")
    estimator.history_ = pd.DataFrame(history)
    if isinstance(estimator, TicketClassifier):
        classes = description["classes"]
        dtype, values = np.dtype(str(classes["dtype"])), classes["values"]
        n_outputs = len(values)
        # before anything is allocated for them
        _must(n_outputs == members[0].decoder.out_features, "another number of classes")
        _must(dtype.kind in "biufUO" and dtype.itemsize < 2**16, "no type of labels")
        estimator.classes_ = np.array(values, dtype=dtype)
        _must(np.unique(estimator.classes_).tolist() == values, "no classes")
    else:
        target = description["target"]
        mean, scale = float(target["mean"]), float(target["scale"])
        _must(math.isfinite(mean) and 0 < scale < math.inf, "no target")
        estimator.target_mean_, estimator.target_scale_ = mean, scale
        n_outputs = 1
    _must(members[0].decoder.out_features == n_outputs, "another number of outputs")
    n_inputs: Any = members[0].encoder[0].in_features
    _must(n_inputs == width(estimator.preparation_), "another number of inputs")
    estimator.members_, estimator.masks_ = members, member_masks
    estimator.density_ = masks.density(member_masks[0])
    estimator.n_parameters_kept_ = sum(map(n_parameters_kept, members, member_masks))
    return estimator


def _must(condition: bool, otherwise: str) -> None:  # noqa: FBT001
    if not condition:
        raise ValueError(otherwise)
