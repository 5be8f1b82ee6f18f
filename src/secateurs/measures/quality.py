"""How good predictions are. Always accuracy *and* balanced accuracy, and the collapse guard."""

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

__all__ = ["classification", "regression"]


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
    recalls = [float((predicted[y == c] == c).mean()) for c in classes if (y == c).any()]
    codes = np.searchsorted(classes, y)
    picked = np.clip(proba[np.arange(len(y)), codes], np.finfo(np.float64).tiny, 1.0)
    return {
        "accuracy": float((predicted == y).mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "log_loss": float(-np.log(picked).mean()),
        "n_classes_predicted": len(np.unique(predicted)),
    }


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
