import numpy as np
import pytest
from sklearn import metrics

from secateurs.measures import quality

CLASSES = np.array(["a", "b", "c"])


def test_hand_values():
    y = np.array(["a", "a", "a", "b", "c"])
    proba = np.array(
        [[0.8, 0.1, 0.1], [0.5, 0.25, 0.25], [0.1, 0.7, 0.2], [0.3, 0.4, 0.3], [0.6, 0.2, 0.2]]
    )
    scores = quality.classification(y, proba, CLASSES)
    assert scores["accuracy"] == pytest.approx(3 / 5)
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores["log_loss"] == pytest.approx(-np.log([0.8, 0.5, 0.1, 0.4, 0.2]).mean())
    assert scores["n_classes_predicted"] == 2


@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_a_constant_prediction_scores_one_over_the_classes_whatever_its_accuracy(n_classes):
    y = np.concatenate([np.zeros(90, int), np.arange(n_classes)])
    proba = np.tile(np.linspace(1, 0.5, n_classes), (len(y), 1))
    scores = quality.classification(y, proba / proba.sum(1, keepdims=True), np.arange(n_classes))
    assert scores["accuracy"] == pytest.approx(91 / len(y))
    assert scores["balanced_accuracy"] == pytest.approx(1 / n_classes)
    assert scores["n_classes_predicted"] == 1


def test_equals_scikit_learn():
    rng = np.random.default_rng(0)
    y, proba = CLASSES[rng.integers(3, size=200)], rng.dirichlet(np.ones(3), size=200)
    predicted = CLASSES[proba.argmax(1)]
    scores = quality.classification(y, proba, CLASSES)
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(y, predicted))
    assert scores["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(y, predicted)
    )
    assert scores["log_loss"] == pytest.approx(metrics.log_loss(y, proba, labels=CLASSES))


def test_a_class_absent_from_the_rows_does_not_count():
    y, proba = np.array(["a", "b"]), np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]])
    assert quality.classification(y, proba, CLASSES)["balanced_accuracy"] == 1


def test_a_certain_mistake_costs_much_but_not_infinity():
    scores = quality.classification(np.array(["a"]), np.array([[0.0, 1.0, 0.0]]), CLASSES)
    assert 700 < scores["log_loss"] < 710


def test_regression_by_hand():
    scores = quality.regression(np.array([0.0, 2.0, 4.0]), np.array([1.0, 2.0, 2.0]))
    assert scores["r2"] == pytest.approx(1 - 5 / 8)
    assert scores["rmse"] == pytest.approx((5 / 3) ** 0.5)
    assert scores["mae"] == pytest.approx(1)
