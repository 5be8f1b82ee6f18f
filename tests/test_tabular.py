"""The choice of compression, and what a fit reports of its tickets."""

import numpy as np
import pytest

from secateurs.tabular import smallest_near_best


@pytest.mark.parametrize(
    ("wrong", "chosen"),
    [
        ({2: 10, 4: 10, 8: 10}, 8),  # as good as each other: the smallest
        ({2: 10, 4: 12, 8: 20}, 4),  # the standard error is 3: within one, not within two
        ({2: 10, 4: 14, 8: 13}, 8),  # not a run of them: each by itself
        ({2: 30, 4: 10, 8: 14}, 4),  # the best is not the first
        ({2: 0, 4: 1, 8: 1}, 2),  # no spread, no leeway
    ],
)
def test_smallest_within_one_standard_error(wrong, chosen):
    errors = {r: np.array([1.0] * k + [0.0] * (100 - k)) for r, k in wrong.items()}
    assert smallest_near_best(errors) == chosen


def test_one_validation_row_has_no_spread():
    assert smallest_near_best({2: np.array([0.0]), 8: np.array([1.0])}) == 2
