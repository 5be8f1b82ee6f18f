"""Models of other kinds, with their libraries' defaults, behind one face."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from secateurs.errors import InputError

__all__ = ["PEERS", "RAW", "Fitted", "fit"]

Fitted = Callable[[Any], NDArray[np.float64]]

RAW = frozenset({"xgboost"})
"""Those that take categories and missing values as they are; the others get encoded rows."""


def _xgboost(seed: int) -> Any:
    try:
        import xgboost
    except ImportError as err:
        raise InputError(
            "the model 'xgboost' needs XGBoost; install it with: pip install secateurs[tabular]"
        ) from err
    return xgboost.XGBClassifier(enable_categorical=True, n_jobs=1, random_state=seed)


PEERS: dict[str, Callable[[int], Any]] = {
    "majority": lambda _: DummyClassifier(strategy="prior"),
    "logistic_regression": lambda _: LogisticRegression(max_iter=5000),
    "random_forest": lambda seed: RandomForestClassifier(n_jobs=1, random_state=seed),
    "xgboost": _xgboost,
}
"""Models by name, made from a seed, each on one thread."""


def fit(name: str, X: Any, codes: NDArray[np.integer], *, seed: int) -> tuple[Any, int]:
    """Return a fitted model, and the bytes that it takes when it is pickled.

    Args:
        name: one of `PEERS`.
        X: raw rows for `RAW` ones, else encoded.
        codes: [rows] class codes from 0, every one present.
        seed: of the model.

    Raises:
        InputError: the library is not installed.
    """
    model = PEERS[name](seed)
    model.fit(X, codes)
    return model, len(pickle.dumps(model))
