import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from secateurs.command.targets import as_classes, as_numbers, choose_task, plain
from secateurs.data.tables import check_classes
from secateurs.errors import InputError


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["a", "b"] * 3, "classification"),
        ([True, False] * 3, "classification"),
        (pd.Categorical([1, 2] * 3), "classification"),
        (pd.array([0, 1] * 10, dtype="Int64"), "classification"),
        ([0, 1] * 10, "classification"),
        ([0.0, 1.0] * 10, "classification"),
        ([*range(20)] * 5, "classification"),
        ([*range(21)] * 5, "regression"),
        ([*range(20)] * 4, "regression"),
        ([0.5, 1.0] * 10, "regression"),
    ],
)
def test_task(values, task):
    found, reason = choose_task(pd.Series(values, name="goal"))
    assert found == task
    assert "'goal'" in reason


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pd.array([1, 2], dtype="Int64"), [1, 2]),
        (pd.array(["a", "b"], dtype="string"), ["a", "b"]),
        (pd.array([True, False], dtype="boolean"), [True, False]),
        (pd.Categorical(["b", "a"]), ["b", "a"]),
        (pd.array([1.5, 2.0], dtype="float64[pyarrow]"), [1.5, 2.0]),
        ([Decimal("1.5"), Decimal(2)], [1.5, 2.0]),
    ],
)
def test_plain_values_do_not_tell_what_backed_them(values, expected):
    found = plain(pd.Series(values))
    assert isinstance(found, np.ndarray)
    assert found.tolist() == expected
    assert found.dtype.kind == np.array(expected).dtype.kind or found.dtype == object


@pytest.mark.parametrize(
    "value",
    [
        pd.Timestamp("2020-01-01"),
        pd.Timestamp("2020-01-01", tz="UTC"),
        datetime.date(2020, 1, 1),
        pd.Timedelta(1),
        pd.Period("2020-01"),
        pd.Interval(0, 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_dates_are_no_target(value):
    with pytest.raises(InputError, match=r"labels or numbers, got .* values in 'when'"):
        plain(pd.Series([value] * 2, name="when"))


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        ([0, "1", 1.0, "0.0"], np.array([0, 1]), [0, 1, 1, 0]),
        (["True", False], np.array([False, True]), [True, False]),
        (["b", "a"], np.array(["b", "a", "a", "b"], dtype=object), ["b", "a"]),
        (["1.5"], np.array([1.5, 2.5]), [1.5]),
        ([], np.array([1, 2]), []),
    ],
)
def test_labels_are_classes_by_name(labels, classes, expected):
    found = as_classes(labels, classes, "must be")
    assert found.tolist() == expected
    assert found.dtype == classes.dtype


def test_other_labels_are_refused():
    with pytest.raises(InputError, match=r"^it must be \(1, 2\), got 3$"):
        as_classes([1, 3], np.array([2, 1, 2])[::-1][1:], "it must be")


def test_numbers():
    assert as_numbers(np.array([True, False])).tolist() == [1.0, 0.0]
    with pytest.raises(InputError, match="must be numbers, got values such as 'a'"):
        as_numbers(np.array(["a", "b"], dtype=object))


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.linspace(0, 1, 9), "continuous"),
        ([[1], [2]] * 3, "multi-label"),
        ([b"a", b"b"] * 3, "bytes"),
        (["a"] * 5 + ["b"], "got 1 of class 'b'"),
        ([1.0] * 5 + [2.0], "got 1 of class 2.0"),
    ],
    ids=["fractions", "lists", "bytes", "word", "number"],
)
def test_what_cannot_be_classes_is_refused(y, words):
    with pytest.raises(InputError, match=words):
        check_classes(pd.Series(y))


def test_many_classes_are_no_fault():
    check_classes(np.repeat(np.arange(100), 2))
