"""How good predictions are. Always accuracy *and* balanced accuracy, and the collapse guard."""

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

__all__ = ["calibration_error", "classification", "probabilistic", "recalls", "regression"]


def classification(
    y: NDArray[np.generic], proba: NDArray[np.floating], classes: NDArray[np.generic]
) -> dict[str, float]:
    """Return accuracy, balanced accuracy, log-loss and the number of classes predicted.

    Balanced accuracy is the mean recall over the classes present in `y`; a constant prediction
    scores 1 / number of classes, whatever its accuracy.

    Args:
        y: [rows] labels, all in `classes`.
        proba: [rows, classes] probabilities in the order of `classes`.
        classes: [classes] labels.

    >>> scores = classification(np.array([0, 0, 1]), np.full((3, 2), 0.5), np.array([0, 1]))
    >>> round(scores["accuracy"], 3), scores["balanced_accuracy"], scores["n_classes_predicted"]
    (0.667, 0.5, 1)
    """
    predicted = classes[proba.argmax(1)]
    codes = np.searchsorted(classes, y)
    picked = np.clip(proba[np.arange(len(y)), codes], np.finfo(np.float64).tiny, 1.0)
    return {
        "accuracy": float((predicted == y).mean()),
        "balanced_accuracy": float(np.nanmean(recalls(y, predicted, classes))),
        "log_loss": float(-np.log(picked).mean()),
        "n_classes_predicted": len(np.unique(predicted)),
    }


def recalls(
    y: NDArray[np.generic], predicted: NDArray[np.generic], classes: NDArray[np.generic]
) -> NDArray[np.float64]:
    """Return [classes] the share of each class's rows that is predicted as it; NaN without rows.

    >>> recalls(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([0, 1, 2]))
    array([0.5, 1. , nan])
    """
    found = [(predicted[y == c] == c).mean() if (y == c).any() else np.nan for c in classes]
    return np.array(found, dtype=np.float64)


def probabilistic(
    y: NDArray[np.generic],
    proba: NDArray[np.floating],
    classes: NDArray[np.generic],
    prior: NDArray[np.floating],
) -> dict[str, float]:
    """Return what probabilities give beyond their highest: one decision rule, ranking, calibration.

    `corrected_balanced_accuracy` is that of the class whose probability exceeds its share of the
    training rows the most: the rule that balanced accuracy asks for, the same for every method.
    `roc_auc` is the mean over pairs of classes, either of them taken as the positive (Hand and
    Till); `calibration_error` is that of the highest probability.

    Args:
        y: [rows] labels, all in `classes`.
        proba: [rows, classes] probabilities in the order of `classes`.
        classes: [classes] labels.
        prior: [classes] shares of the training rows; a class without any is never predicted.

    >>> proba = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    >>> found = probabilistic(np.array([0, 0, 1]), proba, np.array([0, 1]), np.array([0.75, 0.25]))
    >>> found["corrected_balanced_accuracy"], found["roc_auc"]
    (1.0, 1.0)
    """
    lift = np.divide(proba, prior, out=np.zeros(proba.shape), where=prior > 0)
    corrected = recalls(y, classes[lift.argmax(1)], classes)
    return {
        "corrected_balanced_accuracy": float(np.nanmean(corrected)),
        "roc_auc": _roc_auc(y, proba, classes),
        "calibration_error": calibration_error(y, proba, classes),
    }


def _roc_auc(
    y: NDArray[np.generic], proba: NDArray[np.floating], classes: NDArray[np.generic]
) -> float:
    """Return the mean over pairs of present classes; NaN with fewer than two."""
    present = [i for i, c in enumerate(classes) if (y == c).any()]
    ranks = {}
    for i in present:
        for j in present:
            if i != j:
                rows = (y == classes[i]) | (y == classes[j])
                ranks[i, j] = metrics.roc_auc_score(y[rows] == classes[i], proba[rows, i])
    return float(np.mean(list(ranks.values()))) if ranks else float("nan")


def calibration_error(
    y: NDArray[np.generic],
    proba: NDArray[np.floating],
    classes: NDArray[np.generic],
    *,
    bins: int = 15,
) -> float:
    """Return the expected calibration error: |accuracy - confidence| over equal bins of confidence.

    >>> calibration_error(np.array([0, 1]), np.array([[0.75, 0.25]] * 2), np.array([0, 1]))
    0.25
    """
    confidence = proba.max(1)
    hit = classes[proba.argmax(1)] == y
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=hit - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(y))


def regression(y: NDArray[np.floating], predicted: NDArray[np.floating]) -> dict[str, float]:
    """Return R squared, root mean squared error and mean absolute error.

    >>> regression(np.array([1.0, 3.0]), np.array([1.0, 3.0]))["r2"]
    1.0
    """
    return {
        "r2": float(metrics.r2_score(y, predicted)),
        "rmse": float(metrics.root_mean_squared_error(y, predicted)),
        "mae": float(metrics.mean_absolute_error(y, predicted)),
    }
