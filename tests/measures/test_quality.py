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


def test_the_corrected_rule_undoes_the_shares_of_the_classes():
    """Where the probabilities are the shares themselves, no class is preferred but the first."""
    rng = np.random.default_rng(0)
    prior = np.array([0.7, 0.2, 0.1])
    y = rng.choice(3, size=400, p=prior)
    # one informative score a class: its likelihood, times the shares as a fitted model would
    likelihood = rng.dirichlet(np.ones(3), size=400) + np.eye(3)[y]
    proba = likelihood * prior
    proba /= proba.sum(1, keepdims=True)
    found = quality.probabilistic(y, proba, np.arange(3), prior)
    by_likelihood = metrics.balanced_accuracy_score(y, likelihood.argmax(1))
    assert found["corrected_balanced_accuracy"] == pytest.approx(by_likelihood)
    plain = metrics.balanced_accuracy_score(y, proba.argmax(1))
    assert found["corrected_balanced_accuracy"] > plain


def test_a_class_without_training_rows_is_never_predicted():
    proba = np.array([[0.3, 0.3, 0.4], [0.1, 0.2, 0.7]])
    prior = np.array([0.5, 0.5, 0.0])
    found = quality.probabilistic(np.array([0, 1]), proba, np.arange(3), prior)
    assert found["corrected_balanced_accuracy"] == 1


def test_roc_auc_equals_scikit_learn():
    rng = np.random.default_rng(1)
    for n_classes in (2, 4):
        y = rng.integers(n_classes, size=150)
        proba = rng.dirichlet(np.ones(n_classes), size=150).round(2)  # with ties
        proba /= proba.sum(1, keepdims=True)
        found = quality.probabilistic(y, proba, np.arange(n_classes), np.full(n_classes, 0.1))
        told = proba[:, 1] if n_classes == 2 else proba
        expected = metrics.roc_auc_score(y, told, multi_class="ovo")
        assert found["roc_auc"] == pytest.approx(expected)


def test_roc_auc_of_a_class_alone_is_not_a_number():
    found = quality.probabilistic(np.zeros(3, int), np.full((3, 2), 0.5), np.arange(2), np.ones(2))
    assert np.isnan(found["roc_auc"])


def test_calibration_error_bin_by_bin():
    rng = np.random.default_rng(2)
    y, proba = rng.integers(3, size=500), rng.dirichlet(np.full(3, 0.5), size=500)
    confidence, hit = proba.max(1), proba.argmax(1) == y
    slow = 0.0
    for low in np.arange(15) / 15:
        rows = (confidence >= low) & (confidence < low + 1 / 15)
        if low == 14 / 15:
            rows |= confidence == 1
        if rows.any():
            slow += rows.mean() * abs(hit[rows].mean() - confidence[rows].mean())
    assert quality.calibration_error(y, proba, np.arange(3)) == pytest.approx(slow)
    assert quality.calibration_error(y, np.eye(3)[y], np.arange(3)) == 0
