import copy
import json
import math
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from secateurs import preparation as prep
from secateurs.errors import InputError

AGE = {"name": "age", "kind": "numeric", "median": 30.0, "mean": 40.0, "scale": 10.0}
JOB = {"name": "job", "kind": "categorical", "categories": ["clerk", "miner", "missing_value"]}
PET = {"name": "pet", "kind": "categorical", "categories": ["cat", "dog"]}
FAX = {"name": "fax", "kind": "dropped"}
FITTED = {"format": 1, "columns": [JOB, AGE, FAX, PET]}


def objects(*values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


COLUMNS = {
    "age": np.array([50.0, np.nan, 40.0]),
    "job": objects("miner", None, "pilot"),
    "pet": objects("dog", None, "cat"),
}


def test_encode_by_hand():
    expected = [
        [0, 1, 0, 1, 0, 1],  # miner, one deviation above, dog
        [0, 0, 1, -1, 0, 0],  # missing was seen for jobs, the median, never seen for pets
        [0, 0, 0, 0, 1, 0],  # an unknown job, the mean, cat
    ]
    matrix = prep.encode(FITTED, COLUMNS)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, expected)


def test_spans_names_and_width_agree():
    assert prep.groups(FITTED) == [(0, 3), (3, 4), (4, 6)]
    assert prep.width(FITTED) == 6
    assert prep.feature_names(FITTED) == ["job", "age", "pet"]
    assert prep.input_names(FITTED) == ["job", "age", "fax", "pet"]


def test_survives_json():
    again = json.loads(json.dumps(FITTED))
    assert prep.check(again) == FITTED
    np.testing.assert_array_equal(prep.encode(again, COLUMNS), prep.encode(FITTED, COLUMNS))


def test_no_rows():
    empty = {name: values[:0] for name, values in COLUMNS.items()}
    assert prep.encode(FITTED, empty).shape == (0, 6)
    assert [len(values) for values in prep.decode(FITTED, np.zeros((0, 6))).values()] == [0, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_a_row_does_not_depend_on_the_others(seed, monkeypatch):
    monkeypatch.setattr(prep, "_BLOCK", 7)
    rng = np.random.default_rng(seed)
    columns = {
        "age": np.where(rng.random(50) < 0.3, np.nan, rng.normal(40, 1e4, 50)),
        "job": rng.choice(objects("clerk", "miner", "pilot", None), 50),
        "pet": rng.choice(objects("cat", "dog", None), 50),
    }
    whole = prep.encode(FITTED, columns)
    order = rng.permutation(50)
    shuffled = prep.encode(FITTED, {name: values[order] for name, values in columns.items()})
    assert shuffled.tobytes() == whole[order].tobytes()
    single = [
        prep.encode(FITTED, {name: values[i : i + 1] for name, values in columns.items()})
        for i in range(50)
    ]
    assert np.concatenate(single).tobytes() == whole.tobytes()


def test_raw_values_are_recognised():
    fitted = {
        "format": 1,
        "columns": [{"name": "k", "kind": "categorical", "categories": ["1", "2.5", "True"]}],
    }
    raw = objects(1, 1.0, np.int8(1), 2.5, np.float32(2.5), Decimal("2.50"), True, np.True_, "1")
    codes = prep.encode(fitted, {"k": raw}).argmax(axis=1)
    assert codes.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 0]
    for array in (np.array(["1", "True"]), np.array([1, 7]), np.array([1.0, np.nan])):
        assert prep.encode(fitted, {"k": array})[0].tolist() == pytest.approx([1, 0, 0])
    np.testing.assert_array_equal(
        prep.encode(fitted, {"k": np.array([True, False])}), [[0, 0, 1], [0, 0, 0]]
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("red", "red"),
        ("", ""),
        (np.str_("red"), "red"),
        (True, "True"),
        (np.False_, "False"),
        (3, "3"),
        (np.uint8(3), "3"),
        (3.0, "3"),
        (-0.0, "0"),
        (np.float32(0.1), "0.1"),
        (1e300, "1e+300"),
        (math.inf, "inf"),
        (Decimal("1.0"), "1"),
        (Decimal("1.50"), "1.5"),
        (Decimal("Infinity"), "Infinity"),
        (None, None),
        (math.nan, None),
        (np.float32("nan"), None),
        (Decimal("NaN"), None),
        (pd.NA, None),
        (pd.NaT, None),
    ],
)
def test_canonical(value, expected):
    result = prep.canonical(value)
    assert result == expected
    assert result is None or type(result) is str


def test_wild_values_stay_finite():
    tiny = {"format": 1, "columns": [AGE | {"scale": 1e-300}]}
    matrix = prep.encode(tiny, {"age": np.array([1.7e308, -1.7e308, 40.0])})
    np.testing.assert_array_equal(matrix[:, 0], [prep.Z_LIMIT, -prep.Z_LIMIT, 0])


