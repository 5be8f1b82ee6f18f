"""Every check that scikit-learn has for estimators, on both of ours, with one exception."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from secateurs.estimator import TicketClassifier, TicketRegressor

SETTINGS = {
    "widths": (32,),
    "search_epochs": 6,
    "finetune_epochs": 28,
    "finetune_lr": 1e-2,
    "random_state": 0,
}

EXPECTED_TO_FAIL = {
    "check_sample_weight_equivalence_on_dense_data": (
        "impossible for minibatch training: a repeated row changes the batches that are drawn, "
        "a row with a weight of 2 does not"
    ),
}

pytestmark = pytest.mark.filterwarnings(
    # The checks fit noise, on which a small network may well predict a single class.
    "ignore::secateurs.errors.CollapseWarning"
)


@parametrize_with_checks(
    [TicketClassifier(**SETTINGS), TicketRegressor(**SETTINGS)],
    expected_failed_checks=lambda _: EXPECTED_TO_FAIL,
)
def test_scikit_learn_check(estimator, check):
    check(estimator)