@pytest.mark.parametrize(
    "rows",
    [
        [[1, 0, 0, 0.5, 0, 1], [0, 0, 1, -2, 1, 0], [0, 0, 0, 0, 0, 0]],
        np.zeros((0, 6)),
    ],
)
def test_decode_then_encode_is_the_identity(rows):
    matrix = np.asarray(rows, dtype=np.float32)
    np.testing.assert_array_equal(prep.encode(FITTED, prep.decode(FITTED, matrix)), matrix)


def test_decode_undoes_encode_up_to_imputation():
    decoded = prep.decode(FITTED, prep.encode(FITTED, COLUMNS))
    assert list(decoded) == ["job", "age", "pet"]
    assert decoded["age"].tolist() == [50.0, 30.0, 40.0]
    assert decoded["job"].tolist() == ["miner", None, "unknown_value"]
    assert decoded["pet"].tolist() == ["dog", None, "cat"]


def test_decode_takes_the_largest_entry():
    soft = [[0.2, 0.7, 0.1, 0.0, 0.0, 0.1]]
    decoded = prep.decode(FITTED, np.array(soft))
    assert (decoded["job"][0], decoded["pet"][0]) == ("miner", "dog")


def test_decode_invents_a_name_that_no_category_bears():
    clash = {
        "name": "job",
        "kind": "categorical",
        "categories": ["missing_value", "unknown_value"],
    }
    fitted = {"format": 1, "columns": [clash]}
    matrix = np.array([[0, 0], [0, 1], [1, 0]], dtype=np.float32)
    assert prep.decode(fitted, matrix)["job"].tolist() == ["unknown_value_", "unknown_value", None]
    np.testing.assert_array_equal(prep.encode(fitted, prep.decode(fitted, matrix)), matrix)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({}, "none named 'job'"),
        (COLUMNS | {"age": np.zeros(2)}, "one length"),
        (COLUMNS | {"age": np.zeros((3, 1))}, "one length"),
        (COLUMNS | {"age": objects("a", "b", "c")}, "not numbers"),
        (COLUMNS | {"age": np.array([1, 2, np.inf])}, "'age' holds infinite"),
    ],
)
def test_bad_columns(columns, words):
    with pytest.raises(InputError, match=words) as caught:
        prep.encode(FITTED, columns)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(6,), (2, 5), (1, 2, 6)])
def test_bad_matrix(shape):
    with pytest.raises(InputError, match="shape"):
        prep.decode(FITTED, np.zeros(shape))


def changed(place, key, value):
    fitted = copy.deepcopy(FITTED)
    column = fitted["columns"][place]
    if value is KeyError:
        del column[key]
    else:
        column[key] = value
    return fitted


@pytest.mark.parametrize(
    ("fitted", "words"),
    [
        (None, "JSON object"),
        ([], "JSON object"),
        ({}, "format version"),
        ({"format": True, "columns": [AGE]}, "format version"),
        ({"format": "1", "columns": [AGE]}, "format version"),
        ({"format": 2, "columns": [AGE]}, "reads preparation format 1, got 2"),
        ({"format": 1}, "list of columns"),
        ({"format": 1, "columns": []}, "list of columns"),
        ({"format": 1, "columns": {"age": 1}}, "list of columns"),
        ({"format": 1, "columns": ["age"]}, "JSON objects"),
        ({"format": 1, "columns": [AGE, AGE]}, "'age' twice"),
        ({"format": 1, "columns": [FAX]}, "at least one column"),
        (changed(1, "name", 3), "names are strings"),
        (changed(1, "name", KeyError), "names are strings"),
        (changed(1, "kind", "number"), "numeric, categorical, dropped, got 'number'"),
        (changed(1, "kind", ["numeric"]), "kinds are"),
        (changed(1, "mean", KeyError), "has the keys"),
        (changed(1, "sd", 1.0), "has the keys"),
        (changed(1, "mean", math.nan), "finite mean"),
        (changed(1, "median", math.inf), "finite median"),
        (changed(1, "median", 10**400), "finite median"),
        (changed(1, "mean", None), "finite mean"),
        (changed(1, "mean", "4"), "finite mean"),
        (changed(1, "scale", True), "finite scale"),
        (changed(1, "scale", 0.0), "positive scale"),
        (changed(1, "scale", -1), "positive scale"),
        (changed(0, "categories", "ab"), "list of categories"),
        (changed(0, "categories", []), "list of categories"),
        (changed(0, "categories", ["a", None]), "list of categories"),
        (changed(0, "categories", ["a", "a"]), "distinct categories"),
        (changed(2, "categories", ["a"]), "has the keys"),
    ],
)
def test_check_refuses(fitted, words):
    with pytest.raises(InputError, match=words) as caught:
        prep.check(fitted)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_needs_numpy_only():
    code = (
        "import sys, secateurs.preparation;"
        "print([m for m in ('pandas', 'sklearn', 'torch', 'pyarrow', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
